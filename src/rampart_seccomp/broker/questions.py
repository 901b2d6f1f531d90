"""Questions that the rules leave to code or to a person."""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.events import Event
from rampart_seccomp.policy import Rule
from rampart_seccomp.verdicts import Allow, Ask, Deny, Verdict

__all__ = ["Approver", "ask"]

Approver = Callable[[Event], Verdict | Awaitable[Verdict]]

_LOOK = 0.1
"""Seconds between two looks at whether the asking process still lives."""


def ask(event: Event, rule: Rule | None, on_ask: Approver | None, notification: Notification) -> Allow | Deny:
    """Have a question answered.

    The rule's own callable is asked first; if it says `Ask`, or there is none, ``on_ask`` is. Whatever goes
    wrong is a denial that says so.

    Raises:
        TargetGone: The process died; the question is withdrawn.
    """
    deadline = None if rule is None or rule.timeout is None else time.monotonic() + rule.timeout
    verdict: object = Ask()
    if rule is not None and rule.decide is not None:
        verdict = _answer(rule.decide, event, deadline, notification)
    if isinstance(verdict, Ask):
        if on_ask is None:
            return Deny(message="nobody could be asked: there is no approver")
        verdict = _answer(_informed(on_ask, rule, notification), event, deadline, notification)
    if isinstance(verdict, Allow | Deny):
        return verdict
    if isinstance(verdict, Ask):
        return Deny(message="the approver passed the question on, and nobody is left")
    return Deny(message=f"the approver answered {type(verdict).__name__}, which is no verdict")


def _informed(on_ask: Approver, rule: Rule | None, notification: Notification) -> Approver:
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
            withdrawn=lambda: not notification.valid(),
        )
    )


def _answer(callable_: Approver, event: Event, deadline: float | None, notification: Notification) -> object:
    """Call the approver in a thread of its own, so that a deadline or a death need not wait for it."""
    future: concurrent.futures.Future[object] = concurrent.futures.Future()

    def run() -> None:
        try:
            answer: Any = callable_(event)
            if inspect.isawaitable(answer):
                import asyncio

                answer = asyncio.run(_wait(answer))
            future.set_result(answer)
        except BaseException as error:  # whatever an approver raises is a denial
            future.set_exception(error)

    threading.Thread(target=run, name="rampart-question", daemon=True).start()
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return Deny(message="nobody answered in time")
        try:
            return future.result(_LOOK if left is None else min(left, _LOOK))
        except concurrent.futures.TimeoutError:
            if future.done():
                return Deny(message="the approver failed: TimeoutError")
            notification.ensure_valid()
        except BaseException as error:
            return Deny(message=f"the approver failed: {type(error).__name__}: {error}")


async def _wait(answer: Awaitable[Verdict]) -> Verdict:
    return await answer
