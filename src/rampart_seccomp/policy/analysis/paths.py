"""The classes of paths that the rules on one operation tell apart."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import attrs

from rampart_seccomp.events import Operation
from rampart_seccomp.policy.analysis.exploring import explore
from rampart_seccomp.policy.analysis.ground import ALWAYS, Ground, united
from rampart_seccomp.policy.analysis.words import NAMES
from rampart_seccomp.policy.conditions import Conditions, Entry

__all__ = ["Paths"]


@attrs.frozen
class _Row:
    """What a path has to do with one rule, in slots of the ground.

    Attributes:
        own: Of its own paths; `ALWAYS` if it has none.
        plain: True if it speaks wherever its own paths match and those of no exception do.
        silences: Of the exceptions that hold wherever their paths match.
        excepts: Of all exceptions.
        asked: All these, and those of the programs of its commands.
        anywhere: True if its exceptions matter also where its own paths cannot match: the name that a program
            was started under may be among these.
    """

    own: int
    plain: bool
    silences: int
    excepts: int
    asked: int
    anywhere: bool


class Paths:
    """Finds them, once for all operations with the same rules.

    Args:
        ground: The matchers.
        work: How many positions in the patterns a search may look at; None: as many as `explore` does.
    """

    def __init__(self, ground: Ground, work: int | None = None) -> None:
        self._ground = ground
        self._work = work
        self._known: dict[object, list[tuple[int, bytes]]] = {}

    def classes(
        self, operation: Operation, *, extra: int = 0, about: frozenset[Entry] | None = None
    ) -> list[tuple[int, bytes]]:
        """Give the sets of slots that some path matches, as far as they matter, each with a shortest path.

        Beneath an unconditional rule, weaker ones do not matter; nor does one that an exception silences.

        Args:
            operation: On files, exec, or connect for the paths of unix sockets.
            extra: Slots that matter, too.
            about: Rules that matter wherever they match; where none of them can, nothing does. None: all
                rules are alike.

        Raises:
            TooLarge: There are too many.
        """
        rows = [
            [(entry, self._row(place, entry, operation)) for entry in layer.about(operation)]
            for place, layer in enumerate(self._ground.layers)
        ]
        layers = tuple(tuple(row for _, row in layer) for layer in rows)
        # What is shown depends on its own rules, whichever rule allows.
        shown = [
            [(entry, self._row(place, entry, operation)) for entry in layer.redirects.get(operation, ())]
            for place, layer in enumerate(self._ground.layers)
        ]
        extra |= united(self.granted(operation)) | united(row.asked for layer in shown for _, row in layer)
        focus = ALWAYS
        if about is not None:
            focused = [row for layer in rows for entry, row in layer if entry in about]
            rules = {id(entry.rule) for entry in about}
            focused += [row for layer in shown for entry, row in layer if id(entry.rule) in rules]
            extra |= united(row.asked for row in focused)
            # The image is not all that a rule on an exec may match.
            if operation is not Operation.EXEC and not any(row.own == ALWAYS for row in focused):
                focus = united(row.own for row in focused)
        # Nothing but a file or directory lies in the root directory's own place.
        least = int(operation in (Operation.EXEC, Operation.CONNECT))
        key = (layers, extra, least, focus)
        if key not in self._known:
            asked = extra | united(row.asked for rows in layers for row in rows)
            needed = functools.partial(_needed, layers, extra, focus)
            found = explore(self._ground.patterns(asked), NAMES, needed, least=least, work=self._work)
            self._known[key] = [(mask, b"/" + b"/".join(names)) for mask, names in found]
        return self._known[key]

    def all_classes(self, slots: int) -> list[tuple[int, bytes]]:
        """Give the subsets of these slots that some path beneath the root matches, each with a shortest path.

        Raises:
            TooLarge: There are too many.
        """
        if slots not in self._known:
            found = explore(self._ground.patterns(slots), NAMES, least=1, work=self._work)
            self._known[slots] = [(mask, b"/" + b"/".join(names)) for mask, names in found]
        return self._known[slots]

    def granted(self, operation: Operation) -> Iterable[int]:
        """Give the slots of the paths that grants of an operation are for."""
        for layer in self._ground.layers:
            for grant in layer.policy.grants:
                path = grant.key[1]
                if grant.operation is operation and path is not None and path.startswith(b"/"):
                    yield self._ground.add([tuple(name for name in path.split(b"/") if name)])

    def _row(self, place: int, entry: Entry, operation: Operation) -> _Row:
        sockets = operation is Operation.CONNECT
        paths = functools.partial(self._ground.paths, place, sockets=sockets)
        excepts = [(given, paths(given)) for given in entry.excepts]
        own = paths(entry.conditions)
        programs = (
            self._ground.slot(place, command.program)
            for given in (entry.conditions, *entry.excepts)
            for command in given.commands
        )
        slots = [slot for _, slot in excepts]
        # An exception of what allows an exec looks at the name that the program was started under, too.
        elsewhere = operation is Operation.EXEC and not entry.strict and bool(excepts)
        return _Row(
            own=own,
            plain=entry.settles and _by_path(entry.conditions) and ALWAYS not in slots and not elsewhere,
            silences=united(slot for given, slot in excepts if slot != ALWAYS and _by_path(given)),
            excepts=united(slot for slot in slots if slot != ALWAYS),
            asked=united(programs) | united(slot for slot in (own, *slots) if slot != ALWAYS),
            anywhere=operation is Operation.EXEC and entry.strict and bool(excepts),
        )


def _by_path(given: Conditions) -> bool:
    return not given.commands and not given.texts


def _needed(layers: tuple[tuple[_Row, ...], ...], extra: int, focus: int, possible: int, certain: int) -> int:
    """Give the slots that still matter where some may still match, and others match all there is."""
    if focus != ALWAYS and not focus & possible:
        return 0
    needed = extra
    for rows in layers:
        for row in rows:
            if row.silences & certain:
                needed |= row.silences & certain
                continue
            if row.anywhere or row.own == ALWAYS or row.own & possible:
                needed |= row.asked
                if row.plain and (row.own == ALWAYS or row.own & certain) and not row.excepts & possible:
                    # What stands below in the order is as strict at most.
                    break
    return needed
