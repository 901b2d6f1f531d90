"""How far Rampart is from what is possible: our smallest broker in C, and a held call that Rampart performs.

Everything twice: wherever the kernel puts broker and target, and both on one processor. These two are never
compared with each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import Harness, NotMeasured, Stage, Way, take_turns
from benchmarks.ways import BARE

__all__ = ["PLACES", "measure"]

PLACES = ("unpinned", "pinned")
MODES = {
    "round trip": "trip",
    "open continued": "continue",
    "open performed": "addfd",
    "open clean": "continue",
    "open denied": "deny",
}
"""What the smallest broker does for each."""

CALLS = {"round trip": "getppid", "open continued": "open performed"}
"""The measured call, where its name is another."""


@attrs.frozen
class Limit:
    """Stands before the command: the smallest broker, or nothing but its processor.

    Attributes:
        mode: Of the program; see its source.
        cpu: ``-``, or the number of the processor.
    """

    mode: str
    cpu: str

    def __call__(self, stage: Stage, _: Path) -> Sequence[str | Path]:
        return (stage.program("limit"), self.mode, self.cpu)


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure bare, the smallest broker and ours, in both placements."""
    pinned = str(max(os.sched_getaffinity(0)))
    figures: list[Figure] = []
    for place, cpu in zip(PLACES, ("-", pinned), strict=True):
        rounds = Rounds(f"limit, {place}", "us", base=lambda way: "limit")
        figures += take_turns(
            rounds, settings.rounds, [*MODES], _ways(cpu), _quantiles(stage, settings, cpu), settings.say
        )
    return figures


def _ways(cpu: str) -> tuple[Way, Way, Way]:
    pin = () if cpu == "-" else ("--pin", cpu)
    ours = Way("rampart", lambda stage: Harness(stage, "rampart", ("--policy", "calls", *pin)))
    return BARE, attrs.evolve(BARE, name="limit"), ours


def _quantiles(stage: Stage, settings: Settings, cpu: str) -> Callable[[str, Way], tuple[float, float]]:
    def quantiles(name: str, way: Way) -> tuple[float, float]:
        call = CALLS.get(name, name)
        if way.name == "limit":
            way = attrs.evolve(way, prefix=Limit(MODES[name], cpu))
        elif way.name == "bare":
            way = attrs.evolve(way, prefix=Limit("bare", cpu))
            call = call if call in ("getppid", "open clean") else "open performed"
        elif name in CALLS:
            raise NotMeasured("nothing that Rampart does")
        return stage.quantiles(way, call, settings.count(5_000), settings.seconds)

    return quantiles
