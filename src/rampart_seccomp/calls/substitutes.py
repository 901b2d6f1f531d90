"""What an open file, or the host of a connection, is replaced by; bytes are in a sealed memfd."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable

import attrs

from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import checked, ffi, lib

__all__ = ["Irreplaceable", "Substitute", "sealed"]

_MFD_NOEXEC_SEAL = 0x8
"""Never executable (Linux 6.3)."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NAME_MAX = 249


class Irreplaceable(Exception):
    """Nothing else can be shown in place of what the call reads. The text says why."""


@attrs.frozen(repr=False)
class Substitute:
    """What an open answers with instead of the file. One of the two is given.

    Attributes:
        pin: Another file, held by the call.
        content: Gives the bytes to show, from a descriptor of the file that is not shown; whatever it raises
            ends the call.
    """

    pin: Pin | None = None
    content: Callable[[int], bytes] | None = None


def sealed(content: bytes, name: bytes, like: os.stat_result, flags: int) -> int:
    """Give a descriptor of a file in memory that nobody can change.

    Args:
        content: What is in it.
        name: What it is called in /proc/self/fd.
        like: Whose mode, owner and times it gets; the owner only where we may give files away.
        flags: Of open(2), as the program asked; for reading.

    Raises:
        OSError: ENOMEM, EMFILE; EINVAL for flags that such files do not have (O_DIRECT before Linux 6.6).
    """
    memory = _memory(name[:_NAME_MAX])
    try:
        written = 0
        while written < len(content):
            written += os.write(memory, content[written:])
        if like.st_uid != os.geteuid() or like.st_gid != os.getegid():
            # Without privilege it stays ours, who are the same user as the tree.
            with contextlib.suppress(PermissionError):
                os.fchown(memory, like.st_uid, like.st_gid)
        os.fchmod(memory, like.st_mode & 0o666)
        os.utime(memory, ns=(like.st_atime_ns, like.st_mtime_ns))
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        return checked(lib.rs_open(ffi.NULL, memory, flags), "open")
    finally:
        os.close(memory)


def _memory(name: bytes) -> int:
    text = os.fsdecode(name)
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(text, flags | _MFD_NOEXEC_SEAL)
    except OSError:  # an older kernel; EACCES is for vm.memfd_noexec, which asks for the flag
        return os.memfd_create(text, flags)
