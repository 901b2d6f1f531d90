"""Properties are tried on 100 examples in the quick suite, and on many more in the long one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.long
def test_thoroughly() -> None:
    """Every property holds for the examples of the profile ``thorough``."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis and not long"]
    command += ["--hypothesis-profile=thorough", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 40, done.stdout[-300:]
