"""One notification at a time, from Python: the readable reference, and the kit for a broker of your own.

`launched` starts a command behind the filter and yields its listener. `Listener.receive` takes a held call
as a `Notification`; one of `allow`, `deny`, `reply` and `perform` answers it. `decode` pins what a call is
about and says what it would do (`Call.events`); `Call.perform` does that on the pins. See
``examples/minimal_broker.py``.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from rampart_seccomp.broker.pool import Pool
from rampart_seccomp.calls.call import Call, CallChanged, Refusal, Renaming, Setting, Vigil, Withheld
from rampart_seccomp.calls.decode import DECODERS, decode
from rampart_seccomp.calls.notification import AT_FDCWD, Listener, Notification
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.kernel.filter import load_filter
from rampart_seccomp.kernel.landlock import signal_scope
from rampart_seccomp.kernel.traps import STRICTEST, Traps
from rampart_seccomp.launch import protocol
from rampart_seccomp.launch.handover import accept, offer

__all__ = [
    "AT_FDCWD",
    "DECODERS",
    "Call",
    "CallChanged",
    "Listener",
    "Notification",
    "Pin",
    "Pool",
    "Refusal",
    "Renaming",
    "Setting",
    "Traps",
    "Vigil",
    "Withheld",
    "decode",
    "launched",
    "load_filter",
]


@contextmanager
def launched(
    argv: Sequence[str | bytes], traps: Traps = STRICTEST
) -> Iterator[tuple[Listener, subprocess.Popen[bytes]]]:
    """Start a command behind the filter, with nobody yet to answer its calls.

    Args:
        argv: The command; its standard streams are those of this process.
        traps: What is held beside what always is; whether signals are is found out here.

    Yields:
        The listener, and the launcher's process, whose exit status is the command's. The command's own
        execve is the first notification.

    Raises:
        OSError, TargetUnreadable, KernelSupportError: It could not be started.
    """
    given = offer(load_filter(attrs.evolve(traps, scoped=signal_scope())).program, argv)
    with given.control:
        process = subprocess.Popen(given.argv, pass_fds=[given.theirs.fileno()])
        given.theirs.close()
        try:
            taken = accept(given.control, os.fsencode(argv[0]))
            with taken.listener as listener:
                given.control.send(protocol.encode(protocol.Go()))
                yield listener, process
                given.control.shutdown(socket.SHUT_RDWR)
        finally:
            given.control.close()
            process.wait()
