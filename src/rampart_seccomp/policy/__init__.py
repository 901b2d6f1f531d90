"""Policies: what they are, how they are written, what they say."""

from rampart_seccomp.policy.builders import allow, ask, deny
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.environment import AnyEnvironment, Environment
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.policy.explanation import Explanation, explain, suggest
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.limits import Limits
from rampart_seccomp.policy.lint import Finding, check
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import PolicyTest, Rule
from rampart_seccomp.policy.stack import AnyMatcher, AnyPolicy, Stack, StackMatcher

__all__ = [
    "AnyEnvironment",
    "AnyMatcher",
    "AnyPolicy",
    "Decision",
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
    "Stack",
    "StackMatcher",
    "allow",
    "ask",
    "check",
    "deny",
    "explain",
    "suggest",
]
