"""A question on the controlling terminal."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
from collections import deque
from collections.abc import Iterator
from time import monotonic

from rampart_seccomp.approval.question import Question, nobody_asked
from rampart_seccomp.events import Event
from rampart_seccomp.verdicts import Allow, Deny, Verdict

__all__ = ["TerminalApprover", "terminal_approver"]

_IFLAG, _OFLAG, _LFLAG = 0, 1, 3
_HEADING_WIDTH = 9

_LOOK = 0.1
"""Seconds between two looks at whether the question still stands."""

_PAUSE = 0.5
"""Seconds for which a question stands before it can be answered, if another stood there just before: keys
that are on their way answer that one, also if it was withdrawn to let this one slip in."""

_JUST_BEFORE = 5.0

_REFUSALS_MAX = 10
_REFUSALS_WITHIN = 60.0
"""After so many questions without a yes in so many seconds, further ones are denied without being put."""


class TerminalApprover:
    """Ask on the controlling terminal of this process, one question at a time.

    The terminal is ``/dev/tty``, never standard input, which belongs to the command. ``y`` or ``yes`` and
    Enter allows once; anything else, end of file, silence until the timeout, or no terminal denies. What
    was typed before the question stood there is thrown away. A process in the background does not ask
    (reading would stop it, SIGTTIN): it denies with that reason.

    A flood of questions does not wear the person out: after 10 within a minute that were not answered with
    yes, further ones are denied unasked until the minute is over. Of two in a row, the second waits half a
    second before it takes an answer.

    Args:
        timeout: Seconds until an unanswered question is denied, where its rule names none. Waiting for
            another question to be answered counts.
        tty: Path of the terminal.
    """

    def __init__(self, *, timeout: float = 120.0, tty: str = "/dev/tty") -> None:
        self._timeout = timeout
        self._tty = tty
        self._one_at_a_time = threading.Lock()
        self._closing = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._last = -_JUST_BEFORE
        self._refused: deque[float] = deque(maxlen=_REFUSALS_MAX)

    def __call__(self, event: Event, /) -> Verdict:
        return self.answer(Question(event))

    def answer(self, question: Question) -> Verdict:
        """Put a question and wait for the answer. Blocks; from any thread."""
        timeout = self._timeout if question.timeout is None else question.timeout
        deadline = monotonic() + timeout
        if not self._one_at_a_time.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            return Deny(message=f"not answered within {timeout:g} s")
        try:
            if len(self._refused) == _REFUSALS_MAX and monotonic() - self._refused[0] < _REFUSALS_WITHIN:
                return Deny(message=f"not asked: {_REFUSALS_MAX} questions were refused within a minute")
            return self._ask(question, timeout, deadline)
        finally:
            self._one_at_a_time.release()

    def close(self) -> None:
        """Deny the question that stands there, and all later ones. Returns when none is left."""
        if not self._closed:
            self._closed = True
            os.eventfd_write(self._closing, 1)
            with self._one_at_a_time:
                os.close(self._closing)

    def _ask(self, question: Question, timeout: float, deadline: float) -> Verdict:
        if self._closed:
            return nobody_asked("the run has ended", question)
        try:
            tty = os.open(self._tty, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return nobody_asked("no terminal", question)
        try:
            if os.tcgetpgrp(tty) != os.getpgrp():
                return nobody_asked("Rampart is not in the foreground of its terminal", question)
            with _line_mode(tty):
                verdict = self._converse(tty, question, timeout, deadline)
            self._last = monotonic()
            if not isinstance(verdict, Allow):
                self._refused.append(self._last)
            return verdict
        except (OSError, termios.error):
            return nobody_asked("the terminal failed", question)
        finally:
            os.close(tty)

    def _converse(self, tty: int, question: Question, timeout: float, deadline: float) -> Verdict:
        lines = "".join(f"  {heading:<{_HEADING_WIDTH}} {text}\n" for heading, text in question.lines())
        seconds = max(0, round(deadline - monotonic()))
        _write(tty, f"\nrampart: the policy asks\n{lines}")
        if monotonic() - self._last < _JUST_BEFORE:
            self._wait(_PAUSE)
        # What was typed before all of this was on the screen answers something else.
        termios.tcdrain(tty)
        termios.tcflush(tty, termios.TCIFLUSH)
        _write(tty, f"Allow this once? [y/N] ({seconds} s) ")
        answered = self._await_input(tty, question, deadline)
        if answered is None:
            _write(tty, "\nrampart: withdrawn\n")
            return nobody_asked("the run, or the process, has ended", question)
        if not answered:
            _write(tty, "\nrampart: not answered, denied\n")
            return Deny(message=f"not answered within {timeout:g} s")
        if os.read(tty, 1024).strip().lower() in (b"y", b"yes"):
            return Allow()
        _write(tty, "rampart: denied\n")
        return Deny(message="refused at the terminal")

    def _wait(self, seconds: float) -> None:
        closing = select.poll()
        closing.register(self._closing, select.POLLIN)
        closing.poll(seconds * 1000)

    def _await_input(self, tty: int, question: Question, deadline: float) -> bool | None:
        """Return whether there is something to read; None if nobody wants to know any more."""
        ready = select.poll()
        ready.register(tty, select.POLLIN)
        ready.register(self._closing, select.POLLIN)
        while True:
            left = deadline - monotonic()
            found = dict(ready.poll(max(0.0, min(left, _LOOK)) * 1000))
            if self._closing in found or question.withdrawn():
                return None
            if tty in found or left <= 0:
                return tty in found


def terminal_approver(*, timeout: float = 120.0) -> TerminalApprover:
    """Return an approver that asks on the controlling terminal; close it when the run is over."""
    return TerminalApprover(timeout=timeout)


@contextlib.contextmanager
def _line_mode(tty: int) -> Iterator[None]:
    """Make the terminal read whole lines with echo, whatever the command has set, and put it back."""
    before = termios.tcgetattr(tty)
    lines = termios.tcgetattr(tty)
    lines[_IFLAG] |= termios.ICRNL
    lines[_OFLAG] |= termios.OPOST | termios.ONLCR
    lines[_LFLAG] |= termios.ICANON | termios.ECHO | termios.ISIG
    termios.tcsetattr(tty, termios.TCSADRAIN, lines)
    try:
        yield
    finally:
        termios.tcsetattr(tty, termios.TCSADRAIN, before)


def _write(tty: int, text: str) -> None:
    content = text.encode(errors="backslashreplace")
    while content:
        content = content[os.write(tty, content) :]
