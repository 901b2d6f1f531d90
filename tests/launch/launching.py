"""Looking at processes from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCOPES = pytest.mark.parametrize("scope", [True, False], ids=["scope", "sweep"])


def stretched(seconds: float) -> float:
    """A time that is enough on an idle machine, made longer by how many processes share a processor here."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until a condition holds; give its value. A busy machine is given more time."""
    deadline = time.monotonic() + stretched(seconds)
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.005)
    return value


def state(pid: int) -> str:
    """The state of a process as proc_pid_stat(5) has it; "" if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]


def gone(*pids: int) -> bool:
    """True if all of them have ended."""
    return all(state(pid) in ("", "Z") for pid in pids)


def settled(pid: int) -> bool:
    """True if a process sleeps and has no signal pending."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status if ":" in line)
    return fields["State"].split()[0] == "S" and int(fields["ShdPnd"], 16) == 0
