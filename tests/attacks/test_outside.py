"""Rows 41, 50 and 51: processes outside, what is open at the start, and the file that no call makes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core

SOURCES = Path(__file__).with_name("src")
OWNERS = {"F_SETOWN", "F_SETOWN of a group", "F_SETOWN_EX", "FIOSETOWN", "SIOCSPGRP"}


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process outside of any tree, in a group of its own, that a SIGIO would end."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def state(pid: int) -> dict[str, object]:
    """What somebody could have changed about a process."""
    about = Path(f"/proc/{pid}")
    return {
        "limits": (about / "limits").read_text(),
        "priority": os.getpriority(os.PRIO_PROCESS, pid),
        "affinity": os.sched_getaffinity(pid),
        "scheduler": os.sched_getscheduler(pid),
        "oom": (about / "oom_score_adj").read_text(),
        "cores": (about / "coredump_filter").read_text(),
    }


def results(text: str) -> dict[str, str]:
    """Answers by case."""
    return dict(line.split("\t") for line in text.splitlines() if "\t" in line)


def test_adjusting_by_any_way(project: Any, allow_all: Any, victim: subprocess.Popen[bytes]) -> None:
    """Rows 41 and 50: nothing about victim, harness and launcher changes, and no SIGIO reaches them.

    Naming an owner may succeed where the kernel confines signals itself; then none arrives.
    """
    before = [state(victim.pid), state(os.getpid())]

    argv = ["python3", SOURCES / "adjust.py", str(victim.pid), str(os.getpid()), "parent"]
    done = project.run(argv, allow_all)

    assert done.returncode == 0, done.stderr
    answers = results(done.stdout)
    inside = {way: answer for way, answer in answers.items() if way.startswith("child ")}
    outside = {way: answer for way, answer in answers.items() if not way.startswith("child ")}
    owners = {way for way in answers if way.split(" ", 1)[1] in OWNERS}
    assert {way: answer for way, answer in inside.items() if answer != "ok" and way not in owners} == {}
    assert len(outside) == 3 * len(inside) == 51
    assert {way: answer for way, answer in outside.items() if answer == "ok" and way not in owners} == {}
    assert set(outside.values()) <= {"ok", "EPERM", "EACCES"}
    assert victim.poll() is None
    assert [state(victim.pid), state(os.getpid())] == before
    assert any(
        record["syscall"] == "ioprio_set" for record in project.records() if record["verdict"] == "deny"
    )


def test_adjusting_works_bare(project: Any, victim: subprocess.Popen[bytes]) -> None:
    """Rows 41 and 50, control: bare, the calls change the victim, and SIGIO ends it."""
    before = state(victim.pid)
    command = ["python3", SOURCES / "adjust.py", str(victim.pid)]

    done = project.bare(command)

    answers = results(done.stdout)
    assert {
        way: answer for way, answer in answers.items() if answer != "ok" and way.startswith("child ")
    } == {}
    assert {answers[f"{victim.pid} {way}"] for way in ("ioprio_set", "oom_score_adj", "F_SETOWN")} == {"ok"}
    assert victim.wait(10) == -signal.SIGIO
    assert before["priority"] == 0


INHERITED = """
import errno, os, signal, socket, sys
def show(name, action):
    try:
        answer = action() or "ok"
    except OSError as error:
        answer = errno.errorcode[error.errno]
    sys.stderr.write(f"{name}\\t{answer}\\n")
def read(path, **how):
    with open(os.open(path, os.O_RDONLY, **how)) as file:
        return file.read().strip()
"""


def inherit(project: Any, policy: Any, stdin: Any, code: str) -> dict[str, str]:
    """Run steps with a file that is open at the start, as 0, and then as 3; bare without a policy."""
    argv = ["sh", "-c", 'exec python3 -c "$1" 3<&0 0</dev/null', "sh", INHERITED + code]
    done = project.bare(argv, stdin=stdin) if policy is None else project.run(argv, policy, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return results(done.stderr)


def test_inherited_directory(project: Any, deny_rule: Any) -> None:
    """Row 50: what is opened from a directory that was open at the start is decided."""
    project.write("vault/key", "SECRET\n")
    project.write("vault/open", "public\n")
    guarded = deny_rule(["read", "write"], paths=["./vault/key"])
    code = (
        'show("key", lambda: read("key", dir_fd=3)); show("open", lambda: read("open", dir_fd=3))\n'
        'show("unlink", lambda: os.unlink("key", dir_fd=3)); os.fchdir(3); show("cwd", lambda: read("key"))\n'
        'show("dot", lambda: read("/proc/self/fd/3/key"))\n'
    )
    directory = os.open(project.root / "vault", os.O_RDONLY)
    try:
        judged = inherit(project, guarded, directory, code)
        assert judged == {
            "key": "EACCES",
            "open": "public",
            "unlink": "EACCES",
            "cwd": "EACCES",
            "dot": "EACCES",
        }
        bare = inherit(project, None, directory, code.replace("os.unlink", "os.stat"))
        assert (bare["key"], bare["cwd"], bare["dot"]) == ("SECRET", "SECRET", "SECRET")
    finally:
        os.close(directory)
    assert (project.root / "vault" / "key").read_text() == "SECRET\n"


def test_inherited_socket(project: Any, allow_all: Any, deny_rule: Any) -> None:
    """Row 50: an inherited socket that is connected may be used; where another goes is decided."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as fresh:
        port = server.getsockname()[1]
        server.setblocking(False)
        guarded = deny_rule("connect", hosts=[f"127.0.0.1:{port}"])
        talk = 'show("write", lambda: str(os.write(3, b"hello")))\n'
        assert inherit(project, guarded, theirs, talk) == {"write": "5"}
        assert ours.recv(10) == b"hello"
        go = f'show("connect", lambda: socket.socket(fileno=3).connect(("127.0.0.1", {port})))\n'
        assert inherit(project, guarded, fresh, go) == {"connect": "ECONNREFUSED"}
        with pytest.raises(BlockingIOError):
            server.accept()
        assert inherit(project, allow_all, fresh, go) == {"connect": "ok"}
        server.accept()[0].close()


