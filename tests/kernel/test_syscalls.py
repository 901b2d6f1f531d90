"""The table: every number has a class, and the classes say what they are meant to say."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from rampart_seccomp.events import Operation
from rampart_seccomp.kernel.libseccomp import architecture, number_of
from rampart_seccomp.kernel.syscalls import (
    FEATURES,
    Classified,
    Disposition,
    by_number,
    classify,
    feature_of,
    fingerprint,
    name_of,
    table,
)
from rampart_seccomp.kernel.traps import STRICTEST, Traps
from rampart_seccomp.policy import features

HEADERS = sorted(Path("/usr/include").glob("**/asm/unistd_64.h"))
FREE = Classified(Disposition.FREE, None)
MEDIATED = Classified(Disposition.MEDIATED, None)
ABSENT = Classified(Disposition.ABSENT, errno.ENOSYS)
UNSCOPED = Traps(scoped=False)


def refused(number: int) -> Classified:
    return Classified(Disposition.REFUSED, number)


def native(name: str, *args: int) -> Classified:
    """Classify a call by name; arguments are completed with zeros."""
    numbers = {entry.name: number for number, entry in by_number().items()}
    return classify(numbers[name], (*args, *(0,) * (6 - len(args))))


@pytest.mark.parametrize("arch", ["X86_64", "AARCH64"])
def test_every_call_that_libseccomp_knows_has_a_class(arch: str) -> None:
    """No name of either supported architecture is missing, whatever libseccomp is installed."""
    known = set()
    for number in range(1024):
        try:
            known.add(pyseccomp.resolve_syscall(getattr(pyseccomp.Arch, arch), number).decode())
        except ValueError:
            continue
    assert len(known) > 250
    assert known - set(table()) == set()


@pytest.mark.skipif(not HEADERS or os.uname().machine != "x86_64", reason="no x86_64 kernel headers")
def test_every_number_of_the_kernel_headers_has_a_class() -> None:
    """The headers and the table agree on name and number of every call."""
    text = HEADERS[0].read_text()
    numbers = {
        int(number): name for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)$", text, re.MULTILINE)
    }
    assert len(numbers) > 300
    ours = {number: entry.name for number, entry in by_number().items()}
    assert {number: ours.get(number) for number in numbers} == numbers


def test_numbers_of_calls_younger_than_libseccomp() -> None:
    """The list of common numbers agrees with libseccomp where it knows the call, and ends at Linux 6.18."""
    named = {entry.name: number for number, entry in by_number().items()}
    for name, number in named.items():
        assert number_of(name) in (number, None), name
    assert (named["pidfd_send_signal"], named["cachestat"], named["file_setattr"]) == (424, 451, 469)
    assert set(range(424, 470)) <= set(by_number())


def test_what_is_not_there_is_absent() -> None:
    """Unknown, future and negative numbers get ENOSYS, and a name that says so."""
    for number in (450 + 100, 1023, -1, 0xFFFFFFFF):
        assert classify(number, (0,) * 6) == ABSENT
    assert name_of(1023) == "syscall_1023"
    assert name_of(by_number_of("openat")) == "openat"


def by_number_of(name: str) -> int:
    return next(number for number, entry in by_number().items() if entry.name == name)


@pytest.mark.skipif(not architecture().x32, reason="x86_64 only")
def test_x32_numbers_are_killed() -> None:
    """A number with the x32 bit is never looked up as the native call of the same number."""
    assert classify(0x40000000 | by_number_of("getpid"), (0,) * 6).disposition is Disposition.KILLED


def test_entries_answer_completely() -> None:
    """A refused or answered call has an errno, others have none; handlers are the names of mediated calls."""
    for entry in table().values():
        answers = [
            (entry.disposition, entry.errno),
            *((case.disposition, case.errno) for case in entry.cases),
        ]
        for disposition, number in answers:
            answered = disposition in (Disposition.REFUSED, Disposition.ANSWERED)
            assert (number is not None) == answered, entry.name
        mediated = Disposition.MEDIATED in [disposition for disposition, _ in answers]
        assert entry.handler == (entry.name if mediated else None)
        for case in entry.cases:
            assert case.matches
            assert all(value & ~mask == 0 for _, mask, value in case.matches), entry.name


MEDIATED_NAMES = """
    openat2 truncate unlinkat renameat2 linkat symlinkat mkdirat mknodat fchmodat fchmodat2 fchownat
    utimensat setxattr lsetxattr removexattr lremovexattr fchmod fchown fsetxattr fremovexattr execve
    execveat connect bind listen sendmsg sendmmsg getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
