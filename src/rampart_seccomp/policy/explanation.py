"""Why a policy says what it says, and the smallest change that would make it allow."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex

import attrs

from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent, ListenEvent
from rampart_seccomp.policy.matcher import PROTECTED, Entry, Match, Matcher
from rampart_seccomp.policy.model import Decision
from rampart_seccomp.policy.terms import WRITE

__all__ = ["Explanation", "Loser", "explain", "suggest"]


@attrs.frozen
class Loser:
    """A rule on the same operation that did not decide.

    Attributes:
        name: Its name.
        place: ``file:line``; None if it was made in Python.
        verdict: What it would have said.
        why: Why it did not decide.
    """

    name: str
    place: str | None
    verdict: str
    why: str


@attrs.frozen(kw_only=True)
class Explanation:
    """The answer to "why?". Its text is unescaped: escape it before it goes to a terminal.

    Attributes:
        decision: What was decided.
        object: What was judged, in words.
        losers: The other rules on this operation; those that match come first.
        suggestion: How to allow it; None if it is allowed already.
    """

    decision: Decision
    object: str
    losers: tuple[Loser, ...]
    suggestion: str | None

    def __str__(self) -> str:
        decision = self.decision
        lines = [f"{decision.verdict}: {decision.operation} {self.object}", f"  decided by {decision.where}"]
        if decision.rule is not None and decision.rule.reason:
            lines.append(f"  reason: {decision.rule.reason}")
        if decision.message:
            lines.append(f"  message: {decision.message}")
        for loser in self.losers:
            place = f" ({os.path.basename(loser.place)})" if loser.place else ""
            lines.append(f"  not by {loser.name}{place}, which says {loser.verdict}: {loser.why}")
        if self.suggestion:
            lines.append(f"  to allow it: {self.suggestion}")
        return "\n".join(lines)


def explain(matcher: Matcher, event: Event) -> Explanation:
    """Say which rule decides about an event, why the others do not, and how to allow it.

    Raises:
        TypeError, ValueError: As `Matcher.decide`.
    """
    decision = matcher.decide(event)
    subject = matcher.subject(event)
    judged = [(entry, entry.match(subject)) for entry in matcher.entries[event.operation]]
    order = (Match.YES, Match.EXCEPTED, Match.NO)
    losers = [
        Loser(entry.rule.name, entry.rule.place, entry.rule.verdict, _why(entry, match, decision))
        for entry, match in sorted(judged, key=lambda pair: order.index(pair[1]))
        if entry.rule is not None and entry.rule is not decision.rule
    ]
    return Explanation(
        decision=decision,
        object=_object(event),
        losers=tuple(losers),
        suggestion=suggest(matcher, event, decision),
    )


def _why(entry: Entry, match: Match, decision: Decision) -> str:
    rule = entry.rule
    assert rule is not None
    if match is Match.EXCEPTED:
        return "excepted by its `except`"
    if match is Match.NO:
        keys = [key for key in ("paths", "commands", "hosts", "ports") if getattr(rule, key)]
        return f"no match in its {' and '.join(f'`{key}`' for key in keys)}"
    if rule.verdict == decision.verdict:
        return "it says the same, and stands further down"
    return f"{decision.verdict} is stronger than {rule.verdict}"


def _object(event: Event) -> str:
    if isinstance(event, ConnectEvent) and event.address is None and event.socket is None:
        return ", ".join(f"{name}:{event.port}" for name in sorted(event.names))
    return event.object


def suggest(matcher: Matcher, event: Event, decision: Decision) -> str | None:
    """Give the smallest change that would allow what was denied or asked; None if it is allowed.

    Args:
        matcher: Judged the event.
        event: What was judged.
        decision: What `Matcher.decide` said about it, or `Matcher.widens` about the rename it is part of.

    The text is unescaped: escape it before it goes to a terminal.
    """
    if decision.verdict == "allow":
        return None
    if decision.reason == PROTECTED:
        return "nothing does; Rampart's own files are out of reach under every policy"
    if decision != matcher.decide(event):
        return f"copy instead what may be read: under the new name {decision.where} would no longer hold"
    key, pattern = _pattern(matcher, event)
    if decision.rule is not None:
        rule = decision.rule
        where = f"rule {rule.name!r}" + (f" ({rule.place})" if rule.place else "")
        if pattern is None:
            return f"take {event.operation} out of {where}"
        try:
            fits = rule.kind == key
        except ValueError:
            fits = False
        change = f"add {_quoted(pattern)} to `except` of" if fits else f"narrow `{key}` of"
        source = matcher.policy.source or ""
        copy = f"in a copy of the {source.replace(':', ' ')}, " if source.startswith("profile:") else ""
        return f"{copy}{change} {where}{_further(matcher, event, decision, key, pattern)}"
    return _allowing(event, key, pattern)


def _further(matcher: Matcher, event: Event, decision: Decision, key: str, pattern: str) -> str:
    """Say what else is needed once the deciding rule is silent."""
    subject = matcher.subject(event)
    for entry in matcher.entries[event.operation]:
        if entry.rule is not decision.rule and entry.match(subject) is Match.YES:
            rule = entry.rule
            if rule is None or rule.verdict == "allow":
                return ""
            return f", and the same to rule {rule.name!r}, which says {rule.verdict}"
    if matcher.fallback(event).verdict == "allow":
        return ""
    return f"; and {_allowing(event, key, pattern)}"


def _allowing(event: Event, key: str, pattern: str | None) -> str:
    name = "write" if event.operation in WRITE else str(event.operation)
    if pattern is None:
        return f"allow {name} by a rule without `{key}`"
    rule = f"{{name: …, allow: {name}, {key}: [{_quoted(pattern)}]}}"
    if name == "write":
        return f"--allow-write {shlex.quote(pattern)}, or the rule {rule}"
    if name == "connect":
        return f"--allow-host {shlex.quote(pattern)}, or the rule {rule}"
    return f"the rule {rule}"


def _pattern(matcher: Matcher, event: Event) -> tuple[str, str | None]:
    """Give the key and the narrowest pattern that match an event; no pattern where none can be written."""
    if isinstance(event, FileEvent):
        return "paths", path_pattern(matcher, event.path)
    if isinstance(event, ExecEvent):
        if event.argv and all(b"*" not in argument and b"\0" not in argument for argument in event.argv):
            named = event.named if event.named is not None else event.path
            argv = [named, *event.argv[1:]]
            return "commands", shlex.join(os.fsdecode(argument) for argument in argv)
        return "paths", path_pattern(matcher, event.path)
    if isinstance(event, ConnectEvent):
        if event.socket is not None and not event.socket.startswith(b"@"):
            return "hosts", "unix:" + path_pattern(matcher, event.socket)
        if event.socket is not None:
            return "hosts", None if b"*" in event.socket else "unix:" + os.fsdecode(event.socket)
        host = min(event.names) if event.names else _bracketed(event.address)
        return "hosts", f"{host}:{event.port}"
    if isinstance(event, ListenEvent):
        return "ports", f"{_bracketed(event.address)}:{event.port}"
    return "paths", None


def _bracketed(address: object) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return f"[{str(address).partition('%')[0]}]"
    return str(address)


def path_pattern(matcher: Matcher, path: bytes) -> str:
    """Give the pattern that matches one path and nothing else, as a person would write it."""
    for root, anchor in ((matcher.directory, "./"), (matcher.home, "~/")):
        if path.startswith(root + b"/") and root != b"/":
            return anchor + _literal(path[len(root) + 1 :])
    return _literal(path)


def _literal(path: bytes) -> str:
    return re.sub(r"[*?\[{\\]", lambda match: f"[{match[0]}]", os.fsdecode(path))


def _quoted(pattern: str) -> str:
    return '"' + pattern.replace("\\", "\\\\").replace('"', '\\"') + '"'
