"""Signals, stops, and the end of the tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_broker import FakeBroker
from launching import SCOPES, eventually, gone, settled, state, stretched

from rampart_seccomp.launch import Popen, run

pytestmark = pytest.mark.core

# Counts signals, one line each, until its input ends.
COUNT = """
import os, signal, sys
def say(number, frame): os.write(1, f"{signal.Signals(number).name}\\n".encode())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGCONT, signal.SIGWINCH):
    signal.signal(number, say)
os.write(1, f"{os.getpid()}\\n".encode())
while os.read(0, 1): pass
"""
DAEMONS = "setsid sleep 876 & setsid sh -c 'sleep 876 & sleep 876' & sleep 876 & "


def counting(broker: FakeBroker, **options: Any) -> Popen[str]:
    process: Popen[str] = Popen(
        [sys.executable, "-u", "-c", COUNT],
        broker=broker,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.command_pid
    return process


def line(process: Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def descendants(pid: int) -> set[int]:
    """All processes beneath one, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def test_signal_to_the_launcher_reaches_the_command_once(broker: FakeBroker) -> None:
    """What any process sends to the pid it knows arrives, once."""
    process = counting(broker)
    for name in ("SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP", "SIGWINCH"):
        os.kill(process.pid, getattr(signal, name))
        assert line(process) == name
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 0


@SCOPES
def test_group_signals_are_not_doubled(scope: bool) -> None:
    """What a process sends to the group arrives once, however often; what follows for the pid alone, too."""
    process = counting(FakeBroker(scope=scope), start_new_session=True)
    group = os.getpgid(process.pid)
    assert group == process.pid
    for name in ("SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP", "SIGCONT") * 3:
        for send in (os.killpg, os.kill, os.killpg):
            # Signals do not queue: what the launcher has not looked at yet would hide the next one.
            eventually(lambda: settled(process.pid))
            send(process.pid, getattr(signal, name))
            assert line(process) == name
    process.send_signal(signal.SIGUSR1)
    assert line(process) == "SIGUSR1"
    assert process.communicate(timeout=20)[0] == ""


def test_tree_signals_do_not_hide_later_ones(broker: FakeBroker) -> None:
    """A signal to the tree through the broker, then one to the pid: both arrive."""
    process = counting(broker)
    for _ in range(3):
        process.terminate()
        assert line(process) == "SIGTERM"
        os.kill(process.pid, signal.SIGTERM)
        assert line(process) == "SIGTERM"
    assert process.communicate(timeout=20)[0] == ""


def test_popen_signals_the_command(broker: FakeBroker) -> None:
    """send_signal acts on the command alone."""
    process = counting(broker)
    process.send_signal(signal.SIGUSR1)
    assert line(process) == "SIGUSR1"
    assert process.communicate(timeout=20)[0] == ""
    process.send_signal(signal.SIGUSR1)


@SCOPES
def test_terminal_signals_are_not_doubled(scope: bool, harness: Any) -> None:
    """Ctrl-C on a terminal reaches the command once: the terminal itself signals the foreground group."""
    code = f"""
import fcntl, os, signal, subprocess, sys, termios
import fake_broker, launching, rampart_seccomp.launch
master, slave = os.openpty()
pid = os.fork()
if not pid:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from test_tree import counting
    process = counting(fake_broker.FakeBroker(scope={scope}))
    os.write(master, b"\\x03")
    print(process.stdout.readline().strip(), flush=True)
    print(process.communicate(timeout=20)[0].strip(), process.returncode, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    output = harness(code).communicate(timeout=30)[0]
    assert output.split() == ["SIGINT", "0"]


def test_stop_and_continue_with_job_control(harness: Any) -> None:
    """A command that stops like a job stops the launcher, which shows its parent the same signal; SIGCONT to
    the group continues both, and arrives once."""
    code = """
