"""Run stress-ng's file system stressors bare and behind a policy that allows everything, and compare.

    python tests/transparency/stressors.py [--rounds N] [--json] [STRESSOR...]

A stressor makes a few rounds of its calls in a directory of its own, and checks what they did (``--verify``).
Compared is what became of it: passed, failed or skipped, and how many files it left. One that differs is run
again, up to N times each way: only what differs every time counts. Differences that `differences.txt` lists
as stress-ng's are expected; any other ends the run with status 1. Without names all of the class are run.

Some of them would harm the machine as root: run it where that is contained, as within
``unshare --pid --fork --mount --mount-proc``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import compare

import rampart_seccomp as rampart

LEFT_OUT = {
    "bind-mount": "mounts, which is refused; stress-ng itself calls it pathological",
    "binderfs": "mounts, which is refused",
}
ROUNDS = 5
"""Of a stressor's calls. It ends by itself then, without a signal that could meet a call."""
SECONDS = 5
"""After which a stressor is told to end; a few take longer to get ready."""
LIMIT = 120
"""Seconds after which it is killed."""


class Outcome(NamedTuple):
    """What became of a stressor.

    Attributes:
        word: passed, failed or skipped.
        left: Number of names in its directory afterwards.
        said: What it complained of; not compared, since it names processes and paths.
    """

    word: str
    left: int
    said: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self[:2] == other[:2]

    __hash__ = None  # type: ignore[assignment]


def stressors() -> list[str]:
    """Name the stressors of the class that are run."""
    said = subprocess.run(["stress-ng", "--class", "filesystem?"], check=True, capture_output=True, text=True)
    names = said.stdout.partition(":")[2].split()
    return [name for name in names if name not in LEFT_OUT]


def run(name: str, *, mediated: bool) -> Outcome:
    """Run a stressor in a new directory."""
    with tempfile.TemporaryDirectory() as directory:
        argv = ["stress-ng", f"--{name}", "1", f"--{name}-ops", str(ROUNDS), "--timeout", f"{SECONDS}s"]
        argv += ["--verify", "--no-rand-seed", "--temp-path", directory]
        options = {"cwd": directory, "capture_output": True, "text": True, "timeout": LIMIT}
        if mediated:
            done = rampart.run(argv, policy=compare.policy(), **options)
        else:
            done = subprocess.run(argv, check=False, **options)  # type: ignore[call-overload]
        left = len(list(Path(directory).rglob("*")))
    lines = tuple(line for line in (done.stdout + done.stderr).splitlines() if re.search("fail:|skip", line))
    if done.returncode or any("fail:" in line for line in lines):
        # The status says nothing of some failures; 3 and 4 say that there is nothing to stress.
        return Outcome("skipped" if done.returncode in (3, 4) else "failed", left, lines)
    return Outcome("skipped" if lines else "passed", left, lines)


def different(name: str, rounds: int) -> tuple[Outcome, Outcome]:
    """Run a stressor both ways until both come out the same, at most so many times: the last outcomes."""
    for _ in range(rounds):
        bare, mediated = run(name, mediated=False), run(name, mediated=True)
        if bare == mediated:
            break
    return bare, mediated


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the stressors named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often a difference is looked at")
    parser.add_argument("--json", action="store_true", help="print the outcomes, bare and mediated, as JSON")
    parser.add_argument("names", nargs="*", metavar="STRESSOR")
    options = parser.parse_args(arguments)
    compare.unignore()
    expected = compare.listed("stress-ng")
    found, bad = {}, 0
    for name in options.names or stressors():
        bare, mediated = found[name] = different(name, options.rounds)
        if bare == mediated:
            continue
        bad += name not in expected
        if not options.json:
            reason = expected.get(name, "NOT EXPECTED")
            print(f"{name}: bare {bare}, mediated {mediated} ({reason})", flush=True)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{len(found)} stressors, {bad} differ unexpectedly")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
