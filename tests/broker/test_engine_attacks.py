"""What a hostile tree could do to, or through, the threads that answer without the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.audit import AuditLog
from rampart_seccomp.errors import AuditError

pytestmark = pytest.mark.core

EVERYTHING = ["read", "write", "exec", "connect", "listen"]
OPEN = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")])

WRITER = """
import sys
for line in sys.stdin:
    try:
        open(line.strip(), "w").close()
        print("ok", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


def run(script: str, *argv: str, policy: rampart.Policy = OPEN, engine: str = "native") -> list[str]:
    """Run a Python program behind a policy; gives the lines it prints."""
    with rampart.Broker(policy, engine=engine) as broker:
        process = rampart.Popen(
            [sys.executable, "-c", script, *argv], broker=broker, stdout=subprocess.PIPE, text=True
        )
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return printed.splitlines()


@pytest.mark.parametrize("change", ["revocation", "update"])
def test_an_audit_log_that_fails_denies_whatever_comes_after(change: str, tmp_path: Path) -> None:
    """No later policy, nor the end of a grant, has calls allowed again that nobody can record."""
    file = tmp_path / "file"
    log = AuditLog(str(tmp_path / "audit.jsonl"))
    failing = threading.Event()
    write = log.write

    def write_or_fail(record: Any) -> None:
        if failing.is_set():
            raise AuditError("no space", file=log.path)
        write(record)

    log.write = write_or_fail  # type: ignore[method-assign]
    policy = OPEN.with_rules(rampart.deny("modify", paths=[str(tmp_path / "never")], name="never"))
    (tmp_path / "never").touch()
    with rampart.Broker(policy, audit=log, engine="native") as broker:
        process = rampart.Popen(
            [sys.executable, "-c", WRITER],
            broker=broker,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def attempt(path: Path) -> str:
            print(path, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        granted = broker.grant(modify=file)
        assert attempt(file) == "ok"
        failing.set()
        if change == "revocation":
            granted.revoke()
        else:
            assert attempt(tmp_path / "never") == "13"
            deadline = time.monotonic() + 10
            while not broker._audit_broken and time.monotonic() < deadline:
                time.sleep(0.01)
            failing.clear()
            broker.update(OPEN)
        assert attempt(file) == "13"
        process.kill()
        process.communicate()


def test_an_audit_log_that_fails_during_an_update(tmp_path: Path) -> None:
    """Neither waits for the other: the failure is met by who collects, the update by who judges."""
    never = tmp_path / "never"
    never.touch()
    log = AuditLog(str(tmp_path / "audit.jsonl"))
    updated = threading.Event()
    write = log.write

    def update() -> None:
        broker.update(OPEN)
        updated.set()

    def fail_during_update(record: Any) -> None:
        if record.get("verdict") == "deny":
            threading.Thread(target=update, daemon=True).start()
            time.sleep(0.5)
            raise AuditError("no space", file=log.path)
        write(record)

    log.write = fail_during_update  # type: ignore[method-assign]
    policy = OPEN.with_rules(rampart.deny("modify", paths=[str(never)], name="never"))
    broker = rampart.Broker(policy, audit=log, engine="native")
    argv = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(never)]
    with rampart.Popen(argv, broker=broker, stderr=subprocess.DEVNULL) as process:
        assert updated.wait(10)
        assert process.wait(10) == 1
    assert broker._audit_broken
    broker.close()


def test_a_reader_that_died_meets_no_writer(tmp_path: Path) -> None:
    """A thread that waits for a target's peer goes with the target, even if nobody else calls meanwhile."""
    script = """
import errno, os, sys, time
os.mkfifo(sys.argv[1])
reader = os.fork()
if reader == 0:
    os.open(sys.argv[1], os.O_RDONLY)
    os._exit(0)
time.sleep(2)
os.kill(reader, 9)
os.waitpid(reader, 0)
time.sleep(0.5)
try:
    os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)
    print("somebody reads")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    assert run(script, str(tmp_path / "fifo")) == ["ENXIO"]


def test_many_senders_that_wait_stop_nobody_else() -> None:
    """Messages that went in part are all for now, where those who read must be answered first."""
    script = """
import os, socket, time
pairs = []
for _ in range(80):
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    if os.fork() == 0:
        data = b"x" * 60000
        while data:
            data = data[theirs.sendmsg([data]):]
        os._exit(0)
    theirs.close()
    pairs.append(ours)
time.sleep(2)
open("/dev/null").close()
print(sum(sum(len(data) for data in iter(lambda: ours.recv(65536), b"")) for ours in pairs))
"""
    assert run(script) == ["4800000"]


@pytest.mark.skipif(os.geteuid() != 0, reason="ids are changed as root")
@pytest.mark.parametrize("engine", ["native", "python"])
def test_capabilities_that_were_dropped_do_not_come_back(engine: str, tmp_path: Path) -> None:
    """A file system uid of 0 alone is not the superuser's right to everything (capabilities(7))."""
    script = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
os.setresuid(-1, 1000, -1)
libc.setfsuid(0)
assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
try:
    print(open(sys.argv[1]).read())
except PermissionError as error:
    print(error.errno)
"""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    os.chown(secret, 1234, 1234)
    tmp_path.chmod(0o755)
    argv = [sys.executable, "-c", script, str(secret)]
    bare = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert bare.split() == run(script, str(secret), engine=engine) == ["13"]


@pytest.mark.skipif(os.geteuid() != 0, reason="ids are changed as root")
@pytest.mark.parametrize("engine", ["native", "python"])
def test_capabilities_that_were_kept_count(engine: str, tmp_path: Path) -> None:
    """A daemon that left uid 0 and kept the right to read all has it (PR_SET_KEEPCAPS), and no more."""
    script = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
libc.prctl(8, 1, 0, 0, 0)
os.setresuid(1000, 1000, 1000)
kept = 1 << 2  # CAP_DAC_READ_SEARCH
assert libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", kept, kept, 0, 0, 0, 0)) == 0
print(open(sys.argv[1]).read())
try:
    open(sys.argv[1], "w")
except PermissionError as error:
    print(error.errno)
"""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    argv = [sys.executable, "-c", script, str(secret)]
    bare = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert bare.split() == run(script, str(secret), engine=engine) == ["secret", "13"]
