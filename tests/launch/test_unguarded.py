"""What the guard looks after, the launcher does where signals cannot be scoped, and to the same end."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from typing import Any

import pytest
from fake_broker import FakeBroker
from launching import SCOPES, eventually, gone

from rampart_seccomp.launch import Popen, protocol

pytestmark = pytest.mark.core

LIMITS = {
    protocol.Limit.WALL_TIME: protocol.Limits(wall_ms=1000),
    protocol.Limit.PROCESSES: protocol.Limits(processes=6),
}


@SCOPES
@pytest.mark.parametrize("limit", LIMITS)
def test_limit_ends_the_tree(limit: protocol.Limit, scope: bool) -> None:
    """The broker is told which one it was, and nothing of the tree is left."""
    process: Popen[str] = Popen(
        ["sh", "-c", "for i in 1 2 3 4 5 6; do setsid sleep 876 & echo $!; done; wait"],
        broker=FakeBroker(scope=scope, limits=LIMITS[limit]),
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    assert process.session.exceeded is limit  # type: ignore[attr-defined]
    assert gone(*(int(pid) for pid in output.split()))


@SCOPES
def test_within_the_limits(scope: bool) -> None:
    """The launcher, its witness and its guard are not counted."""
    process: Popen[bytes] = Popen(
        ["sh", "-c", "sleep 2.5 & sleep 2.5 & wait"],
        broker=FakeBroker(scope=scope, limits=protocol.Limits(processes=3, wall_ms=60_000)),
    )
    assert process.wait(20) == 0
    assert process.session.exceeded is None  # type: ignore[attr-defined]


@SCOPES
@pytest.mark.parametrize("end", ["last", "broker", "SIGTERM"])
def test_linger(end: str, scope: bool) -> None:
    """The launcher says how the command ended; it ends with the last process, the broker, or by SIGTERM."""
    sleep = "0.7" if end == "last" else "876"
    wrapped = FakeBroker(scope=scope, linger=True).wrap(
        [b"sh", b"-c", f"setsid sh -c 'echo $$; exec sleep {sleep}' & sleep 0.1; exit 3".encode()]
    )
    launcher = subprocess.Popen(wrapped.argv, pass_fds=wrapped.pass_fds, stdout=subprocess.PIPE, text=True)
    wrapped.close()
    assert launcher.stdout is not None
    daemon = int(launcher.stdout.readline())
    session: Any = wrapped.session
    assert session.command_ended.wait(20)
    assert session.command_status == 3
    time.sleep(0.1)
    assert (launcher.poll(), gone(daemon)) == (None, False)
    if end == "broker":
        session.control.shutdown(socket.SHUT_RDWR)
    elif end == "SIGTERM":
        launcher.terminate()
    assert launcher.wait(20) == 3
    eventually(lambda: gone(daemon))
    launcher.stdout.close()
