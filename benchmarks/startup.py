"""How long ``/bin/true`` takes from start to end: bare, with a warm broker, and by the command line."""

from __future__ import annotations

import compileall
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

import rampart_seccomp
from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import Stage, Way, take_turns
from benchmarks.ways import AGENT, BARE, BWRAP, PEERS, STRACE

__all__ = ["API", "CLI_COLD", "CLI_WARM", "COMMAND", "measure"]

COMMAND = "/bin/true"
CLI_WARM, CLI_COLD = "CLI, warm cache", "CLI, cold cache"
STARTS = 20


def _command_line(_: Stage, __: Path) -> Sequence[str | Path]:
    return (Path(sys.executable).with_name("rampart-seccomp"), "run", "--")


API = attrs.evolve(AGENT, name="API, warm broker")


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure every way to start it; harnesses are warm, and the first start of a round is left out."""
    # As an installer does; what runs in the stage writes none.
    compileall.compile_dir(Path(rampart_seccomp.__file__).parent, quiet=1)
    rounds = Rounds("start-up", "ms")
    cli = [attrs.evolve(BARE, name=name, prefix=_command_line) for name in (CLI_WARM, CLI_COLD)]
    cache = Path(stage.environment["HOME"]) / ".cache" / "rampart-seccomp"

    def milliseconds(_: str, way: Way) -> tuple[float, float]:
        if way.name != CLI_COLD:
            stage.run(way, [COMMAND], stage.project)
        taken = []
        for _start in range(max(3, settings.count(STARTS) // 10) if way in cli else settings.count(STARTS)):
            if way.name == CLI_COLD:
                shutil.rmtree(cache, ignore_errors=True)
            taken.append(stage.run(way, [COMMAND], stage.project).seconds * 1e3)
        taken.sort()
        return taken[len(taken) // 2], taken[len(taken) * 99 // 100]

    ways = (BARE, API, *cli, *PEERS, BWRAP, STRACE)
    return take_turns(rounds, settings.rounds, [COMMAND], ways, milliseconds, settings.say)
