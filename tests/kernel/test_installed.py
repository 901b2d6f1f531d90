"""The filter as the kernel runs it: installed in a child process, with real calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rampart_seccomp.kernel.filter import build_filter
from rampart_seccomp.kernel.syscalls import by_number

SCRIPT = Path(__file__).with_name("installed.py")
x86_64_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64 only")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each attempt said, which signal ended it, and the calls that were held."""
    file = tmp_path_factory.mktemp("filter") / "filter"
    file.write_bytes(build_filter())
    done = subprocess.run(
        [sys.executable, "-S", SCRIPT, file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def number(name: str) -> int:
    return next(number for number, entry in by_number().items() if entry.name == name)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        ("getpid", "yes"),
        ("unknown", "ENOSYS"),
        ("clone3", "ENOSYS"),
        ("dumpable", "0 1"),
        ("tcp", "fd"),
        ("openat O_PATH", "fd"),
    ],
)
def test_answered_in_the_kernel(outcome: dict[str, Any], attempt: str, said: str) -> None:
    """Free, absent and answered calls do not reach the listener; PR_SET_DUMPABLE 0 is a successful no-op."""
    assert outcome[attempt] == {"said": said, "signal": 0, "held": []}


@pytest.mark.parametrize(
    ("attempt", "name"), [("openat", "openat"), ("mount", "mount"), ("packet", "socket")]
)
def test_held_for_the_broker(outcome: dict[str, Any], attempt: str, name: str) -> None:
    """Mediated and refused calls are held once, and get the errno that the broker answers."""
    assert outcome[attempt] == {"said": "EDOM", "signal": 0, "held": [number(name)]}


@x86_64_only
@pytest.mark.parametrize("attempt", ["i386", "x32"])
def test_foreign_calls_kill(outcome: dict[str, Any], attempt: str) -> None:
    """A call through ``int 0x80`` or with the x32 bit ends the process before it does anything."""
    assert outcome[attempt] == {"said": "", "signal": signal.SIGSYS, "held": []}
