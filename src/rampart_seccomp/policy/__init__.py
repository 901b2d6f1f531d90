"""Policies: what they are, how they are written, what they say."""

from rampart_seccomp.policy.builders import allow, ask, deny
from rampart_seccomp.policy.explanation import Explanation, explain, suggest
from rampart_seccomp.policy.lint import Finding, check
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.model import Decision, Policy, PolicyTest, Rule

__all__ = [
    "Decision",
    "Explanation",
    "Finding",
    "Matcher",
    "Policy",
    "PolicyTest",
    "Rule",
    "allow",
    "ask",
    "check",
    "deny",
    "explain",
    "suggest",
]
