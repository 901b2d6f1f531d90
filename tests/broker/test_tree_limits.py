"""Limits of a policy, at a running tree: what each one counts, and what happens when it is reached."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.errors import LimitExceeded
from rampart_seccomp.kernel.landlock import signal_scope
from rampart_seccomp.policy import Limits

pytestmark = pytest.mark.core

EVERYTHING = ["read", "write", "exec", "connect", "listen"]
SHOW = """
import resource, subprocess, sys
names = ("RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_DATA")
print([resource.getrlimit(getattr(resource, name)) for name in names], flush=True)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, *sys.orig_argv[1:], "child"], check=True)
"""


@pytest.fixture
def limited() -> Callable[..., rampart.Policy]:
    """A policy that restricts nothing but these."""

    def make(**limits: Any) -> rampart.Policy:
        return rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")], limits=Limits(**limits))

    return make


def test_kept_by_the_kernel(project: Any, limited: Callable[..., rampart.Policy]) -> None:
    """Descriptors, CPU time and memory are limits of the command and what it starts, of nobody else."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    bare = project.run([sys.executable, "-c", SHOW], limited()).stdout.splitlines()
    done = project.run(
        [sys.executable, "-c", SHOW], limited(open_files=100, cpu_seconds=77, memory="1G")
    ).stdout.splitlines()
    assert done == ["[(100, 100), (77, 78), (1073741824, 1073741824)]"] * 2
    assert bare[0] == bare[1] != done[0]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_a_limit_loosens_nothing(project: Any, limited: Callable[..., rampart.Policy]) -> None:
    """What the command is started with, and is lower, stays."""
    policy = limited(open_files=1000)
    broker = rampart.Broker(policy)
    with broker, broker.wrap(["sh", "-c", "ulimit -Sn; ulimit -Hn"]) as wrapped:
        script = 'ulimit -Sn 50; ulimit -Hn 60; exec "$@"'
        done = subprocess.run(
            ["sh", "-c", script, "sh", *wrapped.argv], pass_fds=wrapped.pass_fds, capture_output=True
        )
    assert done.stdout.split() == [b"50", b"60"]


EXHAUSTING = {
    "open_files": (40, "import os\nfor _ in range(60): os.open('/dev/null', 0)", 1, "OSError: [Errno 24]"),
    "memory": ("200M", "b'x' * 10**9", 1, "MemoryError"),
    "cpu_seconds": (1, "while True: pass", -signal.SIGXCPU, ""),
}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_reached(name: str, project: Any, limited: Callable[..., rampart.Policy]) -> None:
    """The process that reaches a limit of its own gets the kernel's answer; without the limit it does not."""
    value, code, status, error = EXHAUSTING[name]
    done = project.run([sys.executable, "-c", code], limited(**{name: value}))
    assert (done.returncode, error in done.stderr) == (status, True)
    if name != "cpu_seconds":
        assert project.run([sys.executable, "-c", code], limited()).returncode == 0


FAMILY = "for i in $(seq {}); do setsid sleep 876 & done; wait"


def test_too_many_processes(project: Any, limited: Callable[..., rampart.Policy]) -> None:
    """A tree that has more processes than its limit is ended, told and recorded, daemons counted."""
    done = project.run(["sh", "-c", FAMILY.format(8)], limited(processes=8), timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert [(denial.operation, denial.object) for denial in done.denials] == [("limit", "processes 8")]
    log = project.audit.read_text()
    assert '"record":"limit"' in log.replace(" ", "")
    assert "processes 8" in log


def test_enough_processes(project: Any, limited: Callable[..., rampart.Policy]) -> None:
    """As many as the limit allows are let be; what is Rampart's own does not count."""
    script = "for i in $(seq 7); do sleep 1 & done; sleep 0.5; kill $(jobs -p); wait; echo done"
    done = project.run(["bash", "-c", script], limited(processes=9), timeout=30)
    assert (done.stdout, done.returncode, done.denials) == ("done\n", 0, [])


def test_wall_time(project: Any, limited: Callable[..., rampart.Policy]) -> None:
    """The tree is ended when its time is over, daemons included; a command that is quicker is not."""
    began = time.monotonic()
    done = project.run(["sh", "-c", FAMILY.format(3)], limited(wall_time=1.5), timeout=30)
    assert (done.returncode, done.denials[0].object) == (-signal.SIGKILL, "wall-time 1.5s")
    assert 1.4 < time.monotonic() - began < 10
    assert project.run(["true"], limited(wall_time=20)).returncode == 0


def test_wall_time_while_a_question_stands(project: Any) -> None:
    """A call that nobody answers does not hold the end up."""
    policy = rampart.Policy(
        rules=[
            rampart.allow(EVERYTHING, name="everything"),
            rampart.ask("read", paths=["./asked"], name="question"),
        ],
        limits=Limits(wall_time=1),
    )
    project.write("asked", "x")
    done = project.run(["cat", "asked"], policy, on_ask=lambda event: time.sleep(60), timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert "wall-time 1s" in [denial.object for denial in done.denials]


def test_wall_time_of_the_start(project: Any) -> None:
    """The question whether the command may run counts: an error of its own says so."""
    policy = rampart.Policy(rules=[rampart.ask("exec", name="question")], limits=Limits(wall_time=0.3))
    with pytest.raises(LimitExceeded, match=r"wall-time 0\.3s"):
        project.run(["true"], policy, on_ask=lambda event: time.sleep(60))


@pytest.mark.parametrize("limit", [{"wall_time": 2}, {"processes": 3}])
def test_stopped_launcher(limit: dict[str, Any], limited: Callable[..., rampart.Policy]) -> None:
    """Stopping the launcher, which a command can bring about as a shell's job, is no way around."""
    if not signal_scope():
        pytest.skip("without Landlock's signal scope there is no guard")
    code = "import os, time; print(flush=True); time.sleep(0.5); [os.fork() for _ in '123']; time.sleep(876)"
    process: rampart.Popen[bytes] = rampart.Popen(
        [sys.executable, "-c", code], policy=limited(**limit), stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        assert process.wait(20) == -signal.SIGKILL


def test_stack_keeps_the_lowest(project: Any, limited: Callable[..., rampart.Policy]) -> None:
    """Each layer's limits hold."""
    stack = rampart.Policy.stack(limited(open_files=70), limited(open_files=90, cpu_seconds=5))
    done = project.run(["sh", "-c", "ulimit -n; ulimit -t"], stack)
    assert done.stdout.split() == ["70", "5"]


@pytest.mark.parametrize("flags", [[], ["--explain"]], ids=["plain", "explained"])
def test_command_line_says_why(flags: list[str], project: Any) -> None:
    """`run` dies as its command did, and says once which limit that was."""
    policy = project.base / "policy.yaml"
    policy.write_text(
        "version: 1\ndefault: {read: allow, write: allow, exec: allow, connect: allow, listen: allow}\n"
        "rules: []\nlimits: {wall-time: 2s}\n"
    )
    done = project.run_cli(["sleep", "876"], policy, *flags)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.count("the tree was ended: wall-time 2s") == 1
    assert "raise `limits: {wall-time: 2s}`" in done.stderr
