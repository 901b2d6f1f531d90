"""Parts of CPython's own test suite come out behind a policy that allows everything as they do bare."""

from __future__ import annotations

import importlib.util
import os
import sys

import compare
import pytest


def check(module: str) -> None:
    """Run a module both ways; what is listed, root alone meets."""
    if importlib.util.find_spec(f"test.{module}") is None:
        pytest.skip("Python without its tests")
    expected = set(compare.listed(module)) if os.geteuid() == 0 else set()
    bare, found = compare.compare(sys.executable, module, expected)
    assert "passed" in bare.values(), bare
    assert found.keys() == expected, found


@pytest.mark.parametrize("module", ["test_fcntl", "test_pty"])
def test_nothing_differs(module: str) -> None:
    """Locks, leases and their signals; a terminal and its foreground job."""
    check(module)


@pytest.mark.long
@pytest.mark.parametrize("module", ["test_os", "test_posix", "test_shutil", "test_threading"])
def test_nothing_but_the_listed_differs(module: str) -> None:
    """Files, processes, threads that fork; see docs/compatibility.md for the modules that take longer."""
    check(module)


def test_a_difference_is_seen() -> None:
    """Tests that came out differently, or did not run at all, are told apart from those that did not."""
    bare = {"a": "passed", "b": "passed", "c": "skipped"}
    mediated = {"a": "passed", "b": "failed", "d": "passed"}
    assert compare.differences(bare, mediated) == {
        "b": ("passed", "failed"),
        "c": ("skipped", "absent"),
        "d": ("absent", "passed"),
    }
