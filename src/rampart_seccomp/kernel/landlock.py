"""What a start has to know of Landlock (landlock(7)); `probes` asks for the rest."""

from __future__ import annotations

import ctypes

__all__ = ["SCOPE_ABI", "landlock_abi", "signal_scope"]

_CREATE_RULESET = 444  # the same number on every architecture
_VERSION = 1 << 0

SCOPE_ABI = 6
"""The first version that can scope signals."""


def landlock_abi() -> int:
    """Tell the version that this kernel, and a sandbox around us, lets us use; 0 without Landlock."""
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def signal_scope() -> bool:
    """Tell whether the kernel can confine a tree's signals to it: LANDLOCK_SCOPE_SIGNAL."""
    return landlock_abi() >= SCOPE_ABI
