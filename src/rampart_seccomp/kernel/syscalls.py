"""The one table of system calls: what the filter does with each, and why.

Filter, decoder, documentation and tests derive from it. Names are the same on every architecture; their
numbers come from libseccomp, or from the short lists at the end for calls that are younger than it.

A call is *free* (the kernel carries it out, the broker never hears of it), *mediated* (held until the broker
has decided), *refused* (the broker records it and answers the errno), *absent* (``ENOSYS`` in the kernel, as
if it were older: programs fall back to a call that is judged) or *answered* (the kernel returns a fixed
errno, 0 for a success that does nothing). Numbers that are not in the table are absent too.
"""

from __future__ import annotations

import enum
import errno
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import attrs

from rampart_seccomp.kernel.libseccomp import architecture, number_of

__all__ = [
    "Case",
    "Classified",
    "Disposition",
    "Match",
    "Syscall",
    "by_number",
    "classify",
    "fingerprint",
    "name_of",
    "table",
]


class Disposition(str, enum.Enum):
    """What becomes of a call. ``KILLED`` stands in no entry: it is for calls of a foreign ABI."""

    FREE = "free"
    MEDIATED = "mediated"
    REFUSED = "refused"
    ABSENT = "absent"
    ANSWERED = "answered"
    KILLED = "killed"

    def __str__(self) -> str:
        return self.value


FREE, MEDIATED, REFUSED = Disposition.FREE, Disposition.MEDIATED, Disposition.REFUSED
ABSENT, ANSWERED, KILLED = Disposition.ABSENT, Disposition.ANSWERED, Disposition.KILLED

INT = 0xFFFFFFFF  # what the kernel takes of an int; callers leave garbage, zeros or the sign above it
LONG = 0xFFFFFFFFFFFFFFFF  # pointers and longs


class Match(NamedTuple):
    """A condition on one argument register: ``args[argument] & mask == value``."""

    argument: int
    mask: int
    value: int


@attrs.frozen
class Case:
    """A disposition for some arguments of a call: those that meet all of the conditions."""

    matches: tuple[Match, ...]
    disposition: Disposition
    errno: int | None = None


@attrs.frozen
class Syscall:
    """One entry of the table.

    Attributes:
        name: Name, as libseccomp and the man pages have it.
        disposition: What becomes of the call if none of its cases applies.
        errno: Answer to a refused or answered call.
        cases: Dispositions that depend on argument registers; the first that applies counts.
        note: The reason, where it is not obvious.
    """

    name: str
    disposition: Disposition
    errno: int | None = None
    cases: tuple[Case, ...] = ()
    note: str = ""

    @property
    def handler(self) -> str | None:
        """The decoder's key, if the call is ever mediated: its name."""
        every = (self.disposition, *(case.disposition for case in self.cases))
        return self.name if MEDIATED in every else None


class Classified(NamedTuple):
    """What the filter has to do with one call, and the errno if that is to answer it."""

    disposition: Disposition
    errno: int | None


def _all(names: str, disposition: Disposition, errno: int | None = None, note: str = "") -> list[Syscall]:
    return [Syscall(name, disposition, errno, (), note) for name in names.split()]


def _refused(number: int, *matches: Match) -> Case:
    return Case(matches, REFUSED, number)


def _free(*matches: Match) -> Case:
    return Case(matches, FREE)


# Control operations of ioctl(2) that go around what is decided elsewhere. The numbers are those of the
# generic encoding (asm-generic/ioctl.h), which x86_64 and aarch64 share.


def _write_ioctl(kind: int, number: int, size: int) -> int:
    return 1 << 30 | size << 16 | kind << 8 | number


