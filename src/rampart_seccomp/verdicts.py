"""What can be answered: verdicts are types, so that no truthy value is ever taken for a yes."""

from __future__ import annotations

import attrs

__all__ = ["Allow", "Ask", "Deny", "Verdict"]


@attrs.frozen
class Allow:
    """The call takes place, exactly as asked for."""


@attrs.frozen
class Deny:
    """The call does not take place; the program sees an error.

    Args:
        errno: The error the program sees (errno(3)); None for the usual one of the operation: EACCES, and
            ECONNREFUSED for a connection.
        message: Said to people, never to the program.
    """

    errno: int | None = None
    message: str | None = None


@attrs.frozen
class Ask:
    """A person decides."""


Verdict = Allow | Deny | Ask
