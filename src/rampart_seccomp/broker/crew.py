"""The threads that serve one tree, and then the next: starting them takes as long as starting a program."""

from __future__ import annotations

import os
import queue
import resource
import threading
import weakref
from collections.abc import Callable

from rampart_seccomp.broker.pool import Pool
from rampart_seccomp.calls.call import Vigil
from rampart_seccomp.calls.shim import checked, lib

__all__ = ["Crew", "Crews"]

Job = Callable[[], None]

_RIGHTS = (b"Uid:", b"Gid:", b"Groups:", b"Cap", b"NoNewPrivs:", b"Seccomp")
"""Lines of proc_pid_status(5)."""


class Crew:
    """A thread that leads, a pool that answers, and the vigil over those of the pool that wait.

    All threads that must be there are there from the start: a tree may use up what the user may have.

    Attributes:
        inherited: What its threads have of the one that made it; another crew is like it if that is equal.
        pool: Answers the calls of the tree.
        vigil: Frees threads whose target has died.

    Raises:
        RuntimeError: There can be no more threads.
    """

    def __init__(self) -> None:
        self.inherited = _inherited()
        self._orders: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.pool = Pool()
        self.vigil = Vigil(_waiting_max(), self.pool.lending)
        try:
            threading.Thread(target=self._lead, name="rampart-session", daemon=True).start()
        except RuntimeError:
            self.close()
            raise

    def lead(self, job: Job) -> None:
        """Have the leading thread run this, after what it was given before."""
        self._orders.put(job)

    def close(self) -> None:
        """Let the threads end when their work is done."""
        self._orders.put(None)
        self.pool.close()
        self.vigil.close()

    def _lead(self) -> None:
        checked(lib.rs_block_signals(), "pthread_sigmask")
        while (job := self._orders.get()) is not None:
            job()
            del job  # what it refers to may end with it


class Crews:
    """The crews of a broker: each tree takes one and gives it back. To be closed."""

    SPARE = 2
    """How many wait for the next tree; the others end with theirs."""

    def __init__(self) -> None:
        self._spare: list[Crew] = []
        self._lock = threading.Lock()
        self._closed = False
        # A broker that nobody closes leaves no threads behind either.
        weakref.finalize(self, _dismiss, self._spare).atexit = False

    def take(self) -> Crew:
        """Give a crew that is at nobody else's service; to be given back.

        It acts as new threads of the caller would: one from before a change of ids, say, is dismissed.

        Raises:
            RuntimeError: There can be no more threads.
        """
        inherited = _inherited()
        with self._lock:
            while self._spare:
                crew = self._spare.pop()
                if crew.inherited == inherited:
                    return crew
                crew.close()
        return Crew()

    def give_back(self, crew: Crew, *, idle: bool) -> None:
        """Let another tree have a crew, unless there are enough of them or it still is at work."""
        with self._lock:
            if idle and not self._closed and len(self._spare) < self.SPARE:
                self._spare.append(crew)
                return
        crew.close()

    def close(self) -> None:
        """Let the threads of every crew end: at once, or when it is given back."""
        with self._lock:
            self._closed = True
            _dismiss(self._spare)

    def forsake(self) -> None:
        """In a forked child, where none of the threads is."""
        self._lock = threading.Lock()
        self._closed = True
        self._spare.clear()


def _dismiss(crews: list[Crew]) -> None:
    while crews:
        crews.pop().close()


def _inherited() -> tuple[bytes | str | int, ...]:
    """Give what a new thread has from the one that starts it, not from the process (credentials(7))."""
    with open("/proc/thread-self/status", "rb") as status:
        rights = [line for line in status if line.startswith(_RIGHTS)]
    root = os.stat("/")
    spaces = [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "net", "pid", "user")]
    return (*rights, *spaces, root.st_dev, root.st_ino)


def _waiting_max() -> int:
    """How many calls may wait for a peer at a time: each holds a few descriptors of ours (RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 400 if soft < 0 else max(16, min(400, soft // 16))