""".split()  # noqa: SIM905
LEGACY_NAMES = """
    creat unlink rmdir rename renameat link symlink mkdir mknod chmod chown lchown utime utimes futimesat
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", MEDIATED_NAMES)
def test_mediated_whatever_the_arguments(name: str) -> None:
    """Calls with an effect that a policy can speak of are held, for all arguments."""
    assert native(name) == native(name, *(2**64 - 1,) * 6) == MEDIATED


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls of older architectures")
@pytest.mark.parametrize("name", LEGACY_NAMES)
def test_legacy_twins_are_mediated_too(name: str) -> None:
    """The old form of a call is judged as the new one."""
    assert native(name) == MEDIATED


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(
            (name, errno.EPERM)
            for name in ("mount", "umount2", "pivot_root", "fsopen", "move_mount", "setns")
        ),
        *((name, errno.EPERM) for name in ("ptrace", "process_vm_writev", "process_vm_readv", "pidfd_getfd")),
        *(
            (name, errno.EPERM)
            for name in ("io_uring_setup", "bpf", "perf_event_open", "userfaultfd", "keyctl")
        ),
        *(
            (name, errno.EPERM)
            for name in ("chroot", "open_by_handle_at", "kcmp", "process_madvise", "reboot")
        ),
        *((name, errno.ENOSYS) for name in ("shmget", "semget", "semop", "msgget", "msgrcv", "mq_open")),
        ("name_to_handle_at", errno.EOPNOTSUPP),
        ("landlock_restrict_self", errno.EOPNOTSUPP),
    ],
)
def test_refused(name: str, number: int) -> None:
    """Ways around the broker are refused, for all arguments."""
    assert native(name) == native(name, *(2**64 - 1,) * 6) == refused(number)


@pytest.mark.parametrize("name", ["clone3", "setxattrat", "removexattrat", "file_setattr", "open_tree_attr"])
def test_absent(name: str) -> None:
    """Calls that cannot be judged by their registers, and have a fallback, are not there."""
    assert native(name) == ABSENT


@pytest.mark.parametrize("name", ["read", "close", "lseek", "fstat", "fork", "vfork", "exit_group", "kill"])
def test_free(name: str) -> None:
    """Calls on what was decided before never leave the kernel."""
    if os.uname().machine != "x86_64" and name in ("fork", "vfork"):
        pytest.skip("not on this architecture")
    assert native(name) == FREE


UNIX, INET, INET6, NETLINK, PACKET, VSOCK = 1, 2, 10, 16, 17, 40
STREAM, DGRAM, RAW = 1, 2, 3
GARBAGE = 0xDEADBEEF << 32


