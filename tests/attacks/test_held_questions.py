"""Row 54: while nobody has answered, signals and stops reach the process as they would bare."""

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

EVERYTHING = ["read", "write", "exec", "connect", "listen"]

READER = """
import os, signal, sys, threading
seen = []
def note(signo, frame):
    seen.append(signo)
    os.write(1, b"handled %d\\n" % signo)
for signo in (signal.SIGINT, signal.SIGUSR1):
    signal.signal(signo, note)
if sys.argv[2:] == ["threads"]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
os.write(1, b"asking\\n")
print(open(sys.argv[1]).read(), len(seen), flush=True)
"""


class Person:
    """Answers when told to, and counts what was asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.count = 0
        self._go = threading.Event()
        self._verdict: rampart.Verdict = rampart.Deny()

    def __call__(self, event: rampart.Event) -> rampart.Verdict:
        self.count += 1
        self.asked.set()
        assert self._go.wait(30)
        return self._verdict

    def say(self, verdict: rampart.Verdict) -> None:
        self._verdict = verdict
        self._go.set()


@pytest.fixture
def person() -> Iterator[Person]:
    made = Person()
    yield made
    made.say(rampart.Deny())


@pytest.fixture
def held(project: Any, person: Person) -> Iterator[Callable[..., rampart.Popen[str]]]:
    """Start a program that waits for the answer about reading a file; gives it once somebody is asked."""
    file = project.write("asked", "content")
    policy = rampart.Policy(
        rules=[
            rampart.allow(EVERYTHING, name="everything"),
            rampart.ask("read", paths=[str(file)], name="asked"),
        ]
    )
    started: list[rampart.Popen[str]] = []

    def start(*words: str, **options: Any) -> rampart.Popen[str]:
        process: rampart.Popen[str] = rampart.Popen(
            [sys.executable, "-c", READER, str(file), *words],
            policy=policy,
            on_ask=person,
            stdout=subprocess.PIPE,
            text=True,
            env=project.environment,
            **options,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        assert person.asked.wait(10)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def state(pid: int | None) -> str:
    """State of a process, as proc_pid_status(5) has it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[1] for line in status.splitlines() if line.startswith("State:"))


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.core
@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGUSR1])
def test_handler_runs_and_the_question_stands(held: Any, person: Person, signo: int) -> None:
    """A handler runs at once; the call goes on waiting, is asked about once, and gets its answer."""
    process = held()
    assert process.command_pid is not None
    for count in (1, 2, 3):
        os.kill(process.command_pid, signo)
        assert process.stdout.readline() == f"handled {signo}\n"
        assert person.count == 1, count
    person.say(rampart.Allow())
    assert process.stdout.read() == "content 3\n"
    assert process.wait() == 0
    assert (person.count, process.denials) == (1, [])


# A group of its own is no orphaned one, in which the kernel drops SIGTSTP (setpgid(2)).
STOPS = [
    (signal.SIGSTOP, {}),
    pytest.param(
        signal.SIGTSTP,
        {"process_group": 0},
        marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="subprocess cannot make a group"),
    ),
]


@pytest.mark.core
@pytest.mark.parametrize("words", [[], ["threads"]])
@pytest.mark.parametrize(("signo", "options"), STOPS)
def test_stop_and_continue(
    held: Any, person: Person, words: list[str], signo: int, options: dict[str, int]
) -> None:
    """A stop stops the process while it asks, SIGCONT continues it, and the answer is denied as it says."""
    process = held(*words, **options)
    assert process.command_pid is not None
    os.kill(process.command_pid, signo)
    assert eventually(lambda: state(process.command_pid) == "T")
    time.sleep(0.3)
    assert state(process.command_pid) == "T"
    os.kill(process.command_pid, signal.SIGCONT)
    assert eventually(lambda: state(process.command_pid) != "T")
    person.say(rampart.Deny())
    assert process.wait(10) == 1
    assert person.count == 1
    assert [denial.rule for denial in process.denials] == ["asked"]


@pytest.mark.core
@pytest.mark.parametrize(("signo", "options"), STOPS)
def test_answer_while_it_is_stopped(held: Any, person: Person, signo: int, options: dict[str, int]) -> None:
    """An answer that comes while the process is stopped is there when it continues."""
    process = held(**options)
    assert process.command_pid is not None
    os.kill(process.command_pid, signo)
    assert eventually(lambda: state(process.command_pid) == "T")
    person.say(rampart.Allow())
    time.sleep(0.3)
    assert state(process.command_pid) == "T"
    os.kill(process.command_pid, signal.SIGCONT)
    assert process.stdout.read() == "content 0\n"
    assert (process.wait(10), person.count) == (0, 1)


@pytest.mark.core
@pytest.mark.parametrize("signo", [signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL])
def test_fatal_signal(held: Any, person: Person, signo: int) -> None:
    """A fatal signal ends the process although nobody has answered."""
    process = held()
    assert process.command_pid is not None
    os.kill(process.command_pid, signo)
    assert process.wait(10) == -signo
    assert person.count == 1


@pytest.mark.core
def test_bounced_again_and_again(held: Any, person: Person) -> None:
    """A question that stands for seconds is bounced meanwhile, and nobody is asked twice."""
    process = held()
    time.sleep(3.5)
    person.say(rampart.Allow())
    assert process.stdout.read() == "content 0\n"
    assert (process.wait(10), person.count) == (0, 1)


@pytest.mark.core
def test_what_a_call_was_answered_holds_when_it_comes_again(project: Any, person: Person) -> None:
    """Of two questions of one call, the first is not put again while the second stands."""
    project.write("old", "content")
    policy = rampart.Policy(
        rules=[
            rampart.allow(EVERYTHING, name="everything"),
            rampart.ask(["create", "delete"], paths=["./old", "./new"], name="asked"),
        ]
    )
    asked = []

    def answer(event: rampart.Event) -> rampart.Verdict:
        asked.append(str(event.operation))
        if len(asked) == 1:
            return rampart.Allow()
        threading.Timer(2.5, person.say, [rampart.Allow()]).start()
        return person(event)

    code = "import os; os.rename('old', 'new'); print(open('new').read())"
    done = project.run([sys.executable, "-c", code], policy, on_ask=answer)

    assert (done.stdout, done.returncode) == ("content\n", 0), done.stderr
    assert sorted(asked) == ["create", "delete"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a cgroup")
def test_freezer(held: Any, person: Person, tmp_path: Path) -> None:
    """A cgroup can be frozen while a process of it asks."""
    mounted = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [fields[1] for fields in mounted if fields[2] == "cgroup2" and "rw" in fields[3].split(",")]
    if not roots:
        pytest.skip("no writable cgroup2")
    group = Path(roots[0]) / f"rampart-test-{os.getpid()}"
    group.mkdir()
    process = held()
    try:
        (group / "cgroup.procs").write_text(str(process.command_pid))
        (group / "cgroup.freeze").write_text("1")
        assert eventually(lambda: "frozen 1" in (group / "cgroup.events").read_text())
        (group / "cgroup.freeze").write_text("0")
        person.say(rampart.Allow())
        assert process.stdout.read() == "content 0\n"
        assert (process.wait(10), person.count) == (0, 1)
    finally:
        (group / "cgroup.freeze").write_text("0")
        process.kill()
        process.wait()
        group.rmdir()
