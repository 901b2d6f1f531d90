"""The reference matcher: a policy bound to a home and a launch directory, judging events.

This is the specification of what a policy means. Path patterns of all rules live in one automaton; what
depends on the path alone is remembered with the automaton's state, everything else is evaluated rule by rule.
"""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Iterable

import attrs

from rampart_seccomp.events import (
    Address,
    ConnectEvent,
    Event,
    ExecEvent,
    FileEvent,
    ListenEvent,
    Operation,
)
from rampart_seccomp.policy import globs
from rampart_seccomp.policy.anchors import Anchors
from rampart_seccomp.policy.commands import CommandPattern, parse_command
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.globs import ANY, Automaton, State, Tail
from rampart_seccomp.policy.grants import Grant, GrantIndex, granted_events
from rampart_seccomp.policy.hosts import HostPattern, LocalPattern, parse_host, parse_local
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS, WRITE

__all__ = ["Entry", "Match", "Matcher"]

DNS_PORT = 53

PROTECTED = "built-in: Rampart's own files"
PLANTED = "built-in: code that the harness runs"
NAME_SERVER = "built-in: the host's name server"
FOREIGN_SOCKET = "built-in: unix sockets made outside the tree need a rule"
OWN_SOCKET = "built-in: unix socket of the same tree"


class Match(enum.Enum):
    """What one rule says about one event."""

    NO = "no"
    YES = "yes"
    EXCEPTED = "excepted"


@attrs.frozen
class Subject:
    """An event with the places of its paths in the automaton.

    Attributes:
        mask: Slots matched by the path (of the file, program or unix socket).
        named: Slots matched by the name a program was started under.
    """

    event: Event
    mask: int = 0
    named: int = 0


