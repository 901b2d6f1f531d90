"""Path patterns: parsing them, and the automaton that matches many of them at once.

A pattern is a sequence of components, and so is a path. Within a component ``*``, ``?`` and ``[...]`` match
bytes (never ``/``); the component ``**`` matches any number of components, none included, so that ``dir/**``
covers ``dir`` itself. Everything is bytes: a name need not be UTF-8.

The automaton reads a path component by component. Its states are sets of *positions*, a position being what
is left of one pattern (its *tail*), so a state is at the same time the answer to "what would match beneath
here", which is what judging a rename needs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

import attrs

from rampart_seccomp.errors import PolicyError

__all__ = [
    "ANY",
    "SETS",
    "AnyComponents",
    "Automaton",
    "Component",
    "Glob",
    "State",
    "Tail",
    "Wildcard",
    "bracket",
    "component",
    "parse",
    "starred",
    "wildcard",
]

SETS = ("@system", "@tmp", "@caches", "@project")
"""Named sets of paths that a pattern can stand for."""

MAX_LENGTH = 4096
MAX_COMPONENTS = 128
MAX_TRANSITIONS = 16384

_SPECIAL = re.compile(rb"[*?\[\\{]")


@attrs.frozen(repr=False)
class AnyComponents:
    """The component ``**``: any number of components, none included."""


ANY = AnyComponents()


@attrs.frozen(repr=False)
class Wildcard:
    """A component with ``*``, ``?`` or ``[...]`` in it."""

    text: bytes
    segments: tuple[bytes, ...] = attrs.field(eq=False, repr=False)

    @property
    def regex(self) -> re.Pattern[bytes]:
        """The expression for the whole component; made when it is first needed, which many never are."""
        return _join(self.segments)


Component = bytes | Wildcard | AnyComponents
Tail = tuple[Component, ...]


@attrs.frozen(repr=False)
class Glob:
    """One parsed pattern.

    Attributes:
        text: The pattern as written.
        anchor: ``/``, ``~``, ``./`` or the name of a set.
        components: What follows the anchor.
    """

    text: str
    anchor: str
    components: Tail


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Glob:
    """Parse a path pattern.

    Args:
        text: The pattern; bytes that are not UTF-8 are given as surrogate escapes.

    Raises:
        PolicyError: The pattern can match nothing, or does not mean what it seems to mean.
    """
    if not text:
        raise PolicyError("the pattern is empty")
    if len(text) > MAX_LENGTH:
        raise PolicyError(f"the pattern is longer than {MAX_LENGTH} characters")
    if "\0" in text:
        raise PolicyError("a path has no NUL byte, so this pattern matches nothing")
    if text.startswith("@"):
        if text not in SETS:
            raise PolicyError(f"there is no named set {text!r}", hint=f"the sets are {', '.join(SETS)}")
        return Glob(text, text, ())
    anchor, rest = _anchor(text)
    return Glob(text, anchor, _components(text, rest))


def _anchor(text: str) -> tuple[str, str]:
    if text.startswith("/"):
        return "/", text[1:]
    if text == "~" or text.startswith("~/"):
        return "~", text[2:]
    if text.startswith("./"):
        return "./", text[2:]
    if text.startswith("**/"):
        return "/", text
    if text.startswith("~"):
        raise PolicyError(f"{text!r} names another user's home", hint="write the directory itself")
    raise PolicyError(
        f"the pattern {text!r} starts nowhere",
        hint="a pattern starts with '/', '~/', './', '@' or '**/'; for any depth of the project write "
        f"'./**/{text.lstrip('.')}'"
        if text.startswith("..")
        else f"a pattern starts with '/', '~/', './', '@' or '**/'; perhaps './{text}' or './**/{text}'",
    )


def _components(text: str, rest: str) -> Tail:
    if not rest:
        if text in ("/", "~"):
            return ()
        raise PolicyError(f"the pattern {text!r} ends with '/'", hint=f"write '{text}**' for the tree")
    found: list[Component] = []
    names = rest.split("/")
    if len(names) > MAX_COMPONENTS:
        raise PolicyError(f"the pattern has more than {MAX_COMPONENTS} components")
    for position, name in enumerate(names):
        if not name and position == len(names) - 1:
            whole = text.rstrip("/")
            tree = (
                f"write {whole!r}"
                if whole.endswith("/**")
                else f"write {whole!r} for the object or '{whole}/**'"
            )
            raise PolicyError(f"the pattern {text!r} ends with '/'", hint=f"{tree} for the tree")
        if not name:
            raise PolicyError(f"the pattern {text!r} has an empty component", hint="drop the second '/'")
        if name in (".", ".."):
            raise PolicyError(
                f"the pattern {text!r} has the component {name!r}, which no real name has",
                hint="write the real name",
            )
        parsed = component(name)
        if not (parsed == ANY and found and found[-1] == ANY):
            found.append(parsed)
    return tuple(found)


def component(name: str) -> Component:
    """Parse one component of a pattern.

    Raises:
        PolicyError: It is not a valid component.
    """
    if name == "**":
        return ANY
    if "**" in name:
        raise PolicyError(
            f"'**' is part of the component {name!r}", hint="'**' stands alone between slashes: '**/*.py'"
        )
    raw = name.encode(errors="surrogateescape")
    if _SPECIAL.search(raw) is None:
        return raw
    regex: list[bytes] = []
    segments = [regex]
    index = 0
    while index < len(raw):
        byte = raw[index : index + 1]
        if byte == b"*":
            regex = []
            segments.append(regex)
        elif byte == b"?":
            regex.append(b".")
        elif byte == b"[":
            accepted, index = bracket(raw, index)
            regex.append(accepted)
        elif byte == b"\\":
            raise PolicyError(
                f"backslash is not an escape, in the component {name!r}",
                hint=r"write '[*]' for a literal '*' and '[\]' for a backslash",
            )
        elif byte == b"{":
            raise PolicyError(
                f"braces are not expanded, in the component {name!r}",
                hint="write one pattern for each alternative, or '[{]' for a literal '{'",
            )
        else:
            regex.append(re.escape(byte))
        index += 1
    return Wildcard(raw, tuple(b"".join(segment) for segment in segments))


def bracket(raw: bytes, start: int) -> tuple[bytes, int]:
    """Translate the ``[...]`` of a component that begins at ``start``; give the expression and where it ends.

    Raises:
        PolicyError: It is not valid.
    """
    name = raw.decode(errors="surrogateescape")
    index = start + 1
    negated = raw[index : index + 1] in (b"!", b"^")
    index += negated
    accepted: set[int] = set()
    first = True
    while True:
        if index >= len(raw):
            raise PolicyError(
                f"'[' without ']' in the component {name!r}", hint="write '[[]' for a literal '['"
            )
        byte = raw[index]
        if byte == ord("]") and not first:
            break
        first = False
        last = byte
        if raw[index + 1 : index + 2] == b"-" and raw[index + 2 : index + 3] not in (b"", b"]"):
            last = raw[index + 2]
            index += 2
        if byte > 0x7F or last > 0x7F:
            raise PolicyError(
                f"'[...]' matches one byte, but {name!r} has a longer character in it",
                hint="write one pattern for each alternative",
            )
        if last < byte:
            raise PolicyError(f"the range in {name!r} is empty", hint="write the smaller character first")
        accepted.update(range(byte, last + 1))
        index += 1
    body = b"".join(b"\\x%02x" % byte for byte in sorted(accepted))
    return b"[" + (b"^" if negated else b"") + body + b"]", index


def wildcard(text: str) -> re.Pattern[bytes]:
    """Give an expression for text in which only ``*`` is special and matches any bytes, ``/`` included."""
    return _join(_segments(text.encode(errors="surrogateescape")))


def starred(raw: bytes) -> bytes | Wildcard:
    """Give the same as a component of a pattern."""
    return Wildcard(raw, _segments(raw)) if b"*" in raw else raw


def _segments(raw: bytes) -> tuple[bytes, ...]:
    return tuple(re.escape(part) for part in raw.split(b"*"))


@functools.lru_cache(maxsize=4096)
def _join(segments: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Join fixed-length segments with "anything" between them.

    Each middle segment is taken at its first occurrence and never given back (a lookahead with a
    back-reference), so matching takes no more than quadratic time whatever the input.
    """
    if len(segments) == 1:
        return re.compile(segments[0] + rb"\Z", re.DOTALL)
    first, *middle, last = segments
    parts = [first]
    for number, segment in enumerate(part for part in middle if part):
        parts.append(b"(?=(?P<g%d>.*?%s))(?P=g%d)" % (number, segment, number))
    return re.compile(b"".join(parts) + b".*" + last + rb"\Z", re.DOTALL)


