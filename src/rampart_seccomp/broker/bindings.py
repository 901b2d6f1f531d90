"""Policies bound to places, kept for the next command that is launched from there."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import attrs

from rampart_seccomp.policy import AnyMatcher, AnyPolicy, Rule

__all__ = ["Bindings"]

_KEPT = 8


@attrs.frozen(eq=False, repr=False)
class _Bound:
    policy: AnyPolicy
    rules: tuple[Rule, ...]
    place: tuple[Any, ...]
    matcher: AnyMatcher


class Bindings:
    """Binds policies as `Policy.matcher` does, and remembers the latest.

    What is remembered counts as long as it would be the same if it were made again: the policy is the same
    object with the same rules (`Policy.on` adds some), and the symbolic links on the way of its patterns are
    what they were.
    """

    def __init__(self) -> None:
        self._kept: deque[_Bound] = deque(maxlen=_KEPT)

    def matcher(self, policy: AnyPolicy, *, verified: bool, **place: Any) -> AnyMatcher:
        """Bind a policy.

        Args:
            policy: The policy.
            verified: False: what is remembered is given without a look at the links. It must not decide
                anything before this was called again with True, and then only if it is still given.
            place: As for `Policy.matcher`, hashable.
        """
        rules = policy.effective
        where = (*sorted(place.items()), os.environb.get(b"TMPDIR"))
        for bound in self._kept:
            same = bound.policy is policy and bound.place == where and bound.rules == rules
            if same and (not verified or bound.matcher.stands):
                return bound.matcher
        made = policy.matcher(**place)
        self._kept.appendleft(_Bound(policy, rules, where, made))
        return made
