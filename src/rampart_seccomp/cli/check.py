"""``rampart-seccomp check``: what is wrong, or probably not meant, in policy files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rampart_seccomp.approval.escape import printable
from rampart_seccomp.cli import Parser
from rampart_seccomp.errors import PolicyError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0; 1 if a file has errors or one of its tests fails.
    """
    parser = Parser("check", "Load policy files, run their tests, and look for rules that do nothing.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a policy file, or the name of a profile")
    files = parser.parse_args(argv).files
    # All of them, so that one run shows everything.
    return 1 if sum([_check(file) for file in files]) else 0


def _check(file: str) -> int:
    """Check one file, and return the number of its errors."""
    from rampart_seccomp.policy import Policy, lint

    try:
        policy = Policy.load(file)
    except PolicyError as error:
        _show(error.file or file, error.line, "error", _text(error))
        return 1
    except OSError as error:
        _show(file, None, "error", error.strerror or str(error))
        return 1
    findings = lint.check(policy)
    for finding in findings:
        text = f"{finding.key}: {finding.message}" if finding.key else finding.message
        _show(finding.file or file, finding.line, finding.severity, text)
    errors = sum(finding.severity == "error" for finding in findings)
    if not errors:
        print(f"{printable(os.fsencode(file))}: ok, {len(policy.rules)} rules, {len(policy.tests)} tests")
    return errors


def _text(error: PolicyError) -> str:
    text = f"{error.key}: {error.problem}" if error.key else error.problem
    return f"{text} ({error.hint})" if error.hint else text


def _show(file: str, line: int | None, severity: str, text: str) -> None:
    where = file if line is None else f"{file}:{line}"
    print(f"{printable(os.fsencode(where))}: {severity}: {printable(text)}")
