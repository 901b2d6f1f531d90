"""What a person is asked, and the approver that can ask nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from rampart_seccomp.approval.escape import printable, shortened
from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent
from rampart_seccomp.verdicts import Deny, Verdict

__all__ = ["Approver", "Question", "headless_approver"]

_LINE_LIMIT = 2000


@attrs.frozen(eq=False, repr=False)
class Question:
    """An event that waits for an answer, and why it is asked about.

    Attributes:
        event: What would be done.
        rule: The asking rule with its place, in words; empty if unknown.
        message: The rule's message for people.
        timeout: Seconds until the answer is no; None for the approver's own default.
        withdrawn: Says whether nobody waits for the answer any more, as when the process has died.
    """

    event: Event
    rule: str = ""
    message: str | None = None
    timeout: float | None = None
    withdrawn: Callable[[], bool] = attrs.field(default=lambda: False, eq=False, repr=False)

    def lines(self) -> list[tuple[str, str]]:
        """Return what a person should know, as (heading, text) pairs that are safe to print."""
        event, process = self.event, self.event.process
        lines = [(str(event.operation), self._object())]
        if isinstance(event, ExecEvent):
            lines.append(("program", printable(event.path)))
        if process is not None:
            chain = [process.executable or b"unknown", *process.ancestry]
            lines.append(("by", f"{' < '.join(map(printable, chain))} (pid {process.pid})"))
        if self.rule:
            lines.append(("rule", printable(self.rule)))
        if self.message:
            lines.append(("note", printable(self.message)))
        return [(heading, shortened(text, _LINE_LIMIT)) for heading, text in lines]

    def _object(self) -> str:
        """Return the object, with the borders between arguments visible."""
        event = self.event
        if isinstance(event, FileEvent):
            return printable(event.path)
        if isinstance(event, ExecEvent) and event.argv:
            return " ".join(map(_argument, event.argv))
        if isinstance(event, ConnectEvent):
            return f"{event.protocol} {printable(event.object)}"
        return printable(event.object)


class Approver(Protocol):
    """Anything that answers an event. What also has ``answer(question)`` is told the rule and the timeout."""

    def __call__(self, event: Event, /) -> Verdict: ...


class _Headless:
    def __call__(self, event: Event, /) -> Verdict:
        return self.answer(Question(event))

    def answer(self, question: Question) -> Verdict:
        return nobody_asked("no terminal", question)


def headless_approver() -> Callable[[Event], Verdict]:
    """Return an approver for where nobody can be asked: it denies, and says so."""
    return _Headless()


def nobody_asked(reason: str, question: Question) -> Deny:
    """Return the answer for a question that could not be put."""
    rule = f"; rule {question.rule} asks" if question.rule else ""
    return Deny(message=f"nobody could be asked: {reason}{rule}")


def _argument(argument: bytes) -> str:
    text = printable(argument)
    return f"'{text}'" if not text or any(character in " '\"" for character in text) else text