@attrs.frozen
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
                its real name, and for a base name a name under ``@system``.
        """
        event = subject.event
        assert isinstance(event, ExecEvent)
        known = bool(subject.mask & self.program)
        if not known and subject.named & self.program:
            known = strict or (self.pattern.base is not None and bool(subject.named & self.system))
        if not known and strict and self.pattern.base is not None and event.argv:
            known = self.pattern.matches_base(os.path.basename(event.argv[0]))
        return known and self.pattern.matches_arguments(event.argv[1:])


@attrs.frozen
class Conditions:
    """The matching keys of a rule, or of its ``except``, bound to slots; the empty one has no condition.

    Attributes:
        paths: Slot of the path patterns; 0 if there are none.
        sockets: Slot of the unix socket paths among `hosts`; 0 if there are none.
    """

    paths: int = 0
    sockets: int = 0
    commands: tuple[Command, ...] = ()
    hosts: tuple[HostPattern, ...] = ()
    ports: tuple[LocalPattern, ...] = ()

    def hold(self, subject: Subject, *, strict: bool) -> bool:
        """Say whether all of them hold; `strict` where a match restricts."""
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


@attrs.frozen
class Entry:
    """A rule as the matcher holds it.

    Attributes:
        rule: The rule; None for what is built in.
        level: Place of its verdict in `VERDICTS`: the higher, the stricter.
        reason: Of the decisions it makes.
        excepts: Conditions under which it is silent; None if there are none.
    """

    rule: Rule | None
    level: int
    operations: frozenset[Operation]
    conditions: Conditions
    excepts: Conditions | None = None
    reason: str = "rule"

    def match(self, subject: Subject) -> Match:
        """Say what the rule says about an event of one of its operations."""
        strict = self.level > 0
        if not self.conditions.hold(subject, strict=strict):
            return Match.NO
        if self.excepts is not None and self.excepts.hold(subject, strict=not strict):
            return Match.EXCEPTED
        return Match.YES

    def decision(self, operation: Operation) -> Decision:
        """Give the decision that it makes."""
        return Decision(verdict=VERDICTS[self.level], operation=operation, rule=self.rule, reason=self.reason)


class Matcher:
    """A policy bound to a place. Immutable to its users, and safe to use from several threads.

    Made by `Policy.matcher`.

    Attributes:
        policy: The policy.
        home: Real path of the home that ``~`` means.
        directory: Real path of the directory that ``./`` means.
        host_names: Host names in the policy; the broker resolves them.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        home: bytes | None = None,
        directory: bytes | None = None,
        protected: Iterable[bytes] = (),
        planted: Iterable[bytes] = (),
        resolvers: Iterable[Address] = (),
    ) -> None:
        self.policy = policy
        anchors = Anchors(
            os.path.expanduser(b"~") if home is None else home,
            os.getcwdb() if directory is None else directory,
            os.environb.get(b"TMPDIR"),
        )
        self.home = anchors.home
        self.directory = anchors.directory
        binding = _Binding(anchors)
        built_in = ((tuple(protected), PROTECTED), (tuple(planted), PLANTED))
        entries = [binding.protect(paths, reason) for paths, reason in built_in if paths]
        entries += [binding.bind(rule) for rule in policy.effective]
        entries.sort(key=lambda entry: -entry.level)
        self.automaton = Automaton(binding.patterns)
        self.entries = {
            operation: tuple(entry for entry in entries if operation in entry.operations)
            for operation in Operation
        }
        self._grants = GrantIndex(policy.grants)
        self.host_names = frozenset(
            name for grant in policy.grants if (name := grant.host_name) is not None
        ) | frozenset(
            host.name
            for entry in self.entries[Operation.CONNECT]
            for conditions in (entry.conditions, entry.excepts)
            if conditions is not None
            for host in conditions.hosts
            if host.name is not None
        )
        self._resolvers = frozenset(resolvers) if self.host_names else frozenset()
        self._defaults = {
            operation: Decision(verdict=verdict, operation=operation, reason="default")
            for operation, verdict in policy.default.items()
        }
        self._file: Callable[[Operation, bytes], Decision] = functools.lru_cache(maxsize=4096)(
            self._decide_file
        )

    def decide(self, event: Event) -> Decision:
        """Judge one event.

        Raises:
            TypeError: It is no event, or its operation is not one of its kind.
            ValueError: Its path is not absolute.
        """
        if isinstance(event, FileEvent):
            decision = self._file(event.operation, event.path)
        else:
            decision = self._decide(self.subject(event))
        return self._granted(event, decision) if self._grants else decision

    def subject(self, event: Event) -> Subject:
        """Look up the paths of an event.

        Raises:
            TypeError: It is no event, or its operation is not one of its kind.
            ValueError: Its path is not absolute.
        """
        if isinstance(event, FileEvent) and event.operation in FILE_OPERATIONS:
            return Subject(event, self.automaton.walk(event.path).mask)
        if isinstance(event, ExecEvent) and event.operation is Operation.EXEC:
            named = 0 if event.named is None else self.automaton.walk(event.named).mask
            return Subject(event, self.automaton.walk(event.path).mask, named)
        if isinstance(event, ConnectEvent) and event.operation is Operation.CONNECT:
            if event.socket is None or event.socket.startswith(b"@"):
                return Subject(event)
            return Subject(event, self.automaton.walk(event.socket).mask)
        if isinstance(event, ListenEvent) and event.operation is Operation.LISTEN:
            return Subject(event)
        raise TypeError(f"cannot judge {event!r}")

    def fallback(self, event: Event) -> Decision:
        """Give the decision when no rule speaks: the default, and what is built in for sockets."""
        if isinstance(event, ConnectEvent) and event.socket is not None:
            if event.in_tree:
                return Decision(verdict="allow", operation=event.operation, reason=OWN_SOCKET)
            return Decision(verdict="deny", operation=event.operation, reason=FOREIGN_SOCKET)
        default = self._defaults[event.operation]
        if (
            isinstance(event, ConnectEvent)
            and event.port == DNS_PORT
            and event.address in self._resolvers
            and default.verdict == "deny"
        ):
            # A policy that allows names must let them be looked up. What that lets out: threat model.
            return Decision(verdict="allow", operation=event.operation, reason=NAME_SERVER)
        return default

    def widens(self, old: bytes, new: bytes, *, directory: bool) -> Decision | None:
        """Say whether something would be less restricted under a new name than under the old one.

        Judges every operation, whatever the program and the arguments. For a directory the same holds for
        everything that is or will be beneath it; the answer errs towards yes.

        Args:
            old: Real absolute name.
            new: Real absolute name it would get.
            directory: True if the object is a directory.

        Returns:
            None if nothing widens, else a denial that carries the rule (or the default) that would be lost.
        """
        from rampart_seccomp.policy.renaming import widens

        lost = widens(self, self.automaton.walk(old), self.automaton.walk(new), directory=directory)
        return self._loosened(old, new, directory) if lost is None else lost

    def grant(self, event: Event) -> Grant | None:
        """Give the grant for exactly this event, whether or not it decides."""
        return self._grants.find(event)

    def default(self, operation: Operation) -> Decision:
        """Give the policy's default for an operation."""
        return self._defaults[operation]

    def _granted(self, event: Event, decision: Decision) -> Decision:
        """Give what a grant makes of a decision: it answers questions and stands before the default."""
        if decision.verdict == "allow" or (decision.verdict == "deny" and not _yields(decision)):
            return decision
        grant = self._grants.find(event)
        if grant is None:
            return decision
        return Decision(verdict="allow", operation=event.operation, reason="grant", grant=grant)

    def _loosened(self, old: bytes, new: bytes, directory: bool) -> Decision | None:
        """Give the decision that would be lost to a grant for the new name, or for something beneath it."""
        for grant in self._grants.beneath(new):
            path = grant.key[1]
            assert path is not None
            if path != new and not directory:
                continue
            before = granted_events(grant, old.rstrip(b"/") + path[len(new.rstrip(b"/")) :])
            for event, renamed in zip(before, granted_events(grant, path), strict=True):
                lost = self.decide(event)
                if VERDICTS.index(lost.verdict) > VERDICTS.index(self.decide(renamed).verdict):
                    return attrs.evolve(lost, verdict="deny")
        return None

    def _decide_file(self, operation: Operation, path: bytes) -> Decision:
        if operation not in FILE_OPERATIONS:
            raise TypeError(f"{operation} is not an operation on a file")
        state: State = self.automaton.walk(path)
        decision = state.memo.get(operation)
        if decision is None:
            decision = self._decide(Subject(FileEvent(operation=operation, path=path), state.mask))
            state.memo[operation] = decision
        assert isinstance(decision, Decision)
        return decision

    def _decide(self, subject: Subject) -> Decision:
        operation = subject.event.operation
        for entry in self.entries[operation]:
            if entry.match(subject) is Match.YES:
                return entry.decision(operation)
        return self.fallback(subject.event)


