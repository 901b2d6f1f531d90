"""Exact questions about whole policies, answered beforehand: what differs, what never decides (`reaching`).

They are answered by trying out events that stand for all others (`witnesses`), on the reference matcher.
"""

from rampart_seccomp.policy.analysis.comparing import Comparison, Difference, Setting, diff

__all__ = ["Comparison", "Difference", "Setting", "diff"]
