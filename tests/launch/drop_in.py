"""Run CPython's tests of subprocess, with our Popen in its place or as they are; print each outcome as JSON.

    python drop_in.py bare|fake|broker [NAME...]

`fake` is the broker of one page, `broker` the real one under a policy that allows everything. A NAME is a
class or a test of test.test_subprocess; none: all of it. A test that our Popen refuses preexec_fn is skipped.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import unittest
from collections.abc import Iterator
from typing import Any

from fake_broker import FakeBroker

import rampart_seccomp as rampart
from rampart_seccomp.launch import popen

EVERYTHING = ["read", "write", "exec", "connect", "listen"]


@contextlib.contextmanager
def replaced(broker: Any) -> Iterator[None]:
    """Put our Popen in the place of subprocess's."""

    class Popen(popen.Popen[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            try:
                super().__init__(*args, broker=broker, **options)
            except ValueError as error:
                if str(error) == popen.PREEXEC_REFUSED:
                    raise unittest.SkipTest("preexec_fn") from error
                raise

    original = subprocess.Popen
    subprocess.Popen = Popen
    try:
        yield
    finally:
        subprocess.Popen = original


@contextlib.contextmanager
def chosen(mode: str) -> Iterator[None]:
    """Prepare what the mode says."""
    if mode == "bare":
        yield
    elif mode == "fake":
        with replaced(FakeBroker()):
            yield
    else:
        policy = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")], features=["sysv-ipc"])
        with rampart.Broker(policy) as broker, replaced(broker):
            yield


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Go through the tests of a suite."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from cases(each)
        else:
            yield each


def outcomes(names: list[str]) -> dict[str, str]:
    """Run tests: whether each passed, failed or was skipped. What failed is told on standard error."""
    from test import test_subprocess  # after Popen was replaced: it derives from what it finds

    load = unittest.defaultTestLoader
    everything = load.loadTestsFromModule(test_subprocess)
    suite = load.loadTestsFromNames(names, test_subprocess) if names else everything
    found = dict.fromkeys([case.id() for case in cases(suite)], "passed")
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=0).run(suite)
    for case, _ in result.skipped:
        found[case.id()] = "skipped"
    for case, _ in [*result.failures, *result.errors]:
        found[getattr(case, "test_case", case).id()] = "failed"  # a subtest counts for its test
    return {name.removeprefix("test.test_subprocess."): outcome for name, outcome in found.items()}


if __name__ == "__main__":
    with chosen(sys.argv[1]):
        print("\n" + json.dumps(outcomes(sys.argv[2:])))
