"""Many at once: opens a second from 1 to 64 threads and processes, and those beside a call that waits."""

from __future__ import annotations

import attrs

from benchmarks.figures import Figure, Rounds
from benchmarks.limit import Limit
from benchmarks.settings import Settings
from benchmarks.stage import Stage, Way, take_turns
from benchmarks.ways import BARE, CALLS, PEERS

__all__ = ["HINDRANCES", "LIMIT", "NUMBERS", "measure"]

NUMBERS = (1, 2, 4, 8, 16, 32, 64)
LIMIT = attrs.evolve(BARE, name="limit", prefix=Limit("addfd", "-"))
"""Our smallest broker, which has one thread."""

HINDRANCES = ("none", "fifo", "connect", "question")


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure throughput, then the latency beside a call that does not return."""
    return [*_throughput(stage, settings), *_beside_waiting(stage, settings)]


def _throughput(stage: Stage, settings: Settings) -> list[Figure]:
    rounds = Rounds("parallel", "/s")

    def opens(name: str, way: Way) -> tuple[float, None]:
        number, kind = name.split()
        argv = (stage.program("parallel"), kind, number, str(settings.seconds / 2), stage.project)
        return float(stage.run(way, argv, stage.project, timeout=60).output.split()[-1]), None

    names = [f"{number} {kind}" for kind in ("threads", "processes") for number in NUMBERS]
    ways = (BARE, LIMIT, CALLS, *PEERS)
    return take_turns(rounds, settings.fewer(5), names, ways, opens, settings.say)


def _beside_waiting(stage: Stage, settings: Settings) -> list[Figure]:
    """The hindrance is what is varied here, so it stands where the way stands elsewhere."""
    rounds = Rounds("beside waiting", "us", base=lambda way: "none")
    ways = [Way(name, CALLS.start) for name in HINDRANCES]

    def quantiles(name: str, way: Way) -> tuple[float, float]:
        return stage.quantiles(CALLS, name, settings.count(3_000), settings.seconds, "-w", way.name)

    return take_turns(rounds, settings.rounds, ["open performed"], ways, quantiles, settings.say)
