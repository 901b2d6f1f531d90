"""Everything that path patterns tell apart: of each set of patterns that match some path, a shortest path.

The automaton of `globs` is walked along one name of each class (`words`), breadth first. What no longer
matters beneath a state, such as rules beneath an unconditional deny, is left out of it, so that only what
somebody would decide differently is kept apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from rampart_seccomp.policy.analysis.words import Language, TooLarge
from rampart_seccomp.policy.globs import ANY, Automaton, Tail

__all__ = ["Needed", "explore"]

WORK_MAX = 4_000_000
"""Positions in the patterns that are looked at, after which a search gives up: some seconds."""

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
    automaton = Automaton(patterns)
    start = _narrowed(automaton, automaton.start, needed)
    seen = {(start, 0)}
    looked, limit = 0, WORK_MAX if work is None else work
    given: set[int] = set()
    left: set[tuple[frozenset[int], int]] = set()
    # By the number of words, then by their length: the first one that comes to a state is a shortest.
    queue: list[tuple[int, int, tuple[bytes, ...], frozenset[int]]] = [(0, 0, (), start)]
    while queue:
        depth, length, words, here = heapq.heappop(queue)
        mask = automaton.state(here).mask
        if depth >= least and mask not in given:
            given.add(mask)
            yield mask, words
        # What was matched here makes no difference to what is beneath.
        ahead = frozenset(place for place in here if automaton.positions[place][0])
        if (ahead, min(depth, least)) in left:
            continue
        left.add((ahead, min(depth, least)))
        for name, reached in _steps(automaton, ahead, language):
            looked += len(reached) + 1
            after = _narrowed(automaton, reached, needed)
            # A state that is come to with too few words is another one.
            key = (after, min(depth + 1, least))
            if key not in seen:
                seen.add(key)
                heapq.heappush(queue, (depth + 1, length + len(name), (*words, name), after))
            if looked > limit:
                raise TooLarge(f"more than {len(seen)} kinds of places that the patterns tell apart")


def _steps(
    automaton: Automaton, here: frozenset[int], language: Language
) -> Iterator[tuple[bytes, frozenset[int]]]:
    """Give a word of each class that is told apart here, with what it leads to."""
    heads: dict[bytes | object, list[int]] = {}
    loops = []
    for position in here:
        tail, _ = automaton.positions[position]
        if tail[0] is ANY:
            loops.append(position)
        else:
            heads.setdefault(tail[0], []).append(automaton.after(position))
    for matched, name in language.classes(frozenset(heads)):  # type: ignore[arg-type]
        reached = [*loops, *(after for head in matched for after in heads[head])]
        yield name, automaton.state(reached).positions


def _narrowed(automaton: Automaton, here: frozenset[int], needed: Needed | None) -> frozenset[int]:
    """Leave out what cannot matter: other ways to match what matches anyhow, and what is not needed."""
    positions = [(place, *automaton.positions[place]) for place in here]
    absorbed = open_ = 0
    for _, tail, slot in positions:
        open_ |= slot
        if tail == (ANY,):
            absorbed |= slot
    if needed is not None:
        kept = needed(open_, absorbed)
        absorbed &= kept
        positions = [each for each in positions if each[2] & kept]
    return frozenset(
        place for place, tail, slot in positions if not slot & absorbed or tail == () or tail == (ANY,)
    )
