"""What is wrong, or probably not meant, in a policy that is valid."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from rampart_seccomp.events import Operation
from rampart_seccomp.policy.commands import parse_command
from rampart_seccomp.policy.globs import ANY, SETS, Component, Glob, Wildcard, parse
from rampart_seccomp.policy.model import Policy, Rule
from rampart_seccomp.policy.terms import VERDICTS, WRITE

__all__ = ["Finding", "check"]


@attrs.frozen
class Finding:
    """One remark about a policy.

    Attributes:
        severity: ``error`` (such a file does not load) or ``warning``.
        message: The remark, in one sentence.
        file: The file of the rule; None for a policy made in Python.
        line: Line of the rule, from 1.
        key: Key path, such as ``rules[2]``.
    """

    severity: str
    message: str
    file: str | None = None
    line: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return ": ".join(part for part in (where, self.key, f"{self.severity}: {self.message}") if part)


def check(policy: Policy) -> list[Finding]:
    """Look for rules that do nothing, or more than they seem to. What is reported is certain.

    Errors are rules that can never decide. Warnings are rules that change nothing, patterns that float or
    match everything, and base names that a writable directory makes weak.
    """
    findings = []
    for index, rule in enumerate(policy.rules):
        for severity, key, message in _remarks(policy, rule):
            path = f"rules[{index}]{key}"
            findings.append(Finding(severity, message, rule.file, rule.line, path))
    return findings


def _remarks(policy: Policy, rule: Rule) -> Iterator[tuple[str, str, str]]:
    hiding = [_hiding(policy, rule, operation) for operation in Operation if operation in rule.operations]
    if all(hiding):
        names = ", ".join(sorted({repr(other.name) for other in hiding if other is not None}))
        yield "error", "", f"the rule {rule.name!r} is unreachable: {names} always decides first"
        return
    redundant = _redundant(policy, rule)
    if redundant:
        yield "warning", "", f"the rule {rule.name!r} changes nothing: {redundant}"
    for index, text in enumerate(rule.paths):
        yield from _path_remarks(rule, text, f".paths[{index}]")
    for index, text in enumerate(rule.commands):
        if rule.verdict == "allow" and parse_command(text).base is not None and _writes_programs(policy):
            yield (
                "warning",
                f".commands[{index}]",
                f"{text.split()[0]!r} is a base name: any program of that name that may be written "
                "and executed is allowed; write its absolute path",
            )


def _path_remarks(rule: Rule, text: str, key: str) -> Iterator[tuple[str, str, str]]:
    if text == "/**" or text == "**/*":
        yield "warning", key, f"{text!r} matches everything; leave `paths` out to say so"
    elif text.startswith(("**/", "/**/")) and rule.verdict != "allow":
        rest = text[text.index("**/") :]
        yield (
            "warning",
            key,
            f"{text!r} floats: every directory is restricted, so none can be left to the kernel; "
            f"write '~/{rest}' and './{rest}'",
        )


def _writes_programs(policy: Policy) -> bool:
    return any(rule.verdict == "allow" and rule.operations & WRITE for rule in policy.rules) or any(
        policy.default[operation] == "allow" for operation in WRITE
    )


def _hiding(policy: Policy, rule: Rule, operation: Operation) -> Rule | None:
    """Give a stricter rule that matches whatever the rule does for this operation, or None."""
    level = VERDICTS.index(rule.verdict)
    for other in policy.rules:
        if VERDICTS.index(other.verdict) > level and operation in other.operations and _includes(other, rule):
            return other
    return None


def _redundant(policy: Policy, rule: Rule) -> str | None:
    if rule.errno is not None or rule.message or rule.decide is not None or rule.timeout is not None:
        return None
    for other in policy.rules:
        if other is rule:
            continue
        same = other.verdict == rule.verdict and rule.operations <= other.operations
        # Of two rules that include each other only the later one is reported.
        earlier = policy.rules.index(other) < policy.rules.index(rule)
        if same and _includes(other, rule) and (earlier or not _includes(rule, other)):
            return f"{other.name!r} says the same of all that it matches"
    unix = Operation.CONNECT in rule.operations
    defaults = {policy.default[operation] for operation in rule.operations}
    weaker = [
        other
        for other in policy.rules
        if other.operations & rule.operations and VERDICTS.index(other.verdict) < VERDICTS.index(rule.verdict)
    ]
    if defaults == {rule.verdict} and not weaker and not unix:
        return "the default says the same, and no weaker rule stands against it"
    return None


def _includes(large: Rule, small: Rule) -> bool:
    """Say whether the first rule certainly matches whatever the second does, operations aside."""
    if large.except_ and not (large.except_ == small.except_ and _conditions(large) == _conditions(small)):
        return False
    for key in ("commands", "hosts", "ports"):
        entries = getattr(large, key)
        if entries and not (getattr(small, key) and set(getattr(small, key)) <= set(entries)):
            return False
    if not large.paths:
        return True
    return bool(small.paths) and all(
        any(covers(parse(theirs), parse(ours)) for theirs in large.paths) for ours in small.paths
    )


def _conditions(rule: Rule) -> tuple[tuple[str, ...], ...]:
    return (rule.paths, rule.commands, rule.hosts, rule.ports)


def covers(large: Glob, small: Glob) -> bool:
    """Say whether the first pattern certainly matches whatever the second does.

    It does if they are equal, or if it is a tree (``…/**``) whose beginning matches the other's beginning
    component by component.
    """
    if large.text == small.text or (large.anchor == "/" and large.components == (ANY,)):
        return True
    if large.anchor in SETS or large.anchor != small.anchor or not large.components:
        return large.anchor == "@project" and small.anchor == "./"
    *beginning, last = large.components
    if last != ANY or len(beginning) > len(small.components):
        return False
    return all(
        _covers_component(ours, theirs) for ours, theirs in zip(beginning, small.components, strict=False)
    )


def _covers_component(large: Component, small: Component) -> bool:
    if large == ANY or small == ANY:
        return False
    if isinstance(large, Wildcard):
        return (
            large == small
            or large.text == b"*"
            or (isinstance(small, bytes) and bool(large.regex.match(small)))
        )
    return large == small
