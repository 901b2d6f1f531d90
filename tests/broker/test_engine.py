"""The threads in C that answer what a policy decides: without the interpreter, and as Python would."""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import rampart_seccomp as rampart
from rampart_seccomp.errors import AuditError
from rampart_seccomp.kernel.libseccomp import number_of

pytestmark = pytest.mark.core

SRC = Path(__file__).parent / "src"
EVERYTHING = ["read", "write", "exec", "connect", "listen"]
OPEN = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")], features=["sysv-ipc"])
PYTHON = [sys.executable, "-I", "-S", "-B"]
ENGINES = ["native", "python"]


def _denying(*paths: Path) -> rampart.Policy:
    return OPEN.with_rules(
        rampart.deny(["read", "write"], paths=[str(path) for path in paths], name="secret")
    )


Start = Callable[..., "rampart.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program as a tree with pipes."""
    started: list[rampart.Popen[str]] = []

    def popen(broker: rampart.Broker, code: str, *args: object, **options: Any) -> rampart.Popen[str]:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1} | options
        command = [*PYTHON, "-c", code, *map(str, args)]
        started.append(rampart.Popen(command, broker=broker, **options))
        return started[-1]

    yield popen
    for process in started:
        process.kill()
        with process:
            pass


def _line(process: rampart.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def _tell(process: rampart.Popen[str], text: str) -> str:
    """Send a line; give the answer."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()
    return _line(process)


def _asked(process: rampart.Popen[str]) -> int:
    """How many calls became questions for Python."""
    return process.session.counts[1]


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.fixture
def place(workspace: Path) -> Iterator[Path]:
    """An empty directory that everybody may reach."""
    made = Path(tempfile.mkdtemp(dir=workspace))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def port() -> Iterator[int]:
    """A TCP port where somebody listens and takes every connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


# The interpreter is not needed

BUSY = """
import os, socket, sys, time
secret, port = sys.argv[1], int(sys.argv[2])
address = ("127.0.0.1", port)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(1000):
    os.close(os.open("/dev/null", os.O_RDONLY))
denied = 0
for _ in range(100):
    try:
        os.open(secret, os.O_RDONLY)
    except PermissionError:
        denied += 1
for _ in range(50):
    os.close(os.open("made", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink("made")
    os.mkdir("directory")
    os.rmdir("directory")
    datagrams.sendto(b"x", address)
    datagrams.sendmsg([b"x"], [], 0, address)
for _ in range(10):
    with socket.socket() as stream:
        stream.connect(address)
print(time.monotonic(), denied, flush=True)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_no_interpreter_is_needed(start: Start, place: Path, engine: str) -> None:
    """What the policy decides goes on while somebody keeps the interpreter; answered in Python, it waits."""
    secret = place / "secret"
    secret.write_text("x")
    with (
        socket.create_server(("127.0.0.1", 0), backlog=100) as server,
        rampart.Broker(_denying(secret), engine=engine) as broker,
    ):
        process = start(broker, BUSY, secret, server.getsockname()[1], cwd=place)
        assert _line(process) == "ready"
        hold = ctypes.PyDLL(None).usleep
        os.write(process.stdin.fileno(), b"go\n")  # type: ignore[union-attr]
        hold(4_000_000)
        free = time.monotonic()
        done, denied = _line(process).split()
        assert process.wait() == 0

    assert denied == "100"
    assert len(process.denials) == 100
    if engine == "native":
        assert float(done) < free - 0.5
    else:
        assert float(done) > free


# Both engines say the same


def _many_calls(
    place: Path, port: int, policy: rampart.Policy | None, engine: str | None, **options: Any
) -> tuple[list[Any], list[Any]]:
    """Run the program in a fresh directory; give what it printed and what was decided."""
    work, secrets = place / "work", place / "secrets"
    for directory in (work, secrets):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    secret = secrets / "secret"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    command = [*PYTHON, str(SRC / "many_calls.py"), str(secret), str(port), str(closed)]
    options = {"cwd": work, "stdout": subprocess.PIPE, "timeout": 120} | options
    if engine is None:
        return json.loads(subprocess.run(command, check=True, **options).stdout), []
    assert policy is not None
    with rampart.Broker(policy, engine=engine, audit=options.pop("audit", None)) as broker:
        done = rampart.run(command, broker=broker, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), [
        (_told(decided, closed), None if decided.event.process is None else decided.event.process.tid)
        for decided in done.events
    ]


def _told(decided: Any, closed: int) -> tuple[Any, ...]:
    event = decided.event
    shown = re.sub(r"(?<=/proc/)\d+|(?<=/task/)\d+", "N", event.object.replace(str(closed), "closed"))
    return str(event.operation), shown, decided.verdict, decided.rule, decided.errno, event.syscall


def test_results_are_the_kernels_own(place: Path, port: int) -> None:
    """Under a policy that allows everything, both engines give what the kernel gives: values and errors."""
    bare, _ = _many_calls(place, port, None, None)
    for engine in ENGINES:
        seen, _ = _many_calls(place, port, OPEN, engine)
        assert [pair for pair in zip(bare, seen, strict=True) if pair[0] != pair[1]] == [], engine
    assert len(bare) > 600


@pytest.mark.parametrize("recorded", [False, True])
def test_engines_agree(place: Path, port: int, recorded: bool) -> None:
    """For one program under one policy, both engines give the same results and decide the same, in order."""
    policy = _denying(place / "secrets" / "**").with_rules(
        rampart.deny("connect", hosts=["127.0.0.9"], name="elsewhere")
    )
    if recorded:
        policy = attrs.evolve(policy, audit="all")
    given = [
        _many_calls(place, port, policy, engine, audit=place / f"{engine}.jsonl" if recorded else None)
        for engine in ENGINES
    ]

    (native, native_events), (python, python_events) = given
    assert [pair for pair in zip(native, python, strict=True) if pair[0] != pair[1]] == []
    for mine, theirs in zip(_by_thread(native_events), _by_thread(python_events), strict=True):
        assert "\n".join(difflib.unified_diff(mine, theirs, "native", "python", lineterm="", n=1)) == ""
    assert sum(told[2] == "deny" for told, _ in native_events) > 50
    if recorded:
        logged = [
            [
                (each["operation"], each["verdict"], each["errno"])
                for each in _records(place / f"{engine}.jsonl")
            ]
            for engine in ENGINES
        ]
        assert sorted(map(str, logged[0])) == sorted(map(str, logged[1]))
        assert len(logged[0]) == len(native_events)


def _by_thread(events: list[Any]) -> list[list[str]]:
    """What was decided for each thread, in order; one list if threads are not known."""
    threads: dict[Any, list[str]] = {}
    known = all(tid is not None for _, tid in events)
    for told, tid in events:
        threads.setdefault(tid if known else None, []).append(str(told))
    return list(threads.values())


def _records(path: Path) -> list[Any]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if "verdict" in record]


# Who calls


WAYS = [
    "setresuid",
    "effective",
    "setfsuid",
    "capset",
    "setgroups",
    "bounding",
    "one_thread",
    "there_and_back",
    "umask",
]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize("way", WAYS)
def test_rights_given_up_are_gone(place: Path, way: str) -> None:
    """A process that gives up rights is served without them from its next call on, as bare."""
    given = []
    for engine in (None, *ENGINES):
        work = place / f"for-{engine}"
        work.mkdir()
        private, shared, common = work / "private", work / "shared", work / "common"
        private.write_text("x")
        private.chmod(0o600)
        shared.write_text("x")
        os.chown(shared, 65534, 1234)
        shared.chmod(0o040)
        common.mkdir()
        common.chmod(0o777)
        if way == "capset":
            os.chown(private, 1000, 1000)
        command = [*PYTHON, str(SRC / "new_rights.py"), way, *map(str, (private, shared, common))]
        if engine is None:
            done: Any = subprocess.run(command, capture_output=True, text=True, timeout=60)
        else:
            with rampart.Broker(_denying(place / "never"), engine=engine) as broker:
                done = rampart.run(command, broker=broker, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        given.append(done.stdout.splitlines())

    bare, native, python = given
    assert native == bare
    assert python == bare
    if way not in ("umask", "one_thread", "there_and_back"):
        assert "EACCES" in bare[-1]


SAME_NUMBER = """
import errno, os, sys
private = sys.argv[1]
def opened():
    try:
        os.close(os.open(private, os.O_RDONLY))
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
orders, answers = os.pipe(), os.pipe()
if os.fork() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    opened()
    while os.read(orders[0], 1):
        child = os.fork()
        if child == 0:
            os.write(answers[1], f"{os.getpid()} {opened()} {opened()}".encode())
            os._exit(0)
        os.waitpid(child, 0)
    os._exit(0)
first = os.fork()
if first == 0:
    for _ in range(50):
        assert opened() == "ok"
    os._exit(0)
assert os.waitpid(first, 0)[1] == 0
for _ in range(20):
    print(first, flush=True)
    sys.stdin.readline()
    os.write(orders[1], b"x")
    number, *found = os.read(answers[0], 100).decode().split()
    if int(number) == first:
        print(*found, flush=True)
        break
"""

IN_NEW_NAMESPACE = """
import subprocess, sys
import rampart_seccomp as rampart
everything = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
policy = rampart.Policy(rules=[everything, rampart.deny("read", paths=["/never"], name="never")])
with rampart.Broker(policy, engine=sys.argv[1]) as broker:
    process = rampart.Popen([sys.executable, "-I", "-S", "-B", "-c", sys.argv[3], sys.argv[2]], broker=broker,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        while (line := process.stdout.readline().strip()).isdigit():
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(int(line) - 1))
            process.stdin.write("go\\n")
            process.stdin.flush()
        print(line)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses process numbers")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_number_used_again(place: Path, engine: str) -> None:
    """A process that gets the number of a dead one has its own rights, though nothing told of the change."""
    private = place / "private"
    private.write_text("x")
    private.chmod(0o600)
    done = subprocess.run(
        ["unshare", "-pfm", "--mount-proc", "--kill-child", sys.executable, "-c", IN_NEW_NAMESPACE,
         engine, private, SAME_NUMBER],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare:" in done.stderr or "Read-only" in done.stdout:
        pytest.skip(f"no namespaces here: {done.stderr}{done.stdout}")

    assert (done.stdout, done.stderr) == ("EACCES EACCES\n", "")


EXECUTING = """
import os, sys, threading, time
secret, image = sys.argv[1:3]
begun = threading.Event()
def become():
    begun.wait()
    os.execv(image, [image, secret, secret])
threading.Thread(target=become).start()
for turn in range(100_000):
    if turn == 20:
        begun.set()
    try:
        os.open(secret, os.O_RDONLY)
    except PermissionError:
        pass
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_exec_by_another_thread(place: Path, engine: str) -> None:
    """While the leader makes calls, another thread executes a program, which gets the leader's number.

    Each call is judged and recorded as that of the program that made it.
    """
    secret, image = place / "secret", place / "reader"
    secret.write_text("content\n")
    cat = shutil.which("cat")
    assert cat is not None
    shutil.copy(cat, image)
    policy = OPEN.with_rules(
        rampart.deny("read", paths=[str(secret)], name="secret"),
        rampart.deny("modify", paths=[str(place / "never")], name="never"),
    )
    reading = OPEN.with_rules(
        rampart.deny("read", paths=[str(secret)], except_=[{"programs": [str(image)]}], name="secret")
    )
    python = os.path.realpath(sys.executable)
    for turn in range(4):
        chosen = policy if turn % 2 else reading
        with rampart.Broker(chosen, engine=engine, audit=place / f"{turn}.jsonl") as broker:
            done = rampart.run(
                [*PYTHON, "-c", EXECUTING, str(secret), str(image)],
                broker=broker,
                capture_output=True,
                text=True,
            )
        denied = [decided.event.process for decided in done.events if decided.verdict == "deny"]
        programs = [os.fsdecode(process.executable) for process in denied if process is not None]
        assert len(programs) == len(denied) > 20
        first_new = programs.index(str(image)) if str(image) in programs else len(programs)
        assert set(programs[:first_new]) == {python}
        if chosen is policy:
            assert programs[first_new:] == [str(image)] * 2
            assert done.returncode == 1


# Calls that wait


WAITING = """
import os, socket, sys, threading, time
count = int(sys.argv[1])
def wait(number):
    fd = os.open(f"fifo{number}", os.O_RDONLY)
    os.read(fd, 1)
    os.close(fd)
for number in range(count):
    os.mkfifo(f"fifo{number}")
threads = [threading.Thread(target=wait, args=(number,), daemon=True) for number in range(count)]
for thread in threads:
    thread.start()
for line in sys.stdin:
    if line == "work\\n":
        for _ in range(50):
            os.close(os.open("made", os.O_WRONLY | os.O_CREAT))
            os.unlink("made")
        print("worked", flush=True)
    elif line == "release\\n":
        for number in range(count):
            fd = os.open(f"fifo{number}", os.O_WRONLY)
            os.write(fd, b"x")
            os.close(fd)
        for thread in threads:
            thread.join()
        print("released", flush=True)
"""


def _settles(value: Callable[[], int], wanted: int, seconds: float = 15) -> int:
    """Wait until a value comes down to what is wanted; give the last."""
    end = time.monotonic() + seconds
    while value() > wanted and time.monotonic() < end:
        time.sleep(0.05)
    return value()


def _comes_to(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Wait until something holds; tell whether it came to that."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [3, 10, 60])
def test_calls_that_wait(start: Start, place: Path, engine: str, count: int) -> None:
    """However many calls wait for a peer, the tree goes on; they end when the peer comes, or the tree."""
    before = _threads()
    with rampart.Broker(_denying(place / "never"), engine=engine) as broker:
        process = start(broker, WAITING, count, cwd=place)
        assert _tell(process, "work") == "worked"
        time.sleep(0.3)
        assert _tell(process, "work") == "worked"
        assert _tell(process, "release") == "released"
        assert _tell(process, "work") == "worked"
        process.stdin.close()  # type: ignore[union-attr]
        assert process.wait(30) == 0
        shutil.rmtree(place)
        place.mkdir()
        process = start(broker, WAITING, count, cwd=place)
        assert _tell(process, "work") == "worked"
        began = time.monotonic()
        process.kill()
        process.wait(30)
        assert time.monotonic() - began < 10
    assert _settles(_threads, before) <= before


def test_few_receive(start: Start, place: Path) -> None:
    """Threads added for calls that wait do not receive afterwards: each call would wake them all."""
    with rampart.Broker(_denying(place / "never")) as broker:
        process = start(broker, WAITING, 30, cwd=place)
        assert _tell(process, "work") == "worked"
        assert _tell(process, "release") == "released"
        assert _tell(process, "work") == "worked"
        most = min(4, max(2, os.cpu_count() or 1))
        assert _comes_to(lambda: 1 <= _receiving() <= most)
        process.kill()


IN_TURN = """
import os, sys
there, back = os.pipe(), os.pipe()
def one_open():
    os.close(os.open("/etc/passwd", os.O_RDONLY))
if os.fork() == 0:
    os.close(there[1])
    while os.read(there[0], 1):
        one_open()
        os.write(back[1], b".")
    os._exit(0)
for line in sys.stdin:
    for _ in range(200):
        one_open()
        if line.strip() == "two":
            os.write(there[1], b".")
            os.read(back[0], 1)
    print("done", flush=True)
"""


def test_one_receives_where_one_calls(start: Start, place: Path) -> None:
    """While one thread makes all the calls one of ours receives; all do again once others call, too."""
    with rampart.Broker(_denying(place / "never")) as broker:
        process = start(broker, IN_TURN, cwd=place)
        most = min(4, max(2, os.cpu_count() or 1))
        for _ in range(3):
            assert _tell(process, "one") == "done"
            assert _comes_to(lambda: _receiving() == 1)
            assert _tell(process, "two") == "done"
            assert _comes_to(lambda: _receiving() == most)
        process.kill()


def _receiving() -> int:
    """How many threads of ours wait in an ioctl(2)."""
    numbers = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            numbers.append((task / "syscall").read_text().split()[0])
    return numbers.count(str(number_of("ioctl")))


KILLED = """
import os, signal, sys, time
for number in range(40):
    os.mkfifo(f"fifo{number}")
for line in sys.stdin:
    children = []
    for number in range(40):
        child = os.fork()
        if child == 0:
            os.open(f"fifo{number}", os.O_RDONLY)
            os._exit(1)
        children.append(child)
    time.sleep(0.3)
    for child in children:
        os.kill(child, signal.SIGKILL)
    print(sum(os.waitpid(child, 0)[1] == signal.SIGKILL for child in children), flush=True)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_while_waiting(start: Start, place: Path, engine: str) -> None:
    """A killed process frees the thread that waits for it: round after round there are no more threads."""
    with rampart.Broker(_denying(place / "never"), engine=engine) as broker:
        process = start(broker, KILLED, cwd=place)
        assert _tell(process, "go") == "40"
        counted = [_threads()]
        for _ in range(4):
            assert _tell(process, "go") == "40"
            counted.append(_threads())
        if engine == "native":
            end = time.monotonic() + 10
            while _at_work(process) and time.monotonic() < end:
                time.sleep(0.02)
            assert _at_work(process) == 0
        process.kill()
    assert max(counted) < 40 + 64, counted


def _at_work(process: rampart.Popen[str]) -> int:
    """How many threads of ours wait in an open(2) of a FIFO."""
    waiting = 0
    for tid in os.listdir("/proc/self/task"):
        try:
            waiting += Path(f"/proc/self/task/{tid}/wchan").read_text() == "wait_for_partner"
        except OSError:
            continue
    return waiting


CONNECTING = """
import os, socket, sys, threading
port = int(sys.argv[1])
def connect():
    with socket.socket() as stream:
        stream.connect(("127.0.0.1", port))
threads = [threading.Thread(target=connect) for _ in range(12)]
for thread in threads:
    thread.start()
for line in sys.stdin:
    if line == "work\\n":
        for _ in range(50):
            os.close(os.open("/dev/null", os.O_RDONLY))
        print("worked", flush=True)
    else:
        for thread in threads:
            thread.join()
        print("joined", flush=True)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_connections_that_wait(start: Start, place: Path, engine: str) -> None:
    """A listener whose queue is full holds those up who connect, and nobody else."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1) as server,
        rampart.Broker(_denying(place / "never"), engine=engine) as broker,
    ):
        process = start(broker, CONNECTING, server.getsockname()[1])
        assert _tell(process, "work") == "worked"
        time.sleep(0.3)
        assert _tell(process, "work") == "worked"
        for _ in range(12):
            server.accept()[0].close()
        assert _tell(process, "join") == "joined"
        process.stdin.close()  # type: ignore[union-attr]
        assert process.wait(30) == 0


# Records


MANY_RECORDS = """
import os, sys
count = int(sys.argv[1])
for _ in range(12):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    os.close(os.open(f"f{number}", os.O_WRONLY | os.O_CREAT))
print("done", flush=True)
"""


def test_more_records_than_there_is_room_for(start: Start, place: Path) -> None:
    """Nobody takes the records while more arise than the journal holds: none is lost, nothing denied."""
    policy = attrs.evolve(_denying(place / "never"), audit="all")
    count = 2000
    with rampart.Broker(policy, engine="native", audit=place / "audit.jsonl") as broker:
        process = start(broker, MANY_RECORDS, count, cwd=place)
        assert _line(process) == "ready"
        asked = _asked(process)
        hold = ctypes.PyDLL(None).usleep
        os.write(process.stdin.fileno(), b"go\n")  # type: ignore[union-attr]
        hold(4_000_000)
        assert _line(process) == "done"
        asked = _asked(process) - asked
        assert process.wait() == 0
    assert asked > 0, "the journal had room for all of them"
    wanted = [f"f{number}" for number in range(count)]
    assert _created(_records(place / "audit.jsonl")) == wanted
    created = [decided for decided in process.events if str(decided.event.operation) == "create"]
    assert [Path(decided.event.object).name for decided in created][-count:] == wanted
    assert process.denials == []


def _created(records: list[Any]) -> list[str]:
    names = [Path(record["object"]).name for record in records if record["operation"] == "create"]
    return [name for name in names if name.startswith("f")]


SERVANT = """
import errno, os, sys
for line in sys.stdin:
    try:
        os.close(os.open(line.rstrip("\\n"), os.O_RDONLY))
        print("ok", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_denials_are_known_at_once(start: Start, place: Path, engine: str) -> None:
    """Whoever hears from the program that a call was denied finds the denial, from whichever thread."""
    secret = place / "secret"
    secret.write_text("x")
    problems: list[object] = []
    over = threading.Event()

    def read() -> None:
        seen = 0
        while not over.is_set():
            try:
                now = len(process.denials), len([each for each in process.events if each.verdict == "deny"])
            except BaseException as problem:
                problems.append(problem)
                return
            if now[0] < seen or (engine == "native" and now[1] < now[0]):
                problems.append((seen, now))
            seen = now[0]

    with rampart.Broker(_denying(secret), engine=engine) as broker:
        process = start(broker, SERVANT)
        assert _tell(process, "/dev/null") == "ok"
        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for turn in range(1, 31):
            assert _tell(process, str(secret)) == "EACCES"
            assert len(process.denials) == turn
            if engine == "native":
                assert process.events[-1].event.object == str(secret)
        process.stdin.close()  # type: ignore[union-attr]
        began = time.monotonic()
        assert process.wait(30) == 0
        over.set()
        for reader in readers:
            reader.join(30)
        assert time.monotonic() - began < 4
    assert problems == []
    assert [denial.object for denial in process.denials] == [str(secret)] * 30
    assert sum(decided.verdict == "deny" for decided in process.events) == 30


# Changes


def test_changes_hold_from_the_next_call(start: Start, place: Path) -> None:
    """Update, grant and revocation reach the engine's threads before the next call."""
    file, other = place / "file", place / "other"
    file.write_text("x")
    default = rampart.Policy(
        rules=[
            rampart.allow(["write", "exec", "connect", "listen"], name="most"),
            rampart.allow("read", paths=["/**"], name="rest", except_=[str(file)]),
        ]
    )
    closed = _denying(file)
    with rampart.Broker(default, engine="native", may_restrict=["read", "write"]) as broker:
        process = start(broker, SERVANT)
        assert _tell(process, str(file)) == "EACCES"
        asked = _asked(process)
        for _ in range(20):
            broker.update(OPEN)
            assert _tell(process, str(file)) == "ok"
            broker.update(closed)
            assert _tell(process, str(file)) == "EACCES"
            broker.update(default)
            assert _tell(process, str(file)) == "EACCES"
            with broker.grant(read=file):
                assert _tell(process, str(file)) == "ok"
                assert _tell(process, str(other)) == "ENOENT"
            assert _tell(process, str(file)) == "EACCES"
        assert _asked(process) - asked <= 20  # what is granted is looked up in Python
        process.kill()


def test_without_a_log_nothing_is_allowed(start: Start, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the audit log cannot be written, everything is denied: after changes and in new trees as well."""
    file = place / "file"
    file.write_text("x")
    closed = rampart.Policy(
        rules=[
            rampart.allow(["write", "exec", "connect", "listen"], name="most"),
            rampart.allow("read", paths=["/**"], name="rest", except_=[str(file)]),
        ],
        audit="all",
    )
    with rampart.Broker(closed, engine="native", audit=place.parent / f"{place.name}.jsonl") as broker:
        process = start(broker, SERVANT)
        given = broker.grant(read=file)
        assert _tell(process, str(file)) == "ok"
        assert _tell(process, "/dev/null") == "ok"
        assert process.denials == []
        log = broker._audit
        assert log is not None

        def fail(record: object) -> None:
            raise AuditError("no space left", file=log.path)

        monkeypatch.setattr(log, "write", fail)
        end = time.monotonic() + 10
        while _tell(process, "/dev/null") == "ok" and time.monotonic() < end:
            time.sleep(0.01)
        assert [_tell(process, str(path)) for path in ("/dev/null", file)] == ["EACCES"] * 2
        for change in (lambda: broker.update(OPEN), lambda: broker.grant(read=file)):
            with pytest.raises(AuditError):
                change()
            assert _tell(process, "/dev/null") == "EACCES"
        given.revoke()
        assert [_tell(process, str(path)) for path in ("/dev/null", file)] == ["EACCES"] * 2
        with pytest.raises(PermissionError):
            rampart.Popen(["/bin/true"], broker=broker)
        process.kill()


@pytest.mark.skipif(os.environ.get("LD_PRELOAD", "") != "", reason="sanitizers touch memory of their own")
def test_a_start_touches_little_memory() -> None:
    """What an engine may remember one day is not touched before: that would take longer than the command."""

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        rampart.run(["/bin/true"], broker=broker)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with rampart.Broker(rampart.Policy.load("agent"), engine="native") as broker:
        fewest = min(faults() for _ in range(5))
    assert fewest < 600, "an eighth of what one thread may remember"
