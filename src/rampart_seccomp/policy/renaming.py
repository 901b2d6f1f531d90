"""Re-naming must not widen: what is denied or asked under the old name must be so under the new one.

For a directory this is a question about everything beneath it. What a pattern matches beneath a name is the
set of its tails there (`globs.State.tails`), so "matches no less beneath the new name" is inclusion of such
sets: sound, since equal tails match equal names, and on the safe side, since unequal tails may too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from rampart_seccomp.events import Operation
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.globs import ANY, State, Tail
from rampart_seccomp.policy.terms import VERDICTS

if TYPE_CHECKING:
    from rampart_seccomp.policy.matcher import Conditions, Entry, Matcher

__all__ = ["widens"]

EVERYTHING: Tail = (ANY,)
ITSELF: Tail = ()

Argument = tuple[int, int] | None
"""A condition on something else than the path: a command of an entry, by position. None if there is none."""


@attrs.frozen
class Region:
    """What one rule covers beneath one name.

    Attributes:
        entry: The rule.
        tails: What it matches by path: one of each of these sets must match.
        argument: The further condition.
        excepts: Tails it is silent about, each with the further condition of the silence.
    """

    entry: Entry
    tails: tuple[frozenset[Tail], ...]
    argument: Argument
    excepts: frozenset[tuple[Tail, Argument]]

    def covers(self, other: Region, tail: Tail) -> bool:
        """Say whether this matches at least what the other does through one tail of its first set."""
        if self.argument is not None and self.argument != other.argument:
            return False
        if not (self.excepts <= other.excepts or (EVERYTHING, None) in other.excepts):
            return False
        given = (frozenset({tail}), *other.tails[1:])
        return all(any(_within(theirs, ours) for theirs in given) for ours in self.tails)


def _within(small: frozenset[Tail], large: frozenset[Tail]) -> bool:
    return EVERYTHING in large or small <= large


def widens(matcher: Matcher, old: State, new: State, *, directory: bool) -> Decision | None:
    """Implement `Matcher.widens` on the automaton's states of the two names."""
    if old is new:
        return None
    for operation in Operation:
        if operation is not Operation.LISTEN:
            lost = _lost(matcher, operation, old, new, directory)
            if lost is not None:
                return lost
    return None


def _lost(matcher: Matcher, operation: Operation, old: State, new: State, directory: bool) -> Decision | None:
    entries = matcher.entries[operation]
    before = [region for entry in entries for region in _regions(entry, operation, old, directory)]
    after = [region for entry in entries for region in _regions(entry, operation, new, directory)]
    default = matcher.default(operation)
    # Unix sockets made outside the tree are denied unless a rule speaks, whatever the default says.
    level = 2 if operation is Operation.CONNECT else VERDICTS.index(default.verdict)
    # Those made inside are allowed unless a rule speaks.
    floor = min([0 if operation is Operation.CONNECT else level, *(region.entry.level for region in after)])
    for region in before:
        if floor >= region.entry.level:
            continue
        if not _covered(region, (other for other in after if other.entry.level >= region.entry.level)):
            entry = region.entry
            return Decision(verdict="deny", operation=operation, rule=entry.rule, reason=entry.reason)
    stricter = [region for region in after if region.entry.level >= level]
    for region in after:
        if region.entry.level < level and not _covered(region, [*before, *stricter]):
            return Decision(verdict="deny", operation=operation, reason="default")
    return None


def _covered(region: Region, others: Iterable[Region]) -> bool:
    known = list(others)
    return all(any(other.covers(region, tail) for other in known) for tail in region.tails[0])


def _regions(entry: Entry, operation: Operation, state: State, directory: bool) -> Iterator[Region]:
    """Give what an entry covers beneath a name: one region, or one for each of its commands."""
    excepts = frozenset[tuple[Tail, Argument]]()
    if entry.excepts is not None:
        excepts = frozenset(
            (tail, argument)
            for tails, argument in _alternatives(entry, entry.excepts, operation, state, directory, sign=-1)
            for tail in frozenset[Tail]().union(*tails)
        )
    if (EVERYTHING if directory else ITSELF, None) in excepts:
        return
    for tails, argument in _alternatives(entry, entry.conditions, operation, state, directory, sign=1):
        if all(tails):
            yield Region(entry, tails, argument, excepts)


def _alternatives(
    entry: Entry, given: Conditions, operation: Operation, state: State, directory: bool, *, sign: int
) -> Iterator[tuple[tuple[frozenset[Tail], ...], Argument]]:
    tails: tuple[frozenset[Tail], ...] = ()
    if operation is Operation.CONNECT and given.hosts:
        tails = (_tails(state, given.sockets, operation, directory),)
    elif given.paths:
        tails = (_tails(state, given.paths, operation, directory),)
    if not given.commands:
        yield tails or (frozenset({EVERYTHING if directory else ITSELF}),), None
    for number, command in enumerate(given.commands, start=1):
        programs = _tails(state, command.program, operation, directory)
        yield (programs, *tails), (id(entry), sign * number)


def _tails(state: State, slots: int, operation: Operation, directory: bool) -> frozenset[Tail]:
    if not directory:
        return frozenset({ITSELF}) if state.mask & slots else frozenset()
    tails = state.tails(slots)
    # A directory is never executed itself.
    return tails - {ITSELF} if operation is Operation.EXEC else tails
