"""Re-naming must not widen: what is denied or asked under the old name must be so under the new one.

For a directory this is a question about everything beneath it. What a pattern matches beneath a name is the
set of its tails there (`globs.State.tails`), so "matches no less beneath the new name" is inclusion of such
sets: sound, since equal tails match equal names, and on the safe side, since unequal tails may too. Where it
is no proof for files and sockets, all that the patterns tell apart beneath is tried out, up to a bound. For
execs, and for programs that rules name, what is written is compared.
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
    from rampart_seccomp.policy.conditions import Conditions, Entry
    from rampart_seccomp.policy.matcher import Matcher

__all__ = ["widens"]

KNOWN_MAX = 64
"""Renames from one state that are remembered."""

EVERYTHING: Tail = (ANY,)
ITSELF: Tail = ()

Argument = tuple[int, int] | None
"""A condition on something else than the path: a command of an entry, by position. None if there is none."""

Actors = frozenset[tuple[str, frozenset[str], bool]]
"""Conditions on who acts, and on variables, as written: key, entries, and whether they are meant strictly."""


@attrs.frozen
class Extent:
    """What one set of conditions covers beneath one name.

    Attributes:
        tails: What it matches by path: one of each of these sets must match.
        argument: The further condition.
        actors: Who must act. Nothing is known of who will, so these are compared and never judged.
    """

    tails: tuple[frozenset[Tail], ...]
    argument: Argument
    actors: Actors

    def covers(self, other: Extent, tail: Tail) -> bool:
        """Say whether this matches at least what the other does through one tail of its first set."""
        if self.argument is not None and self.argument != other.argument:
            return False
        if not all(any(_implies(theirs, ours) for theirs in other.actors) for ours in self.actors):
            return False
        given = (frozenset({tail}), *other.tails[1:])
        return all(any(_within(theirs, ours) for theirs in given) for ours in self.tails)


@attrs.frozen
class Region:
    """What one rule covers beneath one name.

    Attributes:
        entry: The rule.
        extent: Where it speaks.
        excepts: Where it is silent all the same.
    """

    entry: Entry
    extent: Extent
    excepts: tuple[Extent, ...]

    def covers(self, other: Region, tail: Tail) -> bool:
        """Say whether this matches at least what the other does through one tail of its first set."""
        return self.extent.covers(other.extent, tail) and all(
            any(theirs.covers(ours, silent) for theirs in other.excepts)
            for ours in self.excepts
            for silent in ours.tails[0]
        )


def _implies(one: tuple[str, frozenset[str], bool], other: tuple[str, frozenset[str], bool]) -> bool:
    """Say whether the other condition holds whenever the first does."""
    return one[0] == other[0] and one[1] <= other[1] and (other[2] or not one[2])


def _within(small: frozenset[Tail], large: frozenset[Tail]) -> bool:
    return EVERYTHING in large or small <= large


def widens(
    matcher: Matcher, old_name: bytes, new_name: bytes, *, directory: bool, program: bool = True
) -> Decision | None:
    """Implement `Matcher.widens`, grants aside."""
    old, new = matcher.automaton.walk(old_name), matcher.automaton.walk(new_name)
    if old.positions == new.positions:
        return None
    # What patterns say beneath a name depends on its state alone.
    known: dict[object, tuple[Decision | None]] = old.memo.setdefault(widens, {})  # type: ignore[assignment]
    key = (new.positions, directory, program)
    found = known.get(key)
    if found is None:
        found = (_widens(matcher, old_name, new_name, directory, program),)
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[key] = found
    return found[0]


def _widens(
    matcher: Matcher, old_name: bytes, new_name: bytes, directory: bool, program: bool
) -> Decision | None:
    old, new = matcher.automaton.walk(old_name), matcher.automaton.walk(new_name)
    # Neither a port nor, for what is no program, an exec has anything to do with the name.
    aside = {Operation.LISTEN} if program else {Operation.LISTEN, Operation.EXEC}
    for operation in Operation:
        lost = None if operation in aside else _lost(matcher, operation, old, new, directory)
        if lost is not None and _keeps(matcher, operation, old_name, new_name, directory):
            lost = None
        if lost is None and operation is Operation.READ and matcher.redirects[Operation.READ]:
            lost = _revealed(matcher, old, new, directory)
        if lost is None and program and operation in matcher.process_operations:
            lost = _renamed_program(matcher, operation, old, new, directory)
        if lost is not None:
            return lost
    return None


def _speaking(matcher: Matcher, operation: Operation) -> tuple[Entry, ...]:
    """Give all that a rule says about an operation: whether it is allowed, and what is shown then."""
    return matcher.entries[operation] + matcher.redirects.get(operation, ())


def _revealed(matcher: Matcher, old: State, new: State, directory: bool) -> Decision | None:
    """Say whether something would be shown under the new name that is not shown under the old one."""
    entries = matcher.entries[Operation.READ]
    after = [region for entry in entries for region in _regions(entry, Operation.READ, new, directory)]
    default = VERDICTS.index(matcher.default(Operation.READ).verdict)
    denied = VERDICTS.index("deny")
    if min([default, *(region.entry.level for region in after)]) == denied and not matcher.policy.grants:
        return None
    kept = [region for region in after if region.entry.level == denied]
    for entry in matcher.redirects[Operation.READ]:
        for region in _regions(entry, Operation.READ, old, directory):
            alike = [
                other
                for each in matcher.redirects[Operation.READ]
                if _shows_no_more(each, entry)
                for other in _regions(each, Operation.READ, new, directory)
            ]
            if not _covered(region, [*kept, *alike]):
                return Decision(
                    verdict="deny", operation=Operation.READ, rule=entry.rule, reason=entry.reason
                )
    return None


def _shows_no_more(one: Entry, other: Entry) -> bool:
    """Say whether what the first redirects to shows nothing of a file that the second does not show."""
    ours, theirs = (None if each.rule is None else each.rule.redirect for each in (one, other))
    return ours is not None and (ours.hides or ours == theirs)


def _keeps(matcher: Matcher, operation: Operation, old: bytes, new: bytes, directory: bool) -> bool:
    """Say whether all that rules cover together is as restricted as before, though not rule by rule."""
    if operation is Operation.EXEC:
        return False
    # Imported here: most renames need no more than the tails.
    from rampart_seccomp.policy.analysis.renamed import keeps

    return keeps(matcher, operation, old, new, directory=directory)


def _renamed_program(
    matcher: Matcher, operation: Operation, old: State, new: State, directory: bool
) -> Decision | None:
    """Say whether what runs under the new name is restricted less, as a program, than under the old one."""
    for entry in _speaking(matcher, operation):
        excepts = ((given, not entry.strict) for given in entry.excepts)
        for given, strict in ((entry.conditions, entry.strict), *excepts):
            for slots in (given.programs, *(command.program for command in given.within)):
                before = _tails(old, slots, Operation.EXEC, directory)
                after = _tails(new, slots, Operation.EXEC, directory)
                if strict and not _within(before, after):
                    return Decision(verdict="deny", operation=operation, rule=entry.rule, reason=entry.reason)
                if not strict and not _within(after, before):
                    return Decision(verdict="deny", operation=operation, reason="default")
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
    return all(any(other.covers(region, tail) for other in known) for tail in region.extent.tails[0])


def _regions(entry: Entry, operation: Operation, state: State, directory: bool) -> Iterator[Region]:
    """Give what an entry covers beneath a name: one region, or one for each of its commands."""
    excepts: list[Extent] = []
    commands = 0
    for given in entry.excepts:
        found = _extents(entry, given, operation, state, directory, strict=not entry.strict, first=commands)
        excepts += found
        commands -= len(given.commands)
    everything = EVERYTHING if directory else ITSELF
    for silent in excepts:
        everywhere = all(everything in tails for tails in silent.tails)
        if everywhere and silent.argument is None and not silent.actors:
            return
    for extent in _extents(entry, entry.conditions, operation, state, directory, strict=entry.strict):
        yield Region(entry, extent, tuple(excepts))


def _extents(
    entry: Entry,
    given: Conditions,
    operation: Operation,
    state: State,
    directory: bool,
    *,
    strict: bool,
    first: int | None = None,
) -> Iterator[Extent]:
    """Give what conditions cover: commands of exceptions are counted downwards, from `first`."""
    actors = frozenset((key, texts, strict) for key, texts in given.texts)
    tails: tuple[frozenset[Tail], ...] = ()
    if operation is Operation.CONNECT and given.hosts:
        tails = (_tails(state, given.sockets, operation, directory),)
    elif given.paths:
        tails = (_tails(state, given.paths, operation, directory),)
    if not given.commands:
        tails = tails or (frozenset({EVERYTHING if directory else ITSELF}),)
        if all(tails):
            yield Extent(tails, None, actors)
    for number, command in enumerate(given.commands, start=1):
        everywhere = (_tails(state, command.program, operation, directory), *tails)
        if all(everywhere):
            position = number if first is None else first - number
            yield Extent(everywhere, (id(entry), position), actors)


def _tails(state: State, slots: int, operation: Operation, directory: bool) -> frozenset[Tail]:
    if not directory:
        return frozenset({ITSELF}) if state.mask & slots else frozenset()
    tails = state.tails(slots)
    # A directory is never executed itself.
    return tails - {ITSELF} if operation is Operation.EXEC else tails
