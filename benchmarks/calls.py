"""What single calls cost: performed ones, a denied one, starts of programs, and calls that stay free."""

from __future__ import annotations

from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import NotMeasured, Stage, Way, take_turns
from benchmarks.ways import BARE, CALLS, EVERYTHING, PEERS

__all__ = ["FREE", "HELD", "measure"]

FREE = ("getppid", "stat", "read")
HELD = (
    *("open performed", "open clean", "open denied", "create+unlink", "mkdir", "rename", "chmod"),
    *("connect", "sendmsg", "sendmsg connected"),
)
SPAWNS = ("spawn", "spawn static")
SAMPLES = dict.fromkeys(FREE, 2_000) | dict.fromkeys(HELD, 3_000) | dict.fromkeys(SPAWNS, 200)


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure every call bare, behind Rampart and in the peer, in turns.

    Rampart's policy is the profile `agent` with the loopback interface allowed. `rampart allow-all` is a
    policy without restrictions.
    """
    rounds = Rounds("calls", "us")

    def quantiles(name: str, way: Way) -> tuple[float, float]:
        call = name
        if name == "open denied" and way is EVERYTHING:
            raise NotMeasured("denies nothing")
        if name == "open denied" and way is BARE:
            call = "open performed"  # Nobody denies it there; it is what a denied one is compared with.
        return stage.quantiles(way, call, settings.count(SAMPLES[name]), settings.seconds)

    ways = (BARE, CALLS, EVERYTHING, *PEERS)
    return take_turns(rounds, settings.rounds, [*SAMPLES], ways, quantiles, settings.say)
