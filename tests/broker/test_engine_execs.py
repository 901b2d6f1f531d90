"""Execs that the engine judges in C: as Python would, and known to Python before it is asked who is who."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import rampart_seccomp as rampart
from rampart_seccomp.broker.engine import Engine
from rampart_seccomp.broker.verifying import Verifying
from rampart_seccomp.calls.starting import ExecCall

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(
        os.environ.get("RAMPART_SECCOMP_ENGINE") == "python", reason="is about the other engine"
    ),
]

SRC = Path(__file__).parent / "src"
PYTHON = [sys.executable, "-I", "-S", "-B"]
EVERYTHING = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
OPEN = rampart.Policy(rules=[EVERYTHING], features=["sysv-ipc"])

sys.path.insert(0, str(SRC))
import starts  # noqa: E402

sys.path.remove(str(SRC))

VOLATILE = ("time", "seq", "mono_ns", "hash", "prev", "held_us", "session", "pid", "tid", "start_time")

POLICIES = {
    "agent": rampart.Policy.load("agent").with_rules(rampart.deny("exec", env=["TOLD_LAST"], name="told")),
    "open": OPEN,
    "paths": OPEN.with_rules(rampart.deny("exec", paths=["./forbidden", "./plain"], name="paths")),
    "some": rampart.Policy(
        rules=[
            rampart.allow(
                "exec",
                paths=["./**", "@system", "/**/python3*"],
                except_=["./hard", "./nested-1"],
                name="some",
            ),
            rampart.allow("write", paths=["./**", "/dev/null"], name="write"),
        ],
        default={"read": "allow"},
    ),
    "commands": OPEN.with_rules(
        rampart.deny("exec", commands=["forbidden **", "link x", "tell a b"], name="commands")
    ),
    "variables": OPEN.with_rules(rampart.deny("exec", env=["LD_PRELOAD", "TOLD_*"], name="variables")),
    "actors": OPEN.with_rules(
        rampart.deny("exec", paths=["./tell"], programs=["@system"], name="program"),
        rampart.deny("exec", paths=["./link"], within=["python* **"], name="within"),
    ),
    "questions": OPEN.with_rules(
        rampart.ask("exec", paths=["./plain"], decide=lambda _: rampart.Deny(), name="asked"),
    ),
    "silent": rampart.Policy(
        rules=[rampart.allow(["read", "write", "exec"], name="everything", log=False)],
    ),
}


PLAIN = {"agent", "open", "paths", "silent"}
"""Those that depend on nothing but what is started."""


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> list[ExecCall]:
    """The execs that Python let go."""
    found: list[ExecCall] = []
    original = Verifying.let_go

    def note(self: Verifying, call: ExecCall) -> None:
        found.append(call)
        original(self, call)

    monkeypatch.setattr(Verifying, "let_go", note)
    return found


@pytest.fixture(scope="session")
def tell(compiled: Callable[..., Path]) -> Path:
    """A program that tells its arguments."""
    return compiled(SRC / "tell.c")


@pytest.fixture
def place(project: Any, tell: Path) -> Path:
    """What starts.py starts."""
    root: Path = project.root
    for name in ("tell", "forbidden", "ld-mine.so"):
        shutil.copy(tell, root / name)
    os.link(root / "tell", root / "hard")
    links = {"link": "tell", "links": "link", "way": ".", "dangling": "no", "loop": "loop"}
    for name, leads in links.items():
        (root / name).symlink_to(leads)
    (root / "sub").mkdir()
    os.mkfifo(root / "fifo")
    (root / "data").write_bytes((root / "tell").read_bytes())
    (root / "data").chmod(0o644)
    for name, text in starts.scripts(str(root)).items():
        (root / name).write_bytes(text)
        (root / name).chmod(0o755)
    return root


@attrs.frozen
class Outcome:
    """What came of starting all of it.

    Attributes:
        results: What the programs and their starter said.
        decided: What was decided about execs.
        recorded: What is on record of that, without times and numbers, in some order. Not of the command
            itself: it shows how the launcher was started.
        in_python: How many execs Python let go.
    """

    results: list[Any]
    decided: list[Any]
    recorded: list[str]
    in_python: int


@pytest.fixture
def start(project: Any, let_go: list[ExecCall]) -> Callable[[rampart.Policy, str], Outcome]:
    """Start all of it behind a policy."""

    def run(policy: rampart.Policy, engine: str) -> Outcome:
        project.audit = project.audit.with_name(f"{engine}.jsonl")
        before = len(let_go)
        home = os.fsencode(project.home)
        with rampart.Broker(policy, engine=engine, audit=project.audit, home=home) as broker:
            done = rampart.run(
                [*PYTHON, SRC / "starts.py", project.root],
                broker=broker,
                cwd=project.root,
                env=project.environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
        assert done.returncode == 0, done.stderr
        return Outcome(
            [json.loads(line) for line in done.stdout.splitlines()],
            [_settled(each) for each in done.events if isinstance(each.event, rampart.ExecEvent)],
            sorted(
                _lasting(record)
                for record in project.records()
                if record["operation"] == "exec" and record["ancestry"]
            ),
            len(let_go) - before,
        )

    return run


def _settled(decided: Any) -> Any:
    """A decision without what is another in each run, and without what only Python looks at: `changed`."""
    event = decided.event
    named = None if event.named is None else re.sub(rb"/(proc|task)/\d+", rb"/\1/N", event.named)
    return attrs.evolve(decided, event=attrs.evolve(event, named=named, changed=None))


def _lasting(record: dict[str, Any]) -> str:
    """A record without what is another in each run."""
    kept = {key: value for key, value in record.items() if key not in VOLATILE}
    return re.sub(r"/(proc|task)/\d+", r"/\1/N", json.dumps(kept))


@pytest.mark.parametrize("name", POLICIES)
def test_like_the_reference(name: str, place: Path, start: Callable[[rampart.Policy, str], Outcome]) -> None:
    """Whatever is started, and however: results, decisions and records are those of Python."""
    native, reference = start(POLICIES[name], "native"), start(POLICIES[name], "python")

    assert native.results == reference.results
    assert native.decided == reference.decided
    assert native.recorded == reference.recorded
    assert len(native.results) == len(starts.cases(str(place)))
    if name in PLAIN:
        assert native.in_python < reference.in_python / 2


def test_known_before_it_asks(project: Any, let_go: list[ExecCall]) -> None:
    """Who was started by the engine, and beneath whom, is known at its first question, however deep it is."""
    seen: list[tuple[bytes, ...]] = []

    def look(event: rampart.FileEvent) -> rampart.Verdict:
        assert event.process is not None
        seen.append(tuple(program.path for program in event.process.lineage or ()))
        return rampart.Allow()

    project.write("marked", "x\n")
    text = "#!/bin/sh\nread line < ./marked; /bin/cat ./marked; exec /bin/cat ./marked\n"
    script = project.write("script", text, 0o755)
    policy = OPEN.with_rules(rampart.ask("read", paths=["./marked"], decide=look, name="look"))
    shell, cat = (os.fsencode(os.path.realpath(name)) for name in ("/bin/sh", "/bin/cat"))

    done = project.run(["/bin/sh", "-c", f"(({script}; :); :); /bin/cat ./marked"], policy)

    assert (done.returncode, done.stdout) == (0, "x\n" * 3)
    assert seen == [(shell, shell), (cat, shell, shell), (cat, shell, shell), (cat, shell)]
    assert 1 <= len(let_go) < 4  # the first ones, until one was traced


def test_denied_by_who_acts(project: Any) -> None:
    """A rule on programs sees whom the engine has started, and who forked from them."""
    project.write("marked", "x\n")
    policy = OPEN.with_rules(rampart.deny("read", paths=["./marked"], programs=["/**/cat"], name="cat"))

    command = "/bin/cat ./marked || read line < ./marked && /bin/echo $line"
    done = project.run(["/bin/sh", "-c", command], policy)

    assert done.stdout == "x\n"
    assert [denial.rule for denial in done.denials] == ["cat"]


SPAWNER = """
import errno, os, sys
print(os.getpid(), flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        print(os.getpid(), flush=True)
        sys.stdin.readline()
        try: os.execv("/bin/true", ["true"])
        except OSError as failure: os._exit(failure.errno)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Spawner:
    """A tree that forks and starts a program when it is told to, step by step."""

    def __init__(self, process: rampart.Popen[str]) -> None:
        self.process = process
        self.read()

    def fork(self) -> int:
        """Have it fork; give the pid of the child, which waits."""
        return self.tell()

    def execute(self) -> int:
        """Have the child execute; give its exit status, or the errno."""
        return self.tell()

    def tell(self) -> int:
        """Send a line; give the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> int:
        """Read a number."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """The engine's ends of the channels to launchers."""
    found: list[socket.socket] = []
    original = Engine.trace

    def note(self: Engine, channel: int, *rest: Any) -> None:
        found.append(socket.socket(fileno=os.dup(channel)))
        original(self, channel, *rest)

    monkeypatch.setattr(Engine, "trace", note)
    yield found
    for channel in found:
        channel.close()


@pytest.fixture
def spawner(let_go: list[ExecCall]) -> Iterator[Spawner]:
    """A tree whose execs the engine judges: the first was seen to be traced."""
    policy = OPEN.with_rules(rampart.deny("exec", paths=["/nowhere"], name="nowhere"))
    with rampart.Broker(policy) as broker:
        command = [*PYTHON, "-c", SPAWNER]
        process = rampart.Popen(command, broker=broker, stdin=-1, stdout=-1, text=True, bufsize=1)
        with process:
            spawner = Spawner(process)
            for _ in range(20):
                let_go.clear()
                spawner.fork()
                assert spawner.execute() == 0
                if not let_go:
                    break
            assert not let_go
            yield spawner
            process.kill()


PTRACE_SEIZE, WALL = 0x4206, 0x40000000


def test_untraced(spawner: Spawner, let_go: list[ExecCall]) -> None:
    """What cannot be traced is a question, which Python denies; the next, too, which shows that one can."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    pid = spawner.fork()
    assert ptrace(PTRACE_SEIZE, pid, None, None) == 0
    # Of a traced process, the tracer hears first that it has ended.
    tracer = threading.Thread(target=os.waitpid, args=(pid, WALL))
    tracer.start()
    assert spawner.execute() == errno.EPERM
    tracer.join()
    assert 1 <= len(let_go) < 4  # the first ones, until one was traced

    results = []
    for _ in range(3):
        spawner.fork()
        results.append(spawner.execute())
    assert (results, len(let_go)) == ([0, 0, 0], 2)


def test_launcher_is_stopped(spawner: Spawner, let_go: list[ExecCall]) -> None:
    """A launcher that was stopped is continued, as an exec of the engine waits for it."""
    assert spawner.process.session._listener is not None
    launcher = spawner.process.session._listener.launcher
    spawner.fork()
    os.kill(launcher, signal.SIGSTOP)

    assert (spawner.execute(), len(let_go)) == (0, 0)


def test_nobody_hears_of_an_exec(channels: list[socket.socket], spawner: Spawner) -> None:
    """What nobody can be told of does not run: it would be taken for what it was before."""
    assert spawner.process.session._listener is not None
    launcher = spawner.process.session._listener.launcher
    spawner.fork()
    os.kill(launcher, signal.SIGSTOP)
    channels[0].shutdown(socket.SHUT_RD)

    assert spawner.execute() == -signal.SIGKILL


@pytest.fixture
def few() -> Iterator[tuple[int, int]]:
    """A soft limit of descriptors below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    given = (min(soft, hard - 1), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, given)
    yield given
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_launcher_has_descriptors_for_a_crowd(few: tuple[int, int], spawner: Spawner) -> None:
    """An exec on its way takes one of the launcher's: it may have all that the user may. Not the command."""
    session = spawner.process.session
    assert session._listener is not None
    assert session.command_pid is not None

    assert resource.prlimit(session._listener.launcher, resource.RLIMIT_NOFILE) == (few[1], few[1])
    assert resource.prlimit(session.command_pid, resource.RLIMIT_NOFILE) == few


def test_channel_talks_nonsense(channels: list[socket.socket], spawner: Spawner) -> None:
    """Where orders do not arrive whole, calls could wait for ever, and execs go unheard: the tree ends."""
    channels[0].send(b"nonsense")

    assert spawner.process.wait(timeout=30) == -signal.SIGKILL


def test_an_image_is_written_over(project: Any, let_go: list[ExecCall]) -> None:
    """What is remembered of an image is not what it says after it was changed."""
    program = project.write("program", "", 0o755)
    program.write_bytes(Path("/bin/true").read_bytes())
    project.write("other", "#!/bin/sh\necho other\n")
    time.sleep(3.1)  # a file that has just changed is not remembered

    line = "./program && ./program && cat other > program && ./program"
    done = project.run(["/bin/sh", "-c", line], OPEN)

    assert (done.returncode, done.stdout, done.denials) == (0, "other\n", [])
    assert 1 <= len(let_go) < 4  # the first ones, until one was traced