_TERMINAL = (
    0x5412,  # TIOCSTI: types into the terminal that the user's shell will read
    0x541C,  # TIOCLINUX: the same through the console's selection
)
_INODE = (
    _write_ioctl(ord("f"), 2, 8),  # FS_IOC_SETFLAGS
    _write_ioctl(ord("f"), 2, 4),  # FS_IOC32_SETFLAGS
    _write_ioctl(ord("X"), 32, 28),  # FS_IOC_FSSETXATTR
    _write_ioctl(ord("v"), 2, 8),  # FS_IOC_SETVERSION
    _write_ioctl(ord("v"), 2, 4),  # FS_IOC32_SETVERSION
    _write_ioctl(ord("f"), 4, 8),  # EXT4_IOC_SETVERSION
    _write_ioctl(ord("f"), 133, 128),  # FS_IOC_ENABLE_VERITY
    2 << 30 | 12 << 16 | ord("f") << 8 | 19,  # FS_IOC_SET_ENCRYPTION_POLICY, declared as _IOR
    _write_ioctl(ord("r"), 0x11, 4),  # FAT_IOCTL_SET_ATTRIBUTES
)
_OBJECTS = (
    *(_write_ioctl(0x94, number, 4096) for number in (1, 14, 15, 23, 24, 63)),  # btrfs subvolumes, snapshots
    _write_ioctl(0x94, 26, 8),  # BTRFS_IOC_SUBVOL_SETFLAGS
    3 << 30 | 56 << 16 | ord("X") << 8 | 107,  # XFS_IOC_OPEN_BY_HANDLE
    _write_ioctl(ord("X"), 123, 72),  # XFS_IOC_ATTRMULTI_BY_HANDLE
)

_O_PATH = 0o10000000
_UNSHARE_HARMLESS = 0x400 | 0x200 | 0x40000  # CLONE_FILES, CLONE_FS, CLONE_SYSVSEM
_CLONE_NEW = 0x7E020000  # every CLONE_NEW* of clone(2); CLONE_NEWTIME is part of the exit signal there

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE = 0xF  # above it stand SOCK_NONBLOCK and SOCK_CLOEXEC
_TRANSPORTS = ((1, 0), (1, 6), (2, 0), (2, 17))  # SOCK_STREAM with TCP, SOCK_DGRAM with UDP


