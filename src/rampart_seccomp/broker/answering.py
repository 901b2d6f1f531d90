"""How a call is answered that Python decides: pinned, judged, performed or refused, and recorded."""

from __future__ import annotations

import errno
import functools
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from rampart_seccomp.broker.deciding import Deciding
from rampart_seccomp.broker.judge import Judgement
from rampart_seccomp.broker.ledger import Entry, Ledger
from rampart_seccomp.broker.pool import Pool
from rampart_seccomp.broker.processes import describe
from rampart_seccomp.broker.questions import Bounced
from rampart_seccomp.calls.call import Call, CallChanged, Departed, Setting, Withheld
from rampart_seccomp.calls.decode import decode
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.errors import ExecUnverifiable, TargetGone
from rampart_seccomp.events import Event, ExecEvent, RefusedEvent

if TYPE_CHECKING:
    from rampart_seccomp.broker.telling import Telling

__all__ = ["Answering"]

_RETRIES = 16
"""How often a call is decoded again because names changed beneath it."""


class Answering:
    """Answers the calls of one tree, each in a thread of its pool.

    Args:
        deciding: Whose judge decides.
        setting: What the calls of the tree share.
        pool: Does the work.
        ledger: Where decisions are noted.
        telling: Told of denials, and of failures.
        unverifiable: Told if the tree cannot do without an exec that cannot be verified.

    Attributes:
        orphaned: True once the launcher is gone: who calls from then on is ended.
        taken: How many calls there were.
    """

    def __init__(
        self,
        deciding: Deciding,
        setting: Setting,
        pool: Pool,
        ledger: Ledger,
        telling: Telling,
        unverifiable: Callable[[ExecUnverifiable], None],
    ) -> None:
        self.orphaned = False
        self.taken = 0
        self._deciding = deciding
        self._setting = setting
        self._pool = pool
        self._ledger = ledger
        self._telling = telling
        self._unverifiable = unverifiable
        self._departed: dict[int, tuple[list[Judgement], int]] = {}
        self._at_work = 0
        self._quiet = threading.Condition()

    def submit(self, notification: Notification) -> None:
        """Have a call answered."""
        with self._quiet:
            self._at_work += 1
            self.taken += 1
        self._pool.submit(lambda: self._handle(notification))

    def wait_quiet(self, seconds: float) -> bool:
        """Wait until no call is at work, at most so long; tell whether that is so."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._at_work == 0, seconds)

    def note_tampering(self, judged: ExecEvent) -> None:
        """Record a process that was killed at its exec: it had become something else than was judged."""
        where = "built-in: exec-tampered, another program, argument or variable than was judged"
        judgement = Judgement(judged, allowed=False, where=where, errno=errno.EACCES)
        with self._ledger.entry() as entry:
            entry.deny(self._telling.denial(judgement, None))
            entry.record(judgement, errno.EACCES, "killed", 0)

    def _handle(self, notification: Notification) -> None:
        """Answer one call. Whatever goes wrong in here is a denial."""
        bounced = False
        try:
            if self.orphaned:
                _kill(notification)
                return
            if notification.arrived is None:
                self._answer(notification)
            else:
                self._conclude(notification, notification.arrived)
        except Bounced:
            bounced = True
        except TargetGone:
            self._give_up(notification)
        except BaseException:
            self._telling.report(traceback.format_exc())
            self._give_up(notification)
        finally:
            notification.close()
            if not bounced:
                self._deciding.judge.questions.over(notification)
            with self._quiet:
                self._at_work -= 1
                self._quiet.notify_all()

    def _answer(self, notification: Notification) -> None:
        began = time.monotonic_ns()
        try:
            for _ in range(_RETRIES):
                try:
                    if self._decide(notification, began):
                        return
                except CallChanged:
                    continue
            error = errno.EBUSY
        except OSError as failure:
            if isinstance(failure, TargetGone) or notification.answered:
                raise
            error = failure.errno or errno.EACCES
        notification.deny(error)

    def _decide(self, notification: Notification, began: int) -> bool:
        with decode(notification, self._setting) as call:
            if self._telling.broken and call.events:
                raise PermissionError(errno.EACCES, "the audit log cannot be written")
            judgements = self._deciding.judge.judge(call)
            while judgements and not judgements[0].allowed:
                if not call.cut_before(judgements[0].event):
                    call.close()
                    self._refuse(judgements[0], notification, began)
                    return True
                self._note_denial(self._with_process(judgements[0], notification), began)
                judgements = self._deciding.judge.judge(call)
            if self._telling.records_allowed:
                judgements = [self._with_process(judgement, notification) for judgement in judgements]
            call.depart = functools.partial(self._depart, notification, judgements, began)
            with self._ledger.entry() as entry:
                notification.before_answer = entry.settle
                self._perform(call, judgements, notification, began, entry)
        return True

    def _depart(
        self,
        notification: Notification,
        judgements: list[Judgement],
        began: int,
        copy: int,
        address: bytes,
    ) -> bool:
        # First: something may have come of it before this thread goes on.
        self._departed[notification.id] = judgements, began
        if self._deciding.depart(notification, copy, address):
            return True
        del self._departed[notification.id]
        return False

    def _conclude(self, notification: Notification, error: int) -> None:
        """Answer with what came of a connection, as it was decided: nothing is read a second time."""
        judgements, began = self._departed.pop(notification.id)
        with self._ledger.entry() as entry:
            notification.before_answer = entry.settle
            if error:
                notification.deny(error)
            else:
                notification.reply(0)
            held = time.monotonic_ns() - began
            for judgement in judgements:
                entry.record(judgement, error or None, Call.enforced, held)

    def _perform(
        self, call: Call, judgements: list[Judgement], notification: Notification, began: int, entry: Entry
    ) -> None:
        failed: int | None = None
        try:
            call.perform()
        except TargetGone:
            raise
        except Departed:
            return
        except Withheld as withheld:
            call.close()
            self._refuse(withheld.judgement, notification, began)
            return
        except ExecUnverifiable as unverifiable:
            call.close()
            self._unverifiable(unverifiable)
            where = "built-in: execs cannot be verified here"
            refused = Judgement(judgements[0].event, allowed=False, where=where, errno=errno.EPERM)
            self._refuse(refused, notification, began)
            return
        except OSError as error:
            failed = error.errno or errno.EACCES
            call.close()
            notification.deny(failed)
        held = time.monotonic_ns() - began
        for judgement in judgements:
            entry.record(judgement, failed, call.enforced, held)

    def _refuse(self, judgement: Judgement, notification: Notification, began: int) -> None:
        known = self._with_process(judgement, notification)
        with self._ledger.entry() as entry:
            # Known to the harness before the program can act on it; on record after the reply.
            entry.deny(self._telling.denial(known, self._deciding.judge.suggest(known)))
            try:
                notification.deny(known.errno)
            finally:
                entry.record(known, known.errno, "answered", time.monotonic_ns() - began)

    def _note_denial(self, judgement: Judgement, began: int) -> None:
        """Record what is left out of a call that is done in part."""
        with self._ledger.entry() as entry:
            entry.deny(self._telling.denial(judgement, self._deciding.judge.suggest(judgement)))
            entry.record(judgement, judgement.errno, "answered", time.monotonic_ns() - began)

    def _give_up(self, notification: Notification) -> None:
        if not notification.valid():
            return
        try:
            notification.deny(errno.EACCES)
        except OSError:
            return
        failure = RefusedEvent(syscall=notification.syscall)
        judgement = Judgement(failure, allowed=False, where="built-in: the broker failed")
        with self._ledger.entry() as entry:
            entry.deny(self._telling.denial(judgement, None))
            entry.record(judgement, errno.EACCES, "answered", 0)

    def _with_process(self, judgement: Judgement, notification: Notification) -> Judgement:
        event: Event = judgement.event
        if event.process is not None:
            return judgement
        process = describe(notification, self._deciding.lineage)
        return attrs.evolve(judgement, event=attrs.evolve(event, process=process))


def _kill(notification: Notification) -> None:
    """End a process whose launcher is gone, when it next calls."""
    fd = os.pidfd_open(notification.tgid)
    try:
        notification.ensure_valid()
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)
