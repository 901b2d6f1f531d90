"""The guard: nothing of a tree outlives the SIGKILL of its harness, its launcher, or both."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_broker import FakeBroker
from launching import eventually, gone, state

from marked import NAME, end_marked, left, mark, marked
from rampart_seccomp.kernel.landlock import signal_scope
from rampart_seccomp.launch import Popen

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(not signal_scope(), reason="without Landlock's signal scope there is no guard"),
]

# A command with daemons: two in sessions of their own that ignore what can be ignored, one in its own group.
# None of them makes a call that the broker would hear of.
DAEMONS = """
import os, signal, sys, time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_IGN)
            while True: time.sleep(1)
        os._exit(0)
    os.wait()
daemon(); daemon()
if os.fork() == 0:
    os.setpgid(0, 0)
    while True: time.sleep(1)
print("ready", flush=True)
while True: time.sleep(1)
"""

HARNESS = f"""
import os, sys, time
import fake_broker, rampart_seccomp.launch
process = rampart_seccomp.launch.Popen(
    [sys.executable, "-c", sys.argv[2]], broker=fake_broker.FakeBroker(), stdout=-1,
    env={{**os.environ, "{NAME}": sys.argv[1]}})
process.stdout.readline()
copy = 0
if sys.argv[3] == "forked":
    copy = os.fork()
    if not copy:
        time.sleep(876)
print(process.pid, copy, flush=True)
time.sleep(876)
"""


def guard_of(launcher: int) -> int:
    """Pid of a launcher's guard."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = (pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "rampart-guard\n")
    return int(found)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Not even of a test that fails."""
    yield
    end_marked()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user that has nothing to do with a tree, and must not suffer."""
    process = subprocess.Popen(["sleep", "876"])
    yield process
    assert process.poll() is None
    process.kill()
    process.wait()


def kill_group(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)


KILLED = ["harness", "launcher", "both", "both, launcher first"]


def kill(which: str, harness: int, launcher: int) -> None:
    """SIGKILL, to both from as near as possible."""
    pids = {"harness": [harness], "launcher": [launcher], "both": [harness, launcher]}
    for pid in pids.get(which, [launcher, harness]):
        os.kill(pid, signal.SIGKILL)


def tries(quick: int, long: int) -> Any:
    """A number of tries for the quick suite, and one for the long."""
    return pytest.mark.parametrize("amount", [quick, pytest.param(long, marks=pytest.mark.long)])


@tries(4, 50)
@pytest.mark.parametrize("which", KILLED)
def test_nothing_outlives_a_kill(
    which: str, amount: int, harness: Any, bystander: subprocess.Popen[bytes]
) -> None:
    """Zero processes of the tree, and none of ours, a second after the SIGKILL; a forked child of the harness
    with copies of all its sockets does not matter, and lives on."""
    signal.alarm(60 + 10 * amount)
    for number in range(amount):
        value = mark()
        forked = "forked" if number % 2 else "alone"
        process = harness(HARNESS, value, DAEMONS, forked)
        launcher, copy = (int(word) for word in process.stdout.readline().split())
        assert len(marked(value)) == 7  # launcher, witness, guard; the command and three more
        kill(which, process.pid, launcher)
        assert left(value) == []
        if copy:
            assert not gone(copy)
            os.kill(copy, signal.SIGKILL)
        process.kill()


@tries(3, 50)
def test_kill_during_the_start(amount: int, harness: Any, bystander: subprocess.Popen[bytes]) -> None:
    """A launcher killed at any moment between its own start and the command's: nothing is left."""
    code = f"""
import os, signal, subprocess, sys, time
import fake_broker
broker = fake_broker.FakeBroker(lambda pid, number: time.sleep(0.02) or 0)
wrapped = broker.wrap([sys.executable, "-c", sys.argv[2]])
process = subprocess.Popen(wrapped.argv, pass_fds=wrapped.pass_fds, stdout=subprocess.DEVNULL,
    env={{**os.environ, "{NAME}": sys.argv[1]}})
time.sleep(float(sys.argv[3]))
process.kill()
print(process.wait(), flush=True)
time.sleep(876)
"""
    signal.alarm(60 + 10 * amount)
    for number in range(amount):
        value = mark()
        process = harness(code, value, DAEMONS, 0.03 * number / amount)
        assert process.stdout.readline() == "-9\n"
        assert left(value) == []
        process.kill()


@pytest.mark.parametrize("which", KILLED)
def test_kill_while_calls_are_held(which: str, harness: Any) -> None:
    """The same while the broker keeps the tree waiting for an answer that never comes."""
    code = f"""
import os, subprocess, sys, threading, time
import fake_broker
held = threading.Event()
def answer(pid, number):
    if pid != wrapped.session.command_pid:
        held.set()
        time.sleep(876)
    return 0
wrapped = fake_broker.FakeBroker(answer).wrap(["sh", "-c", "sleep 876 & setsid sleep 875 & wait"])
process = subprocess.Popen(wrapped.argv, pass_fds=wrapped.pass_fds,
    env={{**os.environ, "{NAME}": sys.argv[1]}})
wrapped.close()
held.wait()
print(process.pid, flush=True)
time.sleep(876)
"""
    value = mark()
    process = harness(code, value)
    launcher = int(process.stdout.readline())
    assert len(marked(value)) >= 5
    kill(which, process.pid, launcher)
    assert left(value) == []


