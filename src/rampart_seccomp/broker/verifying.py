"""Execs that were allowed, until the launcher has seen what became of them."""

from __future__ import annotations

import enum
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import attrs

from rampart_seccomp.broker.landing import read_landed
from rampart_seccomp.broker.lineage import Lineage, Standing
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.calls.starting import ExecCall, Expected
from rampart_seccomp.errors import ExecUnverifiable, TargetGone
from rampart_seccomp.events import ExecEvent, Program
from rampart_seccomp.launch import protocol
from rampart_seccomp.policy.clean import clean

__all__ = ["Beside", "Flight", "Stage", "Verifying"]

_ERESTARTSYS, _ERESTARTNOINTR = 512, 513  # include/linux/errno.h
_INTERRUPTIBLE = frozenset(
    ["open", "openat", "openat2", "creat", "truncate", "connect", "sendto", "sendmsg", "sendmmsg"]
)
"""Calls whose programs know EINTR, for handlers without SA_RESTART."""

_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_LOOK = 0.1
"""Seconds between two looks at whether the target of a wait still lives."""

_LOOK_BESIDE = 0.005
"""Seconds between two looks at whether an exec of the engine is over, which nobody tells."""


class Stage(enum.Enum):
    """Where an exec is, for those who remember what a process was."""

    BEGUN = "begun"
    """It is about to be let go."""
    OVER = "over"
    """It has taken place, or has failed."""
    LOST = "lost"
    """It is let go, and nobody will tell what comes of it."""


class Beside(Protocol):
    """Who else may have something traced in the same tree: the engine."""

    def claim(self, tgid: int) -> bool:
        """Keep a process for us; False while something else is on its way there."""
        ...

    def unclaim(self, tgid: int) -> None:
        """Nothing of ours is on its way there any more."""
        ...

    def executing(self, stage: Stage, *, leader: bool) -> None:
        """Hear of the stages of each exec, and whether it is made by the leader of its thread group."""
        ...

    def traced(self) -> None:
        """Hear that an exec has been traced, so that others can be."""
        ...


@attrs.frozen(repr=False)
class _Told:
    """A program that was started in Python."""

    program: Program


@attrs.define(eq=False, repr=False)
class Flight:
    """One exec on its way.

    Attributes:
        call: What was decided; None for a thread that is to stop and make its call again.
        notification: The held call.
        was: What it was before; None if that is not known.
        cookie: Tells it apart.
        error: Why it cannot be traced; 0 if it is; None while that is not known.
        withdrawn: It was not let go after all.
        told: Others were told that it has begun.
    """

    call: ExecCall | None
    notification: Notification
    cookie: int
    was: Standing | None = None
    error: int | None = None
    withdrawn: bool = False
    told: bool = False

    @property
    def is_leader(self) -> bool:
        """Whether the leader of the thread group makes the call."""
        return self.notification.tid == self.tgid

    @property
    def tgid(self) -> int:
        """Process of the thread."""
        return self.notification.tgid