SIGNALLING = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
SCHEDULING = ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")
FREE_COMMANDS = (
    *(0x5401, 0x5413, 0x541B, 0x5421, 0x5451, 0x540F, 0x80045430),  # TCGETS … FIOCLEX, TIOCSPTLCK
    *(0x8910, 0x8912, 0x8913, 0x8915, 0x8927, 0x8933, 0x8946, 0x894B),  # SIOCG*, SIOCETHTOOL, SIOCOUTQNSD
    *(0x80081272, 0x1268, 0xC0206921, 0x4B33, 0x4B46),  # block devices, KDGKBTYPE, KDGKBENT
    *(0x40049409, 0x4020940D, 0xC0189436, 0xC020660B, 0x801C581F, 0x81009431, 0x80087601, 2),
    *(0xC0106401, 0x5600, 0xC0045405, 0x8901, 0x8902),  # DRM, virtual terminals, …; owners, being confined
)
FORBIDDEN_COMMANDS = (
    *(0x541D, 0x4B47, 0x4B49, 0x4B4D),
    *(0x890B, 0x890C, 0x8914, 0x8916, 0x891C, 0x8922, 0x8923, 0x8924, 0x8932, 0x8936, 0x89A0, 0x89F1),
    0x400454CA,  # TUNSETIFF
    *(0x50009401, 0x5000940E, 0xD0009411, 0x40089413, 0x4004940F),  # Btrfs
    *(0x4020BC10, 0xAA00, 0xC018AA3F, 0x40106F04),  # bcachefs, userfaultfd, OCFS2_IOC_REFLINK
)
ATTRIBUTE_COMMANDS = (
    *(0x40086602, 0x40046602, 0x401C5820, 0x40087602, 0x40806685, 0x800C6613),
    *(0xC0045877, 0xC0045878, 0x8004587D, 0xC038586B, 0x40086610, 0xF501),  # FIFREEZE … EXT4_IOC_RESIZE_FS
)
FREE_OPTIONS = (
    *((1, name) for name in (2, 7, 9, 15, 20, 26, 60)),  # SO_REUSEADDR … SO_ATTACH_FILTER, SO_ZEROCOPY
    *((0, name) for name in (1, 2, 8, 15, 24, 32, 35)),  # IP_TOS … IP_FREEBIND, multicast
    *((41, name) for name in (5, 16, 18, 20, 26, 49, 56, 67)),  # IPV6_V6ONLY, IPV6_RECV*
    *((6, name) for name in (1, 4, 13, 30, 31)),  # TCP_NODELAY … TCP_FASTOPEN_CONNECT, TCP_ULP
    *((17, 103), (270, 1), (282, 2)),
)
FORBIDDEN_OPTIONS = (
    *((0, name) for name in (4, 16, 17, 19, 50, 64, 65, 96, 128, 200, 1153)),
    *((41, name) for name in (6, 32, 34, 35, 50, 54, 55, 57, 59, 64, 65, 75, 76, 200)),
    *((1, 25), (1, 36), (1, 62), (6, 19)),
)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("ioctl", 0, 0x5401), FREE),
        (("ioctl", 0, 0x5412), refused(errno.EPERM)),
        (("ioctl", 0, 0x5412 | GARBAGE), refused(errno.EPERM)),
        (("ioctl", 0, 0x541C), refused(errno.EPERM)),
        (("ioctl", 3, 0x40086602), refused(errno.EOPNOTSUPP)),
        (("ioctl", 3, 0x80086601), FREE),
        *((("ioctl", 3, command), FREE) for command in FREE_COMMANDS),
        *((("ioctl", 3, command), refused(errno.EPERM)) for command in FORBIDDEN_COMMANDS),
        *((("ioctl", 3, command), refused(errno.EOPNOTSUPP)) for command in ATTRIBUTE_COMMANDS),
        *((("setsockopt", 3, *option), FREE) for option in FREE_OPTIONS),
        *((("setsockopt", 3, *option), refused(errno.EPERM)) for option in FORBIDDEN_OPTIONS),
        (("setsockopt", 3, GARBAGE, GARBAGE | 4), refused(errno.EPERM)),
        *(((name, 0), FREE) for name in SCHEDULING),
        *(((name, GARBAGE), FREE) for name in SCHEDULING),
        *(((name, 4711), MEDIATED) for name in SCHEDULING),
        (("prlimit64", 0, 4, 0, 4096), FREE),
        (("prlimit64", 0, 7, 4096), FREE),
        (("prlimit64", 0, 4, 4096), MEDIATED),
        (("prlimit64", 4711, 7, 4096), MEDIATED),
        (("setrlimit", 4, 4096), MEDIATED),
        (("setrlimit", GARBAGE | 4, 4096), MEDIATED),
        (("setrlimit", 7, 4096), FREE),
        (("setpriority", 0, 0, 5), FREE),
        (("setpriority", 0, 4711, 5), MEDIATED),
        (("setpriority", 1, 0, 5), MEDIATED),
        (("setpriority", 2, 0, 5), refused(errno.EPERM)),
        (("ioprio_set", 1, 0, 5), FREE),
        (("ioprio_set", 1, 4711, 5), MEDIATED),
        (("ioprio_set", 2, 0, 5), MEDIATED),
        (("ioprio_set", 3, 1000, 5), refused(errno.EPERM)),
        (("prctl", 4, 0), Classified(Disposition.ANSWERED, 0)),
        (("prctl", 4 | GARBAGE, 0), Classified(Disposition.ANSWERED, 0)),
        (("prctl", 4, 1), FREE),
        (("prctl", 35, 1), refused(errno.EPERM)),
        (("prctl", 15), FREE),
        (("clone", 0x01200011), FREE),
        (("clone", 0x003D0F00), FREE),
        (("clone", 0x10000011), refused(errno.EPERM)),
        (("clone", 0x00020011 | GARBAGE), refused(errno.EPERM)),
        (("unshare", 0x400), FREE),
        (("unshare", 0x40600), FREE),
        (("unshare", 0x20000), refused(errno.EPERM)),
        (("unshare", 0x80), refused(errno.EPERM)),
        (("sendto", 3, 1, 1, 0, 0, 0), FREE),
        (("sendto", 3, 1, 1, 0, 1 << 40, 16), MEDIATED),
        (("openat", 2**64 - 100, 1, 0o10000000), FREE),
        (("openat", 2**64 - 100, 1, 0), MEDIATED),
        (("openat", 2**64 - 100, 1, GARBAGE), MEDIATED),
        (("openat", 2**64 - 100, 1, 0o10000000 << 32), MEDIATED),
        (("migrate_pages", 0), FREE),
        (("move_pages", 4711), refused(errno.EPERM)),
        (("socketpair", UNIX, STREAM), FREE),
        (("socketpair", 30, STREAM), refused(errno.EAFNOSUPPORT)),
        (("socket", UNIX, STREAM, 0), FREE),
        (("socket", UNIX, RAW, 7), FREE),
        (("socket", INET, STREAM, 6), FREE),
        (("socket", INET | GARBAGE, STREAM | GARBAGE, GARBAGE), FREE),
        (("socket", INET6, STREAM | 0o2004000, 0), FREE),
        (("socket", INET6, DGRAM, 17), FREE),
        (("socket", INET, STREAM, 17), refused(errno.EPROTONOSUPPORT)),
        (("socket", INET, STREAM, 262), refused(errno.EPROTONOSUPPORT)),
        (("socket", INET, STREAM, 132), refused(errno.EPROTONOSUPPORT)),
        (("socket", INET, DGRAM, 1), refused(errno.EPROTONOSUPPORT)),
        (("socket", INET, DGRAM, 136), refused(errno.EPROTONOSUPPORT)),
        (("socket", INET, RAW, 0), refused(errno.EPROTONOSUPPORT)),
        (("socket", INET, 10, 0), refused(errno.EPROTONOSUPPORT)),
        (("socket", NETLINK, RAW | 0o2000000, 0), MEDIATED),
        (("socket", NETLINK, RAW, 15), refused(errno.EPROTONOSUPPORT)),
        (("socket", PACKET, RAW, 0), refused(errno.EAFNOSUPPORT)),
        (("socket", VSOCK, STREAM, 0), refused(errno.EAFNOSUPPORT)),
        (("socket", 38, 5, 0), refused(errno.EAFNOSUPPORT)),
    ],
)
def test_decided_by_arguments(call: tuple[Any, ...], expected: Classified) -> None:
    """Calls that depend on their registers, with the garbage that may stand above an int."""
    assert native(*call) == expected


