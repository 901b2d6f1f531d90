"""Rows 33, 43, 46 and 53: whoever is killed, and whatever the tree does meanwhile, nothing of it is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marked import NAME, end_marked, left, mark, marked
from rampart_seccomp.kernel.landlock import signal_scope

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(not signal_scope(), reason="without Landlock's signal scope there is no guard"),
]

# A tree that holds on: daemons of other sessions that ignore what they can; the call of one is held for good.
FAMILY = """
import os, signal, subprocess, time
def daemon(*argv):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_IGN)
            os.execvp(argv[0], argv)
        os._exit(0)
    os.wait()
daemon("sleep", "876")
daemon("cat", "asked")
daemon("sh", "-c", "while :; do :; done")
time.sleep(0.3)
print("ready", flush=True)
while True: time.sleep(1)
"""
# Two hundred lines of processes, each a new one in a session of its own time and again; some start programs.
BOMB = """
import os, signal, time
print("ready", flush=True)
os.nice(5)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in range(200):
    if os.fork() == 0:
        while True:
            if os.fork(): os._exit(0)
            os.setsid()
            if line % 50 == 0 and os.fork() == 0: os.execv("/bin/true", ["true"])
            time.sleep(0.1)
while True: time.sleep(1)
"""
# Starts argv[2] under the mark argv[1], and then does what argv[3] says.
HARNESS = f"""
import multiprocessing, os, sys, time
import rampart_seccomp as rampart
value, code, then = sys.argv[1:4]
policy = rampart.Policy(rules=[
    rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything"),
    rampart.ask("read", paths=["./asked"], name="asked")])
process = rampart.Popen([sys.executable, "-c", code], policy=policy, on_ask=lambda event: time.sleep(876),
                        stdout=-1, start_new_session=True, env={{**os.environ, "{NAME}": value}})
process.stdout.readline()
copies = []
if then == "fork":
    copies = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(876,)) for _ in range(3)]
    for copy in copies:
        copy.start()
print(process.pid, *(copy.pid for copy in copies), flush=True)
if then == "kill":
    sys.stdin.readline()
    process.kill()
    print(process.wait(), flush=True)
