"""The name server that a tree talks to, whatever server it means: sockets on loopback, and a thread.

Calls that would reach port 53 of anybody are led here (calls/sockets.py). Programs compare where an answer
comes from: most take any on a connected socket; c-ares wants the address that it asked, musl and dnspython
the port as well. So the tree gets a resolv.conf(5) that names this server's address, and its port is 53 where
that may be bound (CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start).
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import signal
import socket
import struct
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import attrs

from rampart_seccomp.events import DNS_PORT
from rampart_seccomp.network.answers import Answers
from rampart_seccomp.network.upstream import RESOLV_CONF

__all__ = ["Responder", "answers_on_port_53", "resolv_conf"]

_STREAMS_MAX = 32
_IDLE_SECONDS = 10.0
"""How long a TCP connection may be silent (RFC 7766 leaves that to the server)."""

_AT_WORK_MAX = 64
"""Queries of one tree that are resolved at a time; further ones are dropped, and come again."""

_ASKERS_MAX = 4096
"""Ports of which it is remembered who asks from there."""

_TRIES = 16

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Source = tuple[str, int, int]
"""``udp`` or ``tcp``, 4 or 6, and the port of the tree's socket."""


class Responder:
    """Answers the DNS of one tree. Its sockets and its thread are made when they are first needed.

    Args:
        answers: Says what to reply.
        run: Runs a job that may wait, in another thread.
        excluded: Held while descriptors are made: no fork comes between.
        report: Told of failures.
    """

    def __init__(
        self,
        answers: Answers,
        run: Callable[[Callable[[], None]], None],
        excluded: AbstractContextManager[Any],
        report: Callable[[str], None],
    ) -> None:
        self._answers = answers
        self._run = run
        self._excluded = excluded
        self._report = report
        self._lock = threading.Lock()
        self._open: _Sockets | None = None
        self._closed = False
        self._askers: OrderedDict[Source, Any] = OrderedDict()
        self._at_work = threading.BoundedSemaphore(_AT_WORK_MAX)
        self.sending = threading.Lock()
        """Held from before a datagram is sent until it is noted who sent it."""

    def endpoint(self, kind: str, version: int) -> tuple[str, int]:
        """Give address and port of the server.

        Args:
            kind: ``udp`` or ``tcp``.
            version: 4 or 6.

        Raises:
            OSError: It cannot be there: EMFILE, EAGAIN, ENETUNREACH without that version of IP.
        """
        end = self._started().ends.get((kind, version))
        if end is None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        host, port = end.getsockname()[:2]
        return host, port

    def note(self, kind: str, version: int, port: int, who: Any) -> None:
        """Remember who asks from a port of this machine."""
        with self._lock:
            self._askers.pop((kind, version, port), None)
            self._askers[kind, version, port] = who
            if len(self._askers) > _ASKERS_MAX:
                self._askers.popitem(last=False)

    def close(self) -> None:
        """Answer nothing any more."""
        with self._lock:
            self._closed = True
            sockets = self._open
        if sockets is not None:
            sockets.wake()
            sockets.thread.join(_IDLE_SECONDS)

    def forsake(self) -> None:
        """In a forked child, where the thread is not: close what is the parent's."""
        self._lock, self.sending = threading.Lock(), threading.Lock()
        self._closed = True
        sockets, self._open = self._open, None
        if sockets is not None:
            sockets.close()

    def _started(self) -> _Sockets:
        with self._lock:
            if self._closed:
                raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            if self._open is None:
                with self._excluded:
                    self._open = _Sockets.made()
                self._open.thread = threading.Thread(
                    target=self._serve, args=(self._open,), name="rampart-dns", daemon=True
                )
                try:
                    self._open.thread.start()
                except RuntimeError:  # no more threads for this user
                    self._open.close()
                    self._open = None
                    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            return self._open

    # The thread

    def _serve(self, sockets: _Sockets) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        streams: OrderedDict[socket.socket, _Stream] = OrderedDict()
        with selectors.DefaultSelector() as selector:
            try:
                for (kind, version), end in sockets.ends.items():
                    selector.register(end, selectors.EVENT_READ, (kind, version))
                selector.register(sockets.woken, selectors.EVENT_READ)
                while not self._closed:
                    for key, _ in selector.select(_IDLE_SECONDS):
                        self._take(key, selector, streams)
                    self._tidy(selector, streams)
            finally:
                for stream in streams.values():
                    stream.close()
                sockets.close()

    def _take(
        self, key: selectors.SelectorKey, selector: selectors.BaseSelector, streams: OrderedDict[Any, _Stream]
    ) -> None:
        end: Any = key.fileobj
        try:
            if end in streams:
                self._read(streams[end])
            elif key.data is None:
                return
            elif key.data[0] == "udp":
                raw, peer = end.recvfrom(65535)
                source = (*key.data, peer[1])
                self._answer(raw, source, lambda reply: end.sendto(reply, peer))
            else:
                made, peer = end.accept()
                made.settimeout(1.0)
                streams[made] = _Stream(made, (*key.data, peer[1]))
                selector.register(made, selectors.EVENT_READ)
        except OSError:
            if end in streams:
                streams[end].ended = True
        except Exception:  # a message that breaks something is not answered
            self._report(traceback.format_exc())

    @staticmethod
    def _tidy(selector: selectors.BaseSelector, streams: OrderedDict[Any, _Stream]) -> None:
        """Close connections that have ended, have long been silent, or are too many."""
        now = time.monotonic()
        over = [each for each, stream in streams.items() if stream.ended or now - stream.used > _IDLE_SECONDS]
        over += [each for each in streams if each not in over][
            : max(0, len(streams) - len(over) - _STREAMS_MAX)
        ]
        for end in over:
            selector.unregister(end)
            streams.pop(end).close()

    def _read(self, stream: _Stream) -> None:
        for message in stream.messages():
            self._answer(message, stream.source, stream.send)

    def _answer(self, raw: bytes, source: Source, send: Callable[[bytes], Any]) -> None:
        with self.sending, self._lock:
            who = self._askers.get(source)
        reply = self._answers.to(raw, who, stream=source[0] == "tcp")
        if reply is None:
            return
        if isinstance(reply, bytes):
            send(reply)
        elif self._at_work.acquire(blocking=False):
            later = reply
            self._run(lambda: self._answer_later(later, send))

    def _answer_later(self, later: Callable[[], bytes], send: Callable[[bytes], Any]) -> None:
        try:
            reply = later()
            with suppress(OSError):
                send(reply)
        except Exception:
            self._report(traceback.format_exc())
        finally:
            self._at_work.release()


