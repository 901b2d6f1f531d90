"""Rules that never decide, and what decides instead: the errors of `check`, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rampart_seccomp.events import Operation
from rampart_seccomp.policy.covering import includes
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.terms import VERDICTS

if TYPE_CHECKING:
    from rampart_seccomp.policy.analysis.reaching import Reach

__all__ = ["Unreachable"]


class Unreachable:
    """Finds the rules of a policy that can never decide.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._reaches: dict[object, Reach] = {}
        self._levels: dict[tuple[object, Operation], int] = {}

    def in_its_file(self, rule: Rule) -> str | None:
        """Say what decides instead of a rule, if that is in its own file; what is not certain is not said."""
        return next((text for known, text in self._within(rule, rule.file) if known), None)

    def remarks(self, rule: Rule) -> Iterator[tuple[str, str]]:
        """Give what is to be said: an error, or a warning if rules of other files are needed for that."""
        own = self.in_its_file(rule)
        if own is not None:
            yield "error", own
            return
        files = {each.file for each in self._policy.rules} | {each.file for each in self._policy.grants}
        yield from (("warning", text) for _, text in self._within(rule, *files))

    def _within(self, rule: Rule, *files: str | None) -> Iterator[tuple[bool, str]]:
        """Say what decides instead of a rule in some files: whether that is certain, and a sentence."""
        key = frozenset(files)
        if not all(self._may_be_covered(rule, operation, key) for operation in rule.operations):
            return
        # Imported here: it needs the matcher, and few files have such a rule.
        from rampart_seccomp.policy.analysis.reaching import Reach
        from rampart_seccomp.policy.analysis.words import TooLarge

        rules = [each for each in self._policy.rules if each.file in key]
        if key not in self._reaches:
            grants = [each for each in self._policy.grants if each.file in key]
            self._reaches[key] = Reach(rules, grants)
        unknown, names = "", set[str]()
        try:
            covering = self._reaches[key].covering(rule)
            if covering is None:
                return
            names = {each.where if isinstance(each, Grant) else repr(each.name) for each in covering}
        except TooLarge as error:
            unknown = str(error)
        hiding = [_hiding(rules, rule, operation) for operation in Operation if operation in rule.operations]
        if all(hiding):
            names = {repr(each.name) for each in hiding if each is not None}
        if names:
            shown = ", ".join(sorted(names))
            yield True, f"the rule {rule.name!r} is unreachable: {shown} always decides first"
        elif unknown:
            yield False, f"whether the rule {rule.name!r} is reachable is not known: there are {unknown}"

    def _may_be_covered(self, rule: Rule, operation: Operation, files: frozenset[str | None]) -> bool:
        """Say whether there is something in these files that is stronger than a rule."""
        if rule.verdict == "ask" and any(
            each.operation is operation and each.file in files for each in self._policy.grants
        ):
            return True
        key = (files, operation)
        if key not in self._levels:
            self._levels[key] = max(
                VERDICTS.index(each.verdict)
                for each in self._policy.rules
                if operation in each.operations and each.file in files
            )
        return self._levels[key] > rule.level


def _hiding(rules: Sequence[Rule], rule: Rule, operation: Operation) -> Rule | None:
    """Give a single stricter rule that matches whatever the rule does for this operation, or None."""
    for other in rules:
        if (
            VERDICTS.index(other.verdict) > rule.level
            and operation in other.operations
            and includes(other, rule)
        ):
            return other
    return None
