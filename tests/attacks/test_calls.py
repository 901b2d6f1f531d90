"""Rows 11, 14, 16, 17, 18, 26, 28 and 29: conventions, numbers, refused calls, bad memory, filters."""

from __future__ import annotations

import os
import platform
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers and conventions of x86_64"),
]

REFUSED = {"EPERM", "EACCES", "ENOSYS", "EOPNOTSUPP"}


@pytest.fixture
def secret(project: Any) -> Path:
    """A denied file beside an allowed one."""
    project.write("open/f", "public\n")
    path: Path = project.write("vault/key", "SECRET\n")
    return path


@pytest.fixture
def guarded(deny_rule: Any) -> Any:
    """Everything is allowed but ./vault."""
    return deny_rule(["read", "write", "exec"], paths=["./vault/**"])


def test_i386_calls_kill(project: Any, secret: Path, guarded: Any, allow_all: Any, attacker: Any) -> None:
    """Row 16: int 0x80 ends the process, whatever the policy; the same open by the native way is judged."""
    program = attacker("foreign")
    bare = project.bare([program, "int80", "vault/key"])
    if bare.stdout == "":
        pytest.skip("this kernel has no i386 calls")
    assert bare.stdout == "ok\n"

    for policy in (guarded, allow_all):
        done = project.run([program, "int80", "vault/key"], policy)
        assert done.returncode == -signal.SIGSYS
        assert done.stdout == ""


def test_x32_calls_are_refused(
    project: Any, secret: Path, guarded: Any, allow_all: Any, attacker: Any
) -> None:
    """Row 16: a number with the x32 bit is not a call."""
    program = attacker("foreign")

    for policy in (guarded, allow_all):
        done = project.run([program, "x32", "vault/key"], policy)
        assert done.stdout in {"ENOSYS\n", "EPERM\n"} or done.returncode == -signal.SIGSYS


@pytest.mark.parametrize(
    ("step", "allowed"),
    [
        ("raw,257,0xffffffffffffff9c,@{},0", "positive"),
        ("raw,257,0xffffff9c,@{},0", "positive"),
        ("raw,257,0xdeadbeefffffff9c,@{},0", "positive"),
        ("raw,257,0xffffff9c,@{},0xdeadbeef00000000", "positive"),
        ("raw,2,@{},0xdeadbeef00000000", "positive"),
        ("raw,76,@{},0", "0"),
        ("raw,268,0xdeadbeefffffff9c,@{},0xdead000000000180", "0"),
        ("raw,263,0x7fffffffffffff9c,@{},0xdead000000000000", "0"),
    ],
)
def test_garbage_above_32_bits(
    step: str, allowed: str, project: Any, secret: Path, guarded: Any, calls: Any
) -> None:
    """Row 16: arguments of 32 bits are taken as the kernel takes them."""
    done = calls([step.format("vault/key"), step.format("open/f")], guarded)

    assert done.answers[0] == "EACCES"
    assert secret.read_text() == "SECRET\n"
    assert project.denials("secret")
    if allowed == "positive":
        assert int(done.answers[1]) > 2
    else:
        assert done.answers[1] == allowed


def test_personality_changes_nothing(secret: Path, guarded: Any, calls: Any) -> None:
    """Row 16: in another execution domain paths are judged as ever."""
    done = calls(["raw,135,0x0008", "open,vault/key,r", "open,open/f,r"], guarded)

    assert done.answers[1:] == ["EACCES", "ok"]


def test_unknown_numbers(secret: Path, allow_all: Any, calls: Any) -> None:
    """Row 17: a number that the table does not know gives ENOSYS, a known one works."""
    numbers = [480, 500, 511, 512, 547, 548, 600, 1000, 4096, 0x3FFFFFFF]

    done = calls([*(f"raw,{number},0,0,0" for number in numbers), "raw,39"], allow_all)

    assert done.answers[:-1] == ["ENOSYS"] * len(numbers)
    assert int(done.answers[-1]) > 0


