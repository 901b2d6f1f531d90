"""The one place where results of the C shim become values or errors."""

from __future__ import annotations

from rampart_seccomp._shim import ffi, lib
from rampart_seccomp.errors import SyscallError

__all__ = ["checked", "ffi", "lib"]


def checked(result: int, syscall: str, filename: bytes | None = None) -> int:
    """Return ``result``, or raise what it says.

    Args:
        result: A shim function's result: >= 0, or -errno.
        syscall: The system call to name in the error.
        filename: The object, where there is one.

    Raises:
        SyscallError: ``result`` is negative.
    """
    if result < 0:
        raise SyscallError(syscall, -result, filename)
    return result
