"""Policies: what they are, how they are written, what they say."""

from rampart_seccomp.policy.builders import allow, ask, deny
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.model import Decision, Policy, PolicyTest, Rule

__all__ = [
    "Decision",
    "Matcher",
    "Policy",
    "PolicyTest",
    "Rule",
    "allow",
    "ask",
    "deny",
]
