"""Events that stand for all others: whatever two policies decide differently, one of them they decide so.

What a decision depends on is taken apart: the path, the name that a program was started under, its arguments,
the address, who acts. Of each there are finitely many classes that the conditions of the rules tell apart
(`exploring`, `words`), and of each class one that is short. The events are the combinations that matter, the
short and ordinary ones first. They are there to be judged by the reference matcher, so what is said about one
of them is true, however it was come to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rampart_seccomp.events import Event, FileEvent, Operation
from rampart_seccomp.policy.analysis.actors import Actors
from rampart_seccomp.policy.analysis.destinations import connects, listens
from rampart_seccomp.policy.analysis.ground import Ground
from rampart_seccomp.policy.analysis.paths import Paths
from rampart_seccomp.policy.analysis.programs import Programs
from rampart_seccomp.policy.analysis.words import TooLarge
from rampart_seccomp.policy.conditions import Entry
from rampart_seccomp.policy.matcher import Matcher

__all__ = ["Witnesses"]

EVENTS_MAX = 50_000
"""Events on one operation, after which it is too large."""


class Witnesses:
    """Makes the events for some matchers, which are bound to the same place.

    Args:
        layers: The matchers; of a stack, its layers one by one.
    """

    def __init__(self, layers: Sequence[Matcher]) -> None:
        self._ground = Ground(layers)
        self._paths = Paths(self._ground)
        self._actors = Actors(self._ground, self._paths)

    def events(self, operation: Operation, *, about: frozenset[Entry] | None = None) -> Iterator[Event]:
        """Give the events on one operation.

        Args:
            operation: The operation.
            about: Rules; events that none of them is about may be left out. None: all are given.

        Raises:
            TooLarge: There are too many. Those given until then are events like all others.
        """
        count = 0
        for event in self._objects(operation, about):
            for acted in self._actors.acted(event):
                yield acted
                count += 1
                if count > EVENTS_MAX:
                    raise TooLarge(f"more than {EVENTS_MAX} cases that the rules tell apart")

    def _objects(self, operation: Operation, about: frozenset[Entry] | None) -> Iterator[Event]:
        """Give events by whomever."""
        if operation is Operation.EXEC:
            yield from Programs(self._ground, self._paths, about).events()
        elif operation is Operation.CONNECT:
            yield from connects(self._ground, self._paths, about)
        elif operation is Operation.LISTEN:
            yield from listens(self._ground)
        else:
            for _, path in self._paths.classes(operation, about=about):
                yield FileEvent(operation=operation, path=path)
