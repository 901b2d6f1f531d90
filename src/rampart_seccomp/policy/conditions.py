"""The conditions of a rule, bound to a place: whether they hold for one event, and for who acts."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator

import attrs

from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, ListenEvent, Operation, Program
from rampart_seccomp.policy.commands import CommandPattern
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.environment import matches_name
from rampart_seccomp.policy.globs import Component
from rampart_seccomp.policy.hosts import HostPattern, LocalPattern
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.terms import VERDICTS

__all__ = ["Acting", "Command", "Conditions", "Entry", "Match", "Subject"]


class Match(enum.Enum):
    """What one rule says about one event."""

    NO = "no"
    YES = "yes"
    EXCEPTED = "excepted"


@attrs.frozen(eq=False, repr=False)
class Acting:
    """A program of a lineage, with the places of its paths in the automaton.

    Attributes:
        mask: Slots matched by the path of its image.
        execs: The execs that it was started by.
    """

    program: Program
    mask: int
    execs: tuple[Subject, ...]


@attrs.frozen(eq=False, repr=False)
class Subject:
    """An event with the places of its paths in the automaton.

    Attributes:
        mask: Slots matched by the path (of the file, program or unix socket).
        named: Slots matched by the name a program was started under.
        lineage: Who acts; None if unknown: then conditions on it hold where they restrict only.
        anyone: Conditions on who acts, and on variables, hold where they allow only: judge as whoever may do
            most.
    """

    event: Event
    mask: int = 0
    named: int = 0
    lineage: tuple[Acting, ...] | None = None
    anyone: bool = False


@attrs.frozen(repr=False)
class Command:
    """A command pattern with the slot of its program.

    Attributes:
        program: Slot of the program's path; a base name has one too (``**/name``).
    """

    pattern: CommandPattern
    program: int
    system: int

    def matches(self, subject: Subject, *, strict: bool) -> bool:
        """Say whether the exec is this command.

        Args:
            subject: The exec.
            strict: True where a match restricts: any of the names that the program goes by counts. Otherwise
                its real name, and for a base name a name under ``@system``; what has no name is no command.
        """
        event = subject.event
        assert isinstance(event, ExecEvent)
        if not strict and not event.linked:
            return False
        known = bool(subject.mask & self.program)
        if not known and subject.named & self.program:
            known = strict or (self.pattern.base is not None and bool(subject.named & self.system))
        if not known and strict and self.pattern.base is not None and event.argv:
            known = self.pattern.matches_base(os.path.basename(event.argv[0]))
        return known and self.pattern.matches_arguments(event.argv[1:])

    def started(self, acting: Acting, *, strict: bool) -> bool:
        """Say whether the program was started by this command; where it allows, in a clean environment."""
        if not strict and not acting.program.clean:
            return False
        return any(self.matches(subject, strict=strict) for subject in acting.execs)


@attrs.frozen(repr=False)
class Conditions:
    """The matching keys of a rule, or of one of its exceptions, bound to slots; the empty one has none.

    Attributes:
        paths: Slot of the path patterns; 0 if there are none.
        sockets: Slot of the unix socket paths among `hosts`; 0 if there are none.
        env: Patterns of the variables that an exec adds or changes.
        programs: Slot of the patterns of the acting image; 0 if there are none.
        within: Commands beneath whose exec the acting program runs.
        texts: `env`, `programs` and `within` as written: what tells equal conditions from others.
    """

    paths: int = 0
    sockets: int = 0
    commands: tuple[Command, ...] = ()
    hosts: tuple[HostPattern, ...] = ()
    ports: tuple[LocalPattern, ...] = ()
    env: tuple[Component, ...] = ()
    programs: int = 0
    within: tuple[Command, ...] = ()
    texts: tuple[tuple[str, frozenset[str]], ...] = ()

    def hold(self, subject: Subject, *, strict: bool) -> bool:
        """Say whether all of them hold; `strict` where a match restricts."""
        return self.match(subject, strict=strict) and (
            not self.texts or next(self.unmet(subject, strict=strict), None) is None
        )

    def match(self, subject: Subject, *, strict: bool) -> bool:
        """Say whether those on the object hold, whoever acts."""
        event = subject.event
        if self.paths and not (subject.mask | (subject.named if strict else 0)) & self.paths:
            return False
        if self.commands and not any(command.matches(subject, strict=strict) for command in self.commands):
            return False
        if self.hosts:
            assert isinstance(event, ConnectEvent)
            if not (subject.mask & self.sockets or any(host.matches(event) for host in self.hosts)):
                return False
        if self.ports:
            assert isinstance(event, ListenEvent)
            return any(port.matches(event, strict=strict) for port in self.ports)
        return True

    def unmet(self, subject: Subject, *, strict: bool) -> Iterator[str]:
        """Give the keys on variables, and on who acts, that do not hold."""
        if self.env and not self._changes(subject, strict):
            yield "env"
        if self.programs and not self._acts(subject, strict):
            yield "programs"
        if self.within and not self._beneath(subject, strict):
            yield "within"

    def _changes(self, subject: Subject, strict: bool) -> bool:
        event = subject.event
        assert isinstance(event, ExecEvent)
        if subject.anyone:
            return not strict
        if event.changed is None:
            return strict
        return any(matches_name(self.env, name) for name in event.changed)

    def _acts(self, subject: Subject, strict: bool) -> bool:
        if subject.anyone:
            return not strict
        if not subject.lineage:
            return strict
        acting = subject.lineage[0]
        return bool(acting.mask & self.programs) and (strict or acting.program.clean)

    def _beneath(self, subject: Subject, strict: bool) -> bool:
        if subject.anyone:
            return not strict
        if not subject.lineage:
            return strict
        return any(
            command.started(acting, strict=strict) for command in self.within for acting in subject.lineage
        )


@attrs.frozen(eq=False, repr=False)
class Entry:
    """A rule as the matcher holds it.

    Attributes:
        rule: The rule; None for what is built in.
        level: Place of its verdict in `VERDICTS`: the higher, the stricter.
        reason: Of the decisions it makes.
        excepts: Conditions under each of which it is silent.
    """

    rule: Rule | None
    level: int
    operations: frozenset[Operation]
    conditions: Conditions
    excepts: tuple[Conditions, ...] = ()
    reason: str = "rule"

    @property
    def strict(self) -> bool:
        """True if a match restricts; for its exceptions the opposite holds."""
        return self.level > 0

    @property
    def settles(self) -> bool:
        """False if it says what is shown, and leaves open whether anything is."""
        return self.reason != "redirect"

    def match(self, subject: Subject) -> Match:
        """Say what the rule says about an event of one of its operations."""
        strict = self.level > 0
        if not self.conditions.hold(subject, strict=strict):
            return Match.NO
        if any(
            given.hold(subject, strict=not strict) and self._excuses(given, subject) for given in self.excepts
        ):
            return Match.EXCEPTED
        return Match.YES

    def _excuses(self, given: Conditions, subject: Subject) -> bool:
        """Say whether an exception for variables covers all that the rule is about, not just one of them."""
        event = subject.event
        if not given.env or not self.strict or subject.anyone or not isinstance(event, ExecEvent):
            return True
        about = [name for name in event.changed or () if matches_name(self.conditions.env or given.env, name)]
        return all(matches_name(given.env, name) for name in about)

    def decision(self, operation: Operation) -> Decision:
        """Give the decision that it makes."""
        return Decision(verdict=VERDICTS[self.level], operation=operation, rule=self.rule, reason=self.reason)

    def asks_for(self, *keys: str) -> bool:
        """Say whether one of these keys is among its conditions, or among those of its exceptions."""
        given = (self.conditions, *self.excepts)
        return any(key in keys for conditions in given for key, _ in conditions.texts)
