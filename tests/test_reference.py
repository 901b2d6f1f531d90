"""The engine and the readable reference cannot drift apart: the tests marked ``core`` pass in Python, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.first
@pytest.mark.parametrize(
    ("options", "least"),
    [
        pytest.param(["--first-cases", "tests/attacks"], 150, id="quick"),
        pytest.param(["-n", "auto", "--dist", "worksteal", "tests"], 700, id="long", marks=pytest.mark.long),
    ],
)
def test_core_suite_in_python(options: list[str], least: int) -> None:
    """With ``RAMPART_SECCOMP_ENGINE=python`` every call is decided in Python, and nothing else changes.

    In the quick suite it is one case of each attack, in one process beside the others of the suite; both
    engines' answers to some 640 calls are compared one by one in ``broker/test_engine.py``.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "core and not long"]
    command += options
    # In one process it is not a worker of the suite that has started it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment | {"RAMPART_SECCOMP_ENGINE": "python"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    closing = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
    passed = re.search(r"(\d+) passed", closing)
    assert passed is not None, f"{done.stdout[-4000:]}\n{done.stderr[-1000:]}"
    assert int(passed[1]) > least, closing
    assert done.returncode == 0, done.stdout[-6000:]