def test_new_twins(project: Any, secret: Path, guarded: Any, calls: Any) -> None:
    """Row 17: calls newer than the C library are judged like their elders, or are not there."""
    before = secret.stat().st_mode
    twins = ["fchmodat2", "setxattrat", "removexattrat"]

    done = calls([f"{call},vault/key" for call in twins], guarded)

    assert set(done.answers) <= {"EACCES", "ENOSYS"}
    assert secret.stat().st_mode == before
    assert "user.mark" not in os.listxattr(secret)
    # file_setattr, with a structure of zeros; open_tree of the file, which would be a descriptor.
    done = calls(["raw,469,-100,@vault/key,B,24,0", "raw,428,-100,@vault/key,0", "open,open/f,r"], guarded)
    assert set(done.answers[:2]) <= REFUSED
    assert done.answers[2] == "ok"


# Steps of src/calls.c, with the numbers of x86_64.
REFUSALS = {
    "io_uring_setup": "raw,425,8,B",
    "io_uring_enter": "raw,426,0,0,0,0,0,0",
    "io_uring_register": "raw,427,0,0,0,0",
    "bpf": "raw,321,0,B,64",
    "perf_event_open": "raw,298,B,0,-1,-1,0",
    "add_key": "raw,248,@user,@x,@y,1,-3",
    "request_key": "raw,249,@user,@x,0,0",
    "keyctl": "raw,250,0,-3,0",
    "userfaultfd": "raw,323,1",
    "ptrace a sibling": "raw,101,16,1,0,0",
    "ptrace me": "raw,101,0,0,0,0",
    "process_vm_readv": "raw,310,%,0,0,0,0,0",
    "process_vm_writev": "raw,311,%,0,0,0,0,0",
    "pidfd_getfd": "raw,438,0,0,0",
    "kcmp": "raw,312,%,%,0,0,0",
    "mount": "raw,165,@none,@/nonexistent,@tmpfs,0,0",
    "umount": "raw,166,@/nonexistent,0",
    "pivot_root": "raw,155,@.,@.",
    "chroot": "chroot,.",
    "unshare user": "raw,272,0x10000000",
    "unshare mount": "raw,272,0x20000",
    "setns": "raw,308,0,0",
    "clone user namespace": "clone,0x10000000",
    "clone mount namespace": "clone,0x20000",
    "clone3": "raw,435,B,88",
    "open_tree": "raw,428,-100,@.,1",
    "move_mount": "raw,429,-100,@.,-100,@.,0",
    "fsopen": "raw,430,@tmpfs,0",
    "fspick": "raw,433,-100,@.,0",
    "mount_setattr": "raw,442,-100,@.,0,B,32",
    "name_to_handle_at": "raw,303,-100,@.,B,B,0",
    "open_by_handle_at": "raw,304,-100,B,0",
    "kexec_load": "raw,246,0,0,0,0",
    "init_module": "raw,175,B,0,B",
    "finit_module": "raw,313,-1,B,0",
    "delete_module": "raw,176,@nothing,0",
    "PR_SET_MM": "raw,157,35,8,0,0,0",
    "TIOCSTI": "raw,16,0,0x5412,B",
    "TIOCSTI with high garbage": "raw,16,0,0xdeadbeef00005412,B",
    "TIOCLINUX": "raw,16,0,0x541c,B",
    "fanotify_init": "raw,300,0,0",
    "socket: packet": "raw,41,17,3,0",
    "socket: raw": "raw,41,2,3,1",
    "socket: vsock": "raw,41,40,1,0",
    "socket: alg": "raw,41,38,5,0",
    "socket: netlink audit": "raw,41,16,3,9",
    "socket: MPTCP": "raw,41,2,1,262",
    "socket: SCTP": "raw,41,2,1,132",
    "socket: UDP-Lite": "raw,41,2,2,136",
}


@pytest.mark.parametrize("call", REFUSALS)
def test_refused_calls(call: str, secret: Path, guarded: Any, allow_all: Any, calls: Any) -> None:
    """Rows 11, 18 and 20: refused, whatever the policy, and the process goes on."""
    for policy in (guarded, allow_all):
        done = calls([REFUSALS[call], "open,open/f,r", "read"], policy)
        # EAFNOSUPPORT and EPROTONOSUPPORT are what a kernel without that family says.
        expected = REFUSED | ({"EAFNOSUPPORT", "EPROTONOSUPPORT"} if call.startswith("socket") else set())
        assert done.answers[0] in expected
        assert done.answers[1:] == ["ok", "public"]


