"""A broker of one page for the launcher's own tests: it notifies execve alone, and answers by a function."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable

from rampart_seccomp.launch import launcher_path, protocol

EXECVE = {"x86_64": 59, "aarch64": 221}[platform.machine()]
NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp
RECV = 0xC0000000 | NOTIFICATION.size << 16 | ord("!") << 8
SEND = 0xC0000000 | RESPONSE.size << 16 | ord("!") << 8 | 1
CONTINUE = 1
WAIT_KILLABLE_RECV = 1 << 5


def notify(*numbers: int) -> bytes:
    """A BPF program that notifies these system calls and allows the others."""
    load_number = struct.pack("=HBBI", 0x20, 0, 0, 0)
    tests = [struct.pack("=HBBI", 0x15, len(numbers) - i, 0, nr) for i, nr in enumerate(numbers)]
    allow = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    user_notif = struct.pack("=HBBI", 0x06, 0, 0, 0x7FC00000)
    return b"".join([load_number, *tests, allow, user_notif])


class FakeSession:
    """One tree: a thread that speaks the protocol and answers notifications."""

    def __init__(self, broker: FakeBroker, control: socket.socket) -> None:
        self.broker = broker
        self.control = control
        self.command_pid: int | None = None
        self.hello: protocol.Listener | None = None
        self.proof = b""
        self.failed: protocol.Failed | None = None
        self.started = False
        self.exceeded: protocol.Limit | None = None
        self.lingers = protocol.StartFlag.LINGER in broker.start.flags
        self.command_ended = threading.Event()
        self.command_status: int | None = None
        self.denials: list[object] = []
        self.events: list[object] = []
        self.known = threading.Event()
        self.finished = threading.Event()
        self.listener = -1
        self.thread = threading.Thread(target=self._serve, daemon=True)
        pidfd = os.pidfd_open(broker.harness)
        socket.send_fds(control, [protocol.encode(broker.start)], [pidfd])
        os.close(pidfd)
        self.thread.start()

    def wait_started(self, timeout: float | None = None) -> None:
        if not self.known.wait(timeout):
            raise TimeoutError("not started in time")
        if self.failed is not None:
            raise OSError(self.failed.errno, os.strerror(self.failed.errno), "command")

    def wait_finished(self, timeout: float | None = None) -> bool:
        return self.finished.wait(timeout)

    def signal(self, signo: int, *, tree: bool) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self.control.send(protocol.encode(protocol.Signal(signo, tree)))

    def kill_tree(self) -> None:
        self.signal(signal.SIGKILL, tree=True)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while True:
            for fd, ready in poll.poll():
                if fd == self.control.fileno():
                    packet, fds = self._receive()
                    if not packet:
                        self._end()
                        return
                    self._take(protocol.decode(packet), fds)
                    if fds:
                        poll.register(fds[0], select.POLLIN)
                elif ready & select.POLLIN:
                    self._answer(fd)
                else:
                    poll.unregister(fd)

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            return socket.recv_fds(self.control, protocol.MAX_PACKET, 1)[:2]
        except ConnectionResetError:  # it ended without reading an order; what it said is still there
            return socket.recv_fds(self.control, protocol.MAX_PACKET, 1)[:2]

    def _end(self) -> None:
        if self.listener >= 0:
            os.close(self.listener)
        self.control.close()
        self.known.set()
        self.command_ended.set()
        self.finished.set()

    def _take(self, message: protocol.Message, fds: list[int]) -> None:
        if isinstance(message, protocol.Listener):
            self.hello = message
            self.listener = fds[0]
            self.command_pid = message.child_pid
            with open(f"/proc/{message.child_pid}/mem", "rb", buffering=0) as memory:
                self.proof = os.pread(memory.fileno(), protocol.NONCE_SIZE, message.nonce_address)
            if self.broker.go:
                self.control.send(protocol.encode(protocol.Go()))
        elif isinstance(message, protocol.Started):
            self.started = True
            self.known.set()
        elif isinstance(message, protocol.Ended):
            self.command_status = os.waitstatus_to_exitcode(message.status)
            self.command_ended.set()
        elif isinstance(message, protocol.Exceeded):
            self.exceeded = message.limit
        elif isinstance(message, protocol.Failed):
            self.failed = message
            self.known.set()

    def _answer(self, listener: int) -> None:
        buffer = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, RECV, buffer)
            ident, pid, _, number, *_ = NOTIFICATION.unpack(buffer)
            self.events.append((pid, number))
            error = self.broker.answer(pid, number)
            response = RESPONSE.pack(ident, 0, -error, 0 if error else CONTINUE)
            fcntl.ioctl(listener, SEND, bytearray(response))
        except OSError as error:
            if error.errno != errno.ENOENT:  # the target died
                raise


class FakeWrapped:
    def __init__(self, argv: list[bytes | str], fd: socket.socket, session: FakeSession) -> None:
        self.argv = argv
        self.pass_fds = (fd.fileno(),)
        self.session = session
        self._fd = fd

    def close(self) -> None:
        self._fd.close()

    def __enter__(self) -> FakeWrapped:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class FakeBroker:
    """What Popen needs of a Broker.

    Args:
        answer: Called with (pid, number) for each notification; 0 lets it go on, else an errno.
        scope: Ask for the Landlock signal scope.
        limits: What START limits.
        go: Let the command run.
        filter: The BPF program.
        harness: Whose death ends the tree; None: this process's.
    """

    def __init__(
        self,
        answer: Callable[[int, int], int] = lambda pid, number: 0,
        *,
        scope: bool = True,
        no_cores: bool = False,
        linger: bool = False,
        limits: protocol.Limits | None = None,
        go: bool = True,
        filter: bytes = notify(EXECVE),
        harness: int | None = None,
    ) -> None:
        self.answer = answer
        self.go = go
        self.harness = os.getpid() if harness is None else harness
        flags = protocol.StartFlag.SCOPE if scope else protocol.StartFlag(0)
        if no_cores:
            flags |= protocol.StartFlag.NO_CORES
        if linger:
            flags |= protocol.StartFlag.LINGER
        self.start = protocol.Start(filter, flags, WAIT_KILLABLE_RECV, limits or protocol.Limits())
        self.closed = False

    def wrap(
        self, argv: list[bytes], *, program: bytes | None = None, directory: bytes | None = None
    ) -> FakeWrapped:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Above 2: subprocess puts the command's standard streams there.
        ours, theirs = (
            socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)) for end in pair
        )
        for end in pair:
            end.close()
        session = FakeSession(self, ours)
        prefix = [launcher_path(), str(theirs.fileno()), program or b"", "--"]
        return FakeWrapped([*prefix, *argv], theirs, session)

    def close(self) -> None:
        self.closed = True
