"""Policies: what they are, how they are written, what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rampart_seccomp.policy.builders import allow, ask, deny
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.environment import AnyEnvironment, Environment
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.limits import Limits
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import PolicyTest, Rule
from rampart_seccomp.policy.stack import AnyMatcher, AnyPolicy, Stack, StackMatcher

if TYPE_CHECKING:
    from rampart_seccomp.policy.analysis import Comparison, Difference, Setting, diff
    from rampart_seccomp.policy.explanation import Explanation, explain, suggest
    from rampart_seccomp.policy.lint import Finding, check

__all__ = [
    "AnyEnvironment",
    "AnyMatcher",
    "AnyPolicy",
    "Comparison",
    "Decision",
    "Difference",
    "Environment",
    "Exemption",
    "Explanation",
    "Finding",
    "Grant",
    "Limits",
    "Matcher",
    "Policy",
    "PolicyTest",
    "Rule",
    "Setting",
    "Stack",
    "StackMatcher",
    "allow",
    "ask",
    "check",
    "deny",
    "diff",
    "explain",
    "suggest",
]


def __getattr__(name: str) -> Any:
    """Import only for those who use it what no command needs to start."""
    if name in ("Explanation", "explain", "suggest"):
        from rampart_seccomp.policy import explanation

        return getattr(explanation, name)
    if name in ("Comparison", "Difference", "Setting", "diff"):
        from rampart_seccomp.policy import analysis

        return getattr(analysis, name)
    if name in ("Finding", "check"):
        from rampart_seccomp.policy import lint

        return getattr(lint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
