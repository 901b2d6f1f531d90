"""How many calls of a program are held, and how many of them reach Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rampart_seccomp as rampart

PYTHON = [sys.executable, "-I", "-S", "-B"]


def count(broker: rampart.Broker, place: Path, code: str, *arguments: object) -> tuple[int, int]:
    """Run lines of Python to their end in a directory; give the calls answered in C, and the others."""
    if os.environ.get("RAMPART_SECCOMP_ENGINE") == "python":
        pytest.skip("nothing is answered in C")
    code = f"{code}\nprint('ready', flush=True)\nsys.stdin.readline()"
    process = rampart.Popen(
        [*PYTHON, "-c", f"import os, sys\n{code}", *map(str, arguments)],
        broker=broker,
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        engine = process.session._engine
        assert engine is not None
        counts = engine.counts
        process.kill()
    return counts
