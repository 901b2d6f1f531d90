"""What was decided, as values that a harness can act on."""

from __future__ import annotations

import attrs

from rampart_seccomp.events import Event

__all__ = ["Decided", "Denial"]


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
    """

    event: Event
    verdict: str
    rule: str | None
    where: str
    errno: int | None
    asked: bool
