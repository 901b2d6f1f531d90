"""The one table of system calls: what the filter does with each, and why.

Filter, decoder, documentation and tests derive from it. Names are the same on every architecture; their
numbers come from libseccomp, or from the short lists at the end for calls that are younger than it.

A call is *free* (the kernel carries it out, the broker never hears of it), *mediated* (held until the broker
has decided), *refused* (the broker records it and answers the errno), *absent* (``ENOSYS`` in the kernel, as
if it were older: programs fall back to a call that is judged) or *answered* (the kernel returns a fixed
errno, 0 for a success that does nothing). Numbers that are not in the table are absent too.
"""

from __future__ import annotations

import errno
import functools
import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rampart_seccomp.kernel import ioctls, sockets
from rampart_seccomp.kernel.entries import (
    INT,
    LONG,
    Case,
    Classified,
    Disposition,
    Match,
    Syscall,
    free,
    refused,
)
from rampart_seccomp.kernel.libseccomp import architecture, number_of
from rampart_seccomp.kernel.traps import STRICTEST, Traps

__all__ = [
    "FEATURES",
    "FREEING",
    "Case",
    "Classified",
    "Disposition",
    "Match",
    "Syscall",
    "by_number",
    "classify",
    "feature_of",
    "fingerprint",
    "name_of",
    "table",
]

FREE, MEDIATED, REFUSED = Disposition.FREE, Disposition.MEDIATED, Disposition.REFUSED
ABSENT, ANSWERED, KILLED = Disposition.ABSENT, Disposition.ANSWERED, Disposition.KILLED


def _all(names: str, disposition: Disposition, errno: int | None = None, note: str = "") -> list[Syscall]:
    return [Syscall(name, disposition, errno, (), note) for name in names.split()]


_O_PATH = 0o10000000
_O_CHANGING = 0o3 | 0o100 | 0o1000 | 0o20000000  # O_ACCMODE, O_CREAT, O_TRUNC, O_TMPFILE
_UNSHARE_HARMLESS = 0x400 | 0x200 | 0x40000  # CLONE_FILES, CLONE_FS, CLONE_SYSVSEM
_CLONE_NEW = 0x7E020000  # every CLONE_NEW* of clone(2); CLONE_NEWTIME is part of the exit signal there
_CLONE_PARENT = 0x8000
_CLONE_SPACES = 0x7E000000  # CLONE_NEW* for user, pid, net, ipc, uts and cgroup: not for mounts, nor for time

_AF_UNIX = 1
_WHO_PROCESS, _WHO_USER = 0, 2  # of PRIO_*; IOPRIO_WHO_* is one more
_F_SETOWN, _F_SETOWN_EX = 8, 15
_RLIMIT_CORE = 4

_ATTRIBUTE_READS = "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr"
_IPC = """
    shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
"""

