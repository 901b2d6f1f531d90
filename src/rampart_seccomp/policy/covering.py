"""Which rules and patterns certainly match all that others do, as far as their texts show."""

from __future__ import annotations

from rampart_seccomp.policy.globs import ANY, SETS, Component, Glob, Wildcard, parse
from rampart_seccomp.policy.rules import CONDITIONS, Rule

__all__ = ["covers", "includes"]


def includes(large: Rule, small: Rule) -> bool:
    """Say whether the first rule certainly matches whatever the second does, operations aside."""
    if large.except_ and not (large.except_ == small.except_ and _conditions(large) == _conditions(small)):
        return False
    for key in CONDITIONS:
        if key == "paths":
            continue
        entries = getattr(large, key)
        if entries and not (getattr(small, key) and set(getattr(small, key)) <= set(entries)):
            return False
    if not large.paths:
        return True
    return bool(small.paths) and all(
        any(covers(parse(theirs), parse(ours)) for theirs in large.paths) for ours in small.paths
    )


def _conditions(rule: Rule) -> list[tuple[str, ...]]:
    return [getattr(rule, key) for key in CONDITIONS]


def covers(large: Glob, small: Glob) -> bool:
    """Say whether the first pattern certainly matches whatever the second does.

    It does if they are equal, or if it is a tree (``…/**``) whose beginning matches the other's beginning
    component by component.
    """
    if large.text == small.text or (large.anchor == "/" and large.components == (ANY,)):
        return True
    if large.anchor in SETS or large.anchor != small.anchor or not large.components:
        return large.anchor == "@project" and small.anchor == "./"
    *beginning, last = large.components
    if last != ANY or len(beginning) > len(small.components):
        return False
    return all(
        _covers_component(ours, theirs) for ours, theirs in zip(beginning, small.components, strict=False)
    )


def _covers_component(large: Component, small: Component) -> bool:
    if large == ANY or small == ANY:
        return False
    if isinstance(large, Wildcard):
        return (
            large == small
            or large.text == b"*"
            or (isinstance(small, bytes) and bool(large.regex.match(small)))
        )
    return large == small
