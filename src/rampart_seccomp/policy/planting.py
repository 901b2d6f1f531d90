"""A symbolic link gives everything beneath its target a second name, for whoever uses it outside of the tree.

What a program later creates beneath the target is judged by its real name. A link must therefore not stand
where names beneath it are watched (``.git`` with its ``hooks``) if it leads to where they may be created.
"""

from __future__ import annotations

from rampart_seccomp.events import Operation
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.globs import ANY, Tail
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.stack import AnyMatcher, StackMatcher

__all__ = ["plants"]

_ITSELF: Tail = ()


def plants(matcher: AnyMatcher, link: bytes, target: bytes) -> Decision | None:
    """Say which rule a link at ``link`` would let names slip past, if it leads to ``target``.

    A floating pattern (``./**/.env``) watches every directory alike and is no reason to refuse a link; a name
    that a pattern has come to with its last component is.

    Args:
        matcher: The policy; of a stack, no layer may be slipped past.
        link: Real absolute name of the link.
        target: Real absolute name of what it leads to, existing or not.

    Returns:
        None if nothing slips past, else a denial that carries the rule.
    """
    layers = matcher.layers if isinstance(matcher, StackMatcher) else (matcher,)
    return next((lost for layer in layers if (lost := _plants(layer, link, target)) is not None), None)


def _plants(matcher: Matcher, link: bytes, target: bytes) -> Decision | None:
    here, there = matcher.automaton.walk(link), matcher.automaton.walk(target)
    above = matcher.automaton.walk(link.rpartition(b"/")[0] or b"/")
    for operation in (Operation.CREATE, Operation.MODIFY):
        entries = matcher.entries[operation]
        creatable = matcher.default(operation).verdict == "allow" or any(
            entry.level == 0 and (not entry.conditions.paths or there.tails(entry.conditions.paths))
            for entry in entries
        )
        if not creatable:
            continue
        for entry in entries:
            slots = entry.conditions.paths
            if entry.level == 0 or not slots:
                continue
            watched = here.tails(slots) - above.tails(slots) - {_ITSELF, (ANY,)}
            if not watched <= there.tails(slots):
                return Decision(verdict="deny", operation=operation, rule=entry.rule, reason=entry.reason)
    return None