_FREE_CALLS = [
    *_all(
        """
        read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek close close_range
        dup dup2 dup3 pipe pipe2 select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait
        epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime
        timerfd_gettime fcntl flock fsync fdatasync sync syncfs sync_file_range ftruncate fallocate fadvise64
        readahead copy_file_range sendfile splice tee vmsplice getdents getdents64 cachestat
        io_setup io_destroy io_getevents io_pgetevents io_submit io_cancel
        """,
        FREE,
        note="acts on an fd whose opening was decided",
    ),
    *_all(
        """
        stat lstat fstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir
        statfs fstatfs ustat sysfs inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
        statmount listmount
        """,
        FREE,
        note="shows names and attributes, never contents; what is opened later is judged by where it then is",
    ),
    *_all(
        """
        mmap mprotect munmap brk mremap msync mincore madvise mlock mlock2 munlock mlockall munlockall
        remap_file_pages memfd_create memfd_secret mseal map_shadow_stack pkey_mprotect pkey_alloc pkey_free
        mbind set_mempolicy get_mempolicy set_mempolicy_home_node membarrier
        """,
        FREE,
        note="own memory; a memfd is judged when it is executed, an unreadable argument is denied",
    ),
    *_all(
        """
        fork vfork exit exit_group wait4 waitid set_tid_address restart_syscall rt_sigaction rt_sigprocmask
        rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause futex futex_waitv
        futex_wake futex_wait futex_requeue set_robust_list get_robust_list rseq uretprobe uprobe arch_prctl
        modify_ldt personality
        """,
        FREE,
        note="own process",
    ),
    *_all(
        """
        getpid gettid getppid getpgid getpgrp getsid setpgid setsid getuid geteuid getgid getegid getresuid
        getresgid getgroups capget uname sysinfo getrusage times getcpu lsm_get_self_attr lsm_list_modules
        """,
        FREE,
        note="own identity, or harmless information",
    ),
    *_all(
        """
        nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time getitimer setitimer alarm
        timer_create timer_settime timer_gettime timer_getoverrun timer_delete getrandom
        """,
        FREE,
    ),
    *_all(
        "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal",
        FREE,
        note="Landlock's signal scope confines signals to the tree",
    ),
    Syscall("pidfd_open", FREE, note="every use of a pidfd on another process is decided"),
    *_all(
        """
        sched_yield sched_getparam sched_getscheduler sched_getattr sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_getaffinity getpriority ioprio_get getrlimit
        """,
        FREE,
    ),
    *_all(
        "accept accept4 recvfrom recvmsg recvmmsg shutdown getsockname getpeername getsockopt",
        FREE,
        note="acts on a socket whose connect, bind or listen was decided",
    ),
    Syscall("seccomp", FREE, note="further filters only tighten; a second listener fails with EBUSY"),
]

_MEDIATED_CALLS = [
    Syscall("open", MEDIATED, cases=(free(Match(1, _O_PATH, _O_PATH)),), note="O_PATH: see openat"),
    Syscall(
        "openat",
        MEDIATED,
        cases=(free(Match(2, _O_PATH, _O_PATH)),),
        note="O_PATH gives no access by itself; every later use is decided again",
    ),
    Syscall("openat2", MEDIATED, note="its flags stand in memory, where they can change"),
    *_all(
        """
        creat truncate unlink unlinkat rmdir rename renameat renameat2 link linkat symlink symlinkat
        mkdir mkdirat mknod mknodat
        """,
        MEDIATED,
    ),
    *_all(
        """
        chmod fchmodat fchmodat2 chown lchown fchownat utime utimes futimesat utimensat
        setxattr lsetxattr removexattr lremovexattr
        """,
        MEDIATED,
    ),
    *_all(_ATTRIBUTE_READS, MEDIATED, note="reads what is kept with a file"),
    *_all(
        "fchmod fchown fsetxattr fremovexattr",
        MEDIATED,
        note="changes metadata through an fd that was opened for reading only",
    ),
    *_all(
        "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset umask",
        MEDIATED,
        note="own identity; noticed only, since the broker performs as what a thread is",
    ),
    *_all("execve execveat", MEDIATED),
    *_all("connect bind", MEDIATED),
    Syscall("listen", MEDIATED, note="binds a socket that has no port yet"),
    Syscall("sendto", MEDIATED, cases=(free(Match(4, LONG, 0)),), note="free without an address"),
    *_all("sendmsg sendmmsg", MEDIATED, note="the address stands in memory"),
]

