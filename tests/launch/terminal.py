"""A pseudo-terminal with a program on it, driven as a person does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence

CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x04", "\x1a", "\x1c"


class Terminal:
    """Starts a program as the leader of a new session on a terminal of its own.

    Args:
        argv: The program.
        environment: Its whole environment.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, {**environment, "TERM": "xterm"})
        self.resize(24, 80)
        self.seen = ""

    def type(self, text: str) -> None:
        """Send keys."""
        os.write(self.fd, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: str, seconds: float = 20) -> str:
        """Read until a text has come; give what came before it. What follows is for the next one."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"{text!r} did not come; there is {self.seen!r}")
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except OSError:  # the last program on it has ended
                raise AssertionError(f"{text!r} did not come before the end: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before

    def foreground(self) -> int:
        """The process group in the foreground."""
        return os.tcgetpgrp(self.fd)

    def wait(self) -> int:
        """Read to the end; give the exit status of the program."""
        with contextlib.suppress(OSError):
            while os.read(self.fd, 4096):
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def hang_up(self) -> None:
        """Take the terminal away."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """Hang up, and end the program."""
        self.hang_up()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