def test_inherited_pidfd(project: Any, allow_all: Any, victim: subprocess.Popen[bytes]) -> None:
    """Row 50: a pidfd of a process outside gives nothing of it but the news of its end."""
    code = (
        'show("signal", lambda: signal.pidfd_send_signal(3, signal.SIGTERM))\n'
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
        "def raw(*words):\n"
        "    if libc.syscall(*words) < 0: raise OSError(ctypes.get_errno(), '')\n"
        'show("getfd", lambda: raw(438, 3, 0, 0))\n'
        'show("advise", lambda: raw(440, 3, 0, 0, 0, 0))\n'
        'show("setns", lambda: raw(308, 3, 0x20000))\n'
        'show("own", lambda: signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0))\n'
    )
    pidfd = os.pidfd_open(victim.pid)
    try:
        judged = inherit(project, allow_all, pidfd, code)
        assert judged == {
            "signal": "EPERM",
            "getfd": "EPERM",
            "advise": "EPERM",
            "setns": "EPERM",
            "own": "ok",
        }
        assert victim.poll() is None
        assert inherit(project, None, pidfd, code)["signal"] == "ok"
        assert victim.wait(10) == -signal.SIGTERM
    finally:
        os.close(pidfd)


CORES = "ulimit -c unlimited 2> /dev/null; echo $?; cd vault && (sh -c 'kill -SEGV $$'; true)"


def test_no_core_in_a_denied_directory(project: Any, deny_rule: Any, allow_all: Any) -> None:
    """Row 51: no core dump is written past the policy, also not by root, who may raise any limit."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "/")) or "/" in pattern:
        pytest.skip(f"core dumps do not go to the working directory here: {pattern!r}")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 and os.geteuid() != 0:
        pytest.skip("core dumps are switched off for this user")
    vault = project.root / "vault"
    vault.mkdir()
    project.bare(["sh", "-c", CORES])
    made = sorted(path.name for path in vault.iterdir())
    assert len(made) == 1, "bare, a core must be written"
    for name in made:
        (vault / name).unlink()

    done = project.run(["sh", "-c", CORES], deny_rule("create", paths=["./vault/**"]))

    assert done.stdout.splitlines()[0] != "0"
    assert list(vault.iterdir()) == []
    project.run(["sh", "-c", CORES], allow_all)
    assert len(list(vault.iterdir())) == 1


def test_limit_of_cores_by_every_call(project: Any, deny_rule: Any) -> None:
    """Row 51: the limit stays 0 by setrlimit, prlimit64 and on a child; to set it to 0 goes well."""
    code = (
        "import ctypes, resource\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "both = (ctypes.c_ulong * 2)(1 << 30, 1 << 30)\n"
        "def raw(*words):\n"
        "    if libc.syscall(*words) < 0: raise OSError(ctypes.get_errno(), '')\n"
        'show("setrlimit", lambda: raw(160, 4, both))\n'
        'show("prlimit64", lambda: raw(302, 0, 4, both, 0))\n'
        'show("itself", lambda: resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (1, 1)) and None)\n'
        'show("parent", lambda: resource.prlimit(os.fork() or os._exit(0), 4, (1, 1)) and None)\n'
        'show("zero", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))\n'
        'show("old", lambda: str(resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))))\n'
        'show("now", lambda: str(resource.getrlimit(resource.RLIMIT_CORE)))\n'
        'show("files", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99)))\n'
        'show("data", lambda: resource.setrlimit(resource.RLIMIT_NPROC, '
        "resource.getrlimit(resource.RLIMIT_NPROC)))\n"
    )
    answers = inherit(project, deny_rule("create", paths=["./vault/**"]), subprocess.DEVNULL, code)

    raised = {answers.pop(name) for name in ("setrlimit", "prlimit64", "itself", "parent")}
    assert raised <= {"EPERM", "ESRCH"}
    assert answers == {"zero": "ok", "old": "(0, 0)", "now": "(0, 0)", "files": "ok", "data": "ok"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_target_that_dropped_its_ids(project: Any, allow_all: Any) -> None:
    """Rows 39 and 50: it opens what it may, and nothing by the rights of a broker that is still root.

    A broker without CAP_SYS_RESOURCE, as in containers, may not ask for the limits of such a target.
    """
    for directory in (project.base, project.root):
        directory.chmod(0o755)
    project.write("open", "public\n")
    project.write("closed", "SECRET\n", 0o600)
    code = (
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        'show("open", lambda: read("open")); show("closed", lambda: read("closed"))\n'
    )

    judged = inherit(project, allow_all, subprocess.DEVNULL, code)

    assert (
        judged == inherit(project, None, subprocess.DEVNULL, code) == {"open": "public", "closed": "EACCES"}
    )