def _yields(decision: Decision) -> bool:
    """Say whether a denial is only what holds when no rule speaks."""
    return decision.reason in ("default", FOREIGN_SOCKET)


class _Binding:
    """Gives slots to patterns while rules are bound."""

    def __init__(self, anchors: Anchors) -> None:
        self.patterns: list[tuple[Tail, int]] = []
        self._anchors = anchors
        self._slots = 0
        self._system = self._paths(["@system"], strict=False)

    def bind(self, rule: Rule) -> Entry:
        level = VERDICTS.index(rule.verdict)
        strict = level > 0
        conditions = self._conditions(rule.paths, rule.commands, rule.hosts, rule.ports, strict=strict)
        excepts = None
        if rule.except_:
            given = dict.fromkeys(("paths", "commands", "hosts", "ports"), ())
            excepts = self._conditions(**{**given, rule.kind: rule.except_}, strict=not strict)
        return Entry(rule, level, rule.operations, conditions, excepts)

    def protect(self, paths: Iterable[bytes], reason: str) -> Entry:
        slot = self._slot()
        for path in paths:
            for name in {path, os.path.realpath(path)}:
                parts = tuple(part for part in name.split(b"/") if part)
                self.patterns.append(((*parts, ANY), slot))
        return Entry(None, VERDICTS.index("deny"), WRITE, Conditions(paths=slot), reason=reason)

    def _conditions(
        self,
        paths: Iterable[str],
        commands: Iterable[str],
        hosts: Iterable[str],
        ports: Iterable[str],
        *,
        strict: bool,
    ) -> Conditions:
        parsed = tuple(map(parse_host, hosts))
        sockets = [host.socket for host in parsed if host.socket is not None]
        return Conditions(
            paths=self._paths(paths, strict=strict),
            sockets=self._globs(sockets, strict=strict),
            commands=tuple(self._command(parse_command(text), strict=strict) for text in commands),
            hosts=parsed,
            ports=tuple(map(parse_local, ports)),
        )

    def _command(self, pattern: CommandPattern, *, strict: bool) -> Command:
        if pattern.program is not None:
            program = self._globs([pattern.program], strict=strict)
        else:
            assert pattern.base is not None
            program = self._slot()
            self.patterns.append(((ANY, pattern.base), program))
        return Command(pattern, program, self._system)

    def _paths(self, texts: Iterable[str], *, strict: bool) -> int:
        return self._globs(map(globs.parse, texts), strict=strict)

    def _globs(self, given: Iterable[globs.Glob], *, strict: bool) -> int:
        bound = [tail for glob in given for tail in self._anchors.bind(glob, strict=strict)]
        if not bound:
            return 0
        slot = self._slot()
        self.patterns += [(tail, slot) for tail in bound]
        return slot

    def _slot(self) -> int:
        self._slots += 1
        return 1 << self._slots
