"""What the kernel makes of a file that it executes: a ``#!`` line, or an ELF image with its interpreter."""

from __future__ import annotations

import errno
import os
import struct

import attrs

__all__ = ["HEAD_SIZE", "Script", "elf_interpreter", "loaded_program", "parse_script"]

HEAD_SIZE = 256
"""Bytes of a file that the kernel looks at (BINPRM_BUF_SIZE)."""

_SPACE = b" \t"
_ELF = b"\x7fELF"
_MACHINES_32 = (3, 6, 40)  # EM_386, EM_486, EM_ARM
_PT_INTERP = 3
_PATH_MAX = 4096

_LOADER_OPTIONS = {
    b"--library-path": 1,
    b"--glibc-hwcaps-prepend": 1,
    b"--glibc-hwcaps-mask": 1,
    b"--inhibit-rpath": 1,
    b"--audit": 1,
    b"--preload": 1,
    b"--argv0": 1,
    b"--list": 0,
    b"--list-diagnostics": 0,
    b"--list-tunables": 0,
    b"--verify": 0,
    b"--inhibit-cache": 0,
    b"--help": 0,
    b"--version": 0,
}
"""Options of glibc's and musl's loaders before the program, and how many arguments they take (ld.so(8))."""


@attrs.frozen(repr=False)
class Script:
    """A ``#!`` line.

    Attributes:
        interpreter: As written.
        argument: The one optional argument; None without.
    """

    interpreter: bytes
    argument: bytes | None


def parse_script(head: bytes) -> Script | None:
    """Read a ``#!`` line as fs/binfmt_script.c does.

    Args:
        head: The first `HEAD_SIZE` bytes of the file, or all of it.

    Returns:
        The line; None if the file does not begin with one.

    Raises:
        OSError: ENOEXEC if it names no interpreter, or is cut in the middle of its name.
    """
    if not head.startswith(b"#!"):
        return None
    head = head[:HEAD_SIZE].ljust(HEAD_SIZE, b"\0")
    end = head.find(b"\n")
    if end < 0:
        start = _not_space(head, 2, HEAD_SIZE - 1)
        if start is None or _terminator(head, start, HEAD_SIZE - 1) is None:
            raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
        end = HEAD_SIZE - 1
    while head[end - 1] in _SPACE:
        end -= 1
    start = _not_space(head, 2, end)
    if start is None or start >= end:
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
    separator = _terminator(head, start, end)
    if separator is None:
        return Script(head[start:end], None)
    interpreter = head[start:separator]
    argument = None if head[separator] == 0 else _not_space(head, separator, end)
    if argument is None:
        return Script(interpreter, None)
    return Script(interpreter, head[argument:end].partition(b"\0")[0])


def _not_space(head: bytes, start: int, end: int) -> int | None:
    return next((at for at in range(start, end + 1) if head[at] not in _SPACE), None)


def _terminator(head: bytes, start: int, end: int) -> int | None:
    return next((at for at in range(start, end + 1) if head[at] in b" \t\0"), None)


def elf_interpreter(file: int) -> bytes | None:
    """Read the name in PT_INTERP (elf(5)) of an open ELF image; None if it has none, or is no ELF image.

    As the kernel reads it (fs/binfmt_elf.c): in the machine's own byte order, in the layout of the type of
    machine, whatever the identification says of either, and with zeros behind the end of a short file.

    Raises:
        OSError: ENOEXEC if it is cut short or makes no sense; what reading fails with.
    """
    ident = os.pread(file, 64, 0).ljust(64, b"\0")
    if not ident.startswith(_ELF):
        return None
    (machine,) = struct.unpack_from("=H", ident, 18)
    wide = machine not in _MACHINES_32
    fields = struct.unpack_from("=HHIQQQIHHHHHH" if wide else "=HHIIIIIHHHHHH", ident, 16)
    table, size, count = fields[4], fields[8], fields[9]
    entry = struct.Struct("=IIQQQQQQ" if wide else "=IIIIIIII")
    if size != entry.size or not 0 < count <= 65536 // size:
        return None  # the kernel refuses it: ENOEXEC
    headers = os.pread(file, size * count, table)
    if len(headers) < size * count:
        return None
    for values in entry.iter_unpack(headers):
        if values[0] == _PT_INTERP:
            offset, length = (values[2], values[5]) if wide else (values[1], values[4])
            name = os.pread(file, length, offset) if 2 <= length <= _PATH_MAX else b""
            if len(name) != length or not name.endswith(b"\0"):
                raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
            return name.partition(b"\0")[0]
    return None


def loaded_program(argv: tuple[bytes, ...]) -> int | None:
    """Find the program in the arguments of a dynamic loader that is started as a program (ld.so(8)).

    Returns:
        Its place in ``argv``; None if there is none.
    """
    at = 1
    while at < len(argv) and argv[at].startswith(b"--"):
        option, equals, _ = argv[at].partition(b"=")
        if option == b"--":
            at += 1
            break
        taken = _LOADER_OPTIONS.get(option)
        if taken is None:
            break  # unknown to us: what follows may be the program
        at += 1 + (taken if not equals else 0)
    return at if at < len(argv) else None
