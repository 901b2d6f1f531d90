"""What a policy says about one event."""

from __future__ import annotations

import errno as errno_names
import os

import attrs

from rampart_seccomp.events import Operation
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.verdicts import Redirect

__all__ = ["Decision"]


@attrs.frozen(kw_only=True)
class Decision:
    """What a policy says about one event.

    Attributes:
        verdict: ``allow``, ``ask`` or ``deny``.
        operation: What was judged.
        rule: The rule that decided; None for a grant, a default and for what is built in.
        reason: ``rule``, ``grant``, ``default`` or ``built-in: …``.
        grant: The grant that decided.
        layer: In a stack, the place of the layer that said so, from 0.
        source: In a stack, where that layer was loaded from.
        others: In a stack, what other layers say that is no allow either. If the verdict is ask, then each of
            these asks, too, and needs an answer of its own.
        redirecting: The rule that says what is shown, or reached, if this comes to be allowed; None: what was
            asked for.
    """

    verdict: str
    operation: Operation
    rule: Rule | None = None
    reason: str = "rule"
    grant: Grant | None = None
    layer: int = 0
    source: str | None = None
    others: tuple[Decision, ...] = ()
    redirecting: Rule | None = None

    @property
    def redirect(self) -> Redirect | None:
        """What is shown, or reached, instead, if this comes to be allowed; None: what was asked for."""
        return None if self.redirecting is None else self.redirecting.redirect

    @property
    def errno(self) -> int:
        """The error that a denial gives: the rule's, else ECONNREFUSED for connect, else EACCES."""
        if self.rule is not None and self.rule.errno is not None:
            return self.rule.errno
        return errno_names.ECONNREFUSED if self.operation is Operation.CONNECT else errno_names.EACCES

    @property
    def message(self) -> str | None:
        """What the rule wants said to people."""
        return None if self.rule is None else self.rule.message

    @property
    def where(self) -> str:
        """Where it is written: ``credentials (agent.yaml:12)``, ``default read: deny``, ``built-in: …``."""
        if self.rule is not None:
            place = self.rule.place
            return f"{self.rule.name} ({os.path.basename(place)})" if place else self.rule.name
        if self.grant is not None:
            return self.grant.where
        if self.reason != "default":
            return self.reason
        layer = f" ({os.path.basename(self.source)})" if self.source else ""
        return f"default {self.operation}: {self.verdict}{layer}"
