"""What is asked of the installed libseccomp directly: its version and its system call numbers.

Filters are built through pyseccomp (`filter`); its import runs ``ldconfig``, which is too dear for a start
that finds its filter in the cache. These two questions need the library alone.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import NamedTuple

from rampart_seccomp.errors import KernelSupportError, LibraryMissing

__all__ = ["MISSING_HINT", "Architecture", "architecture", "number_of", "version"]

MISSING_HINT = (
    "Debian and Ubuntu: apt install libseccomp2; Fedora: dnf install libseccomp; Alpine: apk add libseccomp"
)


class Architecture(NamedTuple):
    """A type of machine.

    Attributes:
        name: As uname(2) gives it.
        audit: ``seccomp_data.arch`` of its native calls (linux/audit.h).
        x32: Whether numbers with bit 30 set reach the kernel's x32 table under the same ``audit`` value.
    """

    name: str
    audit: int
    x32: bool


_ARCHITECTURES = {
    "x86_64": Architecture("x86_64", 0xC000003E, x32=True),
    "aarch64": Architecture("aarch64", 0xC00000B7, x32=False),
}


@functools.cache
def architecture() -> Architecture:
    """Tell the architecture whose calls the filter judges.

    Raises:
        KernelSupportError: There is no table for this machine.
    """
    machine = os.uname().machine
    try:
        return _ARCHITECTURES[machine]
    except KeyError:
        raise KernelSupportError(
            f"no filter for machine type {machine}", hint=f"supported: {', '.join(_ARCHITECTURES)}"
        ) from None


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise LibraryMissing("libseccomp", MISSING_HINT) from None
    library.seccomp_version.argtypes = ()
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_syscall_resolve_name_arch.restype = ctypes.c_int
    return library


def version() -> str:
    """Tell the version of the installed library, such as ``2.5.4``.

    Raises:
        LibraryMissing: libseccomp is not installed.
    """
    answer = _library().seccomp_version().contents
    return f"{answer.major}.{answer.minor}.{answer.micro}"


def number_of(name: str) -> int | None:
    """Look up the native number of a system call: seccomp_syscall_resolve_name_arch(3).

    Returns:
        The number, or None if libseccomp does not know the name or this architecture has no such call.

    Raises:
        LibraryMissing: libseccomp is not installed.
    """
    number: int = _library().seccomp_syscall_resolve_name_arch(architecture().audit, name.encode())
    return number if number >= 0 else None
