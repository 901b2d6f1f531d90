"""Connections: what is free once they stand, what making them costs, and opens beside a thousand of them."""

from __future__ import annotations

from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import NotMeasured, Stage, Way, take_turns
from benchmarks.ways import BARE, BY_NAME, CALLS

__all__ = ["CONNECT", "ESTABLISHED", "HINDRANCES", "measure"]

ESTABLISHED = ("read established", "write established", "send established")
CONNECT = "connect"
HINDRANCES = {"none": "none", "1,000 connects": "connects"}


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure single calls, then the latency of opens beside a thousand connects that nobody accepts."""
    return [*_calls(stage, settings), *_beside_connects(stage, settings)]


def _calls(stage: Stage, settings: Settings) -> list[Figure]:
    """By name: the policy has no address but that of a name, which the program has looked up before."""
    rounds = Rounds("network", "us")

    def quantiles(name: str, way: Way) -> tuple[float, float]:
        if way is BY_NAME and name != CONNECT:
            raise NotMeasured("the same for any policy")
        call = "connect by name" if way is BY_NAME else name
        return stage.quantiles(way, call, settings.count(3_000), settings.seconds)

    names = [*ESTABLISHED, CONNECT]
    return take_turns(rounds, settings.rounds, names, (BARE, CALLS, BY_NAME), quantiles, settings.say)


def _beside_connects(stage: Stage, settings: Settings) -> list[Figure]:
    """The hindrance is what is varied here, so it stands where the way stands elsewhere."""
    rounds = Rounds("beside connects", "us", base=lambda way: "none")
    ways = [Way(name, CALLS.start) for name in HINDRANCES]

    def quantiles(name: str, way: Way) -> tuple[float, float]:
        return stage.quantiles(
            CALLS, name, settings.count(3_000), settings.seconds, "-w", HINDRANCES[way.name]
        )

    return take_turns(rounds, settings.rounds, ["open performed"], ways, quantiles, settings.say)