def test_kill_of_the_launchers_group(bystander: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process group, which holds launcher, witness and command, does not reach the guard."""
    value = mark()
    process: Popen[bytes] = Popen(
        [sys.executable, "-c", DAEMONS],
        broker=FakeBroker(),
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, NAME: value},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    kill_group(process.pid)
    assert left(value) == []
    assert process.communicate(timeout=20)[0] == b""
    assert process.returncode == -signal.SIGKILL


def test_stopped_launcher_is_guarded(harness: Any) -> None:
    """A launcher that stopped along with its command ends no tree; the guard does."""
    value = mark()
    process = harness(HARNESS, value, DAEMONS, "alone")
    launcher, _ = (int(word) for word in process.stdout.readline().split())
    os.kill(launcher, signal.SIGSTOP)
    eventually(lambda: state(launcher) == "T")
    process.kill()
    assert left(value) == []


def test_killed_guard_ends_the_tree() -> None:
    """A tree whose guard is gone is not left unguarded."""
    value = mark()
    process: Popen[bytes] = Popen(
        [sys.executable, "-c", DAEMONS],
        broker=FakeBroker(),
        stdout=subprocess.PIPE,
        env={**os.environ, NAME: value},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.kill(guard_of(process.pid), signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert left(value) == []
    process.stdout.close()


def test_what_the_guard_is() -> None:
    """It has three descriptors, a session of its own, every signal blocked; pipes end as bare while it lives;
    it ends with the command, before wait() returns."""
    with Popen(["cat"], broker=FakeBroker(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        guard = guard_of(process.pid)
        held = [os.readlink(f"/proc/{guard}/fd/{fd}") for fd in sorted(os.listdir(f"/proc/{guard}/fd"))]
        status = Path(f"/proc/{guard}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        kinds = [re.findall("pidfd|socket", name) for name in held]
        assert kinds == [["pidfd"], ["pidfd"], ["socket"]]
        assert os.getsid(guard) == guard
        assert blocked | 1 << (signal.SIGKILL - 1) | 1 << (signal.SIGSTOP - 1) == 2**64 - 1
    assert process.returncode == 0
    assert state(guard) == ""


def test_signals_to_the_tree_pass_the_guard_by() -> None:
    """The launcher's own kill(-1) does not reach it: SIGSTOP to the tree leaves it running."""
    process: Popen[bytes] = Popen(["cat"], broker=FakeBroker(), stdin=subprocess.PIPE)
    guard = guard_of(process.pid)
    command = process.command_pid
    assert command is not None
    process.session.signal(signal.SIGSTOP, tree=True)
    eventually(lambda: state(command) == "T")
    assert state(guard) == "S"
    process.session.signal(signal.SIGCONT, tree=True)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_tree_cannot_touch_the_guard() -> None:
    """Nothing in the tree can signal the guard, the witness or the launcher; its own child it can."""
    script = """
import os, signal, subprocess
child = subprocess.Popen(["sleep", "876"])
launcher = os.getppid()
others = [int(pid) for pid in open(f"/proc/{launcher}/task/{launcher}/children").read().split()]
for pid in [launcher, *others]:
    for number in (0, signal.SIGKILL, signal.SIGSTOP):
        if pid != os.getpid():
            try: os.kill(pid, number)
            except PermissionError: continue
            print("signalled", pid, number)
os.kill(child.pid, signal.SIGKILL)
print(child.wait(), len(others))
"""
    process: Popen[str] = Popen(
        [sys.executable, "-c", script], broker=FakeBroker(), stdout=subprocess.PIPE, text=True
    )
    assert process.communicate(timeout=20)[0].split() == ["-9", "3"]  # command, witness and guard


def test_harness_of_another_user(harness: Any) -> None:
    """A launcher that may not signal the harness proves its scope on a process of its own: it has a guard."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    code = HARNESS.replace("stdout=-1,", "stdout=-1, user=65534, group=65534, extra_groups=[],")
    code = code.replace("print(process.pid,", "assert process.session.hello.scoped; print(process.pid,")
    value = mark()
    process = harness(code.replace("sys.executable", "'/usr/bin/python3'"), value, DAEMONS, "alone")
    launcher, _ = (int(word) for word in process.stdout.readline().split())
    assert Path(f"/proc/{launcher}").stat().st_uid == 65534
    os.kill(launcher, signal.SIGKILL)
    assert left(value) == []
