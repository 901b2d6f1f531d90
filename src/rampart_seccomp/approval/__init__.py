"""Asking people: the question, who can answer it, and text that is safe to show them."""

from rampart_seccomp.approval.escape import printable, shortened
from rampart_seccomp.approval.question import Approver, Question, headless_approver
from rampart_seccomp.approval.terminal import TerminalApprover, terminal_approver

__all__ = [
    "Approver",
    "Question",
    "TerminalApprover",
    "headless_approver",
    "printable",
    "shortened",
    "terminal_approver",
]
