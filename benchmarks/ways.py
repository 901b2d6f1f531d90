"""The ways to run a command that are compared: bare, Rampart, and what others use instead."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.stage import Harness, NotMeasured, Stage, Way

__all__ = [
    "AGENT",
    "BARE",
    "BWRAP",
    "BY_NAME",
    "CALLS",
    "EVERYTHING",
    "PEERS",
    "SANDLOCK",
    "SANDLOCK_PYTHON",
    "STRACE",
]

SANDLOCK_WANTED = "sandlock==0.9.*"


def _harness(stage: Stage, module: str, *options: str) -> Harness:
    return Harness(stage, module, options)


def _bare(stage: Stage) -> Harness:
    return Harness(stage, "bare")


def sandlock_python(stage: Stage) -> str:
    """Return an interpreter that has sandlock, installing it into an environment of its own."""
    place = stage.directory / "sandlock"
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SANDLOCK_WANTED],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            raise NotMeasured(f"pip install {SANDLOCK_WANTED} fails: {' '.join(last)}")
        (place / "installed").touch()
    return str(python)


def _sandlock(stage: Stage, *options: str) -> Harness:
    return Harness(stage, "peer", options, python=sandlock_python(stage))


def _with_program(stage: Stage, program: str) -> Harness:
    if shutil.which(program) is None:
        raise NotMeasured(f"{program} is not installed")
    return _bare(stage)


def _strace(_: Stage, __: Path) -> Sequence[str]:
    return ("strace", "-f", "-qq", "-e", "trace=openat", "-o", os.devnull)


def _bwrap(_: Stage, cwd: Path) -> Sequence[str]:
    # The same reach: everything is read, project and temporary files written, loopback only.
    binds = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", "/tmp", "/tmp")
    return ("bwrap", *binds, "--bind", str(cwd), str(cwd), "--unshare-all", "--die-with-parent", "--")


BARE = Way("bare", _bare)
AGENT = Way("rampart", functools.partial(_harness, module="rampart"))
CALLS = Way("rampart", lambda stage: Harness(stage, "rampart", ("--policy", "calls")))
BY_NAME = Way("rampart by name", lambda stage: Harness(stage, "rampart", ("--policy", "names")))
EVERYTHING = Way("rampart allow-all", lambda stage: Harness(stage, "rampart", ("--policy", "everything")))
SANDLOCK = Way("sandlock", _sandlock)
SANDLOCK_PYTHON = Way("sandlock+python", lambda stage: _sandlock(stage, "--callback"))
STRACE = Way("strace", functools.partial(_with_program, program="strace"), _strace)
BWRAP = Way("bwrap", functools.partial(_with_program, program="bwrap"), _bwrap)
PEERS = (SANDLOCK, SANDLOCK_PYTHON)