import os, signal, sys
import fake_broker, launching, test_tree
os.setpgid(0, 0)
wrapped = fake_broker.FakeBroker().wrap([sys.executable, "-u", "-c", test_tree.COUNT])
reader, writer = os.pipe()
pid = os.fork()
if not pid:
    os.setpgid(0, 0)
    os.dup2(writer, 1)
    os.set_inheritable(wrapped.pass_fds[0], True)
    os.execv(wrapped.argv[0], [os.fsencode(word) for word in wrapped.argv])
os.close(writer)
lines = open(reader)
command = int(lines.readline())
for number in (signal.SIGTSTP, signal.SIGTTIN):
    if number == signal.SIGTSTP:
        os.killpg(pid, number)
    else:
        os.kill(command, number)
    status = os.waitpid(pid, os.WUNTRACED)[1]
    print(signal.Signals(os.WSTOPSIG(status)).name, launching.state(command))
    os.killpg(pid, signal.SIGCONT)
    print(os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1]), lines.readline().strip(), flush=True)
print(lines.read().strip(), os.waitpid(pid, 0)[1], flush=True)
"""
    process = harness(code)
    output = "".join(process.stdout.readline() for _ in range(4)) + process.communicate(timeout=20)[0]
    assert output.split() == ["SIGTSTP", "T", "True", "SIGCONT", "SIGTTIN", "T", "True", "SIGCONT", "0"]


def test_sigstop_of_the_command_does_not_stop_the_launcher(broker: FakeBroker) -> None:
    """Anybody in the tree can send SIGSTOP: the launcher goes on guarding, the command can be continued."""
    process = counting(broker)
    command = process.command_pid
    assert command is not None
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: state(command) == "T")
    eventually(lambda: state(process.pid) == "S")
    process.send_signal(signal.SIGCONT)
    assert line(process) == "SIGCONT"
    assert process.communicate(timeout=20)[0] == ""


def test_kill_reaches_a_stopped_launcher(harness: Any) -> None:
    """kill() ends a tree whose command and launcher are stopped."""
    code = """
import os, signal, subprocess, sys
import fake_broker, launching, rampart_seccomp.launch
os.setpgid(0, 0)
process = rampart_seccomp.launch.Popen(
    [sys.executable, "-c", "import os; os.kill(os.getpid(), 20); os.read(0, 1)"],
    broker=fake_broker.FakeBroker(), stdin=subprocess.PIPE, process_group=0)
launching.eventually(lambda: launching.state(process.pid) == "T")
process.kill()
print(process.wait(20))
"""
    if sys.version_info < (3, 11):
        pytest.skip("process_group= is of 3.11")
    assert harness(code).communicate(timeout=30)[0].strip() == "-9"


@SCOPES
@pytest.mark.parametrize("way", ["ends", "killed", "terminated"])
def test_nothing_outlives_the_command(way: str, scope: bool) -> None:
    """Daemons of other sessions are gone when wait() returns; what is not of the tree goes on."""
    bystander = subprocess.Popen(["sleep", "876"])
    process: Popen[bytes] = Popen(
        ["/bin/sh", "-c", DAEMONS + "read line"], broker=FakeBroker(scope=scope), stdin=subprocess.PIPE
    )
    tree = eventually(lambda: len(found := descendants(process.pid)) >= 6 and found)
    if way == "killed":
        process.kill()
    elif way == "terminated":
        process.terminate()
    elif process.stdin is not None:
        process.stdin.close()
    status = process.wait(20)
    assert status == {"ends": 1, "killed": -signal.SIGKILL, "terminated": -signal.SIGTERM}[way]
    assert gone(*tree)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    if process.stdin is not None:
        process.stdin.close()


@SCOPES
@pytest.mark.parametrize("forked", [False, True], ids=["alone", "forked"])
def test_tree_dies_with_a_killed_harness(scope: bool, forked: bool, harness: Any) -> None:
    """SIGKILL of the harness: within a second nothing of the tree is left, daemons included, even if a forked
    child of the harness holds all of its sockets open."""
    code = f"""
import os, subprocess, sys, time
import fake_broker, launching, rampart_seccomp.launch, test_tree
process = rampart_seccomp.launch.Popen(
    ["/bin/sh", "-c", test_tree.DAEMONS + "sleep 876"], broker=fake_broker.FakeBroker(scope={scope}))
