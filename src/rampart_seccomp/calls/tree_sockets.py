"""The unix sockets that belong to a tree."""

from __future__ import annotations

import os
import threading

from rampart_seccomp.calls.pins import Pin

__all__ = ["TreeSockets"]


class TreeSockets:
    """The unix sockets that processes of a tree have bound: these its own processes may reach.

    A socket with a path is known by its pinned inode, so that no other can take its number; an abstract one
    by its name and the inode of the open socket, as /proc/net/unix shows it.
    """

    LIMIT = 512
    """Sockets remembered at a time; each holds a descriptor. Those unlinked are forgotten first."""

    def __init__(self) -> None:
        self._sweep_at = 64
        self._paths: dict[tuple[int, int], int] = {}
        self._abstract: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def add_path(self, pin: int) -> None:
        """Remember a socket file; takes the O_PATH fd over."""
        about = os.fstat(pin)
        with self._lock:
            if len(self._paths) >= self._sweep_at:
                self._forget_unlinked()
                self._sweep_at = min(self.LIMIT, max(64, 2 * len(self._paths)))
            old = self._paths.get((about.st_dev, about.st_ino))
            if old is not None or len(self._paths) >= self.LIMIT:
                os.close(pin)
                return
            self._paths[about.st_dev, about.st_ino] = pin

    def _forget_unlinked(self) -> None:
        for key, pin in list(self._paths.items()):
            if os.fstat(pin).st_nlink == 0:
                os.close(self._paths.pop(key))

    def add_abstract(self, name: bytes, inode: int) -> None:
        """Remember an abstract name and the socket that has it."""
        with self._lock:
            if len(self._abstract) < self.LIMIT or name in self._abstract:
                self._abstract[name] = inode

    def has_path(self, pin: Pin) -> bool:
        """Tell whether the tree bound this socket file."""
        with self._lock:
            return (pin.dev, pin.ino) in self._paths

    def has_abstract(self, name: bytes) -> bool:
        """Tell whether the tree's own socket still has this abstract name."""
        with self._lock:
            inode = self._abstract.get(name)
        if inode is None:
            return False
        shown = b"@" + name.replace(b"\0", b"@")
        with open("/proc/net/unix", "rb") as table:
            for line in table:
                fields = line.rstrip(b"\n").split(None, 7)
                if len(fields) == 8 and fields[7] == shown and fields[6] == str(inode).encode():
                    return True
        return False

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            while self._paths:
                os.close(self._paths.popitem()[1])
            self._abstract.clear()

    def forsake(self) -> None:
        """In a forked child, where the lock may be held by a thread that is not there: forget everything."""
        self._lock = threading.Lock()
        self.close()
