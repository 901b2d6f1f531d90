"""Threads that answer the calls of one tree: more while some wait, so that a slow call stops no other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rampart_seccomp.calls.shim import checked, lib

__all__ = ["Pool"]

Job = Callable[[], None]


class Pool:
    """Grows while all threads are busy, up to a bound; from then on calls queue for a thread.

    A thread that waits, for a peer or for an answer, does not count against the bound (`lending`): whoever
    it waits for must find a thread.

    Args:
        limit: Most threads that work at a time.
    """

    KEPT = 4
    """Threads that are there from the start and stay, should the system refuse more."""

    IDLE_SECONDS = 5.0
    """How long any other thread waits for work before it ends."""

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # Reentrant: the garbage collector can close an idle pool in one of its own threads, wherever that is.
        self._lock = threading.RLock()
        self._threads = 0
        self._lent = 0
        self._idle = 0
        self._closed = False
        for _ in range(self.KEPT):
            self._start()

    def submit(self, job: Job) -> None:
        """Have ``job`` run by a thread of the pool; it must not raise."""
        with self._lock:
            if self._closed:
                return
            self._jobs.put(job)
            self._grow()

    @contextmanager
    def lending(self) -> Iterator[None]:
        """While inside, this thread counts as waiting."""
        with self._lock:
            self._lent += 1
            self._grow()
        try:
            yield
        finally:
            with self._lock:
                self._lent -= 1

    def close(self) -> None:
        """Let the threads end when their work is done."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._jobs.put(None)

    def _grow(self) -> None:
        if self._jobs.qsize() > self._idle and self._threads - self._lent < self._limit:
            try:
                self._start()
            except RuntimeError:
                return  # no more threads for this user: those that are there will come to it

    def _start(self) -> None:
        threading.Thread(target=self._work, name="rampart-worker", daemon=True).start()
        self._threads += 1

    def _work(self) -> None:
        checked(lib.rs_block_signals(), "pthread_sigmask")
        lib.rs_thread_prepare()
        while True:
            job = self._next()
            if job is None:
                return
            job()
            del job  # what it refers to may end with it

    def _next(self) -> Job | None:
        """Take a job; None to end."""
        with self._lock:
            self._idle += 1
        try:
            while True:
                try:
                    return self._jobs.get(timeout=self.IDLE_SECONDS)
                except queue.Empty:
                    with self._lock:
                        if self._threads - self._lent > self.KEPT and self._jobs.empty() and not self._closed:
                            self._threads -= 1
                            return None
        finally:
            with self._lock:
                self._idle -= 1