class State:
    """A set of positions: what is left to match of each pattern after some components.

    Attributes:
        mask: Slots of the patterns that match what was read, as bits.
        memo: For whoever wants to remember something that depends on this state only.
    """

    __slots__ = ("_automaton", "_literals", "_loops", "_next", "_wildcards", "mask", "memo", "positions")

    def __init__(self, automaton: Automaton, positions: frozenset[int]) -> None:
        self.positions = positions
        self.mask = 0
        self.memo: dict[object, object] = {}
        self._automaton = automaton
        self._loops: list[int] = []
        self._literals: dict[bytes, list[int]] = {}
        self._wildcards: list[tuple[re.Pattern[bytes], int]] = []
        self._next: dict[bytes, State] = {}
        for position in positions:
            tail, slot = automaton.positions[position]
            if not tail:
                self.mask |= slot
            elif tail[0] is ANY:
                self._loops.append(position)
            elif isinstance(tail[0], Wildcard):
                self._wildcards.append((tail[0].regex, automaton.after(position)))
            elif isinstance(tail[0], bytes):
                self._literals.setdefault(tail[0], []).append(automaton.after(position))

    def step(self, name: bytes) -> State:
        """Give the state after one more component."""
        state = self._next.get(name)
        if state is None:
            reached = list(self._loops)
            reached += self._literals.get(name, ())
            reached += [after for regex, after in self._wildcards if regex.match(name)]
            state = self._next[name] = self._automaton.state(reached)
        return state

    def tails(self, slots: int) -> frozenset[Tail]:
        """Give what the patterns of these slots would still match beneath here.

        An empty tail stands for the name read so far, ``(ANY,)`` for it and everything beneath it.
        """
        return frozenset(
            tail for tail, slot in map(self._automaton.positions.__getitem__, self.positions) if slot & slots
        )


