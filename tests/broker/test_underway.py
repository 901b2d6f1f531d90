"""Connections that nobody answers: as many as a program likes, and not at the cost of the harness."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart

EVERYTHING = ["read", "write", "exec", "connect", "listen"]
OPEN = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")], audit="all")
PYTHON = [sys.executable, "-I", "-S", "-B"]

# Connects from many threads. "work": opens files and starts a program; "end": says what came of it.
CONNECTING = """
import collections, errno, os, socket, subprocess, sys, threading
port, count = map(int, sys.argv[1:])
threading.stack_size(1 << 16)
results = collections.Counter()
def connect():
    with socket.socket() as stream:
        results[errno.errorcode.get(stream.connect_ex(("127.0.0.1", port)), "ok")] += 1
threads = [threading.Thread(target=connect) for _ in range(count)]
for thread in threads:
    thread.start()
for line in sys.stdin:
    if line == "end\\n":
        for thread in threads:
            thread.join()
    else:
        for _ in range(50):
            os.close(os.open("/dev/null", os.O_RDONLY))
        subprocess.run(["/bin/true"], check=True)
    print(dict(results), flush=True)
"""


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A server whose queue is full: who connects gets no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as first:
        first.connect(server.getsockname())
        yield server


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Give this process few descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def waiting(port: int) -> int:
    """How many connections to the port are on their way (SYN_SENT in /proc/net/tcp)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[3] == "02" and line[2].endswith(f":{port:04X}") for line in lines)


def wait_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def tell(process: Any, word: str) -> str:
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return str(process.stdout.readline().strip())


@contextlib.contextmanager
def running(broker: rampart.Broker, code: str, *args: int) -> Iterator[Any]:
    """Run a program with pipes, and kill it at the end: nothing else ends who waits."""
    argv = [*PYTHON, "-c", code, *map(str, args)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with rampart.Popen(argv, broker=broker, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("descriptors", "count"),
    [
        pytest.param(150, 140, id="more than places"),
        pytest.param(1024, 1000, id="a thousand"),
    ],
)
def test_many_wait(descriptors: int, count: int, full: socket.socket, limited: Any, project: Any) -> None:
    """All wait, others go on, the harness keeps its descriptors, and what comes of each is on record."""
    number = full.getsockname()[1]
    limited(descriptors)
    with (
        rampart.Broker(OPEN, engine="native", audit=project.audit) as broker,
        running(broker, CONNECTING, number, count) as process,
    ):
        assert wait_until(lambda: waiting(number) == count)
        assert tell(process, "work") == "{}"
        time.sleep(0.1)
        assert tell(process, "work") == "{}"
        assert waiting(number) == count
        if descriptors - 24 >= count:
            assert len(os.listdir("/proc/self/fd")) < count / 10
            assert len(os.listdir("/proc/self/task")) < count / 10
        full.close()
        assert tell(process, "end") == str({"ECONNREFUSED": count})
    records = [record for record in project.records() if record["operation"] == "connect"]
    assert len(records) == count
    assert {(record["verdict"], record["errno"]) for record in records} == {("allow", "ECONNREFUSED")}


def test_many_wait_by_name(full: socket.socket, limited: Any, project: Any) -> None:
    """The same where Python decides, as it does about names."""
    number = full.getsockname()[1]
    limited(256)
    files = rampart.allow(["read", "write", "exec", "listen"], name="files")
    site = rampart.allow("connect", hosts=[f"localhost:{number}"], name="site")
    policy = rampart.Policy(rules=[files, site], audit="all")
    with (
        rampart.Broker(policy, engine="native", audit=project.audit) as broker,
        running(broker, CONNECTING, number, 150) as process,
    ):
        assert wait_until(lambda: waiting(number) == 150)
        assert tell(process, "work") == "{}"
        assert len(os.listdir("/proc/self/fd")) < 128
        full.close()
        assert tell(process, "end") == str({"ECONNREFUSED": 150})
    records = [record for record in project.records() if record["operation"] == "connect"]
    assert len(records) == 150
    assert {(record["rule"], record["errno"]) for record in records} == {("site", "ECONNREFUSED")}


def test_who_was_asked_is_not_asked_again(full: socket.socket, project: Any) -> None:
    """What code has allowed was decided: nothing is decided a second time."""
    number = full.getsockname()[1]
    asked = []

    def decide(event: rampart.Event) -> rampart.Verdict:
        asked.append(event)
        return rampart.Allow()

    policy = OPEN.with_rules(rampart.ask("connect", hosts=["127.0.0.1"], name="asked", decide=decide))
    with (
        rampart.Broker(policy, engine="native") as broker,
        running(broker, CONNECTING, number, 3) as process,
    ):
        assert wait_until(lambda: waiting(number) == 3)
        full.close()
        assert tell(process, "end") == str({"ECONNREFUSED": 3})
    assert len(asked) == 3


def test_policy_changes_meanwhile(full: socket.socket, project: Any) -> None:
    """A call keeps the policy that it met; one that comes later meets the new one."""
    number = full.getsockname()[1]
    with (
        rampart.Broker(OPEN, engine="native", audit=project.audit) as broker,
        running(broker, CONNECTING, number, 1) as process,
    ):
        assert wait_until(lambda: waiting(number) == 1)
        broker.update(OPEN.with_rules(rampart.deny("connect", hosts=["127.0.0.1"], name="secret")))
        full.accept()[0].close()
        assert tell(process, "end") == str({"ok": 1})
    (record,) = [record for record in project.records() if record["operation"] == "connect"]
    assert (record["verdict"], record["rule"]) == ("allow", "everything")


CHANGING = """
import ctypes, os, socket, struct, sys, threading
number, other = map(int, sys.argv[1:])
address = struct.pack("=H", 2) + struct.pack("!H", number) + bytes([127, 0, 0, 1]) + bytes(8)
address = ctypes.create_string_buffer(address)
libc = ctypes.CDLL(None, use_errno=True)
stream, spare = socket.socket(), socket.socket()
results = []
fd = stream.fileno()
def connect():
    results.append((libc.connect(fd, address, 16), ctypes.get_errno()))
thread = threading.Thread(target=connect)
thread.start()
sys.stdin.readline()
ctypes.memmove(ctypes.addressof(address) + 2, struct.pack("!H", other), 2)
os.dup2(spare.fileno(), fd)
print("changed", flush=True)
thread.join()
print(*results[0], flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_arguments_change_meanwhile(host: str, full: socket.socket, project: Any) -> None:
    """While a connection is on its way, address and descriptor are exchanged: nothing is read a second time.

    An address is decided by the engine, a name by Python; both ports are allowed.
    """
    number = full.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        ports = number, other.getsockname()[1]
        files = rampart.allow(["read", "write", "exec", "listen"], name="files")
        sites = rampart.allow("connect", hosts=[f"{host}:{port}" for port in ports], name="sites")
        with (
            rampart.Broker(
                rampart.Policy(rules=[files, sites], audit="all"), engine="native", audit=project.audit
            ) as broker,
            running(broker, CHANGING, *ports) as process,
        ):
            assert wait_until(lambda: waiting(number) == 1)
            assert tell(process, "change") == "changed"
            full.close()
            assert process.stdout.readline() == f"-1 {errno.ECONNREFUSED}\n"
        with pytest.raises(BlockingIOError):
            other.accept()
    (record,) = [record for record in project.records() if record["operation"] == "connect"]
    assert (record["port"], record["errno"]) == (number, "ECONNREFUSED")


LIMIT = """
import errno, socket, struct, sys, time
with socket.socket() as stream:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300000))
    began = time.monotonic()
    print(errno.errorcode[stream.connect_ex(("127.0.0.1", int(sys.argv[1])))], end=" ")
    print(0.3 <= time.monotonic() - began < 5, end=" ")
    print(errno.errorcode[stream.connect_ex(("127.0.0.1", int(sys.argv[1])))])
