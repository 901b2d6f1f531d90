"""``log tail`` and ``log verify``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rampart_seccomp.audit import AuditLog, make_record
from rampart_seccomp.cli import main
from rampart_seccomp.events import ConnectEvent, FileEvent, Operation, Process


def write(log: AuditLog, path: bytes, *, denied: bool = True) -> None:
    process = Process(pid=7, tid=7, executable=b"/usr/bin/cat")
    log.write(
        make_record(
            FileEvent(operation=Operation.READ, path=path, process=process),
            verdict="deny" if denied else "allow",
            rule="credentials" if denied else None,
            where="credentials (agent.yaml:12)" if denied else "default read: allow",
            errno=13 if denied else None,
            enforced="answered" if denied else "performed",
            held_ns=1000,
            message=None,
            asked=False,
        )
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A log of one header and three decisions."""
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, about={"policy": "profile:agent"}) as log:
        write(log, b"/h/.env")
        write(log, b"/usr/lib/x", denied=False)
        write(log, b"/tmp/\xff\x1b[2J\nforged")
    return path


def test_tail_shows_what_who_and_why(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One escaped line a record, the latest last."""
    assert main(["log", "tail", str(file)]) == 0
    header, *lines = (line[25:] for line in capsys.readouterr().out.splitlines())
    assert header.startswith(f"-- session policy=profile:agent pid={os.getpid()} ")
    assert lines == [
        "deny EACCES        read     /h/.env  [credentials (agent.yaml:12)]  cat[7]",
        "allow              read     /usr/lib/x  [default read: allow]  cat[7]",
        "deny EACCES        read     /tmp/\\xff\\x1b[2J\\nforged  [credentials (agent.yaml:12)]  cat[7]",
    ]


@pytest.mark.parametrize(("count", "expected"), [("0", 0), ("2", 2), ("99", 4)])
def test_tail_shows_as_many_as_asked_for(
    file: Path, count: str, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-n` counts records from the end."""
    assert main(["log", "tail", "-n", count, str(file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == expected


def test_tail_shows_what_is_no_record_as_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Garbage in the file is shown, escaped, and stops nothing."""
    with file.open("ab") as log:
        log.write(b"\x1b]0;gar\xffbage\n[1]\n")
    assert main(["log", "tail", "-n", "2", str(file)]) == 0
    assert capsys.readouterr().out == "?? \\x1b]0;gar\\xffbage\n?? [1]\n"


def test_tail_follows(file: Path) -> None:
    """`-f` prints records as they come, whole lines only, until it is interrupted."""
    command = [sys.executable, "-m", "rampart_seccomp", "log", "tail", "-n", "1", "-f", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        try:
            assert "forged" in tail.stdout.readline()
            with AuditLog(file) as log:
                assert "-- session" in tail.stdout.readline()
                write(log, b"/new")
                assert "/new" in tail.stdout.readline()
        finally:
            tail.send_signal(signal.SIGINT)
        assert tail.wait(20) == 130


def test_verify_says_that_it_is_whole(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0, the numbers, and the hash to keep elsewhere."""
    assert main(["log", "verify", str(file)]) == 0
    first, head = capsys.readouterr().out.splitlines()
    assert first == f"{file}: whole, 4 records in 1 sessions"
    assert head.startswith("head ")
    assert len(head) == 5 + 64


def test_verify_names_the_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1 and one line: where, and what."""
    content = file.read_bytes().replace(b'"verdict":"deny"', b'"verdict":"allow"', 1)
    file.write_bytes(content)
    assert main(["log", "verify", str(file)]) == 1
    assert capsys.readouterr().out == f"{file}:2: edited: the hash is not that of the content\n"


def test_verify_without_checkpoint_must_be_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log without its .head file fails, unless the flag says that its end need not be proven."""
    os.unlink(f"{file}.head")
    assert main(["log", "verify", str(file)]) == 1
    assert "there is no checkpoint" in capsys.readouterr().out
    assert main(["log", "verify", "--without-checkpoint", str(file)]) == 0
    assert "(its end was not checked)" in capsys.readouterr().out


def test_a_record_without_a_process_is_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Decisions that nobody asked the process about are still whole lines."""
    with AuditLog(file) as log:
        log.write(
            make_record(
                ConnectEvent(protocol="unix", socket=b"@x"),
                verdict="allow",
                rule=None,
                where="built-in",
                errno=None,
                enforced="performed",
                held_ns=0,
                message=None,
                asked=False,
            )
        )
    assert main(["log", "tail", "-n", "1", str(file)]) == 0
    assert capsys.readouterr().out[25:] == "allow              connect  unix:@x  [built-in]\n"
