"""What was decided, as values that a harness can act on."""

from __future__ import annotations

from typing import TypeVar

import attrs

from rampart_seccomp.events import Event, ExecEvent
from rampart_seccomp.verdicts import Redirect

E = TypeVar("E", bound=Event)

__all__ = ["Decided", "Denial", "bounded", "shortened"]

ARGUMENTS_MAX = 64
TEXT_MAX = 4096
"""What is kept in memory of an argument vector, and of any text; the audit log has its own bounds."""


@attrs.frozen
class Denial:
    """One denied call.

    Attributes:
        operation: Such as ``read`` or ``connect``; ``syscall`` for a call that is not available at all.
        object: What it was about, unescaped.
        rule: Name of the rule; None for a default or a built-in.
        message: The rule's message, or why a question was denied.
        suggestion: What to write to allow it.
        errno: What the program saw.
        where: The deciding rule or default, with its place in the policy.
    """

    operation: str
    object: str
    rule: str | None
    message: str | None
    suggestion: str | None
    errno: int
    where: str


@attrs.frozen
class Decided:
    """One decision, allowed or denied.

    Attributes:
        event: What was judged.
        verdict: ``allow`` or ``deny``.
        rule: Name of the deciding rule; None for a default or a built-in.
        where: The deciding rule or default, with its place in the policy.
        errno: What the program saw; None for success.
        asked: True if code or a person answered.
        redirect: What the program was shown, or reached, instead; None: what it asked for.
    """

    event: Event
    verdict: str
    rule: str | None
    where: str
    errno: int | None
    asked: bool
    redirect: Redirect | None = None


def shortened(text: str) -> str:
    """Cut a text that a program can make as long as it likes."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def bounded(event: E) -> E:
    """Cut what an event holds of a program's arguments, so that keeping many events is cheap."""
    if isinstance(event, ExecEvent) and _is_long(event.argv):
        event = attrs.evolve(event, argv=_cut(event.argv))
    if event.process is not None and _is_long(event.process.argv):
        event = attrs.evolve(event, process=attrs.evolve(event.process, argv=_cut(event.process.argv)))
    return event


def _is_long(argv: tuple[bytes, ...]) -> bool:
    return len(argv) > ARGUMENTS_MAX or any(len(argument) > TEXT_MAX for argument in argv)


def _cut(argv: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(argument[:TEXT_MAX] for argument in argv[:ARGUMENTS_MAX])
