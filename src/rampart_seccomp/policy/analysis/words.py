"""Names and arguments by what matches them: of each class of words that patterns tell apart, the shortest.

A pattern of one word is a row of items, each a set of bytes or "anything". All patterns are read at once as a
nondeterministic automaton whose state is a number, one bit for a place in a pattern; a breadth-first search
over words, with one byte for all that no pattern tells apart, comes to every class that there is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

import attrs

from rampart_seccomp.policy.globs import Wildcard, bracket

__all__ = ["ABSTRACT", "ARGUMENTS", "NAMES", "NAME_MAX", "VARIABLES", "Language", "TooLarge"]

NAME_MAX = 255
"""Bytes in one name (limits.h)."""

STATES_MAX = 20_000
"""States of a search among words, after which it gives up."""

_NICE = b"xabcdefghijklmnopqrstuvwyz0123456789_-.+,=@~%: " + bytes(range(ord("A"), ord("Z") + 1))
_ORDER = bytes(dict.fromkeys(_NICE + bytes(range(0x21, 0x7F)) + bytes(range(256))))
"""Which byte stands for those that no pattern tells apart: the first one here."""

_EVERY = (1 << 256) - 1
_STAR = -1
_END = 0

Pattern = bytes | Wildcard
Items = tuple[int, ...]


class TooLarge(Exception):
    """A search gave up; the message says what there was too much of."""


@attrs.frozen
class Language:
    """A kind of words.

    Attributes:
        without: Bytes that do not occur in them.
        globbing: Whether ``?`` and ``[...]`` are special in their patterns, beside ``*``.
        longest: Bytes in a word at most; None if there is no limit.
        never: What is no such word all the same.
    """

    without: bytes
    globbing: bool = True
    longest: int | None = None
    never: frozenset[bytes] = frozenset()

    def classes(self, patterns: frozenset[Pattern]) -> tuple[tuple[frozenset[Pattern], bytes], ...]:
        """Give the sets of these patterns that some word matches (and no others), each with a shortest word.

        Raises:
            TooLarge: There are too many.
        """
        return _classes(self, patterns)

    def items(self, pattern: Pattern) -> Items:
        """Give the items of a pattern; two stars in a row are one."""
        if isinstance(pattern, bytes):
            return tuple(1 << byte for byte in pattern)
        text, found, index = pattern.text, list[int](), 0
        while index < len(text):
            byte = text[index : index + 1]
            if byte == b"*":
                if found[-1:] != [_STAR]:
                    found.append(_STAR)
            elif byte == b"?" and self.globbing:
                found.append(_EVERY)
            elif byte == b"[" and self.globbing:
                accepted, index = bracket(text, index)
                found.append(_set(accepted))
            else:
                found.append(1 << byte[0])
            index += 1
        return tuple(found)


NAMES = Language(b"/\0", longest=NAME_MAX, never=frozenset({b".", b".."}))
"""Components of paths."""

ARGUMENTS = Language(b"\0", globbing=False)
"""Arguments of programs, in which only ``*`` is special. Empty only where a pattern is."""

ABSTRACT = Language(b"\0", globbing=False)
"""Names of abstract unix sockets, likewise."""

VARIABLES = Language(b"=\0")
"""Names of environment variables."""


@functools.lru_cache(maxsize=4096)
def _classes(
    language: Language, patterns: frozenset[Pattern]
) -> tuple[tuple[frozenset[Pattern], bytes], ...]:
    literals = {pattern for pattern in patterns if isinstance(pattern, bytes)}
    wildcards = [pattern for pattern in patterns if isinstance(pattern, Wildcard)]
    found: list[tuple[frozenset[Pattern], bytes]] = [
        (frozenset([word, *(each for each in wildcards if each.regex.match(word))]), word)
        for word in literals
        if word not in language.never and (language.longest is None or len(word) <= language.longest)
    ]
    # A word that is a literal is in a class of its own, so another one must stand for the class found.
    avoided = set(language.never)
    while True:
        others = [
            (matched, word) for matched, word in _search(language, wildcards, avoided) if word not in avoided
        ]
        clashing = {word for _, word in others} & literals
        if not clashing:
            break
        avoided |= clashing
    found += others
    return tuple(sorted(found, key=lambda each: (len(each[1]), each[1])))


def _search(
    language: Language, wildcards: list[Wildcard], avoided: Iterable[bytes]
) -> list[tuple[frozenset[Pattern], bytes]]:
    """Search the words, the shortest first: of each class the first one, and each word to be avoided."""
    given: list[tuple[Items, Pattern]] = [(language.items(pattern), pattern) for pattern in wildcards]
    given += [(language.items(word), word) for word in avoided]
    machine = _Machine(given)
    steps = [(byte, machine.advancing[byte]) for byte in machine.bytes(language.without)]
    found: dict[frozenset[Pattern], bytes] = {}
    seen = {machine.start}
    level = [(machine.start, b"")]
    while level:
        following = []
        for state, word in level:
            for byte, advancing in steps:
                after = machine.step(state, advancing)
                if after in seen and (word or after != machine.start):
                    continue
                seen.add(after)
                longer = word + bytes((byte,))
                found.setdefault(machine.matched(after), longer)
                if after and (language.longest is None or len(longer) < language.longest):
                    following.append((after, longer))
        if len(seen) > STATES_MAX:
            raise TooLarge(f"patterns of one name that {STATES_MAX} beginnings of names do not exhaust")
        level = following
    return list(found.items())


class _Machine:
    """Patterns read at once; a state has one bit for each place in a pattern that was come to."""

    def __init__(self, patterns: list[tuple[Items, Pattern]]) -> None:
        self._items: list[int] = []
        self._stars = 0
        self._ends: list[tuple[int, Pattern]] = []
        start = 0
        for items, pattern in patterns:
            start |= 1 << len(self._items)
            for item in items:
                if item == _STAR:
                    self._stars |= 1 << len(self._items)
                self._items.append(item)
            self._ends.append((1 << len(self._items), pattern))
            self._items.append(_END)
        self.start = self._closed(start)
        self.advancing = [0] * 256
        """For each byte the places behind which it leads."""
        for place, item in enumerate(self._items):
            while item > 0:
                lowest = item & -item
                self.advancing[lowest.bit_length() - 1] |= 1 << place
                item ^= lowest

    def step(self, state: int, advancing: int) -> int:
        """Give the state after one more byte."""
        return self._closed((state & advancing) << 1 | state & self._stars)

    def matched(self, state: int) -> frozenset[Pattern]:
        """Give the patterns that match what was read."""
        return frozenset(pattern for end, pattern in self._ends if state & end)

    def bytes(self, without: bytes) -> Iterator[int]:
        """Give one byte of each class that no pattern tells apart."""
        seen = set()
        for byte in _ORDER:
            if byte in without:
                continue
            places = self.advancing[byte]
            if places not in seen:
                seen.add(places)
                yield byte

    def _closed(self, state: int) -> int:
        return state | (state & self._stars) << 1


@functools.lru_cache(maxsize=1024)
def _set(expression: bytes) -> int:
    accepts = re.compile(expression, re.DOTALL).match
    return sum(1 << byte for byte in range(256) if accepts(bytes((byte,))))