@pytest.mark.parametrize(
    ("call", "scoped", "unscoped"),
    [
        *(((name, 1, 1, 1), FREE, MEDIATED) for name in SIGNALLING),
        (("fcntl", 3, 8, 1), FREE, MEDIATED),
        (("fcntl", 3, 15, 1), FREE, refused(errno.EPERM)),
        (("fcntl", 3, 3), FREE, FREE),
        (("fcntl", 3, 1030), FREE, FREE),
        (("ioctl", 3, 0x8901), FREE, refused(errno.EPERM)),
        (("ioctl", 3, 0x8902), FREE, refused(errno.EPERM)),
        (("ioctl", 3, 0x5412), refused(errno.EPERM), refused(errno.EPERM)),
        (("mount",), refused(errno.EPERM), refused(errno.EPERM)),
    ],
)
def test_signals_are_mediated_where_the_kernel_does_not_confine_them(
    call: tuple[Any, ...], scoped: Classified, unscoped: Classified
) -> None:
    """Without Landlock's signal scope whoever would get a signal is asked about; nothing else differs."""
    name, *args = call
    arguments = (*args, *(0,) * (6 - len(args)))
    number = by_number_of(name)
    assert (classify(number, arguments), classify(number, arguments, UNSCOPED)) == (scoped, unscoped)
    different = {name for name in table() if table()[name] != table(UNSCOPED)[name]}
    assert different == {*SIGNALLING, "fcntl", "ioctl"}


