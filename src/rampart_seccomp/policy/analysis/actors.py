"""Who acts, and with which variables: the classes that the conditions still open for an event tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import attrs

from rampart_seccomp.events import Event, ExecEvent, Operation, Process, Program
from rampart_seccomp.policy.analysis.exploring import explore
from rampart_seccomp.policy.analysis.ground import Ground, united
from rampart_seccomp.policy.analysis.paths import Paths
from rampart_seccomp.policy.analysis.words import ARGUMENTS, VARIABLES, TooLarge
from rampart_seccomp.policy.commands import CommandPattern
from rampart_seccomp.policy.conditions import Conditions, Entry, Subject
from rampart_seccomp.policy.globs import AnyComponents, Tail

__all__ = ["Actors", "arguments"]

ACTORS_MAX = 2_000
"""Lineages that are told apart for one event, after which it is too large."""

VARIABLES_MAX = 8
"""Kinds of variables that are told apart for one event; there are sets of them."""

_UNKNOWN = Process(pid=0, tid=0)

Truth = frozenset[tuple[object, ...]]
"""Which conditions hold for a program."""


@attrs.frozen
class _Open:
    """Conditions of one layer that depend on who acts, or on variables."""

    place: int
    given: Conditions


class Actors:
    """Lets events be caused by everybody who makes a difference.

    Args:
        ground: The matchers.
        paths: Finds classes of paths.
    """

    def __init__(self, ground: Ground, paths: Paths) -> None:
        self._ground = ground
        self._paths = paths
        self._lineages: dict[tuple[_Open, ...], list[Process | None]] = {}

    def acted(self, event: Event) -> Iterator[Event]:
        """Give the event as caused by each kind of process, ordinary ones first, the unknown one last.

        Where it does not matter who acts, it is nobody; the unknown process is one without a lineage.

        Raises:
            TooLarge: There are too many.
        """
        still = tuple(dict.fromkeys(self._open(event)))
        if not still:
            yield event
            return
        if still not in self._lineages:
            known = list(self._processes(still))
            self._lineages[still] = [*known, _UNKNOWN] if known else [None]
        for process in self._lineages[still]:
            acted = attrs.evolve(event, process=process)
            if isinstance(acted, ExecEvent):
                for changed in _changes(still):
                    yield attrs.evolve(acted, changed=changed)
            else:
                yield acted

    def _open(self, event: Event) -> Iterator[_Open]:
        """Give the conditions that nothing but who acts, and variables, decide for this event."""
        for place, layer in enumerate(self._ground.layers):
            subject = layer.subject(event)
            yield from self._open_in(place, layer.entries[event.operation], subject)
            if event.operation is Operation.READ:
                yield from self._open_in(place, layer.redirects, subject)

    def _open_in(self, place: int, entries: Iterable[Entry], subject: Subject) -> Iterator[_Open]:
        """Do this for rules of which the first that matches decides."""
        for entry in entries:
            if not entry.conditions.match(subject, strict=entry.strict):
                continue
            excepts = [given for given in entry.excepts if given.match(subject, strict=not entry.strict)]
            if not all(given.texts for given in excepts):
                continue
            yield from (_Open(place, given) for given in (entry.conditions, *excepts) if given.texts)
            if not entry.conditions.texts and not excepts:
                break

    def _processes(self, still: tuple[_Open, ...]) -> Iterator[Process]:
        acting: dict[tuple[Truth, Truth], Program] = {}
        above: dict[Truth, Program] = {}
        for program in self._programs(still):
            itself, within = self._truth(still, program)
            acting.setdefault((itself, within), program)
            above.setdefault(within, program)
        count = 0
        for (_, within), program in sorted(acting.items(), key=lambda each: sum(map(len, each[0]))):
            seen = {within}
            queue: list[tuple[tuple[Program, ...], Truth]] = [((program,), within)]
            for lineage, known in queue:
                count += 1
                if count > ACTORS_MAX:
                    raise TooLarge(f"more than {ACTORS_MAX} kinds of programs beneath others")
                yield Process(pid=0, tid=0, lineage=lineage)
                for more, ancestor in above.items():
                    if known | more not in seen:
                        seen.add(known | more)
                        queue.append(((*lineage, ancestor), known | more))

    def _programs(self, still: tuple[_Open, ...]) -> Iterator[Program]:
        """Give programs of every kind, the shortest first."""
        commands = [(each.place, command) for each in still for command in each.given.within]
        own = [self._ground.slot(each.place, each.given.programs) for each in still]
        started = [self._ground.slot(place, command.program) for place, command in commands]
        if not any(each.given.programs or each.given.within for each in still):
            return
        for mask, path in self._paths.all_classes(united([*own, *started])):
            fitting = [command for slot, (_, command) in zip(started, commands, strict=True) if slot & mask]
            for words in arguments(command.pattern for command in fitting):
                argv = (path, *words)
                execs = (ExecEvent(path=path, argv=argv, named=path),)
                for clean in (True, False):
                    yield Program(path=path, argv=argv, clean=clean, execs=execs)

    def _truth(self, still: tuple[_Open, ...], program: Program) -> tuple[Truth, Truth]:
        """Say what holds if the program itself acts, and what as soon as something acts beneath it."""
        itself, within = set(), set()
        for each in still:
            acting = self._ground.layers[each.place].acting(program)
            if acting.mask & each.given.programs:
                itself.add((each.place, each.given.programs, program.clean))
            for command in each.given.within:
                for strict in (True, False):
                    if command.started(acting, strict=strict):
                        within.add((each.place, command, strict))
        return frozenset(itself), frozenset(within)


def arguments(
    patterns: Iterable[CommandPattern], more: Iterable[tuple[bytes, ...]] = ()
) -> list[tuple[bytes, ...]]:
    """Give lists of arguments for each set of patterns that some list matches, each a shortest one.

    Args:
        patterns: Of commands; their programs are not looked at.
        more: Lists of arguments that are told apart from all others.

    Raises:
        TooLarge: There are too many.
    """
    tails: dict[Tail, None] = dict.fromkeys(pattern.tail for pattern in patterns)
    tails.update(dict.fromkeys(more))
    slots = ((tail, 1 << number) for number, tail in enumerate(tails))
    return [words for _, words in explore(slots, ARGUMENTS)]


def _changes(still: tuple[_Open, ...]) -> Iterator[frozenset[bytes] | None]:
    """Give sets of variables that an exec may change; None for unknown ones."""
    patterns = frozenset(
        pattern for each in still for pattern in each.given.env if not isinstance(pattern, AnyComponents)
    )
    yield frozenset()
    if not patterns:
        return
    kinds = [name for matched, name in VARIABLES.classes(patterns) if matched]
    if len(kinds) > VARIABLES_MAX:
        raise TooLarge(f"more than {VARIABLES_MAX} kinds of variables")
    for count in range(1, len(kinds) + 1):
        yield from map(frozenset, itertools.combinations(kinds, count))
    yield None
