"""Rules that never decide, whatever happens: stricter rules and grants together cover all they match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rampart_seccomp.events import FileEvent, Operation
from rampart_seccomp.policy.analysis.exploring import explore
from rampart_seccomp.policy.analysis.witnesses import Witnesses
from rampart_seccomp.policy.analysis.words import NAMES, TooLarge
from rampart_seccomp.policy.anchors import Anchors
from rampart_seccomp.policy.conditions import Entry, Match
from rampart_seccomp.policy.globs import Tail, parse
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS

__all__ = ["Reach"]

_DEEP = b"/\xff" * 12
"""A directory that no pattern is likely to name, deeper than most patterns."""

PLACES = (
    (b"/\xffh", b"/\xffd"),
    (b"/\xffh" + _DEEP, b"/\xffd" + _DEEP),
    (b"/\xffh", b"/\xffh/\xffd"),
    (b"/\xffd/\xffh", b"/\xffd"),
)
"""Homes and launch directories: apart, and one within the other. What a rule does depends on them, and a file
is to be judged alike everywhere, so a rule must never decide at any of them."""

_TEMPORARY = b"/\xfft"
"""$TMPDIR, which is no directory that a pattern names either."""

PLACES_MAX = 64
"""Places for one rule, after which it is too large."""

RULES_MAX = 200
"""Rules that are looked at closely, after which the others are too many."""


class Reach:
    """Finds what covers rules.

    Args:
        rules: The rules that may cover others.
        grants: The grants that may.
    """

    def __init__(self, rules: Sequence[Rule], grants: Sequence[Grant] = ()) -> None:
        self._rules = tuple(rules)
        self._grants = tuple(grants)
        self._all: Matcher | None = None
        self._looked = 0

    def covering(self, rule: Rule) -> list[Rule | Grant] | None:
        """Give what decides about everything that a rule matches, instead of the rule.

        Args:
            rule: One of the rules.

        Returns:
            None if the rule decides about something; nothing in the list if it matches nothing.

        Raises:
            TooLarge: There is too much to try out.
        """
        found: dict[int, Rule | Grant] = {}
        for operation in Operation:
            if operation not in rule.operations:
                continue
            # A grant answers questions, and leaves alone what is allowed anyhow.
            answers = [each for each in self._grants if each.operation is operation and rule.verdict == "ask"]
            if operation in FILE_OPERATIONS and self._decides_first(rule, operation):
                return None
            self._looked += 1
            if self._looked > RULES_MAX:
                raise TooLarge(f"more than {RULES_MAX} rules that others may cover")
            above = [each for each in self._rules if _is_above(each, rule, operation)]
            if not above and not answers:
                return None
            covering = self._covering(rule, operation, above, answers)
            if covering is None:
                return None
            found.update((id(each), each) for each in covering)
        return list(found.values())

    def _decides_first(self, rule: Rule, operation: Operation) -> bool:
        """Say whether it decides about the shortest path that it matches: most rules do."""
        if not rule.paths or rule.programs or rule.within:
            return False
        if self._all is None:
            policy = Policy(rules=self._rules, grants=self._grants)
            self._all = Matcher(policy, anchors=_anchors(*PLACES[0]))
        tails = (tail for text in rule.paths for tail in _anchors(*PLACES[0]).bind(parse(text), strict=True))
        for mask, names in explore(((tail, 1) for tail in tails), NAMES):
            if mask:
                event = FileEvent(operation=operation, path=b"/" + b"/".join(names))
                decision = self._all.decide(event)
                return decision.rule is rule or (decision.verdict != "deny" and decision.redirecting is rule)
        return False

    def _covering(
        self, rule: Rule, operation: Operation, above: Sequence[Rule], grants: Sequence[Grant]
    ) -> list[Rule | Grant] | None:
        """Give what covers a rule for one operation; None if nothing does somewhere."""
        policy = Policy(rules=[*above, rule], grants=grants)
        places = _places(above, rule)
        if len(places) > PLACES_MAX:
            raise TooLarge(f"more than {PLACES_MAX} places that its exceptions name")
        found: dict[int, Rule | Grant] = {}
        for home, directory in places:
            matcher = Matcher(policy, anchors=_anchors(home, directory))
            entry = next(each for each in matcher.entries[operation] if each.rule is rule)
            for instead in _instead(matcher, entry, operation):
                if instead is None:
                    return None
                found[id(instead)] = instead
        return list(found.values())


def _anchors(home: bytes, directory: bytes) -> Anchors:
    return Anchors(home, directory, _TEMPORARY, links=False)


def _is_above(other: Rule, rule: Rule, operation: Operation) -> bool:
    return operation in other.operations and VERDICTS.index(other.verdict) > rule.level


def _instead(matcher: Matcher, entry: Entry, operation: Operation) -> Iterator[Rule | Grant | None]:
    """Give what decides where a rule matches; None if it is the rule itself."""
    for event in Witnesses([matcher]).events(operation, about=frozenset({entry})):
        if entry.match(matcher.subject(event)) is Match.YES:
            decision = matcher.decide(event)
            speaks = entry.rule in (
                decision.rule,
                None if decision.verdict == "deny" else decision.redirecting,
            )
            yield decision.grant or (None if speaks else decision.rule)


def _places(above: Sequence[Rule], rule: Rule) -> list[tuple[bytes, bytes]]:
    """Give homes and launch directories that tell everything apart: some that nothing names, and those named.

    An absolute pattern may, on some machine, name what lies in the home. That matters where it lets through
    what a pattern of the home covers: where it is an exception.
    """
    named = {
        _beginning(parse(text).components)
        for each in above
        for given in each.excepted
        for text in (*given.paths, *given.programs)
        if parse(text).anchor == "/"
    }
    apart, _ = PLACES[0]
    return [*PLACES, *((each, apart) for each in sorted(named)), *((apart, each) for each in sorted(named))]


def _beginning(components: Tail) -> bytes:
    literal: list[bytes] = []
    for name in components:
        if not isinstance(name, bytes):
            break
        literal.append(name)
    return b"/" + b"/".join(literal)
