"""What is wrong, or probably not meant, in a policy that is valid."""

from __future__ import annotations

import os
from collections.abc import Iterator

import attrs

from rampart_seccomp.events import Address, ConnectEvent, Operation
from rampart_seccomp.policy.actors import actor_remarks
from rampart_seccomp.policy.anchors import Anchors
from rampart_seccomp.policy.answering import is_within
from rampart_seccomp.policy.commands import parse_command
from rampart_seccomp.policy.covering import covers, includes
from rampart_seccomp.policy.globs import ANY, SETS, Glob, Tail, Wildcard, parse
from rampart_seccomp.policy.hosts import HostPattern, parse_host, parse_local
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.nameless import changes_nothing, memfd_remarks
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.terms import VERDICTS, WRITE
from rampart_seccomp.policy.unreachable import Unreachable

__all__ = ["Finding", "check", "errors"]

NAME_MAX = 255
"""Bytes in one name (limits.h)."""


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

    Errors are rules that can never decide because of other rules of their own file. Warnings are rules that
    change nothing, patterns that float, match everything or nothing, base names that a writable directory
    makes weak, well-known secrets that may be read, and symbolic links among the files of the policy.
    """
    findings = []
    own = _own_file(policy)
    unreachable = Unreachable(policy)
    seen: dict[str | None, int] = {}
    for rule in policy.rules:
        index = seen[rule.file] = seen.get(rule.file, -1) + 1
        for severity, key, message in _remarks(policy, rule, unreachable):
            # The place in the list is known for the file itself; what it extends may have been amended.
            path = f"rules[{index}]{key}" if rule.file in (own, None) else None
            findings.append(Finding(severity, message, rule.file, rule.line, path))
    nothing = changes_nothing(policy)
    if nothing is not None:
        findings.append(Finding("warning", nothing, own, None, "features"))
    findings += [Finding("warning", message, own, None, "names") for message in _answering(policy)]
    findings += _secrets(policy, own)
    findings += _grants(policy)
    findings += _links(policy, own)
    return findings


def errors(policy: Policy) -> Iterator[Finding]:
    """Give the errors alone: such a file does not load. Files that it extends were loaded before."""
    unreachable = Unreachable(policy)
    own = _own_file(policy)
    rules = [rule for rule in policy.rules if rule.file in (own, None)]
    for index, rule in enumerate(rules):
        message = unreachable.in_its_file(rule)
        if message is not None:
            yield Finding("error", message, rule.file, rule.line, f"rules[{index}]")


def _own_file(policy: Policy) -> str | None:
    source = policy.source
    if source is not None and source.startswith("profile:"):
        return f"{source.partition(':')[2]}.yaml"
    return source


def _answering(policy: Policy) -> Iterator[str]:
    """Say where made-up addresses are for nothing, or are in the way of rules about addresses."""
    if not policy.names.synthetic:
        return
    texts = [text for rule in policy.rules for text in rule.hosts]
    texts += [text for rule in policy.rules for excepted in rule.excepted for text in excepted.hosts]
    patterns = {text: parse_host(text) for text in texts}
    granted = [grant.host_pattern for grant in policy.grants]
    if not any(each is not None and each.by_name for each in (*patterns.values(), *granted)):
        yield "synthetic addresses are for nothing: no rule is about a host name"
    for text, pattern in patterns.items():
        for network in policy.names.synthetic:
            if pattern.network is not None and is_within(pattern.network, network):
                yield f"{text!r} is never reached by its address: those of {network} stand for names"


def _secrets(policy: Policy, own: str | None) -> Iterator[Finding]:
    # Imported here: it needs the matcher, which loading imports only for tests.
    from rampart_seccomp.policy.secrets import readable

    for decision, silent, names in readable(policy):
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more kinds" if len(names) > 4 else "")
        if silent is not None:
            # What an inherited rule excepts may be the doing of the file that inherits it.
            own_rule = silent.file in (own, None)
            file, line = (silent.file, silent.line) if own_rule else (own, None)
            key = f"`except` of rule {silent.name!r}"
        elif decision.rule is not None:
            file, line, key = decision.rule.file, decision.rule.line, f"rule {decision.rule.name!r}"
        else:
            file, _, number = policy.places.get("default.read", "").rpartition(":")
            file, line, key = file or own, int(number) if number else None, "default.read"
        yield Finding("warning", f"well-known secrets can be read: {shown}", file, line, key)


def _grants(policy: Policy) -> Iterator[Finding]:
    names = {rule.name for rule in policy.rules}
    for index, grant in enumerate(policy.grants):
        key = f"grants[{index}]"
        if grant.rule is not None and grant.rule not in names:
            message = f"the grant was given for the rule {grant.rule!r}, which there is no more"
            yield Finding("warning", message, grant.file, grant.line, key)
        if "*" in grant.object and grant.operation is not Operation.EXEC:
            message = f"a grant is exact: the '*' in {grant.object!r} is that character"
            yield Finding("warning", message, grant.file, grant.line, key)


def _links(policy: Policy, own: str | None) -> Iterator[Finding]:
    for name in policy.files:
        real = os.path.realpath(name)
        if name != real:
            message = f"{name} leads through a symbolic link: what is read is {real}"
            yield Finding("warning", message, own)


def _remarks(policy: Policy, rule: Rule, unreachable: Unreachable) -> Iterator[tuple[str, str, str]]:
    hidden = list(unreachable.remarks(rule))
    if hidden:
        yield from ((severity, "", message) for severity, message in hidden)
        return
    redundant = _redundant(policy, rule)
    if redundant:
        yield "warning", "", f"the rule {rule.name!r} changes nothing: {redundant}"
    for index, text in enumerate(rule.paths):
        yield from _path_remarks(rule, text, f".paths[{index}]")
    for index, text in enumerate(rule.commands):
        yield from _command_remarks(policy, rule, text, f".commands[{index}]")
    for index, text in enumerate(rule.ports):
        if parse_local(text).network is None and parse_local(text).ports == ((0, 65535),):
            yield "warning", f".ports[{index}]", f"{text!r} matches every port; leave `ports` out to say so"
    for index, text in enumerate(rule.hosts):
        # A rule that leads connections elsewhere has to name them.
        what = None if rule.redirect is not None else _whole(parse_host(text))
        if what is not None:
            yield "warning", f".hosts[{index}]", f"{text!r} matches {what}; without `hosts` a rule covers all"
        if rule.restricts and parse_host(text).beneath and policy.default[Operation.CONNECT] == "allow":
            yield (
                "warning",
                f".hosts[{index}]",
                f"{text!r} is known by name only, and the default allows its addresses to who knows them",
            )
    for index, entry in enumerate(rule.except_):
        key = f".except[{index}]"
        if isinstance(entry, str):
            if rule.kind == "paths":
                yield from _except_remarks(rule, entry, key)
            continue
        for place, text in enumerate(entry.paths):
            yield from _except_remarks(rule, text, f"{key}.paths[{place}]", alone=len(entry.given) == 1)
    yield from memfd_remarks(policy, rule)
    yield from _redirect_remarks(policy, rule)
    yield from actor_remarks(rule, writes_programs=_writes_programs(policy))


def _whole(pattern: HostPattern) -> str | None:
    """Say of what kind of destination a pattern of `hosts` matches every one; None: not of any."""
    if pattern.socket is not None:
        return "every unix socket with a path" if covers(pattern.socket, parse("/**")) else None
    if pattern.network is None or pattern.network.prefixlen or pattern.ports not in ((), ((0, 65535),)):
        return None
    return f"every IPv{pattern.network.version} address"


def _path_remarks(rule: Rule, text: str, key: str) -> Iterator[tuple[str, str, str]]:
    if text == "/**" or text == "**/*":
        yield "warning", key, f"{text!r} matches everything; leave `paths` out to say so"
    elif text.startswith(("**/", "/**/")) and rule.restricts:
        rest = text[text.index("**/") :]
        yield (
            "warning",
            key,
            f"{text!r} floats: every directory is restricted, so none can be left to the kernel; "
            f"write '~/{rest}' and './{rest}'",
        )
    if matches_nothing(parse(text)):
        yield "warning", key, f"{text!r} matches nothing: no name is longer than {NAME_MAX} bytes"


def _command_remarks(policy: Policy, rule: Rule, text: str, key: str) -> Iterator[tuple[str, str, str]]:
    pattern = parse_command(text)
    if isinstance(pattern.base, Wildcard) and pattern.base.text == b"*" and pattern.arguments == (None,):
        yield "warning", key, f"{text!r} matches everything; leave `commands` out to say so"
    elif rule.verdict == "allow" and pattern.base is not None and _writes_programs(policy):
        yield (
            "warning",
            key,
            f"{text.split()[0]!r} is a base name: any program of that name that may be written "
            "and executed is allowed; write its absolute path",
        )


def _except_remarks(rule: Rule, text: str, key: str, *, alone: bool = True) -> Iterator[tuple[str, str, str]]:
    exception = parse(text)
    if rule.paths and all(_apart(parse(pattern), exception) for pattern in rule.paths):
        yield "warning", key, f"{text!r} excepts nothing: none of the rule's own patterns matches there"
    elif (
        alone
        and rule.verdict == "allow"
        and not rule.commands
        and all(covers(exception, parse(pattern)) for pattern in rule.paths or ["/**"])
    ):
        yield "warning", key, f"{text!r} excepts everything: the rule {rule.name!r} says nothing"


def _writes_programs(policy: Policy) -> bool:
    return any(rule.verdict == "allow" and rule.operations & WRITE for rule in policy.rules) or any(
        policy.default[operation] == "allow" for operation in WRITE
    )


def _redundant(policy: Policy, rule: Rule) -> str | None:
    if rule.errno is not None or rule.message or rule.decide is not None or rule.timeout is not None:
        return None
    if rule.redirect is not None:
        return _shown_by_another(policy, rule)
    for other in policy.rules:
        if other is rule:
            continue
        same = other.verdict == rule.verdict and rule.operations <= other.operations
        # Of two rules that include each other only the later one is reported.
        earlier = policy.rules.index(other) < policy.rules.index(rule)
        if same and includes(other, rule) and (earlier or not includes(rule, other)):
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


def _shown_by_another(policy: Policy, rule: Rule) -> str | None:
    """Say which other rule shows the same of everything that this one is about."""
    for other in policy.rules[: policy.rules.index(rule)]:
        if other.redirect == rule.redirect and includes(other, rule):
            return f"{other.name!r} says the same of all that it matches"
    return None


def _redirect_remarks(policy: Policy, rule: Rule) -> Iterator[tuple[str, str, str]]:
    """Say where a program can write back what it was shown, or does not get what it should."""
    if rule.redirect is None:
        return
    if rule.redirect.destination is not None:
        yield from _unreached(policy, rule, *rule.redirect.destination)
        return
    guarded = any(
        other.verdict != "allow" and Operation.MODIFY in other.operations and not _separate(other, rule)
        for other in policy.rules
    )
    open_to_all = policy.default[Operation.MODIFY] == "allow" or any(
        other.verdict == "allow" and Operation.MODIFY in other.operations and includes(other, rule)
        for other in policy.rules
    )
    if open_to_all and not guarded:
        yield (
            "warning",
            ".redirect",
            f"what {rule.name!r} redirects may be written: a program that edits such a file writes back "
            "what it was shown; deny `write` of it",
        )


def _unreached(policy: Policy, rule: Rule, address: Address, port: int) -> Iterator[tuple[str, str, str]]:
    """Say where the substitute of a connection may not be reached itself, or is led elsewhere again."""
    assert rule.redirect is not None
    decision = policy.matcher().laxest(ConnectEvent(protocol="tcp", address=address, port=port))
    further = decision.redirect
    if decision.verdict == "deny":
        problem = f"may not be reached itself, by {decision.where}: allow to connect there"
    elif further is not None and further.destination != rule.redirect.destination:
        assert decision.redirecting is not None
        problem = f"is redirected {further} itself: add it to `except` of {decision.redirecting.name!r}"
    else:
        return
    yield "warning", ".redirect", f"{rule.redirect.to}, to which {rule.name!r} redirects, {problem}"


def _separate(one: Rule, other: Rule) -> bool:
    """Say whether the paths of two rules certainly have nothing in common."""
    return bool(one.paths and other.paths) and all(
        _apart(parse(ours), parse(theirs)) for ours in one.paths for theirs in other.paths
    )


def _apart(one: Glob, other: Glob) -> bool:
    """Say whether no path matches both patterns here, wherever their literal beginnings lead."""
    if one.anchor != other.anchor or one.anchor in SETS:
        return False
    anchors = Anchors(os.path.expanduser(b"~"), os.getcwdb(), None)
    return all(
        disjoint(ours, theirs)
        for ours in anchors.bind(one, strict=True)
        for theirs in anchors.bind(other, strict=True)
    )


def disjoint(one: Tail, other: Tail) -> bool:
    """Say whether certainly no path matches both.

    It is so if two components at the same depth cannot match one name, or if the depths cannot be equal.
    """
    for ours, theirs in zip(one, other, strict=False):
        if ours == ANY or theirs == ANY:
            return False
        if isinstance(ours, Wildcard) and isinstance(theirs, Wildcard):
            continue
        if isinstance(ours, Wildcard):
            ours, theirs = theirs, ours
        assert isinstance(ours, bytes)
        if not (theirs.regex.match(ours) if isinstance(theirs, Wildcard) else theirs == ours):
            return True
    shorter, longer = sorted((one, other), key=len)
    return any(name != ANY for name in longer[len(shorter) :])


def matches_nothing(glob: Glob) -> bool:
    """Say whether certainly no path matches: a name is too long for any file system."""
    return any(isinstance(name, bytes) and len(name) > NAME_MAX for name in glob.components)
