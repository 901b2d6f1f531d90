"""What verifying an exec costs by itself, without a broker in Python.

`bare` starts a static program without a filter. `continued` has its execve held and let go by a loop in C.
`stopped` adds the stop at the commit alone, which nobody can spare who looks at a committed exec. `verified`
is what the launcher does: the stop, and the comparison of image, arguments and variables.

So there are two ratios. That of `verified` to `bare` is what a start costs more, all in all. For the other,
what does not depend on our code is taken off: `stopped` less `bare`, which is one notification and one stop.
What remains should be at most 1.15 times `bare`. Differences are taken within a round.

On a machine that does something else, too, the medians are of its scheduler; as root, `chrt -f 10` in front
gives this program the processors for the seconds that it runs.
"""

from __future__ import annotations

import attrs

from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import ROOT, Stage, Way, take_turns
from benchmarks.ways import BARE

__all__ = ["measure"]

MODES = ("bare", "continued", "stopped", "verified")
LAUNCHER = ROOT / "csrc"


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure starts of a static program, each way in a program of its own."""
    rounds = Rounds("verified", "us")
    ways = [attrs.evolve(BARE, name=mode) for mode in MODES]

    def microseconds(_: str, way: Way) -> tuple[float, None]:
        parts = [LAUNCHER / f"{name}.c" for name in ("trace", "process", "committed", "relatives", "control")]
        program = stage.program("verified", f"-I{LAUNCHER}", *parts)
        argv = (program, way.name, str(settings.count(500)), stage.project / "static")
        return float(stage.run(BARE, argv, stage.project).output.split()[-1]), None

    return take_turns(rounds, settings.rounds, ["vfork, execve, wait"], ways, microseconds, settings.say)