_REFUSED_CALLS = [
    *_all(
        """
        mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr
        setns chroot
        """,
        REFUSED,
        errno.EPERM,
        note="would give names a new meaning",
    ),
    Syscall("name_to_handle_at", REFUSED, errno.EOPNOTSUPP, note="a handle opens without a name"),
    Syscall("open_by_handle_at", REFUSED, errno.EPERM, note="opens without a name"),
    *_all(
        "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise process_mrelease",
        REFUSED,
        errno.EPERM,
        note="reaches into other processes",
    ),
    *_all(
        "io_uring_setup io_uring_enter io_uring_register",
        REFUSED,
        errno.EPERM,
        note="carries out calls that no filter sees",
    ),
    *_all("bpf perf_event_open", REFUSED, errno.EPERM, note="observes or changes the kernel"),
    Syscall(
        "userfaultfd", REFUSED, errno.EPERM, note="stops the kernel, and the broker, in the middle of a copy"
    ),
    *_all("add_key request_key keyctl", REFUSED, errno.EPERM, note="keyrings of the user's session"),
    *_all("fanotify_init fanotify_mark", REFUSED, errno.EPERM, note="its events carry open fds"),
    *_all(
        "landlock_create_ruleset landlock_add_rule landlock_restrict_self",
        REFUSED,
        errno.EOPNOTSUPP,
        note="an inner domain would not bind what the broker performs, so it must not look as if it did",
    ),
    *_all(
        """
        swapon swapoff reboot kexec_load kexec_file_load init_module finit_module delete_module acct
        settimeofday clock_settime adjtimex clock_adjtime iopl ioperm sethostname setdomainname
        quotactl quotactl_fd vhangup syslog
        """,
        REFUSED,
        errno.EPERM,
        note="concerns the whole machine",
    ),
    *_all(
        _IPC,
        REFUSED,
        # As on a kernel without it. EACCES tells PostgreSQL that a key is taken: it tries keys for ever.
        errno.ENOSYS,
        note="reaches objects of the same user outside of the tree, which have no path to judge them by",
    ),
]

_DEPENDING_CALLS = [
    Syscall(
        "ioctl",
        FREE,
        cases=ioctls.CASES,
        note="refused: typing into the terminal, changing inodes, file systems, interfaces and routes",
    ),
    Syscall(
        "setsockopt",
        FREE,
        cases=sockets.OPTION_CASES,
        note="refused: options that lead packets elsewhere, and tables of the machine",
    ),
    Syscall(
        "setrlimit",
        FREE,
        cases=(Case((Match(0, INT, _RLIMIT_CORE),), MEDIATED),),
        note="a limit of 0 for core dumps stays: they are files that no file call makes",
    ),
    Syscall(
        "prlimit64",
        MEDIATED,
        cases=(
            free(Match(0, INT, 0), Match(2, LONG, 0)),
            free(Match(0, INT, 0), Match(1, 1, 1)),
        ),
        note="free for the caller's odd limits (files, stack) and to read; core dumps: see setrlimit; "
        "another process must be of the tree",
    ),
    *(
        Syscall(
            name,
            MEDIATED,
            cases=(free(Match(0, INT, 0)),),
            note="free on the caller; another process must be of the tree",
        )
        for name in (
            "sched_setaffinity",
            "sched_setscheduler",
            "sched_setparam",
            "sched_setattr",
        )
    ),
    *(
        Syscall(
            name,
            MEDIATED,
            cases=(
                free(Match(0, INT, process), Match(1, INT, 0)),
                refused(errno.EPERM, Match(0, INT, process + _WHO_USER)),
            ),
            note="free on the caller; another process must be of the tree; refused on all of a user's",
        )
        for name, process in (("setpriority", _WHO_PROCESS), ("ioprio_set", _WHO_PROCESS + 1))
    ),
    Syscall(
        "prctl",
        FREE,
        cases=(
            Case((Match(0, INT, 4), Match(1, LONG, 0)), ANSWERED, 0),
            refused(errno.EPERM, Match(0, INT, 35)),
            *(Case((Match(0, INT, option),), MEDIATED) for option in (24, 28, 36, 47)),
        ),
        note="PR_SET_DUMPABLE 0 does nothing, since the broker must read its target; PR_SET_MM is refused; "
        "PR_SET_CHILD_SUBREAPER and what changes capabilities at an exec are noted",
    ),
    Syscall(
        "clone",
        REFUSED,
        errno.EPERM,
        cases=(free(Match(0, _CLONE_NEW | _CLONE_PARENT, 0)),),
        note="refused with any namespace flag, and with CLONE_PARENT, which forges descent",
    ),
    Syscall(
        "unshare",
        REFUSED,
        errno.EPERM,
        cases=(free(Match(0, INT & ~_UNSHARE_HARMLESS, 0)),),
        note="free for nothing but CLONE_FILES, CLONE_FS and CLONE_SYSVSEM",
    ),
    Syscall(
        "socket",
        REFUSED,
        errno.EAFNOSUPPORT,
        cases=sockets.SOCKET_CASES,
        note="free: unix sockets, TCP and UDP over IP; route netlink is made without the right to configure",
    ),
    Syscall("socketpair", REFUSED, errno.EAFNOSUPPORT, cases=(free(Match(0, INT, _AF_UNIX)),)),
    *(
        Syscall(
            name,
            REFUSED,
            errno.EPERM,
            cases=(free(Match(0, INT, 0)),),
            note="free for the caller's own memory only",
        )
        for name in ("migrate_pages", "move_pages")
    ),
]

