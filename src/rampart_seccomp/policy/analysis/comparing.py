"""What two policies decide differently, each difference with a shortest witness."""

from __future__ import annotations

import os
import shlex
from collections.abc import Hashable, Iterator, Sequence

import attrs

from rampart_seccomp.events import Event, ExecEvent, Operation, Program
from rampart_seccomp.policy.analysis.witnesses import Witnesses
from rampart_seccomp.policy.analysis.words import VARIABLES, TooLarge
from rampart_seccomp.policy.conditions import Entry
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.features import MEMFD_EXEC
from rampart_seccomp.policy.globs import component
from rampart_seccomp.policy.limits import KEYS
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.model import AUDITS, Policy
from rampart_seccomp.policy.rules import CONDITIONS, Rule
from rampart_seccomp.policy.stack import AnyMatcher, AnyPolicy, StackMatcher
from rampart_seccomp.policy.terms import VERDICTS
from rampart_seccomp.verdicts import Redirect

__all__ = ["Comparison", "Difference", "Setting", "diff"]


@attrs.frozen(kw_only=True)
class Difference:
    """Something that two policies decide differently. Texts are unescaped: escape them for a terminal.

    Attributes:
        event: A shortest event that shows it. It has a process only if the difference needs one; that of an
            unknown program has no lineage.
        a, b: What the policies say about it.
    """

    event: Event
    a: Decision
    b: Decision

    @property
    def operation(self) -> Operation:
        """What would be done."""
        return self.event.operation

    @property
    def laxer(self) -> bool:
        """True if the second policy allows what the first does not, asks where it denies, or shows more.

        Or something else: nobody says that this is less.
        """
        return _strictness(self.b) <= _strictness(self.a)

    @property
    def key(self) -> Hashable:
        """What tells it from others: the operation, and what decided on both sides."""
        return self.operation, *(
            (_outcome(each), each.rule and each.rule.name, each.reason, each.layer)
            for each in (self.a, self.b)
        )

    @property
    def object(self) -> str:
        """To what it would be done, by whom and with which variables, as far as that matters."""
        return ", ".join([self.event.object, *_circumstances(self.event)])


@attrs.frozen(kw_only=True)
class Setting:
    """Something besides rules in which two policies differ.

    Attributes:
        key: What it is: ``feature sysv-ipc``, ``limits.processes``, ``variable AWS_PROFILE``, ``linger``,
            ``names``, ``audit``.
        a, b: What it is in the policies, in words.
        laxer: True if the second policy leaves more to a command.
    """

    key: str
    a: str
    b: str
    laxer: bool


@attrs.frozen(kw_only=True)
class Comparison:
    """What `diff` found.

    Attributes:
        differences: One for each operation and pair of rules (or defaults, layers) that decide differently.
        settings: Where they differ in something besides rules.
        unfinished: Operations on which more differences may be, since there are too many cases, and of what.
    """

    differences: tuple[Difference, ...]
    settings: tuple[Setting, ...]
    unfinished: tuple[tuple[Operation, str], ...] = ()

    @property
    def equal(self) -> bool:
        """True if the policies certainly allow the same."""
        return not self.differences and not self.settings and not self.unfinished


def diff(
    a: AnyPolicy, b: AnyPolicy, *, home: bytes | None = None, directory: bytes | None = None
) -> Comparison:
    """Compare what two policies, or stacks, decide about everything there is.

    The answer is exact: where no difference is found, and nothing is left unfinished, there is none. A rule
    whose question a function answers is compared as a question. Errors, messages, time-outs and `log`
    are not compared, nor is what is built in for the harness's own files and name servers.

    Args:
        a, b: The policies.
        home: Home of the launching user; None for ``~`` of this process.
        directory: Launch directory; None for the working directory of this process.
    """
    bound = [policy.matcher(home=home, directory=directory) for policy in (a, b)]
    witnesses = Witnesses([layer for each in bound for layer in _layers(each)])
    differences: dict[Hashable, Difference] = {}
    unfinished = []
    for operation in Operation:
        if _meaning(a, operation) == _meaning(b, operation):
            continue
        try:
            for event in witnesses.events(operation, about=_changed(bound, operation)):
                found = _judged(bound, event)
                if _outcome(found.a) != _outcome(found.b) and found.key not in differences:
                    differences[found.key] = _shortened(bound, found)
        except TooLarge as error:
            unfinished.append((operation, str(error)))
    return Comparison(
        differences=tuple(differences.values()),
        settings=tuple(_settings(a, b)),
        unfinished=tuple(unfinished),
    )


def _outcome(decision: Decision) -> tuple[str, Redirect | None]:
    """Give what a program meets: whether it may, and what it is shown."""
    return decision.verdict, None if decision.verdict == "deny" else decision.redirect


def _strictness(decision: Decision) -> tuple[int, int]:
    verdict, redirect = _outcome(decision)
    return VERDICTS.index(verdict), 0 if redirect is None else 1 + redirect.hides


def _layers(matcher: AnyMatcher) -> tuple[Matcher, ...]:
    return matcher.layers if isinstance(matcher, StackMatcher) else (matcher,)


