"""Whether something is less restricted under a new name, tried out on everything that may lie beneath it.

What the patterns still match beneath the old name, and what beneath the new one, is compared as if these were
the patterns of two policies: a decision depends on the class of what stands behind the name, and on who acts.
"""

from __future__ import annotations

import attrs

from rampart_seccomp.events import ConnectEvent, Event, FileEvent, Operation
from rampart_seccomp.policy.analysis.actors import Actors
from rampart_seccomp.policy.analysis.ground import ALWAYS, Ground
from rampart_seccomp.policy.analysis.paths import Paths
from rampart_seccomp.policy.analysis.words import TooLarge
from rampart_seccomp.policy.conditions import Conditions
from rampart_seccomp.policy.globs import Tail
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.terms import VERDICTS

__all__ = ["keeps"]

WORK_MAX = 100_000
"""Positions in patterns that are looked at for one rename, since a program waits for it: some hundredths of a
second."""

EVENTS_MAX = 2_000
"""Events that are judged for one rename."""


class _Beneath(Ground):
    """A matcher twice: as it judges beneath one name, and beneath another; events have what stands behind."""

    def __init__(self, matcher: Matcher, names: tuple[bytes, bytes]) -> None:
        super().__init__([matcher, matcher])
        self._names = tuple(name.rstrip(b"/") for name in names)
        self._left: list[dict[int, list[Tail]]] = [{}, {}]
        for name, left in zip(names, self._left, strict=True):
            for position in matcher.automaton.walk(name).positions:
                tail, slot = matcher.automaton.positions[position]
                left.setdefault(slot.bit_length(), []).append(tail)

    def paths(self, place: int, given: Conditions, *, sockets: bool) -> int:
        """Give the slot of what the paths of conditions still match; as for any ground."""
        if not (given.hosts if sockets else given.paths):
            return ALWAYS
        own = given.sockets if sockets else given.paths
        return self.add(self._left[place].get(own.bit_length(), ()))

    def seen(self, place: int, event: Event) -> Event:
        """Give an event with the whole name."""
        if isinstance(event, FileEvent):
            return attrs.evolve(event, path=self._names[place] + event.path or b"/")
        assert isinstance(event, ConnectEvent)
        assert event.socket is not None
        return attrs.evolve(event, socket=self._names[place] + event.socket or b"/")


def keeps(matcher: Matcher, operation: Operation, old: bytes, new: bytes, *, directory: bool) -> bool:
    """Say whether certainly nobody may do more under the new name, grants aside.

    Args:
        matcher: The policy.
        operation: On files, or connect for unix sockets.
        old, new: Real absolute names.
        directory: True to judge everything that is or will be beneath them, too.
    """
    ground = _Beneath(matcher, (old, new))
    paths = Paths(ground, WORK_MAX)
    actors = Actors(ground, paths)
    try:
        behind = [b""] if not directory else [b"", *(path for _, path in paths.classes(operation))]
        count = 0
        for path in behind:
            for event in _events(operation, b"" if path == b"/" else path):
                for acted in actors.acted(event):
                    before, after = (matcher.ruled(ground.seen(place, acted)) for place in (0, 1))
                    if VERDICTS.index(after.verdict) < VERDICTS.index(before.verdict):
                        return False
                    count += 1
                    if count > EVENTS_MAX:
                        return False
    except TooLarge:
        return False
    return True


def _events(operation: Operation, path: bytes) -> list[Event]:
    if operation is Operation.CONNECT:
        return [ConnectEvent(protocol="unix", socket=path, in_tree=inside) for inside in (False, True)]
    return [FileEvent(operation=operation, path=path)]
