"""Many notifications in one harness, and what of memory, descriptors and threads it has before and after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.settings import Settings
from benchmarks.stage import NotMeasured, Stage
from benchmarks.ways import CALLS

__all__ = ["GROWTH", "measure"]

GROWTH = {"resident MiB": 8.0, "descriptors": 0.0, "threads": 0.0}
"""What is looked at, and how much more it may be."""

WARM_UP = 400_000
"""Notifications after which all that is bounded is full: 10,000 events, as many denials, a journal."""

CHUNK = 200_000
SLOWEST = 1e-3
"""Seconds that a notification may take, for a limit to the whole."""


def measure(stage: Stage, settings: Settings, notifications: int) -> list[Figure]:
    """Hold so many opens, in several commands, half performed and half denied."""
    try:
        harness = stage.harness(CALLS)
        _hold(stage, WARM_UP, settings.say)
        before = _state(harness.pid)
        _hold(stage, notifications, settings.say)
        after = _state(harness.pid)
    except NotMeasured as reason:
        return [Figure("soak", name, "after", "", reason=str(reason)) for name in GROWTH]
    return [
        Figure("soak", name, way, "", median=value, rounds=notifications)
        for way, state in (("before", before), ("after", after))
        for name, value in state.items()
    ]


def _hold(stage: Stage, notifications: int, say: Callable[[str], None]) -> None:
    done = 0
    while done < notifications:
        some = min(CHUNK, notifications - done)
        say(f"soak {done}/{notifications}")
        _opens(stage, some)
        done += some


def _opens(stage: Stage, count: int) -> None:
    for call in ("open performed", "open denied"):
        stage.quantiles(CALLS, call, max(1, count // 2), count * SLOWEST)


def _state(pid: int) -> dict[str, float]:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return {
        "resident MiB": int(fields["VmRSS"].split()[0]) / 1024,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(fields["Threads"]),
    }
