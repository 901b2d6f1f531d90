"""Resource limits of a target, also where the broker may not ask for them (getrlimit(2))."""

from __future__ import annotations

import resource

__all__ = ["limits_of"]

_ROWS = {resource.RLIMIT_NOFILE: b"Max open files", resource.RLIMIT_CORE: b"Max core file size"}


def limits_of(tid: int, which: int) -> tuple[int, int]:
    """Return the soft and the hard limit of a thread; -1 for none.

    prlimit(2) wants equal ids or CAP_SYS_RESOURCE, which root in a container often lacks: a target that has
    dropped its ids is then asked through /proc/<tid>/limits, which anybody may read.

    Args:
        tid: The thread; the caller asks afterwards whether its call is still waiting.
        which: RLIMIT_NOFILE or RLIMIT_CORE.

    Raises:
        OSError: ESRCH or ENOENT if the thread is gone.
    """
    try:
        return resource.prlimit(tid, which)
    except PermissionError:
        pass
    row = _ROWS[which]
    with open(f"/proc/{tid}/limits", "rb") as file:
        words = next(line[len(row) :].split() for line in file if line.startswith(row))
    soft, hard = (-1 if word == b"unlimited" else int(word) for word in words[:2])
    return soft, hard