@attrs.define(eq=False)
class _Stream:
    """A TCP connection of the tree."""

    end: socket.socket
    source: Source
    used: float = attrs.field(factory=time.monotonic)
    ended: bool = False
    _held: bytes = b""
    _sending: threading.Lock = attrs.field(factory=threading.Lock)

    def messages(self) -> list[bytes]:
        """Take what has come in, and give the messages that are whole (RFC 1035, 4.2.2)."""
        got = self.end.recv(65535)
        self.used = time.monotonic()
        self.ended = not got
        self._held += got
        found = []
        while len(self._held) >= 2:
            (size,) = struct.unpack_from("!H", self._held)
            if len(self._held) < 2 + size:
                break
            found.append(self._held[2 : 2 + size])
            self._held = self._held[2 + size :]
        return found

    def send(self, reply: bytes) -> None:
        """Send a reply with its length before it."""
        with self._sending:
            self.end.sendall(struct.pack("!H", len(reply)) + reply)

    def close(self) -> None:
        """Close it; a reply that is still due finds it closed."""
        self.end.close()


@attrs.define(eq=False)
class _Sockets:
    """The server's sockets, by ``udp`` or ``tcp`` and version; none for a version that is not there."""

    ends: dict[tuple[str, int], socket.socket]
    woken: socket.socket
    waking: socket.socket
    thread: threading.Thread = attrs.field(init=False)

    @classmethod
    def made(cls) -> _Sockets:
        """Make them, on an address of 127/8 that is this server's alone, and on ::1.

        Raises:
            OSError: EMFILE, ENFILE; EADDRNOTAVAIL without a loopback interface.
        """
        woken, waking = socket.socketpair()
        ends: dict[tuple[str, int], socket.socket] = {}
        try:
            host = "127.83.{}.{}".format(*os.urandom(2))
            ends |= _pair(socket.AF_INET, host)
            with suppress(OSError):
                ends |= _pair(socket.AF_INET6, "::1")
        except BaseException:
            for end in (woken, waking, *ends.values()):
                end.close()
            raise
        return cls(ends, woken, waking)

    def wake(self) -> None:
        """Have the thread look whether this is the end."""
        with suppress(OSError):
            self.waking.send(b"x")

    def close(self) -> None:
        """Close all."""
        for end in (self.woken, self.waking, *self.ends.values()):
            end.close()


def _pair(family: socket.AddressFamily, host: str) -> dict[tuple[str, int], socket.socket]:
    """Give a UDP and a TCP socket on the same port: 53 if that can be, and any other one if not."""
    version = 4 if family == socket.AF_INET else 6
    for attempt in range(_TRIES):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            # ::1 is everybody's: port 53 there is not ours to take.
            udp.bind((host, DNS_PORT if attempt == 0 and version == 4 else 0))
            tcp.bind((host, udp.getsockname()[1]))
            tcp.listen(_STREAMS_MAX)
        except OSError as error:
            udp.close()
            tcp.close()
            if error.errno not in (errno.EACCES, errno.EADDRINUSE, errno.EPERM):
                raise
            continue
        udp.setblocking(False)
        tcp.setblocking(False)
        return {("udp", version): udp, ("tcp", version): tcp}
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def answers_on_port_53() -> bool:
    """Tell whether a server of a tree gets the port that resolvers ask."""
    with suppress(OSError):
        sockets = _Sockets.made()
        port = sockets.ends["udp", 4].getsockname()[1]
        sockets.close()
        return bool(port == DNS_PORT)
    return False


def resolv_conf(server: str, path: str = RESOLV_CONF) -> int:
    """Give the host's resolv.conf(5) with this server in place of its own, as a sealed memfd to be read.

    Raises:
        OSError: EMFILE, ENOMEM.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    kept = [line for line in lines if line.split()[:1] != [b"nameserver"]]
    text = b"\n".join([b"nameserver " + server.encode("ascii"), *kept]) + b"\n"
    fd = os.memfd_create("resolv.conf", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, text)
        os.fchmod(fd, 0o444)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
