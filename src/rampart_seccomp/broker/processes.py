"""Who acts, read from /proc for records and questions."""

from __future__ import annotations

import os

from rampart_seccomp.broker.lineage import Lineage
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.events import Process

__all__ = ["describe", "is_stopped"]

_ANCESTORS_MAX = 32
_CMDLINE_MAX = 16384  # bytes that go on record


def describe(notification: Notification, lineage: Lineage | None = None) -> Process:
    """Return what /proc says of the process that made the call, and of its ancestors up to the launcher.

    What cannot be read is None or empty; the process can be gone by now.

    Args:
        notification: The call.
        lineage: What the processes of its tree were verified to be; None: nobody was.
    """
    try:
        pid = notification.tgid
    except OSError:
        return Process(pid=notification.tid, tid=notification.tid)
    standing = None if lineage is None else lineage.standing(pid)
    parent, start = _stat(pid)
    ancestry: list[bytes] = []
    while parent not in (None, 0, 1, notification.launcher) and len(ancestry) < _ANCESTORS_MAX:
        assert parent is not None
        ancestry.append(_image(parent) or b"?")
        parent, _ = _stat(parent)
    return Process(
        pid=pid,
        tid=notification.tid,
        start_time=start,
        executable=_image(pid),
        argv=_command_line(pid),
        ancestry=tuple(ancestry),
        lineage=None if standing is None else standing.lineage,
    )


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped (proc_pid_stat(5), state T)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False


def _stat(pid: int) -> tuple[int | None, int | None]:
    """Parent, and start time in clock ticks since boot (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[1]), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None, None


def _image(pid: int) -> bytes | None:
    try:
        return os.readlink(f"/proc/{pid}/exe".encode())
    except OSError:
        return None


def _command_line(pid: int) -> tuple[bytes, ...]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            raw = file.read(_CMDLINE_MAX)
    except OSError:
        return ()
    return tuple(raw.removesuffix(b"\0").split(b"\0")) if raw else ()
