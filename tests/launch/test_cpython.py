"""CPython's own tests of subprocess come out with our Popen in its place as they do without."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PREEXEC = "preexec_fn is refused"
UNSTARTED = "replaces _execute_child, so that there is no launcher that could say that the command runs"
REFUSED = {
    f"POSIXProcessTestCase.{name}": PREEXEC
    for name in (
        "test_close_fds_after_preexec",
        "test_preexec",
        "test_preexec_errpipe_does_not_double_close_pipes",
        "test_preexec_exception",
        "test_preexec_fork_failure",
        "test_preexec_gc_module_failure",
        "test_surrogates_error_message",
    )
}
EXPECTED = {
    "fake": REFUSED,
    "broker": {
        **REFUSED,
        "ProcessTestCase.test_repr": UNSTARTED,
        "ProcessTestCaseNoPoll.test_repr": UNSTARTED,
    },
}
"""What may come out differently, and why; docs/compatibility.md has it, too."""

QUICK = [
    "ContextManagerTests",
    *(
        f"RunFuncTestCase.test_{name}"
        for name in (
            "capture_output",
            "check",
            "check_output_stdin_arg",
            "run_kwargs",
            "run_with_bytes_path_and_arguments",
            "run_with_pathlike_path",
            "run_with_shell_timeout_and_capture_output",
        )
    ),
    *(
        f"POSIXProcessTestCase.test_{name}"
        for name in (
            "close_fds_0_1_2",
            "exception_bad_args_0",
            "exception_bad_executable",
            "exception_cwd",
            "extra_groups",
            "group",
            "kill",
            "pass_fds_inheritable",
            "preexec",
            "restore_signals",
            "run_abort",
            "send_signal",
            "send_signal_race2",
            "specific_shell",
            "start_new_session",
            "stopped",
            "swap_fds",
            "umask",
            "undecodable_env",
            "user",
            "wait_when_sigchild_ignored",
            "zombie_fast_process_del",
        )
    ),
]
"""Among those that take a tenth of a second or less."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("test.test_subprocess") is None, reason="Python without its tests"
)


def outcomes(mode: str, names: list[str], environment: dict[str, str]) -> dict[str, str]:
    """Run tests of test_subprocess in a process of their own: what became of each."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("drop_in.py"), mode, *names],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def different(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """Name the tests whose outcomes are not the same."""
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def test_some_of_the_suite(environment: dict[str, str]) -> None:
    """A part of it, against the real broker: the same outcomes as with subprocess, most of them passes."""
    signal.alarm(240)
    bare = outcomes("bare", QUICK, environment)
    ours = outcomes("broker", QUICK, environment)
    assert different(bare, ours) == {"POSIXProcessTestCase.test_preexec"}
    assert list(ours.values()).count("passed") >= 30


@pytest.mark.long
def test_the_whole_suite(environment: dict[str, str]) -> None:
    """All of it: what comes out differently is listed, and nothing listed comes out the same."""
    signal.alarm(900)
    bare = outcomes("bare", [], environment)
    for mode, expected in EXPECTED.items():
        ours = outcomes(mode, [], environment)
        # Bare, root skips this one.
        always = set(expected) - {"POSIXProcessTestCase.test_preexec_fork_failure"}
        assert always <= different(bare, ours) <= set(expected), mode
        assert list(ours.values()).count("passed") > 250
