"""Questions that the rules leave to code or to a person.

A question belongs to a thread, its call and the object, not to one notification: while nobody has answered,
the call can be *bounced*, so that a signal or a stop takes its course, and finds its question again then.

An exec that was refused often comes again at once: execvp(3), shells and env(1) go on along PATH after
EACCES, where the same program may be reached by other names. It is refused again without a question.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any

import attrs

from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.events import ConnectEvent, Event, Operation
from rampart_seccomp.policy import Decision, Rule
from rampart_seccomp.verdicts import Allow, Ask, Deny, Redirect, Verdict

__all__ = ["Approver", "Bounced", "Questions"]

Approver = Callable[[Event], Verdict | Awaitable[Verdict]]

QUESTIONS_MAX = 200
"""Questions of one tree that may wait for an answer at a time; further ones are denied."""

_LOOK = 0.1
"""Seconds between two looks at whether the asking process still lives, and has a signal to take."""

_BOUNCE_ANYHOW = 1.0
"""Seconds after which a call is bounced without a visible reason: a freezer cannot be seen from here."""

AGAIN = 5.0
"""Seconds in which a process that makes a refused exec anew is refused it unasked."""

_APART = 600.0
"""Seconds that a question waits at most for which no held call waits."""

_REFUSALS_MAX = 1024
"""Refused execs of one tree that are remembered."""

Answer = Allow | Deny | Redirect

_NONE_YET = Deny(message="nobody has answered")


class Bounced(Exception):
    """The call was answered so that it is made again, once signals and stops have taken their course."""


@attrs.define(eq=False, repr=False)
class Pending:
    """A question, from when it was first put until its call is over.

    Attributes:
        asker: Thread that asked, and its start in clock ticks.
        deadline: When it is denied unanswered, on the monotonic clock; None: never.
        answered: Set once there is an answer.
        answer: The answer, then.
        latest: Id of the latest notification that waited for it; the kernel counts them up.
        held: The notification that waits for it now; None between two.
        used: Id of the notification that got the answer: it is no other's; None if the call comes again.
    """

    asker: tuple[int, int | None]
    deadline: float | None
    latest: int
    answered: threading.Event = attrs.field(factory=threading.Event)
    answer: Answer = _NONE_YET
    held: Notification | None = None
    used: int | None = None
    over: bool = False

    def withdrawn(self) -> bool:
        """Tell whether nobody waits for the answer any more."""
        held = self.held
        if self.over:
            return True
        return not held.valid() if held is not None else _start_time(self.asker[0]) != self.asker[1]


class Questions:
    """The questions of one tree.

    Args:
        on_ask: Answers what no rule's own callable does; None: nobody, so it is denied.
    """

    def __init__(self, on_ask: Approver | None) -> None:
        self._on_ask = on_ask
        self._lock = threading.Lock()
        self._pending: dict[tuple[int, int | None], dict[Hashable, Pending]] = {}
        self._refusals: dict[int, tuple[float, Deny]] = {}
        self._places = threading.BoundedSemaphore(QUESTIONS_MAX)
        self.bounce: Callable[[Notification], bool] = lambda notification: False
        """Has the call made again, after signals and stops; False if that is not possible now."""

    def ask(
        self,
        event: Event,
        decision: Decision,
        notification: Notification,
        lend: Callable[[], AbstractContextManager[None]],
        attempt: Hashable = None,
    ) -> Answer:
        """Have a question answered.

        The rule's own callable is asked first; if it says `Ask`, or there is none, ``on_ask`` is. Whatever
        goes wrong is a denial that says so.

        Args:
            event: What it is about.
            decision: Which rule asks.
            notification: The call that waits.
            lend: Entered while this thread waits.
            attempt: Tells a call that may soon come again, if it is refused, from others of the process;
                None: it is asked about each time.

        Raises:
            Bounced: The call comes again; the question stands.
            TargetGone: The process died; the question is withdrawn.
        """
        search = None if attempt is None else _search(event, decision, notification, attempt)
        answer: Answer | None = self._refused(search)
        if answer is not None:
            return answer
        pending = self._find(event, decision, notification)
        if pending is None:
            return Deny(message="too many questions wait already")
        with lend():
            try:
                answer = self._wait(pending, notification)
                pending.used = notification.id
            finally:
                pending.held = None
        if search is not None and isinstance(answer, Deny):
            self._remember(search, answer)
        return answer

    def ask_apart(self, event: Event, decision: Decision) -> Answer:
        """Have a question answered that no held call waits for; as `ask`; it may wait for long."""
        if not self._places.acquire(blocking=False):
            return Deny(message="too many questions wait already")
        seconds = _APART if decision.rule is None else decision.rule.timeout or _APART
        pending = Pending((0, None), time.monotonic() + seconds, 0)
        self._put(pending, event, decision.rule)
        return pending.answer if pending.answered.wait(seconds) else Deny(message="nobody answered in time")

    def over(self, notification: Notification) -> None:
        """A call of this thread is over: withdraw what it asked, and what an earlier call of it gave up."""
        if not self._pending:
            return
        dropped = []
        with self._lock:
            for asker in [asker for asker in self._pending if asker[0] == notification.tid]:
                questions = self._pending[asker]
                # A call that was answered a while ago may be over later than the next one asks.
                for key in [key for key, each in questions.items() if each.latest <= notification.id]:
                    dropped.append(questions.pop(key))
                if not questions:
                    del self._pending[asker]
        for pending in dropped:
            pending.over = True

    def _refused(self, search: int | None) -> Deny | None:
        """Give the answer by which the same was refused a moment ago."""
        if search is None:
            return None
        with self._lock:
            at, answer = self._refusals.get(search, (0.0, None))
        return answer if time.monotonic() - at < AGAIN else None

    def _remember(self, search: int, answer: Deny) -> None:
        now = time.monotonic()
        with self._lock:
            if len(self._refusals) >= _REFUSALS_MAX:
                fresh = {key: kept for key, kept in self._refusals.items() if now - kept[0] < AGAIN}
                self._refusals = fresh if len(fresh) < _REFUSALS_MAX else {}
            self._refusals[search] = now, answer

    def _find(self, event: Event, decision: Decision, notification: Notification) -> Pending | None:
        """Find the question that a bounced call put before, or put it; None if too many wait."""
        rule = decision.rule
        asker = (notification.tid, _start_time(notification.tid))
        # Who asks counts, too: a handler of the thread can have executed another program meanwhile.
        acting = None if event.process is None else event.process.lineage
        key = (notification.number, event, acting, None if rule is None else rule.name, decision.layer)
        with self._lock:
            pending = self._pending.get(asker, {}).get(key)
            # The next call of a thread can be here before its last one is over.
            if pending is not None and pending.used in (None, notification.id):
                pending.latest, pending.held = notification.id, notification
                return pending
            if not self._places.acquire(blocking=False):
                return None
            seconds = None if rule is None else rule.timeout
            deadline = None if seconds is None else time.monotonic() + seconds
            pending = Pending(asker, deadline, notification.id, held=notification)
            self._pending.setdefault(asker, {})[key] = pending
        self._put(pending, event, rule)
        return pending

    def _put(self, pending: Pending, event: Event, rule: Rule | None) -> None:
        """Have it answered in a thread of its own, so that a deadline, a death or a signal need not wait."""
        try:
            threading.Thread(
                target=self._answer, args=(pending, event, rule), name="rampart-question", daemon=True
            ).start()
        except RuntimeError as error:  # no more threads for this user
            self._settle(pending, Deny(message=f"nobody could be asked: {error}"))

    def _wait(self, pending: Pending, notification: Notification) -> Answer:
        began = time.monotonic()
        while True:
            left = None if pending.deadline is None else pending.deadline - time.monotonic()
            if left is not None and left <= 0 and not pending.answered.is_set():
                return Deny(message="nobody answered in time")
            if pending.answered.wait(_LOOK if left is None else max(0, min(left, _LOOK))):
                return pending.answer
            notification.ensure_valid()
            due = time.monotonic() - began >= _BOUNCE_ANYHOW
            if due or _has_to_act(notification):
                self._bounce(pending.asker, notification)

    def _bounce(self, asker: tuple[int, int | None], notification: Notification) -> None:
        """Have the call made again, if that is possible now; what it was answered so far holds then.

        Raises:
            Bounced: It will come again, or has already.
        """
        with self._lock:
            answered = [
                each for each in self._pending.get(asker, {}).values() if each.used == notification.id
            ]
            for each in answered:
                each.used = None
        if self.bounce(notification):
            raise Bounced
        for each in answered:
            each.used = notification.id

    def _answer(self, pending: Pending, event: Event, rule: Rule | None) -> None:
        try:
            answer = self._asked(pending, event, rule)
        except BaseException as error:  # whatever an approver raises is a denial
            answer = Deny(message=f"the approver failed: {type(error).__name__}: {error}")
        self._settle(pending, answer)

    def _settle(self, pending: Pending, answer: Answer) -> None:
        """Give the answer. Only now the place is free: an approver may go on after nobody waits any more."""
        pending.answer = answer
        pending.answered.set()
        self._places.release()

    def _asked(self, pending: Pending, event: Event, rule: Rule | None) -> Answer:
        verdict: object = Ask()
        if rule is not None and rule.decide is not None:
            verdict = _call(rule.decide, event)
        if isinstance(verdict, Ask):
            if self._on_ask is None:
                return Deny(message="nobody could be asked: there is no approver")
            verdict = _call(_informed(self._on_ask, rule, pending), event)
        if isinstance(verdict, Redirect) and (problem := _misplaced(verdict, event)) is not None:
            return Deny(message=problem)
        if isinstance(verdict, Allow | Deny | Redirect):
            return verdict
        if isinstance(verdict, Ask):
            return Deny(message="the approver passed the question on, and nobody is left")
        return Deny(message=f"the approver answered {type(verdict).__name__}, which is no verdict")


def _misplaced(redirect: Redirect, event: Event) -> str | None:
    """Say why an event cannot be answered by a redirect; None if it can."""
    if event.operation not in (Operation.READ, Operation.CONNECT):
        return "the approver redirects what is no reading of a file, and no connection"
    if isinstance(event, ConnectEvent) and event.query is not None:
        return "the approver redirects what is no connection yet: the name is only looked up"
    if event.operation is not redirect.operation:
        return f"the approver redirects a {event.operation} as only a {redirect.operation} can be"
    return None


def _search(event: Event, decision: Decision, notification: Notification, attempt: Hashable) -> int:
    """Tell what one process tries from everything else.

    A hash, since arguments and variables can be megabytes. Whatever has the same one is refused, no more.
    """
    process = (notification.tgid, _start_time(notification.tgid))
    acting = None if event.process is None else event.process.lineage
    rule = None if decision.rule is None else decision.rule.name
    return hash((process, acting, attempt, rule, decision.layer))


def _informed(on_ask: Approver, rule: Rule | None, pending: Pending) -> Approver:
    """Tell an approver that can hear it (`Question`) which rule asks, and when nobody waits any more."""
    answer = getattr(on_ask, "answer", None)
    if answer is None:
        return on_ask
    from rampart_seccomp.approval.question import Question

    return lambda event: answer(
        Question(
            event,
            rule="" if rule is None else f"{rule.name} ({rule.place})" if rule.place else rule.name,
            message=None if rule is None else rule.message,
            timeout=None if rule is None else rule.timeout,
            withdrawn=pending.withdrawn,
        )
    )


def _call(approver: Approver, event: Event) -> object:
    answer: Any = approver(event)
    if inspect.isawaitable(answer):
        import asyncio

        answer = asyncio.run(_wait_for(answer))
    return answer


async def _wait_for(answer: Awaitable[Verdict]) -> Verdict:
    return await answer


def _start_time(tid: int) -> int | None:
    """When a thread started, in clock ticks since boot (proc_pid_stat(5)); None if it is gone."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _has_to_act(notification: Notification) -> bool:
    """Tell whether the held thread has a signal to take, or its process is being stopped.

    A held thread does neither by itself: only fatal signals end its wait (seccomp_unotify(2)).
    """
    try:
        status = _status(f"/proc/{notification.tid}/status")
        pending, blocked = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16), int(status["SigBlk"], 16)
        if pending & ~blocked & ~int(status["SigIgn"], 16):
            return True
        tasks = f"/proc/{status['Tgid']}/task"
        return any(_status(f"{tasks}/{other}/status")["State"].startswith("T") for other in os.listdir(tasks))
    except (OSError, KeyError, ValueError):
        return False


def _status(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
