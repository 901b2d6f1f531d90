"""Row 32: more of everything at once than anybody needs. Bounded, nothing denied that is allowed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

# As pid 1 of a namespace: a command that has a daemon more every two milliseconds, up to 3,000, and a limit.
IN_NAMESPACE = """
import os, subprocess, sys, threading, time
import rampart_seccomp as rampart
BOMB = '''
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3000):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(876)
        os._exit(0)
    os.wait()
    time.sleep(0.002)
print("whole")
'''
limits = {"processes": int(sys.argv[1])} if sys.argv[1] != "0" else {}
everything = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
policy = rampart.Policy(rules=[everything],
                        limits=rampart.Limits(**limits))
bystander = subprocess.Popen(["sleep", "876"])
highest = 0
over = threading.Event()
def processes():
    return sum(name.isdigit() for name in os.listdir("/proc"))
before = processes()
def count():
    global highest
    while not over.wait(0.02):
        highest = max(highest, processes() - before)
counting = threading.Thread(target=count)
counting.start()
done = rampart.run([sys.executable, "-I", "-S", "-c", BOMB], policy=policy, capture_output=True, text=True)
over.set()
counting.join()
end = time.monotonic() + 1
while time.monotonic() < end and processes() > before:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
    time.sleep(0.01)
print(done.returncode, repr(done.stdout), processes() - before, bystander.poll(), highest,
      [(denial.operation, denial.object) for denial in done.denials], sep="|")
"""


def test_fork_bomb_meets_its_limit(project: Any) -> None:
    """A bomb of daemons is ended by `limits: {processes}` soon after it has too many; a bystander lives."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1), to keep the bomb in a pid namespace")
    path = os.pathsep.join([str(Path(rampart.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

    def bomb(limit: int) -> list[str]:
        done = subprocess.run(
            [
                *("unshare", "-pfm", "--mount-proc", "--kill-child"),
                *(sys.executable, "-c", IN_NAMESPACE, str(limit)),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=project.root,
            env={**project.environment, "PYTHONPATH": path},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n").split("|")

    *rest, highest, denials = bomb(100)

    assert rest == ["-9", "''", "0", "None"]
    assert denials == "[('limit', 'processes 100')]"
    assert 100 < int(highest) < 1000


def memory() -> int:
    """Bytes that this process holds in memory (proc_pid_statm(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_thousand_threads(rounds: int, project: Any, deny_rule: Any, attacker: Callable[..., Path]) -> None:
    """1,000 threads read what they may and not what they may not; nothing of it stays in the harness."""
    for number in range(10):
        project.write(f"work/f{number}", str(number))
    project.write("work/secret", "SECRET")
    program = attacker("crowd")
    policy = attrs.evolve(deny_rule("read", paths=["./work/secret"]), audit="denials")
    bare = project.bare([program, "1000", str(rounds), project.root / "work"])
    assert bare.stdout == f"right {1000 * rounds}, refused 0, read {200 * rounds}, others 0, first 0\n"

    def rush(count: int) -> Any:
        done = project.run([program, "1000", str(count), project.root / "work"], policy, timeout=600)
        assert done.stdout == f"right {1000 * count}, refused {200 * count}, read 0, others 0, first 0\n", (
            done.stdout + done.stderr
        )
        assert {denial.rule for denial in done.denials} == {"secret"}

    rush(rounds)  # what is made once and kept
    gc.collect()
    open_before, held_before = descriptors(), memory()
    rush(rounds)
    gc.collect()

    assert descriptors() == open_before
    assert memory() - held_before < 32 << 20


CALLS = """
import json, os, sys, time
print("ready", flush=True)
def measure(count=300):
    times, errors = [], 0
    for _ in range(count):
        began = time.perf_counter()
        try: os.close(os.open("mine", os.O_RDONLY))
        except OSError: errors += 1
        times.append(time.perf_counter() - began)
    return sorted(times)[count // 2], errors
for line in sys.stdin:
    print(json.dumps(measure()), flush=True)
"""


def test_flood_of_another_tree(project: Any, deny_rule: Any, attacker: Callable[..., Path]) -> None:
    """While one tree makes calls without a pause, another of the same broker gets its own answered, in a time
    that processors shared with the flood explain."""
    project.write("mine", "x")
    project.write("secret", "SECRET")
    with rampart.Broker(deny_rule("read", paths=["./secret"])) as broker:
        options = {"broker": broker, "cwd": project.root, "stdout": subprocess.PIPE, "text": True}
        other = rampart.Popen([sys.executable, "-I", "-S", "-c", CALLS], stdin=subprocess.PIPE, **options)
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "ready\n"

        def measured() -> tuple[float, int]:
            other.stdin.write("go\n")
            other.stdin.flush()
            median, errors = json.loads(other.stdout.readline())
            return median, errors

        measured()
        alone, errors = measured()
        assert errors == 0
        for name in ("mine", "secret"):
            flood = rampart.Popen([str(attacker("flood")), "16", name], **options)
            assert flood.stdout is not None
            assert flood.stdout.readline() == "flooding\n"
            flooded, errors = measured()
            print(
                f"median of an open: {alone * 1e6:.0f} us alone, {flooded * 1e6:.0f} us in a flood of {name}"
            )
            assert flood.poll() is None
            flood.kill()
            flood.communicate(timeout=20)
            assert len(flood.session.events) > 100
            assert errors == 0
            assert flooded < max(100 * alone, 0.005)
        other.communicate(timeout=20)
        assert other.returncode == 0
        assert other.session.denials == []


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_pipelines_at_once(count: int, project: Any, deny_rule: Any) -> None:
    """A hundred pipelines of a shell at the same time give what they give bare."""
    script = 'for i in $(seq "$0"); do (echo "line $i" | cat | tr a-z A-Z | sed s/LINE/row/) & done; wait'
    argv = ["sh", "-c", script, str(count)]
    bare = project.bare(argv, timeout=300)
    assert len(bare.stdout.splitlines()) == count

    began = time.monotonic()
    done = project.run(argv, deny_rule("read", paths=["./nothing"]), timeout=600)

    print(f"{count} pipelines: {time.monotonic() - began:.1f} s")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(bare.stdout.splitlines())
    assert (done.stderr, done.denials) == ("", [])