def changed_by(traps: Traps) -> dict[str, Disposition]:
    """Give what a table has otherwise than the strictest one."""
    other = table(traps)
    assert other.keys() == table().keys()
    return {name: other[name].disposition for name in other if other[name] != table()[name]}


def test_attributes_are_held_only_where_reading_may_be_restricted() -> None:
    """Reading extended attributes is free under a policy that restricts no read, and nothing else is."""
    calls = ("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr")
    assert changed_by(Traps(restricted={Operation.CREATE})) == dict.fromkeys(calls, Disposition.FREE)
    assert changed_by(Traps(restricted={Operation.READ, Operation.EXEC})) == {}
    assert Traps(restricted=Operation) == STRICTEST
    assert [Traps(restricted=few).cores for few in ((), {Operation.READ}, {Operation.CREATE})] == [
        True,
        True,
        False,
    ]


def test_opens_are_free_only_where_they_read() -> None:
    """Without a flag that writes, creates or truncates, and with O_PATH; only where no read is restricted."""
    reading = Traps(restricted=(), opens=False)
    base = table(Traps(restricted=()))
    assert {name for name in base if table(reading)[name] != base[name]} == {"open", "openat"}
    path_only = 0o10000000
    changing = (0o1, 0o2, 0o3, 0o100, 0o1000, 0o20200000)
    for name, place in (("open", 1), ("openat", 2)):
        number = next(number for number, entry in by_number().items() if entry.name == name)
        for extra in (0, 0o2000000, 0o200000, 0o400000, 0o4000, 0o1000000):
            for flags in (0, *changing, path_only, path_only | 0o100):
                args = [0] * 6
                args[place] = flags | extra | 0xFFFFFFFF00000000
                free = flags == 0 or bool(flags & path_only)
                expected = Disposition.FREE if free else Disposition.MEDIATED
                assert classify(number, args, reading).disposition is expected
    with pytest.raises(ValueError, match="restricted"):
        Traps(opens=False)


def test_a_feature_opens_its_calls_and_no_others() -> None:
    """What a policy opens by name is free then, or held by arguments; the names are those of policies."""
    assert set(FEATURES) == set(features.FEATURES) - {features.MEMFD_EXEC}, "that one is no call's"
    for name, calls in FEATURES.items():
        held = name == "namespaces"
        found = Disposition.REFUSED if held else Disposition.FREE
        assert changed_by(Traps(features={name})) == dict.fromkeys(calls, found)
        assert all(bool(table(Traps(features={name}))[call].cases) == held for call in calls)
        assert {feature_of(call) for call in calls} == {name}
    assert feature_of("mount") is None


def test_the_namespaces_of_a_feature() -> None:
    """Six kinds are held, alone and together; with mounts, time or a forged parent among them: refused."""
    traps = Traps(features={"namespaces"})
    number = {entry.name: nr for nr, entry in by_number().items() if entry.name in ("clone", "unshare")}
    held, free = Classified(Disposition.MEDIATED, None), Classified(Disposition.FREE, None)
    refused = Classified(Disposition.REFUSED, errno.EPERM)
    kinds = [0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
    garbage = 0xDEADBEEF00000000

    def said(call: str, flags: int) -> Classified:
        return classify(number[call], [flags | garbage, 0, 0, 0, 0, 0], traps)

    for flags in (*kinds, sum(kinds)):
        assert said("unshare", flags | 0x600) == said("clone", flags | 17) == held
        assert said("unshare", flags | 0x20000) == said("clone", flags | 0x20000) == refused
        assert said("unshare", flags | 0x80) == said("clone", flags | 0x8000) == refused
    assert said("unshare", 0x600) == said("clone", 17) == free
    assert said("unshare", 0x20000) == said("clone", 0x20000) == refused


def test_the_fingerprint_is_that_of_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal tables have equal fingerprints, and another disposition gives another."""
    from rampart_seccomp.kernel import syscalls

    before = fingerprint()
    assert fingerprint.__wrapped__() == before
    changed = dict(by_number())
    changed[by_number_of("mount")] = table()["read"]
    monkeypatch.setattr(syscalls, "by_number", lambda traps: changed)
    assert fingerprint.__wrapped__() != before
