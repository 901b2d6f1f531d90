"""The launcher of one tree, as the broker speaks with it: orders, reports, and its end."""

from __future__ import annotations

import os
import select
import socket
import threading
import time

from rampart_seccomp.broker import forks
from rampart_seccomp.broker.processes import is_stopped
from rampart_seccomp.calls.shim import lib
from rampart_seccomp.launch import protocol
from rampart_seccomp.launch.handover import receive

__all__ = ["Control"]

NUDGE_SECONDS = 0.2
"""Between two looks at a launcher that may have been stopped along with its command."""

_PATIENCE = 5.0
"""Seconds that a launcher has for reading an order, and for ending its tree."""


class Control:
    """Our end of a control socket. Orders may come from several threads; one thread hears.

    Args:
        end: The socket, which is closed in the end.

    Attributes:
        end: The socket.
        launcher: pidfd of the launcher; -1 before it is known, and when it is not needed any more.
        stopped: True once the launcher has said that it stops with its command, until it was seen running.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.launcher = -1
        self.stopped = False
        self._pid = 0
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self.end.fileno()

    def meet(self, pid: int) -> None:
        """Learn which process the launcher is, which is still there to be opened."""
        self.launcher = os.pidfd_open(pid)
        self._pid = pid

    def send(self, message: protocol.Message, fd: int | None = None) -> None:
        """Send a message to the launcher, which reads them as long as it lives and is not stopped.

        Raises:
            BlockingIOError: It has read none for seconds.
            OSError: It is gone.
        """
        packet = protocol.encode(message)
        deadline = time.monotonic() + _PATIENCE
        with self._sending:
            while True:
                try:
                    if fd is None:
                        self.end.send(packet, socket.MSG_DONTWAIT)
                    else:
                        socket.send_fds(self.end, [packet], [fd], socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    self.nudge()
                    poll = select.poll()
                    poll.register(self.end, select.POLLOUT)
                    poll.poll(NUDGE_SECONDS * 1000)
                else:
                    return

    def lend(self, listener: int) -> int:
        """Give the launcher what it needs to trace what the engine judges, before GO.

        Args:
            listener: The tree's.

        Returns:
            The engine's end of a channel to it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            self.send(protocol.Lend(protocol.Lent.CHANNEL), theirs.fileno())
            self.send(protocol.Lend(protocol.Lent.LISTENER), listener)
            return ours.detach()

    def hear(self) -> protocol.Message | None:
        """Take one message; None at the launcher's end."""
        packet = self._receive()
        return protocol.decode(packet) if packet else None

    @property
    def readable(self) -> bool:
        """True if there is something to hear."""
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        return bool(poll.poll(0))

    def wake(self) -> None:
        """Continue the launcher: one that was stopped along with its command hears no order."""
        if self.launcher >= 0:
            lib.rs_nudge(self.launcher)  # it may be gone, which is met elsewhere

    def nudge(self) -> None:
        """Continue the launcher if it is stopped: it has execs to see to."""
        if self._pid and is_stopped(self._pid):
            self.wake()

    def look_after(self, command: int | None, *, needed: bool) -> None:
        """Continue a stopped launcher that is needed, or whose command was continued without it.

        Args:
            command: Pid of the command.
            needed: Whether somebody waits for the launcher.
        """
        self.stopped = self.stopped and is_stopped(self._pid)
        if needed or (self.stopped and not is_stopped(command or 0)):
            self.nudge()

    def see_off(self) -> None:
        """Tell the launcher to end the tree, if it is still there, and wait until it has."""
        self.wake()
        with self._sending:
            try:
                self.end.shutdown(socket.SHUT_WR)
                poll = select.poll()
                poll.register(self.end, select.POLLIN)
                if self.launcher >= 0:
                    poll.register(self.launcher, select.POLLIN)
                deadline = time.monotonic() + _PATIENCE
                while ready := poll.poll(max(0, deadline - time.monotonic()) * 1000):
                    # Its last messages are nobody's any more.
                    if all(fd == self.launcher for fd, _ in ready) or not self._receive():
                        break
            except OSError:
                pass  # it is gone already
            with forks.excluded:
                self.end.close()
        self._close_launcher()

    def forsake(self) -> None:
        """In a forked child: close what is the parent's."""
        self.end.close()
        self._close_launcher()
        self._sending = threading.Lock()

    def _close_launcher(self) -> None:
        launcher, self.launcher = self.launcher, -1
        if launcher >= 0:
            os.close(launcher)

    def _receive(self) -> bytes:
        """Receive one packet; empty at the launcher's end. What descriptors come along are closed."""
        packet, fds = receive(self.end)
        for fd in fds:
            os.close(fd)
        return packet