def test_refusals_make_a_difference(project: Any, secret: Path, calls: Any) -> None:
    """Row 18, control: without Rampart many of the refused calls do answer."""
    harmless = ["ptrace me", "process_vm_readv", "keyctl", "name_to_handle_at"]

    answers = {call: calls([REFUSALS[call]], None).answers[0] for call in harmless}

    assert not {"EPERM", "EACCES"} & set(answers.values()), answers
    assert any(answer != "ENOSYS" for answer in answers.values()), answers


def test_socket_types_in_use(allow_all: Any, calls: Any) -> None:
    """Row 20, control: TCP, UDP, unix and route netlink sockets exist, also with type flags."""
    sockets = ["2,1,0", "2,2,0", "10,1,0", "10,2,17", "1,1,0", "1,2,0", "1,5,0", "16,3,0", "2,0x80801,6"]

    done = calls([f"raw,41,{arguments}" for arguments in sockets], allow_all)

    bare = calls([f"raw,41,{arguments}" for arguments in sockets], None)
    assert [answer.isdigit() for answer in done.answers] == [answer.isdigit() for answer in bare.answers]
    assert done.answers[0].isdigit()


def test_memory_that_is_not_there(project: Any, allow_all: Any, attacker: Any) -> None:
    """Row 26: missing, unterminated and overlong arguments give the kernel's own errors."""
    program = attacker("memory")
    for name in ("bare", "judged"):
        project.write(f"{name}/f", "")

    bare = project.bare([program, "bare"])
    done = project.run([program, "judged"], allow_all)

    assert done.stdout.splitlines() == bare.stdout.splitlines()
    assert done.returncode == bare.returncode == 0
    assert len(bare.stdout.splitlines()) > 200


def test_memory_that_is_not_there_is_no_way_in(
    project: Any, secret: Path, guarded: Any, attacker: Any
) -> None:
    """Row 26: under a policy with a deny rule, nothing that cannot be read is ever allowed."""
    program = attacker("memory")
    project.write("judged/f", "")

    done = project.run([program, "judged"], guarded)

    succeeded = [line for line in done.stdout.splitlines() if line.endswith("\tok")]
    assert succeeded == ["openat2 size 32\tok"]


def test_bytes_in_names(project: Any, guarded: Any, attacker: Any) -> None:
    """Row 26: names that are not text are judged as bytes, and the log stays one record a line."""
    names = [
        b"caf\xe9",
        b"new\nline",
        b"\x1b[31mred\x07",
        b'quo"te\\',
        "\u202etxt.exe".encode(),
        b"a\xff\xfe",
    ]
    (project.root / "vault").mkdir()
    (project.root / "open").mkdir()
    for name in names:
        for directory in (b"vault", b"open"):
            (Path(os.fsdecode(os.fsencode(project.root) + b"/" + directory + b"/" + name))).write_bytes(
                b"text"
            )
    program = os.fsencode(attacker("filters"))
    argv = [program, *(b"vault/" + name for name in names), *(b"open/" + name for name in names)]

    done = project.run([os.fsdecode(word) for word in argv], guarded, text=False)

    results = [line.rsplit(b"\t", 1)[1] for line in done.stdout.split(b"\n") if b"\t" in line]
    assert results[5:] == [b"EACCES"] * len(names) + [b"ok"] * len(names)
    records = project.denials("secret")
    assert len(records) == len(names)
    assert b"\x1b" not in project.audit.read_bytes()


def test_long_paths_are_judged(project: Any, secret: Path, guarded: Any, calls: Any) -> None:
    """Row 26: a name made long with dots and slashes is still the same object."""
    for path in ("./" * 2000 + "vault/key", "open/../" * 500 + "vault/key", "/" * 4000 + "dev/null"):
        done = calls([f"open,{path},r", f"raw,257,-100,@{path},0"], guarded)
        if path.endswith("key"):
            assert done.answers == ["EACCES", "EACCES"]
        else:
            assert done.answers[0] == "ok"


