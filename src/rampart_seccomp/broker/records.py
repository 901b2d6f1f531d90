"""What the engine writes down: its journal's bytes (``csrc/journal.h``, ``csrc/who.c``) and their meaning."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

import attrs

from rampart_seccomp.calls.shim import lib
from rampart_seccomp.events import Operation
from rampart_seccomp.kernel.syscalls import name_of

__all__ = ["Acting", "Record", "read_records", "read_who"]

_OPERATIONS = tuple(Operation)

_RECORD = struct.Struct("=IIIIQQQQiiiiII")
_WHO = struct.Struct("=II")
_WHO_PROCESS = struct.Struct("=iIQQQ")


@attrs.frozen(repr=False)
class Acting:
    """A process of the tree as it was when a record was made.

    Attributes:
        pid: Its thread group.
        start_time: In clock ticks since boot.
        path: Of its image; None where it could not be read.
        image: Device and inode of that.
    """

    pid: int
    start_time: int
    path: bytes | None
    image: tuple[int, int]


@attrs.frozen(repr=False)
class Record:
    """What the engine decided about one effect of a call.

    Attributes:
        number: Its place in the order of the tree's decisions.
        serial: Of the tables that decided.
        operation: What was done, or would have been.
        path: Real absolute name of the object; of a connection the bytes of the IP address, of an exec what
            `started_program` reads.
        port: Of a connection.
        protocol: Of a connection, ``tcp`` or ``udp``.
        allowed: Whether it was allowed.
        errno: What the program saw; None for success.
        syscall: Name of the system call.
        tid, tgid: Thread and process that made it.
        held_ns: How long the call was held, in nanoseconds.
        processes: The acting process and its ancestors, the nearest first; empty if nobody looked.
        argv: Command line of the acting process, as it showed it then.
    """

    number: int
    serial: int
    operation: Operation
    path: bytes
    allowed: bool
    errno: int | None
    syscall: str
    tid: int
    tgid: int
    held_ns: int
    port: int = 0
    protocol: str = ""
    processes: tuple[Acting, ...] = ()
    argv: tuple[bytes, ...] = ()


def read_records(raw: bytes) -> Iterator[Record]:
    """Read what `Engine.take_records` gave."""
    at = 0
    while at < len(raw):
        (
            size, path_size, who_size, flags, number, serial, _, held,
            tid, tgid, call, error, operation, port,
        ) = _RECORD.unpack_from(raw, at)  # fmt: skip
        start = at + _RECORD.size
        processes, argv = read_who(raw[start + path_size : start + path_size + who_size])
        yield Record(
            number=number,
            serial=serial,
            operation=_OPERATIONS[operation],
            path=raw[start : start + path_size],
            allowed=bool(flags & lib.RS_RECORD_ALLOWED),
            errno=error or None,
            syscall=name_of(call),
            tid=tid,
            tgid=tgid,
            held_ns=held,
            port=port,
            protocol="udp" if flags & lib.RS_RECORD_DATAGRAM else "tcp",
            processes=processes,
            argv=argv,
        )
        at += size


@functools.lru_cache(maxsize=64)  # most calls in a row are those of few processes
def read_who(raw: bytes) -> tuple[tuple[Acting, ...], tuple[bytes, ...]]:
    """Read what ``rs_describe`` gave: a process and its ancestors, and its argument vector."""
    if not raw:
        return (), ()
    count, argv_size = _WHO.unpack_from(raw)
    at = _WHO.size
    found = []
    for _ in range(count):
        pid, path_size, start, device, inode = _WHO_PROCESS.unpack_from(raw, at)
        at += _WHO_PROCESS.size
        found.append(Acting(pid, start, raw[at : at + path_size] or None, (device, inode)))
        at += (path_size + 7) & ~7
    argv = raw[at : at + argv_size]
    return tuple(found), tuple(argv.removesuffix(b"\0").split(b"\0")) if argv else ()
