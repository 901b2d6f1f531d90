"""stress-ng's stressors of file systems come out behind a policy that allows everything as they do bare."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import compare
import pytest
import stressors

SCRIPT = Path(stressors.__file__)
CONTAINED = ("unshare", "--pid", "--fork", "--mount", "--mount-proc")

needs_stress_ng = pytest.mark.skipif(shutil.which("stress-ng") is None, reason="no stress-ng")


def outcomes(*names: str) -> dict[str, Any]:
    """Run stressors: as root among processes of their own, since some of them signal and mount."""
    contained = CONTAINED if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*contained, sys.executable, SCRIPT, "--json", *names], capture_output=True, text=True
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_stress_ng
def test_a_few_stressors() -> None:
    """Renaming, modes, times and attributes: passed both ways, with nothing left behind."""
    found = outcomes("chmod", "rename", "utime", "xattr")
    assert {name: (bare[:2], mediated[:2]) for name, (bare, mediated) in found.items()} == dict.fromkeys(
        ("chmod", "rename", "utime", "xattr"), (["passed", 0], ["passed", 0])
    )


@needs_stress_ng
def test_what_is_listed_differs() -> None:
    """The control: a stressor whose call is refused does not come out as it does bare."""
    ((bare, mediated),) = outcomes("handle").values()
    assert (bare[0], mediated[0]) == ("passed", "failed"), (bare, mediated)


@needs_stress_ng
@pytest.mark.long
def test_all_stressors_of_file_systems() -> None:
    """Nothing differs but what is listed with a reason, and most pass."""
    found = outcomes()
    different = {name: both for name, both in found.items() if both[0][:2] != both[1][:2]}
    assert different.keys() <= compare.listed("stress-ng").keys(), different
    passed = [name for name, (bare, mediated) in found.items() if bare[0] == mediated[0] == "passed"]
    assert len(passed) > 35, found
