"""What a filter depends on beside the machine: which calls of a tree are held, and so what can be decided.

The filter of a tree is fixed at its launch. One value says what it was made for, so that the table, the
filter and its cache, the limits set at the start and a later change of the policy cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from rampart_seccomp.events import Operation

__all__ = ["STRICTEST", "Traps"]

_TELLING = frozenset({Operation.READ, Operation.CREATE})


def _names(value: Iterable[str]) -> frozenset[str]:
    return frozenset(value)


def _telling(value: Iterable[Operation]) -> frozenset[Operation]:
    return _TELLING.intersection(value)


@attrs.frozen
class Traps:
    """What is held of a tree, or kept from it, that would be free otherwise. The default is the strictest.

    Attributes:
        scoped: Whether the kernel confines signals to the tree; if not, the calls that send them are held.
        features: Families of calls that are free by name; `syscalls.FREEING` has them. The others are
            refused, or held.
        restricted: Operations that the policy may restrict. Only those are kept that make a difference:
            where it may restrict ``read``, reading extended attributes is held; where it may restrict
            ``create``, there are no core dumps, which the kernel writes without a call.
        opens: Whether opens that only read are held. If not, no ``read`` may be restricted.
    """

    scoped: bool = True
    features: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    restricted: frozenset[Operation] = attrs.field(default=_TELLING, converter=_telling)
    opens: bool = True

    def __attrs_post_init__(self) -> None:
        if not self.opens and self.attributes:
            raise ValueError("opens that read are free only where no read is restricted")

    @property
    def attributes(self) -> bool:
        """True if calls that read extended attributes are held."""
        return Operation.READ in self.restricted

    @property
    def cores(self) -> bool:
        """True if the kernel may write core dumps."""
        return Operation.CREATE not in self.restricted


STRICTEST = Traps()
