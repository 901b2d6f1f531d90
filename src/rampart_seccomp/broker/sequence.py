"""Puts what is to be on record into the order of the decisions, though it comes from several threads."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

__all__ = ["Sequence"]

_PATIENCE = 1.0
"""Seconds that others wait for one that was begun: an exec can take long to get anywhere."""


class Sequence:
    """Writes records in the order of their numbers. Safe to use from several threads.

    A number is taken before the program gets its answer, and the record is made afterwards. By then the
    program may have made another call, which another thread answers: its record waits for the first one.

    Args:
        next_number: Gives the numbers, each greater than the one before.
    """

    def __init__(self, next_number: Callable[[], int]) -> None:
        self._next_number = next_number
        self._begun: dict[int, float] = {}
        self._made: list[tuple[int, int, Callable[[], None]]] = []
        self._ties = itertools.count()
        self._lock = threading.Lock()
        self._writing = threading.RLock()

    def begin(self) -> int:
        """Take a number; those that come after wait until it is `over`."""
        with self._lock:
            number = self._next_number()
            self._begun[number] = time.monotonic()
            return number

    def put(self, number: int, write: Callable[[], None]) -> None:
        """Have something written at its place."""
        with self._lock:
            heapq.heappush(self._made, (number, next(self._ties), write))

    def over(self, number: int) -> bool:
        """Wait for no more of this number; tell whether there is anything to write."""
        with self._lock:
            self._begun.pop(number, None)
            return bool(self._made)

    def write(self, below: int | None = None, *, waiting: bool = True) -> None:
        """Write what has nothing missing before it.

        Args:
            below: Nothing is missing before this number but what was begun; None: before any.
            waiting: Wait for what was begun; otherwise write it where it comes.
        """
        with self._writing:
            while (write := self._next(below, waiting)) is not None:
                write()

    def _next(self, below: int | None, waiting: bool) -> Callable[[], None] | None:
        with self._lock:
            if not self._made:
                return None
            number = self._made[0][0]
            if (below is not None and number >= below) or (waiting and self._missing(number)):
                return None
            return heapq.heappop(self._made)[2]

    def _missing(self, number: int) -> bool:
        """Tell whether something was begun, not long ago, that comes before."""
        if not self._begun:
            return False
        since = time.monotonic() - _PATIENCE
        return any(other < number and began > since for other, began in self._begun.items())
