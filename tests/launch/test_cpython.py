"""CPython's own tests of subprocess pass with our Popen in its place."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys

import pytest

RUN = """
import subprocess, sys, unittest
from fake_broker import FakeBroker
from rampart_seccomp.launch import popen

class Popen(popen.Popen):
    def __init__(self, *args, **options):
        if options.get("preexec_fn") is not None:
            raise unittest.SkipTest("preexec_fn is refused, documented")
        options.setdefault("broker", FakeBroker())
        super().__init__(*args, **options)

subprocess.Popen = Popen
from test import test_subprocess
names = ("ProcessTestCase", "RunFuncTestCase", "POSIXProcessTestCase", "ContextManagerTests")
load = unittest.defaultTestLoader.loadTestsFromTestCase
suite = unittest.TestSuite(load(getattr(test_subprocess, name)) for name in names)
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(suite)
print("ran", result.testsRun, "skipped", len(result.skipped))
sys.exit(not result.wasSuccessful())
"""


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("test.test_subprocess") is None, reason="Python without its tests"
)
def test_subprocess_suite(environment: dict[str, str]) -> None:
    """Every test of it that does not use preexec_fn."""
    signal.alarm(300)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    ran, skipped = (int(word) for word in done.stdout.split()[-3::2])
    assert ran - skipped > 150