"""


def test_own_time_limit(full: socket.socket, project: Any) -> None:
    """A socket's own limit (SO_SNDTIMEO) ends the wait, and the connection goes on, as bare."""
    argv = [*PYTHON, "-c", LIMIT, str(full.getsockname()[1])]

    bare = project.bare(argv)
    done = project.run(argv, OPEN)

    assert bare.stdout == "EINPROGRESS True EALREADY\n"
    assert done.stdout == bare.stdout, done.stderr


TAKING_BACK = """
import ctypes, errno, socket, sys, threading, time
results = []
with socket.socket() as stream:
    connect = lambda: results.append(errno.errorcode[stream.connect_ex(("127.0.0.1", int(sys.argv[1])))])
    thread = threading.Thread(target=connect)
    thread.start()
    time.sleep(0.3)
    print(ctypes.CDLL(None).connect(stream.fileno(), bytes(16), 16))  # AF_UNSPEC
    thread.join()
    print(*results)
    sys.stdout.flush()
    sys.stdin.readline()
"""


def test_connection_is_taken_back(full: socket.socket, project: Any) -> None:
    """Another thread ends the wait (AF_UNSPEC): nothing is begun anew."""
    number = full.getsockname()[1]
    with rampart.Broker(OPEN, engine="native") as broker, running(broker, TAKING_BACK, number) as process:
        assert process.stdout.readline() == "0\n"
        assert process.stdout.readline() in {"ECONNRESET\n", "EPIPE\n"}  # bare, by the kernel's version
        assert waiting(number) == 0


ORPHANS = """
import os, signal, socket, sys
children = []
for _ in range(int(sys.argv[2])):
    children.append(os.fork())
    if children[-1] == 0:
        socket.socket().connect(("127.0.0.1", int(sys.argv[1])))
        os._exit(1)
print("started", flush=True)
sys.stdin.readline()
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print("gone", flush=True)
sys.stdin.readline()
"""


def test_who_connects_is_killed(full: socket.socket, project: Any) -> None:
    """A connection ends with the process that wanted it: nobody goes on trying."""
    number = full.getsockname()[1]
    with rampart.Broker(OPEN, engine="native") as broker, running(broker, ORPHANS, number, 20) as process:
        assert process.stdout.readline() == "started\n"
        assert wait_until(lambda: waiting(number) == 20)
        assert tell(process, "kill") == "gone"
        assert wait_until(lambda: waiting(number) == 0)
        tell(process, "end")


def test_tree_ends_meanwhile(full: socket.socket, project: Any) -> None:
    """A tree that is killed while its connections are on their way leaves nothing of them behind."""
    number = full.getsockname()[1]
    before = len(os.listdir("/proc/self/task"))
    with rampart.Broker(OPEN, engine="native") as broker:
        for _ in range(2):
            with running(broker, CONNECTING, number, 20):
                assert wait_until(lambda: waiting(number) == 20)
            assert waiting(number) == 0
    assert wait_until(lambda: len(os.listdir("/proc/self/task")) <= before + 8)