class Automaton:
    """Many patterns in one, determinised as paths come by.

    What was determinised is kept up to a bound and then forgotten as a whole: that costs time and never
    changes an answer. Threads may share an automaton.

    Args:
        patterns: Components from the root, and the slot (one bit) that a match sets.
    """

    def __init__(self, patterns: Iterable[tuple[Tail, int]]) -> None:
        self.positions: list[tuple[Tail, int]] = []
        self._index: dict[tuple[Tail, int], int] = {}
        self._after: list[int] = []
        self._start = [self._position(tail, slot) for tail, slot in patterns]
        self._transitions = 0
        self._states: dict[frozenset[int], State] = {}
        self._root = self.state(self._start)

    def _position(self, tail: Tail, slot: int) -> int:
        # Not the slot itself: of all powers of two there are 61 different hashes.
        key = (tail, slot.bit_length())
        known = self._index.get(key)
        if known is None:
            after = self._position(tail[1:], slot) if tail else -1
            known = self._index[key] = len(self.positions)
            self.positions.append((tail, slot))
            self._after.append(after)
        return known

    def patterns(self) -> Iterator[tuple[Tail, int]]:
        """Give the patterns that it was made from, as positions."""
        return map(self.positions.__getitem__, self._start)

    @property
    def start(self) -> frozenset[int]:
        """The positions before anything was read."""
        return self._root.positions

    def after(self, position: int) -> int:
        """Give the position behind the first component of this one."""
        return self._after[position]

    def state(self, reached: Iterable[int]) -> State:
        """Give the state of these positions, and of those behind a ``**`` that may match nothing."""
        closed: set[int] = set()
        for position in reached:
            closed.add(position)
            while (tail := self.positions[position][0]) and tail[0] is ANY:
                position = self._after[position]
                closed.add(position)
        key = frozenset(closed)
        if self._transitions >= MAX_TRANSITIONS:
            self._transitions = 0
            self._states = {}
            self._root = State(self, self._root.positions)
        self._transitions += 1
        states = self._states
        state = states.get(key)
        if state is None:
            state = states[key] = State(self, key)
        return state

    def walk(self, path: bytes) -> State:
        """Give the state after an absolute path.

        Raises:
            ValueError: The path is not absolute.
        """
        if not path.startswith(b"/"):
            raise ValueError(f"not an absolute path: {path!r}")
        state = self._root
        for name in path.split(b"/"):
            if name:
                state = state.step(name)
        return state
