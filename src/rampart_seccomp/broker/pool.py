"""Threads that answer calls: as many as there are calls at work, so that a slow one stops no other."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable

from rampart_seccomp.calls.shim import lib

__all__ = ["Pool"]

Job = Callable[[], None]


class Pool:
    """Grows while all threads are busy, up to a bound; from then on calls wait for a thread.

    Args:
        limit: Most threads at a time.
    """

    IDLE_SECONDS = 5.0
    """How long a thread waits for work before it ends."""

    def __init__(self, limit: int = 512) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Have ``job`` run by a thread of the pool; it must not raise."""
        with self._lock:
            if self._closed:
                return
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name="rampart-worker", daemon=True).start()
            self._jobs.put(job)

    def close(self) -> None:
        """Let the threads end when their work is done."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._jobs.put(None)

    def _work(self) -> None:
        # The host program's signals are for its own threads; only the one that ends a wait is for ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {lib.rs_interrupt_signal()})
        lib.rs_thread_prepare()
        while True:
            try:
                job = self._jobs.get(timeout=self.IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle > 0 and self._jobs.empty():
                        self._idle -= 1
                        self._threads -= 1
                        return
                continue
            if job is None:
                return
            job()
            with self._lock:
                self._idle += 1