_ABSENT_CALLS = [
    Syscall("clone3", ABSENT, note="its flags stand in memory; libcs and runtimes fall back to clone"),
    *_all(
        "setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr open_tree_attr",
        ABSENT,
        note="programs fall back to the older calls, which are judged",
    ),
    Syscall("lsm_set_self_attr", ABSENT, note="programs fall back to /proc/self/attr, which is judged"),
    *_all(
        """
        uselib _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall
        tuxcall security set_thread_area get_thread_area lookup_dcookie epoll_ctl_old epoll_wait_old vserver
        """,
        ABSENT,
        note="gone from the kernel, or never there",
    ),
]

# What differs where the kernel does not confine signals (Landlock's signal scope, Linux 6.12).
_UNSCOPED_CALLS = [
    *_all(
        "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal",
        MEDIATED,
        note="signals go to the tree alone",
    ),
    Syscall(
        "fcntl",
        FREE,
        cases=(
            Case((Match(1, INT, _F_SETOWN),), MEDIATED),
            refused(errno.EPERM, Match(1, INT, _F_SETOWN_EX)),
        ),
        note="whoever gets SIGIO must be of the tree; F_SETOWN_EX names it in memory",
    ),
    Syscall(
        "ioctl",
        FREE,
        cases=(*ioctls.CASES, *ioctls.OWNER_CASES),
        note="refused, too: naming who gets SIGIO and SIGURG",
    ),
]

# What is free where the policy restricts no read.
_ATTRIBUTE_CALLS = _all(
    _ATTRIBUTE_READS,
    FREE,
    note="reads what is kept with a file, and every file may be read",
)

# What is free where, beside that, the kernel itself keeps what no policy opens (calls/machine.py).
_READING_CALLS = [
    Syscall(
        name,
        MEDIATED,
        cases=(
            free(Match(flags, _O_PATH, _O_PATH)),
            # With the bit of the other case: the filter tells all others by it (filter.py).
            free(Match(flags, _O_PATH | _O_CHANGING, 0)),
        ),
        note="free, too, without any flag that writes or creates: every file may be read",
    )
    for name, flags in (("open", 1), ("openat", 2))
]

_SPACES = (
    "new user, pid, net, ipc, uts and cgroup namespaces are noticed, and made; of mounts and time, refused"
)
_FEATURE_CALLS: Mapping[str, list[Syscall]] = {
    "sysv-ipc": _all(
        _IPC,
        FREE,
        note="System V IPC and POSIX message queues, those of the same user outside of the tree included",
    ),
    "namespaces": [
        Syscall(
            "clone",
            REFUSED,
            errno.EPERM,
            cases=(
                free(Match(0, _CLONE_NEW | _CLONE_PARENT, 0)),
                Case((Match(0, _CLONE_NEW & ~_CLONE_SPACES | _CLONE_PARENT, 0),), MEDIATED),
            ),
            note=_SPACES,
        ),
        Syscall(
            "unshare",
            REFUSED,
            errno.EPERM,
            cases=(
                free(Match(0, INT & ~_UNSHARE_HARMLESS, 0)),
                Case((Match(0, INT & ~(_UNSHARE_HARMLESS | _CLONE_SPACES), 0),), MEDIATED),
            ),
            note=_SPACES,
        ),
    ],
}

FEATURES: Mapping[str, frozenset[str]] = MappingProxyType(
    {name: frozenset(entry.name for entry in entries) for name, entries in _FEATURE_CALLS.items()}
)
"""Families of calls that a policy opens by name, and the calls."""

