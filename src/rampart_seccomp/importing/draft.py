"""A policy in the making: rules with the entries they come from, and what could not be said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from rampart_seccomp.approval.escape import printable, shortened
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import Policy, Rule, check

__all__ = ["Draft", "Entry", "Imported", "Loss", "Pointless", "Proposal", "Untranslatable"]

NAME_LENGTH = 40
MAX_RULES = 1000


class Untranslatable(Exception):
    """A pattern cannot be said, or enforced, here. Its text says why, without a full stop."""


class Pointless(Untranslatable):
    """A pattern matches nothing on this system, so that nothing is lost with it."""


@attrs.frozen
class Entry:
    """One entry of the source.

    Attributes:
        key: Key path in the source, such as ``permissions.deny[3]``.
        line: Line in the source, from 1.
        verdict: ``allow``, ``ask`` or ``deny``.
        text: What it says, as written.
    """

    key: str
    line: int
    verdict: str
    text: str

    def __str__(self) -> str:
        return f"{self.key} (line {self.line}): {self.verdict} {printable(shortened(self.text, 160))}"


@attrs.frozen
class Loss:
    """Something of the source that the policy does not say.

    Attributes:
        entry: Where it stands.
        reason: Why it is lost.
        part: The pattern of the entry that is lost; None for all of it.
    """

    entry: Entry
    reason: str
    part: str | None = None

    @property
    def open(self) -> bool:
        """True if something that was denied or asked about is not, as far as this entry goes."""
        return self.entry.verdict != "allow"


@attrs.frozen
class Proposal:
    """A rule, and the entry that it translates; None for one that programs need in order to run at all."""

    rule: Rule
    entry: Entry | None
    notes: tuple[str, ...] = ()


@attrs.frozen
class Imported:
    """A translated permission list.

    Attributes:
        title: Name of the source's format.
        file: Name of the source.
        policy: The policy.
        proposals: Its rules with their entries, in the same order.
        losses: What it does not say.
        remarks: What a reader must know about the whole.
    """

    title: str
    file: str
    policy: Policy
    proposals: tuple[Proposal, ...]
    losses: tuple[Loss, ...]
    remarks: tuple[str, ...]

    @property
    def not_enforced(self) -> tuple[Loss, ...]:
        """Entries that denied or asked, and of which something is lost."""
        return tuple(loss for loss in self.losses if loss.open)


@attrs.define
class Draft:
    """Collects rules, losses and remarks; used by the translators."""

    file: str
    default: dict[str, str] = attrs.Factory(dict)
    proposals: list[Proposal] = attrs.Factory(list)
    losses: list[Loss] = attrs.Factory(list)
    remarks: list[str] = attrs.Factory(list)
    _names: set[str] = attrs.Factory(set)

    def lose(self, entry: Entry, reason: str, part: str | None = None) -> None:
        """Record that an entry, or one pattern of it, is not translated."""
        loss = Loss(entry, reason, part)
        if loss not in self.losses:
            self.losses.append(loss)

    def remark(self, text: str) -> None:
        """Record, once, something about the whole."""
        if text not in self.remarks:
            self.remarks.append(text)

    def add(
        self,
        entry: Entry | None,
        verdict: str,
        operations: Sequence[str],
        *,
        name: str,
        key: str | None = None,
        patterns: Iterable[str] = (),
        except_: Iterable[str] = (),
        notes: Iterable[str] = (),
        **fields: Any,
    ) -> bool:
        """Add a rule. Patterns that the policy language refuses are losses of the entry.

        Args:
            entry: What it translates.
            verdict: ``allow``, ``ask`` or ``deny``.
            operations: What it speaks about.
            name: Any text; a unique name is made of it.
            key: ``paths``, ``commands`` or ``hosts``; None for a rule about whole operations.
            patterns: Entries of that key.
            except_: Patterns the rule is silent about. Those that are refused are dropped from a rule that
                restricts; they void one that allows.
            notes: Comments for the rule.
            fields: Other fields of the rule.

        Returns:
            False if nothing of it remained.
        """
        notes = list(notes)
        good: list[str] = []
        for pattern in dict.fromkeys(patterns):
            problem = self._problem(verdict, operations, key, pattern)
            if problem is None:
                good.append(pattern)
            elif entry is not None:
                self.lose(entry, problem, pattern)
        if key is not None and not good:
            return False
        silent: list[str] = []
        for pattern in dict.fromkeys(except_):
            problem = self._problem(verdict, operations, key, pattern)
            if problem is None:
                silent.append(pattern)
            elif verdict == "allow" and entry is not None:
                self.lose(entry, f"its exception cannot be said: {problem}", pattern)
                return False
            else:
                notes.append(f"stricter than it was: the exception {pattern!r} cannot be said ({problem})")
        if key is not None:
            fields[key] = good
        rule = Rule(name=self._name(name), verdict=verdict, operations=operations, except_=silent, **fields)
        self.proposals.append(Proposal(rule, entry, tuple(notes)))
        return True

    def finish(self, title: str) -> Imported:
        """Make the policy, without the rules that could never decide (such a policy does not load).

        Raises:
            PolicyError: It has more than `MAX_RULES` rules.
        """
        if len(self.proposals) > MAX_RULES:
            raise PolicyError(
                f"it translates to more than {MAX_RULES} rules", file=self.file, hint="split it"
            )
        proposals = list(self.proposals)
        while True:
            policy = Policy(rules=[proposal.rule for proposal in proposals], default=self.default)
            idle = {
                int(index): finding.message
                for finding in check(policy)
                if finding.severity == "error"
                for index in re.findall(r"^rules\[(\d+)\]", finding.key or "")
            }
            if not idle:
                break
            for index, message in idle.items():
                proposal = proposals[index]
                reason = message.partition(" is unreachable: ")[2] or message
                subject = proposal.rule.name if proposal.entry is None else str(proposal.entry)
                self.remark(f"left out, since it never decides: {subject}: {reason}")
            proposals = [each for index, each in enumerate(proposals) if index not in idle]
        if any(
            rule.verdict == "allow" and not command.startswith(("/", "~/", "./"))
            for rule in policy.rules
            for command in rule.commands
        ):
            self.remark(
                "an allowed command is known by its base name, so a program of that name which the agent "
                "made may start as well; its effects are judged: write absolute paths where that matters"
            )
        return Imported(title, self.file, policy, tuple(proposals), tuple(self.losses), tuple(self.remarks))

    @staticmethod
    def _problem(verdict: str, operations: Sequence[str], key: str | None, pattern: str) -> str | None:
        matcher: dict[str, Any] = {key or "paths": [pattern]}
        try:
            Rule(name="-", verdict=verdict, operations=operations, **matcher)
        except PolicyError as error:
            problem = error.problem.removesuffix(", in rule '-'")
            return f"{problem} ({error.hint})" if error.hint else problem
        return None

    def _name(self, text: str) -> str:
        words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
        stem = words[:NAME_LENGTH].rstrip("-") or "rule"
        name, number = stem, 2
        while name in self._names:
            name, number = f"{stem}-{number}", number + 1
        self._names.add(name)
        return name
