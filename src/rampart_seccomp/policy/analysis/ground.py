"""Several matchers on common ground: path patterns that are equal have one slot, whosever they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rampart_seccomp.events import Event
from rampart_seccomp.policy.conditions import Conditions
from rampart_seccomp.policy.globs import Tail
from rampart_seccomp.policy.matcher import Matcher

__all__ = ["ALWAYS", "Ground", "united"]

ALWAYS = -1
"""Instead of a slot: every path matches."""


def united(slots: Iterable[int]) -> int:
    """Give the slots that are in any of these sets."""
    found = 0
    for each in slots:
        found |= each
    return found


class Ground:
    """Gives common slots to the patterns of matchers that are bound to the same place.

    Args:
        layers: The matchers; of a stack, its layers one by one.

    Attributes:
        layers: The same.
    """

    def __init__(self, layers: Sequence[Matcher]) -> None:
        self.layers = tuple(layers)
        self._known: dict[frozenset[Tail], int] = {}
        self._tails: list[frozenset[Tail]] = []
        self._own: dict[int, dict[int, int]] = {}

    def add(self, tails: Iterable[Tail]) -> int:
        """Give the slot of a set of patterns; 0 if there are none."""
        key = frozenset(tails)
        if not key:
            return 0
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = 1 << len(self._tails)
            self._tails.append(key)
        return known

    def slot(self, place: int, own: int) -> int:
        """Give the common slot for one of a layer's own; 0 for 0.

        Args:
            place: The layer's place among `layers`.
            own: One slot of its matcher.
        """
        if not own:
            return 0
        if place not in self._own:
            sets: dict[int, list[Tail]] = {}
            for tail, slot in self.layers[place].automaton.patterns():
                sets.setdefault(slot.bit_length(), []).append(tail)
            self._own[place] = {slot: self.add(tails) for slot, tails in sets.items()}
        return self._own[place][own.bit_length()]

    def paths(self, place: int, given: Conditions, *, sockets: bool) -> int:
        """Give the slot of the path patterns of conditions: `ALWAYS` if they have none, 0 if none can match.

        Args:
            place: The layer's place.
            given: Conditions of one of its rules.
            sockets: True for the paths of unix sockets.
        """
        if sockets:
            return self.slot(place, given.sockets) if given.hosts else ALWAYS
        return self.slot(place, given.paths) if given.paths else ALWAYS

    def seen(self, place: int, event: Event) -> Event:
        """Give an event as one of the layers is asked about it."""
        return event

    def patterns(self, slots: int) -> Iterator[tuple[Tail, int]]:
        """Give the patterns of these slots."""
        for number, tails in enumerate(self._tails):
            if slots >> number & 1:
                for tail in tails:
                    yield tail, 1 << number
