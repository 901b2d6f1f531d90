"""Forks of the harness: a child lets go of every tree, since it must neither answer nor outlast its parent.

A copy of a listener would keep held calls waiting for somebody who never answers, and a copy of a control
socket would hide the end of one side from the other. So whoever owns such descriptors is enrolled here, and
makes them while no fork can come between: `excluded`.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol

__all__ = ["enroll", "excluded", "leave"]


class Owner(Protocol):
    """What has to let go in a forked child."""

    def forsake(self) -> None:
        """Close what is the parent's, silently; locks may be held by threads that are not in the child."""


# Not weak: what only another thread refers to is gone in the child before it could let go.
_owners: set[Owner] = set()

excluded = threading.RLock()
"""While it is held, no other thread calls os.fork. Fork and exec in one step is no matter: exec closes all
our descriptors."""


def enroll(owner: Owner) -> None:
    """Have this one let go in forked children, until it leaves."""
    with excluded:
        _owners.add(owner)


def leave(owner: Owner) -> None:
    """It has nothing to let go of any more."""
    with excluded:
        _owners.discard(owner)


def _forsake_all() -> None:
    try:
        while _owners:
            _owners.pop().forsake()
    finally:
        excluded.release()


os.register_at_fork(before=excluded.acquire, after_in_parent=excluded.release, after_in_child=_forsake_all)
