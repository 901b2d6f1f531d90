"""The name server of a tree: its sockets, streams of messages, and what a tree can do to it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rampart_seccomp.network import responder
from rampart_seccomp.network.responder import Responder, resolv_conf


class Echo:
    """Answers each message with itself and who asked; those that begin with ``later`` after a while."""

    def __init__(self) -> None:
        self.waiting = threading.Event()

    def to(self, raw: bytes, who: Any, *, stream: bool) -> Any:
        reply = raw + str(who).encode() + (b" tcp" if stream else b" udp")
        if raw.startswith(b"none"):
            return None
        if raw.startswith(b"break"):
            raise LookupError
        if raw.startswith(b"later"):
            return lambda: self.waiting.wait(10) and reply
        return reply


@pytest.fixture
def served() -> Iterator[tuple[Responder, Echo, list[str]]]:
    echo, reports = Echo(), []

    def run(job: Callable[[], None]) -> None:
        threading.Thread(target=job, daemon=True).start()

    made = Responder(echo, run, contextlib.nullcontext(), reports.append)  # type: ignore[arg-type]
    yield made, echo, reports
    echo.waiting.set()
    made.close()


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


def receive(end: socket.socket) -> bytes:
    """Take one message of a stream."""
    raw = b""
    while len(raw) < 2 or len(raw) < 2 + struct.unpack_from("!H", raw)[0]:
        got = end.recv(1)
        if not got:
            return raw
        raw += got
    return raw[2:]


@pytest.mark.parametrize(("kind", "version"), [("udp", 4), ("udp", 6), ("tcp", 4), ("tcp", 6)])
def test_answers(kind: str, version: int, served: Any) -> None:
    """Both versions, by datagram and by stream; who asked is who was noted for the port."""
    server, _, _ = served
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as end:
        end.settimeout(10)
        try:
            end.connect(server.endpoint(kind, version))
        except OSError as error:
            pytest.skip(f"no IPv{version} here: {error}")
        server.note(kind, version, end.getsockname()[1], "me")
        if kind == "udp":
            end.send(b"a")
            assert end.recv(100) == b"ame udp"
        else:
            end.sendall(framed(b"a", b"", b"b" * 3000)[:-1])
            assert receive(end) == b"ame tcp"
            assert receive(end) == b"me tcp"
            end.sendall(b"b")
            assert receive(end) == b"b" * 3000 + b"me tcp"


def test_nobody_waits_for_others(served: Any) -> None:
    """What takes its time, breaks something, or is not answered keeps nobody from an answer."""
    server, echo, reports = served
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        end.connect(server.endpoint("udp", 4))
        for message in (b"later", b"none", b"break", b"now"):
            end.send(message)
        assert end.recv(100) == b"nowNone udp"
        assert "LookupError" in reports[0]
        echo.waiting.set()
        assert end.recv(100) == b"laterNone udp"


def test_too_many(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond a bound end the oldest; questions beyond one are dropped until some are answered."""
    monkeypatch.setattr(responder, "_STREAMS_MAX", 2)
    server, echo, _ = served
    server._at_work = threading.BoundedSemaphore(2)
    with contextlib.ExitStack() as stack:
        ends = []
        for _ in range(4):
            end = stack.enter_context(socket.create_connection(server.endpoint("tcp", 4), 10))
            end.sendall(framed(b"a"))
            assert receive(end) == b"aNone tcp"
            ends.append(end)
        assert ends[0].recv(1) == b""
        ends[3].sendall(framed(b"b"))
        assert receive(ends[3]) == b"bNone tcp"
        end = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        end.settimeout(10)
        end.connect(server.endpoint("udp", 4))
        for number in range(4):
            end.send(b"later%d" % number)
        time.sleep(0.2)
        echo.waiting.set()
        assert sorted(end.recv(100) for _ in range(2)) == [b"later0None udp", b"later1None udp"]
        end.send(b"later4")
        assert end.recv(100) == b"later4None udp"


def test_a_port_of_its_own() -> None:
    """Two trees have two addresses; 53 is the port where that may be bound, and any other one if not."""
    made = [responder._Sockets.made() for _ in range(2)]
    try:
        names = [each.ends["udp", 4].getsockname() for each in made]
        assert names[0] != names[1]
        assert all(host.startswith("127.83.") for host, _ in names)
        assert [each.ends["tcp", 4].getsockname() for each in made] == names
        assert responder.answers_on_port_53() == all(port == 53 for _, port in names)
    finally:
        for each in made:
            each.close()


def test_resolv_conf(tmp_path: Any) -> None:
    """The server is ours, everything else is the host's, and nobody can write it."""
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# comment\nnameserver 192.0.2.1\n nameserver 192.0.2.2\nsearch a.example\noptions ndots:2\n"
    )
    for source, rest in ((path, "# comment\nsearch a.example\noptions ndots:2\n"), (tmp_path / "none", "")):
        fd = resolv_conf("127.83.1.2", str(source))
        try:
            assert os.read(fd, 1000).decode() == "nameserver 127.83.1.2\n" + rest
            assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
            with pytest.raises(PermissionError), open(f"/proc/self/fd/{fd}", "wb", buffering=0) as file:
                file.write(b"x")
        finally:
            os.close(fd)