def _judged(bound: Sequence[AnyMatcher], event: Event) -> Difference:
    a, b = (matcher.decide(event) for matcher in bound)
    return Difference(event=event, a=a, b=b)


def _shortened(bound: Sequence[AnyMatcher], found: Difference) -> Difference:
    """Leave out who acts if an unknown program makes the same difference as the one that was found."""
    if found.event.process is None or not found.event.process.lineage:
        return found
    shorter = _judged(bound, attrs.evolve(found.event, process=None))
    return shorter if shorter.key == found.key else found


def _changed(bound: Sequence[AnyMatcher], operation: Operation) -> frozenset[Entry] | None:
    """Give the rules that make all the difference; None if there is more to it."""
    sides = [{_layer_meaning(layer.policy, operation): layer for layer in _layers(each)} for each in bound]
    apart = [[side[key] for key in side.keys() - other.keys()] for side, other in (sides, sides[::-1])]
    if [len(layers) for layers in apart] != [1, 1]:
        return None
    (ours,), (theirs,) = apart
    if _aside(ours.policy, operation) != _aside(theirs.policy, operation):
        return None
    entries = [layer.about(operation) for layer in (ours, theirs)]
    known = [frozenset(map(_of, each)) for each in entries]
    return frozenset(
        entry
        for mine, others in zip(entries, reversed(known), strict=True)
        for entry in mine
        if _of(entry) not in others
    )


def _of(entry: Entry) -> Hashable:
    assert entry.rule is not None
    return _content(entry.rule)


def _meaning(policy: AnyPolicy, operation: Operation) -> Hashable:
    """Give everything that decides about an operation: policies with the same decide the same."""
    return frozenset(_layer_meaning(layer, operation) for layer in policy.layers)


def _layer_meaning(policy: Policy, operation: Operation) -> Hashable:
    rules = frozenset(_content(rule) for rule in policy.effective if operation in rule.operations)
    return rules, _aside(policy, operation)


def _aside(policy: Policy, operation: Operation) -> Hashable:
    """Give what decides about an operation beside rules."""
    grants = frozenset(grant for grant in policy.grants if grant.operation is operation)
    return policy.default[operation], grants, operation is Operation.EXEC and MEMFD_EXEC in policy.features


def _content(rule: Rule) -> Hashable:
    conditions = tuple(frozenset(getattr(rule, key)) for key in CONDITIONS)
    return rule.verdict, rule.redirect, conditions, frozenset(rule.except_)


def _circumstances(event: Event) -> Iterator[str]:
    if isinstance(event, ExecEvent):
        if event.argv[:1] != (event.path,):
            yield f"the image is {os.fsdecode(event.path)}"
        if event.named not in (event.path, None):
            yield f"started as {os.fsdecode(event.named)}"
        if event.changed is None:
            yield "with unknown variables"
        elif event.changed:
            yield f"changing {' '.join(map(os.fsdecode, sorted(event.changed)))}"
    process = event.process
    if process is None:
        return
    if not process.lineage:
        yield "by an unknown program"
        return
    acting, *above = process.lineage
    yield f"by {_program(acting)}"
    for program in above:
        yield f"within {_program(program)}"


def _program(program: Program) -> str:
    text = shlex.join(map(os.fsdecode, program.argv))
    return text if program.clean else f"{text} (started with variables that plant code)"


def _settings(a: AnyPolicy, b: AnyPolicy) -> Iterator[Setting]:
    for feature in sorted(a.features ^ b.features):
        words = ("refused", "open") if feature in b.features else ("open", "refused")
        yield Setting(key=f"feature {feature}", a=words[0], b=words[1], laxer=feature in b.features)
    for key in KEYS:
        ours, theirs = (getattr(each.limits, key.replace("-", "_")) for each in (a, b))
        if ours != theirs:
            laxer = ours is not None and (theirs is None or theirs > ours)
            shown = ["none" if each is None else str(each) for each in (ours, theirs)]
            yield Setting(key=f"limits.{key}", a=shown[0], b=shown[1], laxer=laxer)
    if a.linger != b.linger:
        yield Setting(key="linger", a=str(a.linger).lower(), b=str(b.linger).lower(), laxer=b.linger)
    if a.names != b.names:
        yield Setting(key="names", a=str(a.names), b=str(b.names), laxer=not b.names.synthetic)
    if a.audit != b.audit:
        yield Setting(key="audit", a=a.audit, b=b.audit, laxer=AUDITS.index(b.audit) < AUDITS.index(a.audit))
    yield from _variables(a, b)


def _variables(a: AnyPolicy, b: AnyPolicy) -> Iterator[Setting]:
    """Give a variable that only one of the policies passes to a command; one for each."""
    texts = {
        text
        for policy in (a, b)
        for layer in policy.environment.patterns
        for patterns in layer
        for text in patterns
    }
    told = set()
    for _, name in VARIABLES.classes(frozenset(map(component, texts))):  # type: ignore[arg-type]
        ours, theirs = (bool(policy.environment.apply({name: b""})) for policy in (a, b))
        if ours != theirs and theirs not in told:
            told.add(theirs)
            words = ("dropped", "passed") if theirs else ("passed", "dropped")
            yield Setting(key=f"variable {os.fsdecode(name)}", a=words[0], b=words[1], laxer=theirs)
