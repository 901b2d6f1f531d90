"""What an entry of the table of system calls consists of."""

from __future__ import annotations

import enum
from typing import NamedTuple

import attrs

__all__ = ["INT", "LONG", "Case", "Classified", "Disposition", "Match", "Syscall", "free", "refused"]

INT = 0xFFFFFFFF  # what the kernel takes of an int; callers leave garbage, zeros or the sign above it
LONG = 0xFFFFFFFFFFFFFFFF  # pointers and longs


class Disposition(str, enum.Enum):
    """What becomes of a call. ``KILLED`` stands in no entry: it is for calls of a foreign ABI."""

    FREE = "free"
    MEDIATED = "mediated"
    REFUSED = "refused"
    ABSENT = "absent"
    ANSWERED = "answered"
    KILLED = "killed"

    def __str__(self) -> str:
        return self.value


class Match(NamedTuple):
    """A condition on one argument register: ``args[argument] & mask == value``."""

    argument: int
    mask: int
    value: int


@attrs.frozen(repr=False)
class Case:
    """A disposition for some arguments of a call: those that meet all of the conditions."""

    matches: tuple[Match, ...]
    disposition: Disposition
    errno: int | None = None


@attrs.frozen(repr=False)
class Syscall:
    """One entry of the table.

    Attributes:
        name: Name, as libseccomp and the man pages have it.
        disposition: What becomes of the call if none of its cases applies.
        errno: Answer to a refused or answered call.
        cases: Dispositions that depend on argument registers; the first that applies counts.
        note: The reason, where it is not obvious.
    """

    name: str
    disposition: Disposition
    errno: int | None = None
    cases: tuple[Case, ...] = ()
    note: str = ""

    @property
    def handler(self) -> str | None:
        """The decoder's key, if the call is ever mediated: its name."""
        every = (self.disposition, *(case.disposition for case in self.cases))
        return self.name if Disposition.MEDIATED in every else None


class Classified(NamedTuple):
    """What the filter has to do with one call, and the errno if that is to answer it."""

    disposition: Disposition
    errno: int | None


def free(*matches: Match) -> Case:
    """Make a case that the kernel carries out."""
    return Case(matches, Disposition.FREE)


def refused(number: int, *matches: Match) -> Case:
    """Make a case that fails with an errno, and is recorded."""
    return Case(matches, Disposition.REFUSED, number)
