"""What a harness that computes does to the calls: a Python thread that never lets go of its interpreter.

The control is a process in C that keeps a processor just as busy, and knows no interpreter. Two rhythms: one
call after the other, where broker and target pass on one processor and the Python thread may not notice; and
with a pause before each call, as in programs that do something else, too.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import attrs

from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import Stage, Way, take_turns
from benchmarks.ways import CALLS

__all__ = ["NAMES", "measure"]

PAUSE_US = 500
NAMES = ("open performed", "open denied", "open performed, spaced", "open denied, spaced")

IDLE = attrs.evolve(CALLS, name="idle")
PYTHON = attrs.evolve(CALLS, name="busy Python")
C = attrs.evolve(CALLS, name="busy C")


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure opens with an idle harness, a busy one, and a busy machine."""
    rounds = Rounds("busy", "us", base=lambda way: "busy C" if way == "busy Python" else "idle")

    def quantiles(name: str, way: Way) -> tuple[float, float]:
        with contextlib.ExitStack() as stack:
            if way is PYTHON:
                stack.enter_context(stage.harness(CALLS).spinning())
            elif way is C:
                stack.enter_context(spinning_c(stage))
            call, _, rhythm = name.partition(", ")
            options = ("-p", str(PAUSE_US)) if rhythm else ()
            return stage.quantiles(CALLS, call, settings.count(5_000), settings.seconds, *options)

    return take_turns(rounds, settings.rounds, NAMES, (IDLE, PYTHON, C), quantiles, settings.say)


@contextlib.contextmanager
def spinning_c(stage: Stage) -> Iterator[None]:
    """While inside, a process in C keeps a processor busy."""
    process = subprocess.Popen([stage.program("spin")])
    try:
        yield
    finally:
        process.kill()
        process.wait()
