"""What the filter of a tree has to hold for a policy, and whether a running tree's does."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from rampart_seccomp.errors import NotEnforceable, PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.kernel.syscalls import FREEING
from rampart_seccomp.kernel.traps import Traps
from rampart_seccomp.policy import AnyPolicy
from rampart_seccomp.policy.features import FEATURES
from rampart_seccomp.policy.terms import to_operations

__all__ = ["Prospect", "ensure_enforceable", "traps_for", "wants_no_reads"]

_LACKING = {
    Operation.READ: "extended attributes are read without asking",
    Operation.CREATE: "the kernel may write core dumps",
}


@attrs.frozen(eq=False, repr=False)
class Prospect:
    """What policies to come may restrict, beyond the one in force.

    Attributes:
        operations: They may restrict these.
        features: They may lack these.
    """

    operations: frozenset[Operation] = frozenset()
    features: frozenset[str] = frozenset()

    @classmethod
    def read(cls, names: str | Iterable[str]) -> Prospect:
        """Make one of the names of operations and features; ``write`` stands for four operations.

        Raises:
            PolicyError: A name is neither.
        """
        given = {names} if isinstance(names, str) else set(names)
        features = frozenset(given.intersection(FEATURES))
        operations: frozenset[Operation] = frozenset()
        for name in sorted(given - features):
            try:
                operations |= to_operations(name)
            except PolicyError as error:
                hint = f"{error.hint}; the features are {', '.join(FEATURES)}"
                raise PolicyError(error.problem, key="may_restrict", hint=hint) from None
        return cls(operations, features)


def wants_no_reads(policy: AnyPolicy, prospect: Prospect) -> bool:
    """Say whether a policy neither restricts a read nor wants one recorded, and none to come may."""
    logs = any(
        Operation.READ in rule.operations and rule.log for layer in policy.layers for rule in layer.effective
    )
    return policy.unrestricted(Operation.READ) and Operation.READ not in prospect.operations and not logs


def traps_for(policy: AnyPolicy, prospect: Prospect, *, scoped: bool, opens: bool = True) -> Traps:
    """Say what a tree must be launched with.

    Args:
        policy: In force at the launch.
        prospect: What may come.
        scoped: Whether the kernel confines signals to the tree.
        opens: Whether opens that only read are held.
    """
    restricted = {operation for operation in Operation if not policy.unrestricted(operation)}
    # The other features are decided by the policy in force.
    opened = policy.features & FREEING
    return Traps(scoped, opened - prospect.features, restricted | prospect.operations, opens)


def ensure_enforceable(policy: AnyPolicy, traps: Traps, pid: int | None) -> None:
    """Check that a running tree asks about all that a policy restricts.

    Args:
        policy: To be in force.
        traps: What the tree was launched with.
        pid: Its command, for the error.

    Raises:
        NotEnforceable: It does not.
    """
    for feature in sorted(traps.features - policy.features):
        raise NotEnforceable(
            f"a policy without `features: [{feature}]`",
            rule=None,
            key="features",
            operation=feature,
            lacking="its calls are free",
            pid=pid,
        )
    for operation, lacking in _LACKING.items():
        if operation not in traps.restricted and not policy.unrestricted(operation):
            restriction, rule, key = _restriction(policy, operation)
            if operation is Operation.READ and not traps.opens:
                lacking = "files are opened for reading without asking"
            raise NotEnforceable(
                restriction, rule=rule, key=key, operation=str(operation), lacking=lacking, pid=pid
            )


def _restriction(policy: AnyPolicy, operation: Operation) -> tuple[str, str | None, str | None]:
    """Name what restricts an operation: in words, the rule, the key."""
    for layer in policy.layers:
        if layer.unrestricted(operation):
            continue
        for rule in layer.effective:
            if operation in rule.operations and rule.restricts:
                place = f" ({rule.place})" if rule.place else ""
                return f"the rule {rule.name!r}{place}", rule.name, None
        key = f"default.{operation}"
        place = f" ({layer.places[key]})" if key in layer.places else ""
        return f"`{key}: {layer.default[operation]}`{place}", None, key
    raise AssertionError(f"nothing restricts {operation}")
