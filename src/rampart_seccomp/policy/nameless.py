"""What is probably not meant where a policy speaks about memfds, which have no name but the kernel's word."""

from __future__ import annotations

from collections.abc import Iterator

from rampart_seccomp.events import Operation
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.policy.features import MEMFD_EXEC
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import Rule

__all__ = ["changes_nothing", "memfd_remarks"]

_PREFIX = "/memfd:"


def memfd_remarks(policy: Policy, rule: Rule) -> Iterator[tuple[str, str, str]]:
    """Give remarks on patterns of memfds that match none: severity, key and sentence."""
    if Operation.EXEC not in rule.operations:
        return
    given = [(f".paths[{index}]", text) for index, text in enumerate(rule.paths)]
    for index, entry in enumerate(rule.except_):
        if isinstance(entry, Exemption):
            given += [(f".except[{index}].paths[{place}]", text) for place, text in enumerate(entry.paths)]
        else:
            given.append((f".except[{index}]", entry))
    for key, text in given:
        if not text.startswith(_PREFIX):
            continue
        if MEMFD_EXEC not in policy.features:
            yield "warning", key, f"{text!r} matches nothing without `features: [{MEMFD_EXEC}]`"
        elif "/" in text[1:]:
            yield "warning", key, f"{text!r} matches nothing: for a '/' in the name of a memfd write ':'"


def changes_nothing(policy: Policy) -> str | None:
    """Say why it makes no difference that memfds may be executed; None if it does, or if they may not."""
    if MEMFD_EXEC not in policy.features or policy.default[Operation.EXEC] != "deny":
        return None
    # An allow by commands, or for some programs, is not looked at closer: what is reported is certain.
    if any(rule.verdict != "deny" and Operation.EXEC in rule.operations for rule in policy.effective):
        return None
    return f"`{MEMFD_EXEC}` changes nothing: no rule allows an exec, or asks about one"
