"""One decision becomes one record with every field of the design."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
from pathlib import Path

import pytest

from rampart_seccomp.audit import AuditLog, make_record
from rampart_seccomp.events import (
    ConnectEvent,
    Event,
    ExecEvent,
    FileEvent,
    ListenEvent,
    Operation,
    Process,
    RefusedEvent,
)

PROCESS = Process(
    pid=10, tid=11, start_time=12, executable=b"/usr/bin/cat", argv=(b"cat", b"x"), ancestry=(b"/bin/sh",)
)


def record(event: Event, **changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        "verdict": "deny",
        "rule": "credentials",
        "where": "credentials (agent.yaml:12)",
        "errno": errno.EACCES,
        "enforced": "answered",
        "held_ns": 12_345,
        "message": None,
        "asked": False,
    }
    return make_record(event, **(facts | changes))  # type: ignore[arg-type]


def test_all_fields_of_a_file_event() -> None:
    """Who, what, which rule, with what result and how long."""
    found = record(FileEvent(operation=Operation.READ, path=b"/h/.env", process=PROCESS, syscall="openat"))
    assert found.pop("time").endswith("+00:00")  # type: ignore[attr-defined]
    assert isinstance(found.pop("mono_ns"), int)
    assert found == {
        "record": "decision",
        "operation": "read",
        "syscall": "openat",
        "object": "/h/.env",
        "path": "/h/.env",
        "verdict": "deny",
        "rule": "credentials",
        "where": "credentials (agent.yaml:12)",
        "errno": "EACCES",
        "enforced": "answered",
        "held_us": 12.3,
        "message": None,
        "asked": False,
        "pid": 10,
        "tid": 11,
        "start_time": 12,
        "exe": "/usr/bin/cat",
        "argv": ["cat", "x"],
        "ancestry": ["/bin/sh"],
    }


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            ExecEvent(path=b"/usr/bin/dash", named=b"/bin/sh", argv=(b"sh", b"-c", b"x")),
            {"object": "sh -c x", "path": "/usr/bin/dash", "named": "/bin/sh", "command": ["sh", "-c", "x"]},
        ),
        (ExecEvent(path=b"/bin/x", named=b"/bin/x"), {"object": "/bin/x", "path": "/bin/x", "command": []}),
        (
            ConnectEvent(
                protocol="tcp", address=ipaddress.ip_address("::1"), port=443, names=frozenset({"b", "a"})
            ),
            {
                "object": "[::1]:443 (a, b)",
                "protocol": "tcp",
                "address": "::1",
                "port": 443,
                "names": ["a", "b"],
            },
        ),
        (
            ConnectEvent(protocol="unix", socket=b"/run/x"),
            {"object": "unix:/run/x", "protocol": "unix", "socket": "/run/x", "in_tree": False},
        ),
        (
            ListenEvent(protocol="tcp", address=ipaddress.ip_address("0.0.0.0"), port=80),
            {"object": "0.0.0.0:80", "protocol": "tcp", "address": "0.0.0.0", "port": 80},
        ),
    ],
)
def test_objects(event: Event, expected: dict[str, object]) -> None:
    """Each kind of event names its object in words and in parts."""
    assert record(event).items() >= expected.items()


def test_a_refused_call_has_no_operation() -> None:
    """What the syscall table refuses is recorded by the name of the call."""
    found = record(RefusedEvent(syscall="mount"))
    assert (found["operation"], found["object"]) == ("syscall", "mount")


def test_an_allowed_call_has_no_errno() -> None:
    """None, not a name."""
    found = record(FileEvent(operation=Operation.READ, path=b"/x"), verdict="allow", errno=None)
    assert (found["verdict"], found["errno"]) == ("allow", None)


def test_secrets_are_masked_wherever_an_argv_shows() -> None:
    """In the command that would start, in its words, and in the acting process."""
    argv = (b"curl", b"--token", b"hunter2")
    process = Process(pid=1, tid=1, argv=argv)
    assert "hunter2" not in json.dumps(record(ExecEvent(path=b"/usr/bin/curl", argv=argv, process=process)))


def test_bytes_come_back_exactly(tmp_path: Path) -> None:
    """A name of arbitrary bytes, newline and escapes included, is one line and reads back as it was."""
    name = bytes(range(1, 256)).replace(b"/", b"")
    with AuditLog(tmp_path / "log") as log:
        log.write(record(FileEvent(operation=Operation.READ, path=b"/" + name)))
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert len(lines) == 2
    assert os.fsencode(json.loads(lines[1])["path"]) == b"/" + name


def test_a_huge_argv_is_cut_and_says_so() -> None:
    """Megabytes of arguments do not become megabytes of log."""
    found = record(ExecEvent(path=b"/bin/x", argv=(b"x", *[b"y" * 1000] * 2000)))
    assert len(json.dumps(found)) < 300_000
    assert "more characters, 2001 arguments]" in found["command"][-1]  # type: ignore[index]