class Verifying:
    """Lets execs go on under the launcher's eyes; at most one of a process at a time.

    The kernel makes a second exec of a process wait for the first, with a lock that a tracer of both needs.

    Args:
        send: Sends a message to the launcher, with a descriptor or without.
        lend: Entered while a thread waits, so that others can take its place.
        lineage: Who is who; learns what was executed before the process goes on.
        tampered: Told of a process that was killed, since it had become something else than was decided.
        nudge: Continues a launcher that was stopped along with its command: others of the tree wait for it.
        beside: Who else has execs traced.
        degraded: Tells whether execs may, under the policy in force, go on unverified where ptrace(2) is
            refused.
    """

    def __init__(
        self,
        send: Callable[[protocol.Message, int | None], None],
        lend: Callable[[], AbstractContextManager[None]],
        lineage: Lineage,
        tampered: Callable[[ExecEvent], None],
        nudge: Callable[[], None],
        beside: Beside,
        *,
        degraded: Callable[[], bool],
    ) -> None:
        self._send = send
        self._lend = lend
        self._lineage = lineage
        self._tampered = tampered
        self.nudge = nudge
        self._beside = beside
        self._degraded = degraded
        self._cookies = itertools.count(1)
        self._flights: dict[int, Flight] = {}
        self._by_cookie: dict[int, Flight] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.refused = False
        """True once ptrace(2) was refused: execs are not verified here."""

    def let_go(self, call: ExecCall) -> None:
        """Answer an allowed exec, so that what comes of it is verified.

        Raises:
            ExecUnverifiable: ptrace(2) is refused, and the policy relies on it.
            OSError: The launcher cannot trace the thread, or is gone.
            TargetGone: Nobody waits for the answer any more.
        """
        notification = call.notification
        flight = self._enter(call)
        try:
            # Nobody else can execute anything in this process now.
            flight.was = self._lineage.standing(flight.tgid)
            self._trace(flight, call.expected)
            if flight.error != 0:
                self._lineage.lost(flight.tgid)
            call.enforced = "verified" if flight.error == 0 else "unverified"
            notification.ensure_valid()
            call.close()
            flight.told = True
            stage = Stage.BEGUN if flight.error == 0 else Stage.LOST
            self._beside.executing(stage, leader=flight.is_leader)
            notification.allow()
        except BaseException:
            self._withdraw(flight)
            raise
        if flight.error != 0:
            self._end(flight, None)

    def bounce(self, notification: Notification) -> bool:
        """Have a held call made again, once its thread has taken signals and stops; it is then answered.

        The kernel makes a call again that fails with ERESTARTNOINTR, or, unless a handler wants EINTR, with
        ERESTARTSYS (signal(7)), but only on the way past a signal or a stop: without one, the number would be
        the program's. So the thread is made to stop first.

        Returns:
            False if that is not possible at the moment, or at all; the call then waits on.

        Raises:
            TargetGone: Nobody waits for the answer any more.
        """
        flight = Flight(None, notification, next(self._cookies))
        with self._changed:
            if self.refused or not self._free(flight.tgid):
                return False
            self._flights[flight.tgid] = self._by_cookie[flight.cookie] = flight
        try:
            self._send(protocol.Halt(notification.tid, flight.tgid, flight.cookie), None)
            self._wait_traced(flight)
            if flight.error == 0:
                interruptible = notification.syscall in _INTERRUPTIBLE
                notification.deny(_ERESTARTSYS if interruptible else _ERESTARTNOINTR)
                return True
        except BaseException:
            self._withdraw(flight)
            raise
        self._end(flight, None)
        if flight.error in _REFUSED:
            notification.ensure_valid()  # a thread that is about to end is refused, too
            self.refused = True
        return False

    def hear(self, message: protocol.Traced | protocol.Executed) -> None:
        """Take what the launcher says."""
        with self._changed:
            flight = self._by_cookie.get(message.cookie)
            if flight is None:
                return
            if isinstance(message, protocol.Traced):
                flight.error = message.errno
                self._changed.notify_all()
                if not (message.errno and flight.withdrawn):
                    return
        self._end(flight, message if isinstance(message, protocol.Executed) else None)

    def land(self, raw: bytes) -> None:
        """Take what came of execs that the engine judged.

        What the launcher had said to us is taken before, and what it had said to the engine was read before
        that: whoever was started by what we judged is then known later than that is. The other way around,
        what we judge waits until all that the launcher has said to the engine is taken.

        Args:
            raw: From `Engine.take_landed`.
        """
        for landed in read_landed(raw):
            executed = landed.executed
            if executed.outcome is protocol.Outcome.TAMPERED:
                self._tampered(landed.execs[0])
                continue
            identity = (executed.pid, executed.start_time)
            ancestors = ((each.pid, each.start_time) for each in executed.ancestors)
            was = self._lineage.descent([identity, *ancestors])
            self._lineage.executed(
                *identity, was, landed, landed.image, landed.environment, executed.children
            )

    @property
    def busy(self) -> bool:
        """True while the launcher has something to do or to say."""
        return bool(self._flights)

    def close(self) -> None:
        """The launcher is gone: nothing is verified any more, so nothing is let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _enter(self, call: ExecCall) -> Flight:
        notification = call.notification
        flight = Flight(call, notification, next(self._cookies))
        with self._changed:
            if not self._free(flight.tgid):
                with self._lend():
                    self._wait(lambda: self._free(flight.tgid), notification.ensure_valid, _LOOK_BESIDE)
            self._flights[flight.tgid] = self._by_cookie[flight.cookie] = flight
        return flight

    def _free(self, tgid: int) -> bool:
        """Keep a process for a flight, with the lock held; False if something is on its way there."""
        return tgid not in self._flights and self._beside.claim(tgid)

    def _wait(
        self, condition: Callable[[], bool], ensure_valid: Callable[[], None], seconds: float = _LOOK
    ) -> None:
        """Wait with the lock held; it is given up meanwhile."""
        while not condition():
            if self._closed:
                raise OSError(errno.EACCES, "the launcher is gone")
            if not self._changed.wait(seconds):
                self.nudge()
            ensure_valid()

    def _trace(self, flight: Flight, expected: Expected) -> None:
        notification = flight.notification
        strings = expected.command_line + expected.environment
        packed = len(strings) <= protocol.MAX_PACKED
        order = protocol.Trace(
            tid=notification.tid,
            tgid=flight.tgid,
            cookie=flight.cookie,
            image=protocol.File(*expected.image),
            command_size=len(expected.command_line),
            environment_size=len(expected.environment),
            interpreter=protocol.File(*expected.interpreter),
            strings=strings if packed else b"",
        )
        if packed:
            self._send(order, None)
        else:
            with _in_memory(strings) as file:
                self._send(order, file)
        self._wait_traced(flight)
        if flight.error in _REFUSED:
            notification.ensure_valid()  # a thread that is about to end is refused, too
            self.refused = True
            if not self._degraded():
                raise ExecUnverifiable(flight.error)
        elif flight.error == errno.ESRCH:
            raise TargetGone(errno.ESRCH, "execve: the thread is gone")
        elif flight.error:
            raise OSError(flight.error, os.strerror(flight.error))

    def _wait_traced(self, flight: Flight) -> None:
        with self._lend(), self._changed:
            self._wait(lambda: flight.error is not None, flight.notification.ensure_valid)

    def _withdraw(self, flight: Flight) -> None:
        """The exec does not take place. What is traced is reported once more, which ends the flight."""
        with self._changed:
            flight.withdrawn = True
            failed = bool(flight.error)
        if not failed:
            try:
                self._send(protocol.Release(flight.notification.tid, flight.cookie), None)
                return
            except OSError:
                self.close()  # the launcher is gone, or does not listen: nothing is let go any more
        self._end(flight, None)

    def _end(self, flight: Flight, executed: protocol.Executed | None) -> None:
        outcome = None if executed is None else executed.outcome
        if executed is not None and outcome is protocol.Outcome.COMMITTED and flight.call is not None:
            self._committed(flight, flight.call, executed)
        elif outcome is protocol.Outcome.TAMPERED and not flight.withdrawn and flight.call is not None:
            self._tampered(flight.call.execs[0])
        if flight.told and flight.error == 0:
            self._beside.executing(Stage.OVER, leader=flight.is_leader)
        with self._changed:
            self._by_cookie.pop(flight.cookie, None)
            if self._flights.get(flight.tgid) is flight:
                del self._flights[flight.tgid]
                self._beside.unclaim(flight.tgid)
            self._changed.notify_all()

    def _committed(self, flight: Flight, call: ExecCall, executed: protocol.Executed) -> None:
        path, argv = call.program
        expected = call.expected
        variables = expected.environment.split(b"\0")[:-1]
        self._lineage.executed(
            executed.pid,
            executed.start_time,
            flight.was,
            _Told(Program(path, argv, clean(path, variables) and call.linked and not call.loads, call.execs)),
            expected.image,
            expected.environment,
            executed.children,
        )
        self._beside.traced()


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """Lend a descriptor of a memfd with this content."""
    file = os.memfd_create("exec", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(file, view) :]
        yield file
    finally:
        os.close(file)
