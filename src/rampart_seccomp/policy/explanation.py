"""Why a policy says what it says, and the smallest change that would make it allow."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Iterator

import attrs

from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent, ListenEvent
from rampart_seccomp.policy.conditions import Entry, Match, Subject
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.features import MEMFD_EXEC
from rampart_seccomp.policy.matcher import NAMELESS, PLANTED, PROTECTED, RESOLVING, Matcher
from rampart_seccomp.policy.rules import CONDITIONS, KINDS, Rule
from rampart_seccomp.policy.stack import AnyMatcher, StackMatcher
from rampart_seccomp.policy.terms import WRITE
from rampart_seccomp.verdicts import Redirect

__all__ = ["Explanation", "Loser", "explain", "suggest"]


@attrs.frozen
class Loser:
    """A rule on the same operation that did not decide.

    Attributes:
        name: Its name.
        place: ``file:line``; None if it was made in Python.
        verdict: What it would have said.
        why: Why it did not decide.
        matches: False if it is not about this object at all.
    """

    name: str
    place: str | None
    verdict: str
    why: str
    matches: bool = True


@attrs.frozen(kw_only=True)
class Explanation:
    """The answer to "why?". Its text is unescaped: escape it before it goes to a terminal.

    Attributes:
        decision: What was decided.
        object: What was judged, in words.
        losers: The other rules on this operation; those that match come first.
        suggestion: The smallest change that would flip it: allow what is denied or asked, deny what is
            allowed.
    """

    decision: Decision
    object: str
    losers: tuple[Loser, ...]
    suggestion: str

    @property
    def flip(self) -> str:
        """What the suggestion is for: ``to allow it`` or ``to deny it``."""
        return "to deny it" if self.decision.verdict == "allow" else "to allow it"

    @property
    def shown(self) -> str | None:
        """What a program sees or reaches instead, and which rule says so; None: what it asks for."""
        rule = self.decision.redirecting
        if rule is None or rule.redirect is None or self.decision.verdict == "deny":
            return None
        place = f" ({os.path.basename(rule.place)})" if rule.place else ""
        return f"{_substitute(rule.redirect)}, by {rule.name}{place}"

    @property
    def effect(self) -> str:
        """What becomes of what is `shown`, in a word: ``shown`` or ``reached``."""
        redirect = self.decision.redirect
        return "shown" if redirect is None else redirect.effect

    def __str__(self) -> str:
        decision = self.decision
        lines = [f"{decision.verdict}: {decision.operation} {self.object}", f"  decided by {decision.where}"]
        if decision.rule is not None and decision.rule.reason:
            lines.append(f"  reason: {decision.rule.reason}")
        if decision.message:
            lines.append(f"  message: {decision.message}")
        if self.shown is not None:
            lines.append(f"  {self.effect}: {self.shown}")
        for loser in self.losers:
            place = f" ({os.path.basename(loser.place)})" if loser.place else ""
            lines.append(f"  not by {loser.name}{place}, which says {loser.verdict}: {loser.why}")
        lines.append(f"  {self.flip}: {self.suggestion}")
        return "\n".join(lines)


def explain(matcher: AnyMatcher, event: Event) -> Explanation:
    """Say which rule decides about an event, why the others do not, and what would flip the decision.

    Raises:
        TypeError, ValueError: As `Matcher.decide`.
    """
    decision = matcher.decide(event)
    if isinstance(matcher, StackMatcher):
        losers = [
            *_losers(matcher.layers[decision.layer], event),
            *(
                _layer(layer, event, decision)
                for index, layer in enumerate(matcher.layers)
                if index != decision.layer
            ),
        ]
    else:
        losers = _losers(matcher, event)
    suggestion = suggest(matcher, event, decision)
    return Explanation(
        decision=decision,
        object=event.object,
        losers=tuple(losers),
        suggestion=_denying(matcher, event, decision) if suggestion is None else suggestion,
    )


def _losers(matcher: Matcher, event: Event) -> list[Loser]:
    decision = matcher.decide(event)
    subject = matcher.subject(event)
    judged = [(entry, entry.match(subject)) for entry in matcher.entries[event.operation]]
    order = (Match.YES, Match.EXCEPTED, Match.NO)
    found = [
        Loser(
            entry.rule.name,
            entry.rule.place,
            entry.rule.verdict,
            _why(entry, match, decision, subject),
            match is not Match.NO,
        )
        for entry, match in sorted(judged, key=lambda pair: order.index(pair[1]))
        if entry.rule is not None and entry.rule is not decision.rule
    ]
    grant = matcher.grant(event)
    if grant is not None and decision.grant is None:
        place = None if grant.file is None else f"{grant.file}:{grant.line}"
        why = "a grant answers questions, and no deny" if decision.verdict == "deny" else "a rule allows it"
        found.insert(0, Loser("grant", place, "allow", why))
    return found


def _substitute(redirect: Redirect) -> str:
    if redirect.destination is not None:
        return f"{redirect.to} instead"
    if redirect.to is not None:
        return f"the file {redirect.to} instead"
    return "*** in place of its values" if redirect.mask is not None else "other content"


def _layer(layer: Matcher, event: Event, decision: Decision) -> Loser:
    """Say what a layer of a stack says that did not decide."""
    said = layer.decide(event)
    if said.verdict == decision.verdict:
        why = "asks too, on its own account" if said.verdict == "ask" else "this layer says the same"
    else:
        why = f"{decision.verdict} of another layer is stronger than {said.verdict}"
    if said.rule is not None:
        return Loser(said.rule.name, said.rule.place, said.verdict, why)
    where = said.where if layer.policy.source is None else f"{said.where} ({layer.policy.source})"
    return Loser(where, None, said.verdict, why)


def _why(entry: Entry, match: Match, decision: Decision, subject: Subject) -> str:
    rule = entry.rule
    assert rule is not None
    if match is Match.EXCEPTED:
        return "excepted by its `except`"
    if match is Match.NO:
        if entry.conditions.match(subject, strict=entry.strict):
            return " and ".join(_actor(entry, subject))
        keys = [key for key in KINDS if getattr(rule, key)]
        return f"no match in its {' and '.join(f'`{key}`' for key in keys)}"
    if rule is decision.redirecting and decision.verdict != "deny":
        return f"it says what is {'shown' if rule.redirect is None else rule.redirect.effect}"
    if decision.grant is not None:
        return "answered by the grant" if rule.verdict == "ask" else "the grant is stronger"
    if rule.verdict == decision.verdict:
        return "it says the same, and stands further down"
    return f"{decision.verdict} is stronger than {rule.verdict}"


def _actor(entry: Entry, subject: Subject) -> Iterator[str]:
    """Say which conditions on variables and on who acts do not hold."""
    assert entry.rule is not None
    unmet = list(entry.conditions.unmet(subject, strict=entry.strict))
    if "env" in unmet:
        yield "no variable of its `env` changes"
    if not subject.lineage:
        if unmet != ["env"]:
            yield "the program is not known"
        return
    acting = subject.lineage[0]
    if "programs" in unmet:
        same = acting.mask & entry.conditions.programs
        yield "the program was started with variables that plant code" if same else "another program"
    if "within" in unmet:
        yield f"not within {' or '.join(entry.rule.within)}"


def suggest(matcher: AnyMatcher, event: Event, decision: Decision) -> str | None:
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
    if decision.reason == PLANTED:
        return "nothing does; run the harness from an environment that the command need not change"
    if decision.reason == RESOLVING:
        return "nothing does, as long as some rule is about a host name: the broker asks whom this file names"
    if decision != matcher.decide(event):
        return f"copy instead what may be read: under the new name {decision.where} would no longer hold"
    if isinstance(matcher, Matcher):
        return _suggest(matcher, event, decision)
    changes = []
    for layer in matcher.layers:
        said = layer.decide(event)
        if said.verdict != "allow":
            # Options of the command line amend the last layer only.
            change = _suggest(layer, event, said, options=layer is matcher.layers[-1])
            changes.append(f"in {layer.policy.source or 'its layer'}: {change}")
    return "; and ".join(changes)


def _suggest(matcher: Matcher, event: Event, decision: Decision, *, options: bool = True) -> str:
    if decision.reason == NAMELESS:
        return f"say `features: [{MEMFD_EXEC}]`: then the rules decide"
    key, pattern = _pattern(matcher, event)
    if decision.rule is None:
        nearly = _nearly(matcher, event)
        allowing = _allowing(event, key, pattern, options)
        return allowing if nearly is None else f"{nearly}, or {allowing}"
    rule = decision.rule
    place = f"rule {rule.name!r}" + (f" ({rule.place})" if rule.place else "")
    if pattern is None:
        return f"take {event.operation} out of {place}"
    exception = _exception(matcher, event, rule, key, pattern)
    profile, colon, name = (matcher.policy.source or "").partition(":")
    own = rule.file in (None, matcher.policy.source)
    if own and exception is not None:
        change = f"add {exception} to `except` of {place}"
    elif own:
        change = f"narrow `{key}` of {place}"
    else:
        amendment = f"without: [{_word(rule.name)}]"
        if exception is not None:
            amendment = f"except: {{{_word(rule.name)}: [{exception}]}}"
        if colon and profile == "profile":
            change = f"write a policy that says extends: [{{profile: {name}, {amendment}}}]"
        else:
            change = f"amend {place} in `extends` by {amendment}"
    return f"{change}{_further(matcher, event, decision, key, pattern, options)}"


def _exception(matcher: Matcher, event: Event, rule: Rule, key: str, pattern: str) -> str | None:
    """Give the entry of ``except`` that makes a rule silent about an event; None if none can be written.

    Where the rule, or an exception of it, asks which program acts, the entry is for the acting one only.
    """
    if not rule.operations <= CONDITIONS[key][0]:
        return None
    given = [f"{key}: [{_quoted(pattern)}]"]
    lineage = matcher.subject(event).lineage
    if (
        lineage
        and lineage[0].program.clean
        and (rule.programs or any(each.programs for each in rule.excepted))
    ):
        given.append(f"programs: [{_quoted(path_pattern(matcher, lineage[0].program.path))}]")
    try:
        plain = rule.kind == key and len(given) == 1
    except ValueError:
        plain = False
    return _quoted(pattern) if plain else "{" + ", ".join(given) + "}"


def _nearly(matcher: Matcher, event: Event) -> str | None:
    """Give the program to add to a rule that would allow it to others; None if there is no such rule."""
    subject = matcher.subject(event)
    if not subject.lineage or not subject.lineage[0].program.clean:
        return None
    for entry in matcher.entries[event.operation]:
        rule, given = entry.rule, entry.conditions
        if rule is None or entry.strict or rule.file not in (None, matcher.policy.source):
            continue
        silent = any(each.hold(subject, strict=True) for each in entry.excepts)
        if silent or not given.match(subject, strict=False):
            continue
        if list(given.unmet(subject, strict=False)) == ["programs"]:
            pattern = _quoted(path_pattern(matcher, subject.lineage[0].program.path))
            place = f" ({rule.place})" if rule.place else ""
            return f"add {pattern} to `programs` of rule {rule.name!r}{place}"
    return None


def _denying(matcher: AnyMatcher, event: Event, decision: Decision) -> str:
    """Give the rule that would deny what is allowed."""
    bound = matcher if isinstance(matcher, Matcher) else matcher.layers[-1]
    key, pattern = _pattern(bound, event)
    name = "write" if event.operation in WRITE else str(event.operation)
    rule = f"the rule {{name: …, deny: {name}" + (f", {key}: [{_quoted(pattern)}]}}" if pattern else "}")
    return f"take the {decision.grant.where} out, or {rule}" if decision.grant is not None else rule


def _word(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", text, re.ASCII) else _quoted(text)


def _further(
    matcher: Matcher, event: Event, decision: Decision, key: str, pattern: str, options: bool
) -> str:
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
    return f"; and {_allowing(event, key, pattern, options)}"


def _allowing(event: Event, key: str, pattern: str | None, options: bool) -> str:
    name = "write" if event.operation in WRITE else str(event.operation)
    if pattern is None:
        return f"allow {name} by a rule without `{key}`"
    rule = f"the rule {{name: …, allow: {name}, {key}: [{_quoted(pattern)}]}}"
    option = {"read": "--allow-read", "write": "--allow-write", "connect": "--allow-host"}.get(name)
    return f"{option} {shlex.quote(pattern)}, or {rule}" if options and option else rule


def _pattern(matcher: Matcher, event: Event) -> tuple[str, str | None]:
    """Give the key and the narrowest pattern that match an event; no pattern where none can be written."""
    if isinstance(event, FileEvent):
        return "paths", path_pattern(matcher, event.path)
    if isinstance(event, ExecEvent):
        if (
            event.linked
            and event.argv
            and all(b"*" not in argument and b"\0" not in argument for argument in event.argv)
        ):
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