def _socket_cases() -> Iterator[Case]:
    yield _free(Match(0, INT, _AF_UNIX))
    for family in (_AF_INET, _AF_INET6):
        for kind, protocol in _TRANSPORTS:
            yield _free(Match(0, INT, family), Match(1, _SOCK_TYPE, kind), Match(2, INT, protocol))
    yield _free(Match(0, INT, _AF_NETLINK), Match(2, INT, 0))  # NETLINK_ROUTE
    for family in (_AF_INET, _AF_INET6, _AF_NETLINK):
        yield _refused(errno.EPROTONOSUPPORT, Match(0, INT, family))


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
        getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr statmount listmount
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
        modify_ldt personality umask
        """,
        FREE,
        note="own process",
    ),
    *_all(
        """
        getpid gettid getppid getpgid getpgrp getsid setpgid setsid getuid geteuid getgid getegid getresuid
        getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups
        capget capset uname sysinfo getrusage times getcpu lsm_get_self_attr lsm_list_modules
        """,
        FREE,
        note="own identity, or harmless information; the broker performs as what the thread then is",
    ),
    *_all(
        """
        nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time getitimer setitimer alarm
        timer_create timer_settime timer_gettime timer_getoverrun timer_delete getrandom
        """,
        FREE,
    ),
    *_all(
        "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal",
        FREE,
        note="Landlock's signal scope confines signals to the tree",
    ),
    *_all(
        """
        sched_yield sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_setattr
        sched_getattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_setaffinity
        sched_getaffinity getpriority setpriority ioprio_set ioprio_get getrlimit setrlimit prlimit64
        """,
        FREE,
    ),
    *_all(
        """
        shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
        mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
        """,
        FREE,
        note="reaches objects of the same user outside of the tree; the threat model says so",
    ),
    *_all(
        "accept accept4 recvfrom recvmsg recvmmsg shutdown getsockname getpeername setsockopt getsockopt",
        FREE,
        note="acts on a socket whose connect, bind or listen was decided",
    ),
    Syscall("seccomp", FREE, note="further filters only tighten; a second listener fails with EBUSY"),
]

_MEDIATED_CALLS = [
    Syscall("open", MEDIATED, cases=(_free(Match(1, _O_PATH, _O_PATH)),), note="O_PATH: see openat"),
    Syscall(
        "openat",
        MEDIATED,
        cases=(_free(Match(2, _O_PATH, _O_PATH)),),
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
    *_all(
        "fchmod fchown fsetxattr fremovexattr",
        MEDIATED,
        note="changes metadata through an fd that was opened for reading only",
    ),
    *_all("execve execveat", MEDIATED),
    *_all("connect bind", MEDIATED),
    Syscall("listen", MEDIATED, note="binds a socket that has no port yet"),
    Syscall("sendto", MEDIATED, cases=(_free(Match(4, LONG, 0)),), note="free without an address"),
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
]

_DEPENDING_CALLS = [
    Syscall(
        "ioctl",
        FREE,
        cases=(
            *(_refused(errno.EPERM, Match(1, INT, command)) for command in (*_TERMINAL, *_OBJECTS)),
            *(_refused(errno.EOPNOTSUPP, Match(1, INT, command)) for command in _INODE),
        ),
        note="refused: typing into the terminal, inode flags, subvolumes, opening by handle",
    ),
    Syscall(
        "prctl",
        FREE,
        cases=(
            Case((Match(0, INT, 4), Match(1, LONG, 0)), ANSWERED, 0),
            _refused(errno.EPERM, Match(0, INT, 35)),
        ),
        note="PR_SET_DUMPABLE 0 does nothing, since the broker must read its target; PR_SET_MM is refused",
    ),
    Syscall(
        "clone",
        REFUSED,
        errno.EPERM,
        cases=(_free(Match(0, _CLONE_NEW, 0)),),
        note="refused with any namespace flag",
    ),
    Syscall(
        "unshare",
        REFUSED,
        errno.EPERM,
        cases=(_free(Match(0, INT & ~_UNSHARE_HARMLESS, 0)),),
        note="free for nothing but CLONE_FILES, CLONE_FS and CLONE_SYSVSEM",
    ),
    Syscall(
        "socket",
        REFUSED,
        errno.EAFNOSUPPORT,
        cases=tuple(_socket_cases()),
        note="free: unix sockets, TCP and UDP over IP, route netlink",
    ),
    Syscall("socketpair", REFUSED, errno.EAFNOSUPPORT, cases=(_free(Match(0, INT, _AF_UNIX)),)),
    *(
        Syscall(
            name,
            REFUSED,
            errno.EPERM,
            cases=(_free(Match(0, INT, 0)),),
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
def table() -> Mapping[str, Syscall]:
    """Give the whole table by name, for all architectures."""
    entries = [*_FREE_CALLS, *_MEDIATED_CALLS, *_REFUSED_CALLS, *_DEPENDING_CALLS, *_ABSENT_CALLS]
    named = {entry.name: entry for entry in entries}
    if len(named) != len(entries):
        raise AssertionError("a system call stands in the table twice")
    return MappingProxyType(named)


@functools.cache
def by_number() -> Mapping[int, Syscall]:
    """Give the table by the numbers of this machine; calls that it does not have are left out.

    Raises:
        LibraryMissing: libseccomp, which knows the numbers, is not installed.
        KernelSupportError: The machine is of a type that the package has no filter for.
    """
    newer = {name: _COMMON_FIRST + index for index, name in enumerate(_COMMON.split())}
    newer |= _OWN.get(architecture().name, {})
    numbered = {}
    for name, entry in table().items():
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


def classify(nr: int, args: Sequence[int]) -> Classified:
    """Say what has to become of a native call: the specification that the filter is checked against.

    Args:
        nr: Number, as ``seccomp_data.nr`` has it; the lower 32 bits count.
        args: The six argument registers, unsigned.
    """
    nr &= INT
    if architecture().x32 and nr >= 0x40000000 and nr != INT:
        return Classified(KILLED, None)
    entry = by_number().get(nr)
    if entry is None:
        return Classified(ABSENT, errno.ENOSYS)
    for case in entry.cases:
        if all(args[index] & mask == value for index, mask, value in case.matches):
            return Classified(case.disposition, case.errno)
    return Classified(entry.disposition, errno.ENOSYS if entry.disposition is ABSENT else entry.errno)


@functools.cache
def fingerprint() -> str:
    """Give the SHA-256, in hex, of all that the filter for this machine depends on in this module."""
    digest = hashlib.sha256(architecture().name.encode())
    for number, entry in sorted(by_number().items()):
        cases = [(case.matches, case.disposition.value, case.errno) for case in entry.cases]
        line = (number, entry.name, entry.disposition.value, entry.errno, cases)
        digest.update(f"{line!r}\n".encode())
    return digest.hexdigest()
