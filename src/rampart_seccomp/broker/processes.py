"""Who acts, read from /proc for records and questions."""

from __future__ import annotations

from collections.abc import Sequence

from rampart_seccomp.broker.lineage import Lineage, Standing
from rampart_seccomp.broker.records import Acting, read_who
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.calls.shim import ffi, lib
from rampart_seccomp.events import Process

__all__ = ["acting", "describe", "is_stopped"]


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
    buffer = ffi.new("char[]", lib.RS_WHO_ROOM)
    size = lib.rs_describe(pid, notification.launcher, buffer, lib.RS_WHO_ROOM)
    processes, argv = read_who(ffi.buffer(buffer, size)[:]) if size > 0 else ((), ())
    standing = None if lineage is None else lineage.standing(pid)
    return acting(pid, notification.tid, processes, argv, standing)


def acting(
    pid: int,
    tid: int,
    processes: Sequence[Acting],
    argv: tuple[bytes, ...],
    standing: Standing | None,
) -> Process:
    """Put together what is known of who acts.

    Args:
        pid: The process.
        tid: The thread.
        processes: The process and its ancestors, the nearest first; empty if nothing could be read.
        argv: Its command line.
        standing: What it was verified to be; None if that is not known.
    """
    return Process(
        pid=pid,
        tid=tid,
        start_time=processes[0].start_time if processes else None,
        executable=processes[0].path if processes else None,
        argv=argv,
        ancestry=tuple(process.path or b"?" for process in processes[1:]),
        lineage=None if standing is None else standing.lineage,
    )


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped (proc_pid_stat(5), state T)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False
