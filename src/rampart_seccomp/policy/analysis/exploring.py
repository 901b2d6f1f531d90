"""Everything that path patterns tell apart: of each set of patterns that match some path, a shortest path.

The automaton of `globs` is walked along one name of each class (`words`), breadth first. What no longer
matters beneath a state, such as rules beneath an unconditional deny, is left out of it, so that only what
somebody would decide differently is kept apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from rampart_seccomp.policy.analysis.words import Language, TooLarge
from rampart_seccomp.policy.globs import ANY, AnyComponents, Automaton, Tail, Wildcard

__all__ = ["Needed", "explore"]

WORK_MAX = 4_000_000
"""Positions in the patterns that are looked at, names compared included, after which a search gives up: some
seconds."""

Needed = Callable[[int, int], int]
"""Of the slots that are still open here, and those that match all that is beneath, which still matter."""


def explore(
    patterns: Iterable[tuple[Tail, int]],
    language: Language,
    needed: Needed | None = None,
    *,
    least: int = 0,
    work: int | None = None,
) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Give the sets of slots that some sequence of words matches, each with a shortest sequence.

    Args:
        patterns: Components, and the slot (one bit) that a match sets.
        language: What the words are.
        needed: Says which slots matter; the sets given have no others. None: all do.
        least: How many words a sequence has at least.
        work: How many positions in the patterns are looked at; None: `WORK_MAX`.

    Raises:
        TooLarge: There are too many.
    """
    walk = _Walk(Automaton(patterns), language, needed)
    start = walk.state(_Reached(walk.automaton, walk.automaton.start))
    seen = {(start, 0)}
    limit = WORK_MAX if work is None else work
    given: set[int] = set()
    left: set[tuple[frozenset[int], int]] = set()
    # By the number of words, then by their length: the first one that comes to a state is a shortest.
    queue: list[tuple[int, int, tuple[bytes, ...], frozenset[int]]] = [(0, 0, (), start)]
    while queue:
        depth, length, words, here = heapq.heappop(queue)
        mask = walk.automaton.state(here).mask
        if depth >= least and mask not in given:
            given.add(mask)
            yield mask, words
        # What was matched here makes no difference to what is beneath.
        ahead = frozenset(place for place in here if walk.automaton.positions[place][0])
        if (ahead, min(depth, least)) in left:
            continue
        left.add((ahead, min(depth, least)))
        for name, after in walk.steps(ahead):
            # A state that is come to with too few words is another one.
            key = (after, min(depth + 1, least))
            if key not in seen:
                seen.add(key)
                heapq.heappush(queue, (depth + 1, length + len(name), (*words, name), after))
            if walk.looked > limit:
                raise TooLarge(f"more than {limit} combinations of names and patterns")


class _Reached:
    """Positions that were come to: which slots may still match, and which match all that is beneath."""

    def __init__(self, automaton: Automaton, places: Iterable[int]) -> None:
        self.places = list(places)
        self.possible = self.certain = 0
        for place in self.places:
            tail, slot = automaton.positions[place]
            self.possible |= slot
            if tail == (ANY,):
                self.certain |= slot


class _Walk:
    """Steps from state to state.

    Args:
        automaton: All patterns.
        language: What words are.
        needed: As for `explore`.

    Attributes:
        looked: Positions, and pairs of a name and a wildcard, that were looked at.
    """

    def __init__(self, automaton: Automaton, language: Language, needed: Needed | None) -> None:
        self.automaton = automaton
        self._language = language
        self._needed = needed
        self.looked = 0

    def steps(self, here: frozenset[int]) -> Iterator[tuple[bytes, frozenset[int]]]:
        """Give a word of each class that is told apart here, with the state that it leads to."""
        heads: dict[bytes | Wildcard, list[int]] = {}
        loops = []
        for place in here:
            first = self.automaton.positions[place][0][0]
            if isinstance(first, AnyComponents):
                loops.append(place)
            else:
                heads.setdefault(first, []).append(self.automaton.after(place))
        stay = _Reached(self.automaton, loops)
        wildcards = sum(isinstance(head, Wildcard) for head in heads)
        self.looked += wildcards * (len(heads) - wildcards)
        for matched, name in self._language.classes(frozenset(heads)):
            go = _Reached(self.automaton, (after for head in matched for after in heads[head]))
            after = self.state(stay, go)
            self.looked += len(after) + 1
            yield name, after

    def state(self, *reached: _Reached) -> frozenset[int]:
        """Give the state without what cannot matter: not needed, or one more way to match the same."""
        possible = certain = 0
        for each in reached:
            possible |= each.possible
            certain |= each.certain
        kept = possible if self._needed is None else self._needed(possible, certain) & possible
        if not kept:
            return frozenset()
        certain &= kept
        positions = self.automaton.positions
        return self.automaton.state(
            place
            for each in reached
            for place in each.places
            if positions[place][1] & kept
            and (not positions[place][1] & certain or positions[place][0] == (ANY,))
        ).positions
