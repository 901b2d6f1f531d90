"""Who adopts orphans: whose children need not be their own."""

from __future__ import annotations

__all__ = ["Adopters"]


class Adopters(set[int]):
    """Processes that adopt orphans: those that said so (PR_SET_CHILD_SUBREAPER), and more.

    In a tree that has made pid namespaces it is the first process of each, too (pid_namespaces(7)). Whoever
    cannot be looked at any more counts as one there.
    """

    namespaces = False
    """Whether the tree may have made a pid namespace."""

    def __contains__(self, pid: object) -> bool:
        return super().__contains__(pid) or (self.namespaces and _is_first(pid))


def _is_first(pid: object) -> bool:
    """Tell whether a process is the first of a pid namespace below this one (NSpid, proc_pid_status(5))."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            numbers = next((line.split()[1:] for line in file if line.startswith(b"NSpid:")), [])
    except OSError:
        return True
    return len(numbers) > 1 and numbers[-1] == b"1"
