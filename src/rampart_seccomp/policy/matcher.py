"""The reference matcher: a policy bound to a home and a launch directory, judging events.

This is the specification of what a policy means. Path patterns of all rules live in one automaton; what
depends on the path alone is remembered with the automaton's state, everything else (also what depends on who
acts) is evaluated rule by rule.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable

import attrs

from rampart_seccomp.events import (
    ConnectEvent,
    Event,
    ExecEvent,
    FileEvent,
    ListenEvent,
    Operation,
    Process,
    Program,
)
from rampart_seccomp.policy.anchors import Anchors
from rampart_seccomp.policy.binding import Binding
from rampart_seccomp.policy.conditions import Acting, Entry, Match, Subject
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.features import MEMFD_EXEC
from rampart_seccomp.policy.globs import Automaton, State
from rampart_seccomp.policy.grants import Grant, GrantIndex, granted_events
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS

__all__ = ["Entry", "Match", "Matcher"]

NAMELESS = "built-in: a program without a name (memfd or deleted file)"
PROTECTED = "built-in: Rampart's own files"
PLANTED = "built-in: code that the harness runs"
RESOLVING = "built-in: whom the broker asks about host names"
FOREIGN_SOCKET = "built-in: unix sockets made outside the tree need a rule"
OWN_SOCKET = "built-in: unix socket of the same tree"


class Matcher:
    """A policy bound to a place. Immutable to its users, and safe to use from several threads.

    Made by `Policy.matcher`.

    Attributes:
        policy: The policy.
        home: Real path of the home that ``~`` means.
        directory: Real path of the directory that ``./`` means.
        ordered: What is built in and the rules, in the order in which they speak.
        redirects: What is shown in place of files, and reached in place of hosts, by operation, as the
            restrictions that this is; the strictest first.
        host_patterns: All patterns of ``hosts:``, those of exceptions and grants included.
        host_names: The exact host names among them.
        judges_names: True if some of them is about names: then the broker answers DNS.
        substitutes: Files of which the broker then gives a version of its own, and which nobody changes.
        process_operations: Operations on which some rule or exception asks who acts (`programs`, `within`):
            their events need a process with its lineage.
        needs_process: True if there are any.
        needs_environment: True if some rule or exception asks which variables an exec changes (`env`).
        acting: Looks up the paths of a program of a lineage.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        home: bytes | None = None,
        directory: bytes | None = None,
        protected: Iterable[bytes] = (),
        planted: Iterable[bytes] = (),
        substitutes: Iterable[bytes] = (),
        anchors: Anchors | None = None,
    ) -> None:
        self.policy = policy
        if anchors is None:
            anchors = Anchors(
                os.path.expanduser(b"~") if home is None else home,
                os.getcwdb() if directory is None else directory,
                os.environb.get(b"TMPDIR"),
            )
        self._anchors = anchors
        self.home = anchors.home
        self.directory = anchors.directory
        binding = Binding(anchors)
        built_in = ((tuple(protected), PROTECTED), (tuple(planted), PLANTED))
        entries = [binding.protect(paths, reason) for paths, reason in built_in if paths]
        entries += [binding.bind(rule) for rule in policy.effective]
        # Of the rules that allow, one that redirects speaks first: it says more.
        entries.sort(key=lambda entry: (-entry.level, entry.rule is None or entry.rule.redirect is None))
        self.host_patterns = tuple(
            dict.fromkeys(
                [pattern for grant in policy.grants if (pattern := grant.host_pattern) is not None]
                + [
                    host
                    for entry in entries
                    for conditions in (entry.conditions, *entry.excepts)
                    for host in conditions.hosts
                ]
            )
        )
        self.host_names = frozenset(host.name for host in self.host_patterns if host.name is not None)
        self.judges_names = any(host.by_name for host in self.host_patterns)
        self.substitutes = frozenset(substitutes) if self.judges_names else frozenset()
        if self.substitutes:
            entries.insert(0, binding.protect(self.substitutes, RESOLVING))
        self.ordered = tuple(entries)
        redirecting = [rule for rule in policy.effective if rule.redirect is not None]
        redirecting.sort(key=lambda rule: rule.redirect is not None and not rule.redirect.hides)
        self.redirects = {
            operation: tuple(binding.redirect(rule) for rule in redirecting if operation in rule.operations)
            for operation in (Operation.READ, Operation.CONNECT)
        }
        self.automaton = Automaton(binding.patterns)
        self.entries = {
            operation: tuple(entry for entry in entries if operation in entry.operations)
            for operation in Operation
        }
        self.process_operations = frozenset(
            operation
            for operation, found in self.entries.items()
            if any(entry.asks_for("programs", "within") for entry in found)
        )
        self.needs_process = bool(self.process_operations)
        self.needs_environment = any(entry.asks_for("env") for entry in entries)
        self._grants = GrantIndex(policy.grants)
        self._defaults = {
            operation: Decision(verdict=verdict, operation=operation, reason="default")
            for operation, verdict in policy.default.items()
        }
        self._file: Callable[[Operation, bytes], Decision | None] = functools.lru_cache(maxsize=4096)(
            self._decide_file
        )
        self.acting: Callable[[Program], Acting] = functools.lru_cache(maxsize=1024)(self._look_up)

    def decide(self, event: Event) -> Decision:
        """Judge one event.

        Raises:
            TypeError: It is no event, or its operation is not one of its kind.
            ValueError: Its path is not absolute.
        """
        decision = self._file(event.operation, event.path) if isinstance(event, FileEvent) else None
        if decision is None:
            decision = self._decide(self.subject(event))
        return self._granted(event, decision) if self._grants else decision

    def ruled(self, event: Event) -> Decision:
        """Judge one event by rules and defaults alone, as if there were no grants.

        Raises:
            TypeError, ValueError: As `decide`.
        """
        return self._decide(self.subject(event))

    def subject(self, event: Event) -> Subject:
        """Look up the paths of an event.

        Raises:
            TypeError: It is no event, or its operation is not one of its kind.
            ValueError: Its path is not absolute.
        """
        if not isinstance(event, Event):
            raise TypeError(f"cannot judge {event!r}")
        lineage = self._lineage(event)
        if isinstance(event, FileEvent) and event.operation in FILE_OPERATIONS:
            return Subject(event, self.automaton.walk(event.path).mask, lineage=lineage)
        if isinstance(event, ExecEvent) and event.operation is Operation.EXEC:
            named = 0 if event.named is None else self.automaton.walk(event.named).mask
            return Subject(event, self.automaton.walk(event.path).mask, named, lineage)
        if isinstance(event, ConnectEvent) and event.operation is Operation.CONNECT:
            if event.socket is None or event.socket.startswith(b"@"):
                return Subject(event, lineage=lineage)
            return Subject(event, self.automaton.walk(event.socket).mask, lineage=lineage)
        if isinstance(event, ListenEvent) and event.operation is Operation.LISTEN:
            return Subject(event, lineage=lineage)
        raise TypeError(f"cannot judge {event!r}")

    def laxest(self, event: Event) -> Decision:
        """Judge an event as if whoever may do most did it: no process gets less than this.

        Raises:
            TypeError, ValueError: As `decide`.
        """
        subject = attrs.evolve(self.subject(event), lineage=None)
        if isinstance(event, ExecEvent):
            subject = attrs.evolve(subject, event=attrs.evolve(event, changed=None))
        anyone = attrs.evolve(subject, anyone=True)
        nameless = self._nameless(event)
        if nameless is not None:
            return nameless
        # A question opens where a denial would stand without it, and restricts elsewhere: both are tried.
        said = [self._decide(anyone)]
        for entry in self.entries[event.operation]:
            if entry.match(subject if VERDICTS[entry.level] == "ask" else anyone) is Match.YES:
                said.append(entry.decision(event.operation))
                break
        if self._grants:
            said = [self._granted(event, decision) for decision in said]
        return min(said, key=lambda decision: VERDICTS.index(decision.verdict))

    @property
    def stands(self) -> bool:
        """Whether the symbolic links that patterns go along are as they were when it was made."""
        return self._anchors.stands

    def varies(self, operation: Operation, path: bytes) -> bool:
        """Say whether it depends on who acts what is decided about a file."""
        return self._file(operation, path) is None

    def fallback(self, event: Event) -> Decision:
        """Give the decision when no rule speaks: the default, and what is built in for sockets."""
        if isinstance(event, ConnectEvent) and event.socket is not None:
            if event.in_tree:
                return Decision(verdict="allow", operation=event.operation, reason=OWN_SOCKET)
            return Decision(verdict="deny", operation=event.operation, reason=FOREIGN_SOCKET)
        return self._defaults[event.operation]

    def widens(self, old: bytes, new: bytes, *, directory: bool, program: bool = True) -> Decision | None:
        """Say whether something would be less restricted under a new name than under the old one.

        Judges every operation, whatever the arguments and whoever will act: conditions on programs, on what
        they run within and on variables are compared as they are written. A program that rules name, as what
        acts or as what others run within, keeps what they restrict and gains nothing that they allow. For a
        directory the same holds for everything that is or will be beneath it; the answer errs towards yes.

        Args:
            old: Real absolute name.
            new: Real absolute name it would get.
            directory: True to judge a directory with everything beneath it.
            program: False if the object itself cannot be executed, since it is a directory.

        Returns:
            None if nothing widens, else a denial that carries the rule (or the default) that would be lost.
        """
        from rampart_seccomp.policy.renaming import widens

        lost = widens(self, old, new, directory=directory, program=program)
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
        return attrs.evolve(decision, verdict="allow", rule=None, reason="grant", grant=grant)

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
                if VERDICTS.index(lost.verdict) > VERDICTS.index(self.laxest(renamed).verdict):
                    return attrs.evolve(lost, verdict="deny")
        return None

    def _decide_file(self, operation: Operation, path: bytes) -> Decision | None:
        """Decide about a file; None if that depends on who acts."""
        if operation not in FILE_OPERATIONS:
            raise TypeError(f"{operation} is not an operation on a file")
        state: State = self.automaton.walk(path)
        memo = state.memo
        if operation not in memo:
            subject = Subject(FileEvent(operation=operation, path=path), state.mask)
            decision: Decision | None = self._decide(subject)
            # What the strictest and the laxest case share holds in every case between.
            if operation in self.process_operations and decision != self._decide(
                attrs.evolve(subject, anyone=True)
            ):
                decision = None
            memo[operation] = decision
        found = memo[operation]
        assert found is None or isinstance(found, Decision)
        return found

    def _lineage(self, event: Event) -> tuple[Acting, ...] | None:
        """Look up who acts, where some rule asks for it; None if it is unknown."""
        if event.operation not in self.process_operations:
            return None
        process: Process | None = event.process
        if process is None or not process.lineage:
            return None
        return tuple(map(self.acting, process.lineage))

    def _look_up(self, program: Program) -> Acting:
        execs = program.execs or (ExecEvent(path=program.path, argv=program.argv),)
        return Acting(
            program,
            self.automaton.walk(program.path).mask,
            tuple(
                Subject(
                    each,
                    self.automaton.walk(each.path).mask,
                    0 if each.named is None else self.automaton.walk(each.named).mask,
                )
                for each in execs
            ),
        )

    def _nameless(self, event: Event) -> Decision | None:
        """Deny an exec of what no name leads to, unless the policy opens that; None if it says nothing."""
        if not isinstance(event, ExecEvent) or event.linked or MEMFD_EXEC in self.policy.features:
            return None
        return Decision(verdict="deny", operation=event.operation, reason=NAMELESS)

    def _decide(self, subject: Subject) -> Decision:
        nameless = self._nameless(subject.event)
        if nameless is not None:
            return nameless
        decision = self._spoken(subject)
        redirects = self.redirects.get(subject.event.operation, ())
        redirecting = next((each.rule for each in redirects if each.match(subject) is Match.YES), None)
        # Whatever it is that allows: what is shown, or reached, is restricted all the same.
        return decision if redirecting is None else attrs.evolve(decision, redirecting=redirecting)

    def about(self, operation: Operation) -> tuple[Entry, ...]:
        """Give all entries on an operation; first those that say what is shown, which leave open whether."""
        return (*self.redirects.get(operation, ()), *self.entries[operation])

    def _spoken(self, subject: Subject) -> Decision:
        operation = subject.event.operation
        for entry in self.entries[operation]:
            if entry.match(subject) is Match.YES:
                return entry.decision(operation)
        return self.fallback(subject.event)


def _yields(decision: Decision) -> bool:
    """Say whether a denial is only what holds when no rule speaks."""
    return decision.reason in ("default", FOREIGN_SOCKET)