def test_dumpable(project: Any, secret: Path, guarded: Any, calls: Any) -> None:
    """Row 28: a process that makes itself undumpable is judged as before."""
    done = calls(
        ["undumpable", "open,vault/key,r", "unlink,vault/key", "open,open/f,rw", "creat,open/new"], guarded
    )

    assert done.answers == ["0", "EACCES", "EACCES", "ok", "ok"]
    assert len(project.denials("secret")) == 2
    assert (project.root / "open" / "new").exists()


def test_unreadable_program(project: Any, secret: Path, guarded: Any, attacker: Any) -> None:
    """Row 28: a program that may be executed but not read cannot escape the judgement of its calls."""
    program = project.root / "open" / "opaque"
    program.write_bytes(attacker("calls").read_bytes())
    program.chmod(0o111)

    script = project.write("script", f"#!/bin/sh\nexec {program} open,vault/key,r open,open/f,r\n", 0o755)

    done = project.run([script], guarded)

    if os.geteuid() == 0:
        assert [line.rsplit("\t", 1)[1] for line in done.stdout.splitlines()] == ["EACCES", "ok"]
        assert project.denials("secret")
    else:
        assert (done.returncode, done.stdout) == (126, "")


def test_set_user_id_program(project: Any, secret: Path, guarded: Any) -> None:
    """Row 28: a set-user-id program runs without its privilege, and is judged."""
    tool = project.root / "tool"
    tool.write_bytes(Path("/bin/cat").resolve().read_bytes())
    tool.chmod(0o4755)
    assert tool.stat().st_mode & stat.S_ISUID

    done = project.run(["./tool", "vault/key"], guarded)
    control = project.run(["./tool", "open/f"], guarded)

    assert (done.returncode, done.stdout) == (1, "")
    assert project.denials("secret")
    assert control.stdout == "public\n"


def test_second_listener(project: Any, secret: Path, guarded: Any, attacker: Any) -> None:
    """Row 29: a listener of one's own is refused, plain filters work, and judging goes on."""
    program = attacker("filters")
    bare = project.bare([program, "vault/key", "open/f"])
    assert [line.split("\t")[1] for line in bare.stdout.splitlines()] == [*["ok"] * 4, "EDOM", "ok", "ok"]

    done = project.run([program, "vault/key", "open/f"], guarded)

    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [
        "EBUSY",
        "ok",
        "ok",
        "ok",
        "EDOM",
        "EACCES",
        "ok",
    ]
    assert project.denials("secret")


@pytest.fixture
def by_path() -> Any:
    """Programs may be started by their paths, whatever those are; nothing else is restricted."""
    import rampart_seccomp as rampart

    return rampart.Policy(
        rules=[
            rampart.allow(["read", "write", "connect", "listen"], name="everything"),
            rampart.allow("exec", paths=["/**"], name="files"),
        ]
    )


@pytest.mark.parametrize(
    "steps",
    [
        ["memfd,/bin/true", "execfd,true"],
        ["memfd,/bin/true", "exec,/proc/self/fd/$"],
        ["memfd,/bin/true", "exec,/dev/fd/$"],
        ["open,gone,r", "unlink,gone", "execfd,gone"],
        ["open,gone,path", "unlink,gone", "exec,/proc/self/fd/$"],
    ],
    ids=["memfd", "memfd by /proc", "memfd by /dev/fd", "deleted", "deleted by /proc"],
)
def test_program_without_a_name(steps: list[str], project: Any, by_path: Any, calls: Any) -> None:
    """Row 14: what has no name in the file system cannot be judged by name, so it is not started."""
    tool = project.root / "gone"
    tool.write_bytes(Path("/bin/true").resolve().read_bytes())
    tool.chmod(0o755)
    assert calls(steps, None).answers[-1] == "0"
    if not tool.exists():
        tool.write_bytes(Path("/bin/true").resolve().read_bytes())
        tool.chmod(0o755)

    done = calls(["exec,./gone", *steps], by_path)

    assert done.answers[0] == "0"
    assert done.answers[-1] == "EACCES"
    assert any(record["operation"] == "exec" for record in project.records() if record["verdict"] == "deny")
