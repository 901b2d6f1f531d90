"""Popen's methods while calls are held: a question that nobody answers, a FIFO without a peer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

EVERYTHING = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
PROMPT = 4.0
"""Seconds that are far more than a prompt return takes, and less than any time-out in the package."""


class Held:
    """A command whose tree waits in held calls, and everything needed to look at it."""

    def __init__(self, root: Path, script: str, **options: Any) -> None:
        self.asked = threading.Event()
        policy = rampart.Policy(
            rules=[EVERYTHING, rampart.ask("read", paths=[f"{root}/asked"], name="question")]
        )
        self.process: rampart.Popen[str] = rampart.Popen(
            ["sh", "-c", script],
            policy=policy,
            on_ask=self._never,
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def _never(self, event: object) -> object:
        self.asked.set()
        time.sleep(876)
        return None


SCRIPTS = {
    "question": "cat asked & wait",
    "question of the command": "exec cat asked",
    "FIFO": "mkfifo fifo; cat fifo & cat asked & wait",
    "FIFO to write": "mkfifo fifo; sh -c 'echo > fifo' & cat asked & wait",
    "daemons": "setsid cat asked & setsid sleep 876 & cat asked; wait",
}


@pytest.fixture(params=SCRIPTS)
def held(request: pytest.FixtureRequest, project: Any) -> Iterator[Held]:
    project.write("asked", "x")
    made = Held(project.root, SCRIPTS[request.param])
    assert made.asked.wait(20)
    yield made
    made.process.kill()
    made.process.communicate(timeout=20)


def prompt(action: Callable[[], Any]) -> Any:
    """Do something that must not take long."""
    began = time.monotonic()
    value = action()
    assert time.monotonic() - began < PROMPT
    return value


def test_kill_and_wait(held: Held) -> None:
    """kill() ends the tree, and wait() returns when it has ended."""
    prompt(held.process.kill)
    assert prompt(held.process.wait) == -signal.SIGKILL
    assert held.process.session.finished.is_set()


def test_terminate(held: Held) -> None:
    """A fatal signal ends a held call, of every process of the tree."""
    prompt(held.process.terminate)
    assert prompt(held.process.wait) == -signal.SIGTERM


def test_send_signal(held: Held) -> None:
    """It reaches the command, whose end is the tree's."""
    prompt(lambda: held.process.send_signal(signal.SIGHUP))
    assert prompt(held.process.wait) == -signal.SIGHUP


def test_wait_and_communicate_time_out(held: Held) -> None:
    """A time-out is one, not more; the tree goes on, and the output so far is not lost."""
    with pytest.raises(subprocess.TimeoutExpired):
        prompt(lambda: held.process.wait(0.1))
    with pytest.raises(subprocess.TimeoutExpired):
        prompt(lambda: held.process.communicate(timeout=0.1))
    assert prompt(held.process.poll) is None
    held.process.kill()
    assert prompt(lambda: held.process.communicate(timeout=20)) == ("", None)


def test_run_times_out(project: Any) -> None:
    """run(timeout=) kills a tree that waits for an answer, and raises."""
    project.write("asked", "x")
    policy = rampart.Policy(rules=[EVERYTHING, rampart.ask("read", paths=["./asked"], name="question")])
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        prompt(
            lambda: project.run(
                ["sh", "-c", "echo begun; cat asked"],
                policy,
                on_ask=lambda event: time.sleep(876),
                timeout=0.7,
            )
        )
    assert raised.value.stdout in ("begun\n", b"begun\n")


def test_output_ends_as_bare(project: Any, allow_all: Any) -> None:
    """communicate() returns when all writers have closed the pipe; launcher, guard and daemon are none."""
    script = "exec 1>&-; read line"
    with rampart.Popen(
        ["sh", "-c", f"echo out; setsid sleep 876 >&- 2>&- & {script}"],
        policy=allow_all,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert prompt(process.stdout.read) == b"out\n"
        assert process.poll() is None


COUNT = """
import os, signal, sys
def say(number, frame): os.write(1, f"{signal.Signals(number).name}\\n".encode())
for name in ("INT", "TERM", "USR1", "HUP", "CONT", "WINCH", "QUIT"):
    signal.signal(getattr(signal, "SIG" + name), say)
os.write(1, b"ready\\n")
while os.read(0, 1): pass
"""


@pytest.mark.parametrize("session", [False, True], ids=["same session", "own session"])
def test_each_signal_once(session: bool, allow_all: Any) -> None:
    """send_signal, terminate, the launcher's pid and its group: each arrives once, in order."""
    process: rampart.Popen[str] = rampart.Popen(
        [sys.executable, "-c", COUNT],
        policy=allow_all,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=session,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    lines = [process.stdout.readline()]
    ways = {
        "SIGUSR1": lambda: process.send_signal(signal.SIGUSR1),
        "SIGINT": lambda: process.send_signal(signal.SIGINT),
        "SIGQUIT": lambda: process.send_signal(signal.SIGQUIT),
        "SIGCONT": lambda: process.send_signal(signal.SIGCONT),
        "SIGTERM": process.terminate,
        "SIGHUP": lambda: os.kill(process.pid, signal.SIGHUP),
    }
    if session:
        ways["SIGWINCH"] = lambda: os.killpg(process.pid, signal.SIGWINCH)
    for send in ways.values():
        send()
        lines.append(process.stdout.readline())
    rest, _ = process.communicate(timeout=20)
    assert ([line.strip() for line in lines], rest) == (["ready", *ways], "")
    assert process.returncode == 0
    process.terminate()
    process.send_signal(signal.SIGUSR1)  # ended: nothing happens, as with subprocess