FREEING = frozenset(
    name for name, entries in _FEATURE_CALLS.items() if any(entry.disposition is FREE for entry in entries)
)
"""Those of them whose calls are not held then: the filter of a running tree says whether they are open."""

_FEATURE_OF = {call: feature for feature, calls in FEATURES.items() for call in calls}

# From 424 on a call has the same number on every architecture (asm-generic/unistd.h).
_COMMON_FIRST = 424
_COMMON = """
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig
    fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2
    mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
    process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake
    futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr
"""
_OWN = {"x86_64": {"uretprobe": 335, "uprobe": 336}}


@functools.cache
def table(traps: Traps = STRICTEST) -> Mapping[str, Syscall]:
    """Give the whole table by name, for all architectures.

    Args:
        traps: What differs between filters; what is not opened there is mediated or refused.
    """
    entries = [*_FREE_CALLS, *_MEDIATED_CALLS, *_REFUSED_CALLS, *_DEPENDING_CALLS, *_ABSENT_CALLS]
    named = {entry.name: entry for entry in entries}
    if len(named) != len(entries):
        raise AssertionError("a system call stands in the table twice")
    other = [] if traps.scoped else [*_UNSCOPED_CALLS]
    if not traps.attributes:
        other += _ATTRIBUTE_CALLS
    if not traps.opens:
        other += _READING_CALLS
    for feature in traps.features:
        other += _FEATURE_CALLS[feature]
    return MappingProxyType(named | {entry.name: entry for entry in other})


@functools.cache
def by_number(traps: Traps = STRICTEST) -> Mapping[int, Syscall]:
    """Give the table by the numbers of this machine; calls that it does not have are left out.

    Args:
        traps: As for `table`.

    Raises:
        LibraryMissing: libseccomp, which knows the numbers, is not installed.
        KernelSupportError: The machine is of a type that the package has no filter for.
    """
    newer = {name: _COMMON_FIRST + index for index, name in enumerate(_COMMON.split())}
    newer |= _OWN.get(architecture().name, {})
    numbered = {}
    for name, entry in table(traps).items():
        number = number_of(name)
        if number is None:
            number = newer.get(name)
        if number is not None:
            numbered[number] = entry
    return MappingProxyType(numbered)


def name_of(nr: int) -> str:
    """Name a system call of this machine; ``syscall_<number>`` if it is not in the table."""
    entry = by_number().get(nr)
    return entry.name if entry else f"syscall_{nr}"


def feature_of(call: str) -> str | None:
    """Name the feature that opens a call; None if none does."""
    return _FEATURE_OF.get(call)


def classify(nr: int, args: Sequence[int], traps: Traps = STRICTEST) -> Classified:
    """Say what has to become of a native call: the specification that the filter is checked against.

    Args:
        nr: Number, as ``seccomp_data.nr`` has it; the lower 32 bits count.
        args: The six argument registers, unsigned.
        traps: As for `table`.
    """
    nr &= INT
    if architecture().x32 and nr >= 0x40000000 and nr != INT:
        return Classified(KILLED, None)
    entry = by_number(traps).get(nr)
    if entry is None:
        return Classified(ABSENT, errno.ENOSYS)
    for case in entry.cases:
        if all(args[index] & mask == value for index, mask, value in case.matches):
            return Classified(case.disposition, case.errno)
    return Classified(entry.disposition, errno.ENOSYS if entry.disposition is ABSENT else entry.errno)


@functools.cache
def fingerprint(traps: Traps = STRICTEST) -> str:
    """Give the SHA-256, in hex, of all that the filter for this machine depends on in the table."""
    digest = hashlib.sha256(architecture().name.encode())
    for number, entry in sorted(by_number(traps).items()):
        cases = [(case.matches, case.disposition.value, case.errno) for case in entry.cases]
        line = (number, entry.name, entry.disposition.value, entry.errno, cases)
        digest.update(f"{line!r}\n".encode())
    return digest.hexdigest()