time.sleep(876)
"""
# As pid 1: starts the harness with a bomb, does argv[2] to it, prints what was there and what is left of it.
IN_NAMESPACE = """
import os, signal, subprocess, sys, time
import marked
harness_code, action, bomb = sys.argv[1:4]
value = marked.mark()
bystander = subprocess.Popen(["sleep", "876"])
harness = subprocess.Popen([sys.executable, "-c", harness_code, value, bomb, "kill"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
launcher = int(harness.stdout.readline())
latest = time.monotonic() + 30
while (before := len(marked.marked(value))) <= 150 and time.monotonic() < latest: time.sleep(0.1)
if action == "Popen.kill":
    harness.stdin.write("now\\n"); harness.stdin.flush()
    assert harness.stdout.readline() == "-9\\n"
elif action == "killpg":
    os.killpg(launcher, signal.SIGKILL)
else:
    for pid in {"launcher": [launcher], "harness": [harness.pid]}.get(action, [harness.pid, launcher]):
        os.kill(pid, signal.SIGKILL)
end = time.monotonic() + 1
while time.monotonic() < end:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
    time.sleep(0.01)
print(before > 150, marked.marked(value), os.path.exists(f"/proc/{bystander.pid}/environ"))
"""


@pytest.fixture
def environment(project: Any) -> dict[str, str]:
    """For a harness in a process of its own: it can import the package, and `marked`."""
    import rampart_seccomp

    paths = [str(Path(rampart_seccomp.__file__).parents[1]), str(Path(__file__).parents[1])]
    return {**project.environment, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def start(project: Any, environment: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Start a harness with a family; gives it, the launcher's pid, the mark, the pids of its copies."""
    started: list[subprocess.Popen[str]] = []
    project.write("asked", "x")

    def begin(then: str = "sleep") -> Any:
        value = mark()
        harness = subprocess.Popen(
            [sys.executable, "-c", HARNESS, value, FAMILY, then],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=project.root,
            env=environment,
        )
        started.append(harness)
        assert harness.stdout is not None
        launcher, *copies = (int(word) for word in harness.stdout.readline().split())
        return harness, launcher, value, copies

    yield begin
    for harness in started:
        harness.kill()
        harness.communicate(timeout=20)
    end_marked()  # what a failed test leaves behind


def amounts(quick: int, long: int) -> Any:
    """How often: in the quick suite, and in the long one."""
    return pytest.mark.parametrize("amount", [quick, pytest.param(long, marks=pytest.mark.long)])


@amounts(3, 50)
@pytest.mark.parametrize("victims", ["harness", "launcher", "both", "launcher's group and harness"])
def test_sigkill(victims: str, amount: int, start: Callable[..., Any]) -> None:
    """Rows 33 and 53: SIGKILL while a call is held and daemons live: gone within a second, every time; a
    process of the same user that is not of the tree lives on."""
    bystander = subprocess.Popen(["sleep", "876"])
    for _ in range(amount):
        harness, launcher, value, _ = start()
        assert len(marked(value)) >= 7
        if victims.startswith("launcher's"):
            os.killpg(launcher, signal.SIGKILL)
        elif victims != "harness":
            os.kill(launcher, signal.SIGKILL)
        if victims != "launcher":
            harness.kill()
        assert left(value) == []
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@amounts(1, 20)
def test_forked_harness(amount: int, start: Callable[..., Any]) -> None:
    """Row 43: children of the harness with copies of listener and sockets change nothing, and live on."""
    for _ in range(amount):
        harness, _, value, copies = start("fork")
        assert len(marked(value)) >= 7
        harness.kill()
        assert left(value) == []
        for copy in copies:
            os.kill(copy, 0)
            os.kill(copy, signal.SIGKILL)


@amounts(1, 15)
@pytest.mark.parametrize("action", ["Popen.kill", "killpg", "launcher", "harness", "both"])
def test_fork_bomb(action: str, amount: int, project: Any, environment: dict[str, str]) -> None:
    """Rows 46 and 53: a bomb of daemons that start programs is ended as surely as anything else."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1), to keep the bomb in a pid namespace")
    for _ in range(amount):
        done = subprocess.run(
            [
                *("unshare", "-pfm", "--mount-proc", "--kill-child", sys.executable, "-c", IN_NAMESPACE),
                *(HARNESS, action, BOMB),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=project.root,
            env=environment,
            check=False,
        )
        assert done.stdout == "True [] True\n", done.stderr


PRIVATE = ["environ", "fd/0", "mem", "maps", "cwd/", "root/etc/passwd"]


def test_what_is_rampart_s_is_outside(project: Any, allow_all: Any) -> None:
    """Row 33: the tree finds guard, witness and launcher in /proc, and can neither look into nor signal them;
    a child of its own it can."""
    script = """
import os, subprocess
child = subprocess.Popen(["sleep", "876"])
launcher = os.getppid()
children = open(f"/proc/{launcher}/task/{launcher}/children").read().split()
ours = [int(pid) for pid in children if int(pid) != os.getpid()]
def opens(pid, name):
    try: os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
    except OSError: return False
    return True
print(len(ours), [name for pid in (launcher, *ours) for name in NAMES if opens(pid, name)])
print([name for name in NAMES if opens(child.pid, name)])
for pid in (launcher, *ours):
    try: os.kill(pid, 9)
    except PermissionError: continue
    print("killed", pid)
child.kill()
print(child.wait())
"""
    done = project.run([sys.executable, "-c", f"NAMES = {PRIVATE}\n{script}"], allow_all)
    assert done.stdout.splitlines()[0] == "2 []", done.stderr
    assert "environ" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[2:] == ["-9"]
