"""The policy that the options of a command line name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rampart_seccomp.policy import AnyPolicy, Rule

__all__ = ["load"]


def load(names: Sequence[str] | None, *, rules: Sequence[Rule] = (), grants: str | None = None) -> AnyPolicy:
    """Load what ``--policy`` names: several make a stack. What other options add amends the last one only.

    Args:
        names: Files or profiles; none: the profile agent.
        rules: What ``--allow-…`` adds.
        grants: An overrides file.

    Raises:
        PolicyError: One of the files cannot be read or is not valid.
    """
    from rampart_seccomp.policy import Grant, Policy

    *above, last = [Policy.load(name) for name in names or ["agent"]]
    if rules:
        last = last.with_rules(*rules)
    if grants is not None:
        last = last.with_grants(*Grant.load(grants))
    return Policy.stack(*above, last) if above else last