tree = launching.eventually(lambda: len(found := test_tree.descendants(process.pid)) >= 6 and found)
copy = os.fork() if {forked} else 0
if {forked} and not copy:
    time.sleep(876)
print(copy, process.pid, *tree, flush=True)
time.sleep(876)
"""
    process = harness(code)
    copy, *tree = (int(word) for word in process.stdout.readline().split())
    assert not any(gone(pid) for pid in tree)
    process.kill()
    killed = time.monotonic()
    eventually(lambda: gone(*tree))
    assert time.monotonic() - killed < stretched(1.0)
    if copy:
        assert not gone(copy)
        os.kill(copy, signal.SIGKILL)


def test_unprivileged_tree_dies_with_its_harness(as_nobody: Any, environment: dict[str, str]) -> None:
    """The same without privilege, where the scope matters most: other processes of this user live on."""
    code = """
import os, signal, subprocess, sys, time
import fake_broker, launching, rampart_seccomp.launch
import importlib.util
bystander = subprocess.Popen(["sleep", "876"])
for scope in (True, False):
    process = rampart_seccomp.launch.Popen(
        ["/bin/sh", "-c", "setsid sleep 876 & sleep 876 & wait"], broker=fake_broker.FakeBroker(scope=scope),
        stdout=subprocess.PIPE)
    hello = process.session.hello
    process.kill()
    print(hello.scoped == (scope and hello.landlock_abi >= 6), process.wait(20), process.stdout.read() == b"")
    process.stdout.close()
print(bystander.poll(), os.getuid())
bystander.kill()
"""
    done = as_nobody(["/usr/bin/python3", "-c", code], env=environment)
    assert done.stdout.split("\n")[:3] == ["True -9 True", "True -9 True", "None 65534"], done.stderr


@SCOPES
def test_signals_end_at_the_tree(scope: bool) -> None:
    """With Landlock the command cannot signal its launcher, nor anything else outside; without, it can."""
    process: Popen[str] = Popen(
        ["/bin/sh", "-c", 'kill -0 "$PPID" && echo launcher; kill -0 "$OUTSIDE" && echo outside; kill -0 $$'],
        broker=FakeBroker(scope=scope),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OUTSIDE": str(os.getpid())},
    )
    output = process.communicate(timeout=20)[0].split()
    hello = process.session.hello  # type: ignore[attr-defined]
    assert hello.scoped == (scope and hello.landlock_abi >= 6)
    assert output == ([] if hello.scoped else ["launcher", "outside"])
    assert process.returncode == 0


@SCOPES
def test_fork_storm_ends(scope: bool) -> None:
    """Processes that fork in turn, each in a session of its own, do not outlive the command."""
    storm = """
import os, time
for generation in range(4):
    os.fork()
os.setsid() if os.getpid() != os.getpgid(0) else None
if os.fork():
    os._exit(0)
time.sleep(876)
"""
    process: Popen[bytes] = Popen(
        ["/bin/sh", "-c", 'setsid "$0" -c "$1" & read line', sys.executable, storm],
        broker=FakeBroker(scope=scope),
        stdin=subprocess.PIPE,
    )
    tree = eventually(lambda: len(found := descendants(process.pid)) >= 17 and found)
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert gone(*tree)


def test_usage_of_the_tree_is_accounted(harness: Any) -> None:
    """The parent's RUSAGE_CHILDREN has the time that the command used."""
    code = """
import resource, sys
from fake_broker import FakeBroker
from rampart_seccomp.launch import run
used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
before = used()
run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass"], broker=FakeBroker())
print(used() - before > 0.15)
"""
    assert harness(code).communicate(timeout=30)[0].strip() == "True"


def test_shell_pipeline_inside(broker: FakeBroker) -> None:
    """Pipelines, background jobs and wait work in the command."""
    done = run(
        "seq 5 | sort -r | head -2; sleep 0 & wait $! && echo ok",
        shell=True,
        broker=broker,
        capture_output=True,
    )
    assert done.stdout == b"5\n4\nok\n"
