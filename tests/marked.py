"""Finding the processes of a tree without their help: by a variable they were started with."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from pathlib import Path

NAME = "RAMPART_TEST_TREE"

_given: list[str] = []


def mark() -> str:
    """A value that no other tree has."""
    _given.append(uuid.uuid4().hex)
    return _given[-1]


def end_marked() -> None:
    """Kill what a failed test left of all trees that were marked so far."""
    while _given:
        for pid in marked(_given.pop()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def marked(value: str) -> list[int]:
    """All living processes that were started with this mark: the tree's, and Rampart's own."""
    wanted = f"{NAME}={value}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
            except OSError:  # it has ended; a zombie has no memory left
                continue
    return found


def left(value: str, seconds: float = 1.0) -> list[str]:
    """Wait for all of them to be gone; say who is not: one that was killed may wait for a processor."""
    end = time.monotonic() + seconds
    while (found := marked(value)) and time.monotonic() < end:
        time.sleep(0.01)
    return [described(pid) for pid in found]


def described(pid: int) -> str:
    """Name, state and pending signals of a process, for people."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return f"{pid}, gone by now"
    return " ".join(
        line for line in lines if line.startswith(("Name:", "State:", "Pid:", "SigPnd:", "ShdPnd:"))
    )
