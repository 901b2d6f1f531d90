"""The engine, seen from Python: C threads that answer what the policy decides without asking anybody.

What they cannot answer comes out as questions, which are notifications like any other; what they have answered
comes out as records.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Iterator
from typing import Any

import attrs

from rampart_seccomp.calls.notification import Listener, Notification
from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.calls.stillness import Stillness
from rampart_seccomp.events import Operation
from rampart_seccomp.kernel.libseccomp import number_of
from rampart_seccomp.kernel.syscalls import name_of
from rampart_seccomp.policy import AnyMatcher
from rampart_seccomp.policy.tables import compile_tables

__all__ = ["Acting", "Engine", "Record", "Tables", "read_records"]

_OPERATIONS = tuple(Operation)
_serials = itertools.count(1)

_RECORD = struct.Struct("=IIIIQQQQiiiiII")
_WHO = struct.Struct("=II")
_WHO_PROCESS = struct.Struct("=iIQQQ")
_CHUNK = 1 << 18


@attrs.frozen
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


@attrs.frozen
class Record:
    """What the engine decided about one effect of a call.

    Attributes:
        number: Its place in the order of the tree's decisions.
        serial: Of the tables that decided.
        operation: What was done, or would have been.
        path: Real absolute name of the object.
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
    processes: tuple[Acting, ...] = ()
    argv: tuple[bytes, ...] = ()


@attrs.define(eq=False)
class Tables:
    """A policy as the engine takes it; made beforehand, so that putting it in force cannot fail.

    Attributes:
        serial: Tells it apart from all others of this process.
    """

    serial: int
    _raw: Any

    @classmethod
    def of(cls, matcher: AnyMatcher) -> Tables:
        """Compile a policy.

        Raises:
            OSError: ENOMEM.
        """
        serial = next(_serials)
        blob = compile_tables(matcher)
        made = ffi.new("struct rs_tables **")
        checked(lib.rs_tables_load(ffi.from_buffer(blob), len(blob), serial, made), "load tables")
        return cls(serial, ffi.gc(made[0], lib.rs_tables_free))

    def release(self) -> Any:
        """Give the C object away."""
        raw, self._raw = self._raw, None
        ffi.gc(raw, None)
        return raw


class Engine:
    """Answers the calls of one tree in threads of its own, beside the interpreter.

    Args:
        listener: Where the calls arrive; must stay open until `stop` has returned True.
        member: Pid of a process of the tree.
        names: Held while names are changed.

    Raises:
        OSError: ENOMEM, EMFILE, or /proc/<member>/root cannot be opened.
    """

    THREADS = 4

    def __init__(self, listener: Listener, member: int, names: Stillness) -> None:
        self._listener = listener
        self._names = names  # it must outlive the threads
        numbers = ffi.new("struct rs_numbers *")
        for field, _ in ffi.typeof("struct rs_numbers").fields:
            setattr(numbers, field, number_of(field) if number_of(field) is not None else -1)
        made = ffi.new("struct rs_engine **")
        checked(
            lib.rs_engine_new(listener.fd, listener.launcher, member, names.raw, numbers, made),
            "start the engine",
        )
        self._raw = made[0]
        self._buffer = ffi.new("char[]", max(_CHUNK, lib.RS_RECORD_ROOM))

    def start(self) -> None:
        """Start the threads. EAGAIN if the user may have no more."""
        checked(lib.rs_engine_start(self._raw, min(self.THREADS, max(2, os.cpu_count() or 1))), "clone")

    def fileno(self) -> int:
        """An fd that is readable (poll(2)) while there are questions or records."""
        return int(lib.rs_engine_fd(self._raw))

    def put_in_force(self, tables: Tables | None, *, record_all: bool, forgetful: bool) -> None:
        """Decide by another policy from the next call on; None makes everything a question.

        Args:
            tables: What decides; it cannot be used again.
            record_all: Keep records of allowed calls, too.
            forgetful: Keep nothing of what is known of a task from call to call.

        Raises:
            OSError: ENOMEM; nothing has changed.
        """
        flags = (lib.RS_RECORD_ALL if record_all else 0) | (lib.RS_FORGETFUL if forgetful else 0)
        raw = ffi.NULL if tables is None else tables.release()
        checked(lib.rs_engine_decide(self._raw, raw, flags), "malloc")

    def executed(self) -> None:
        """Forget what is known of tasks: one of them has become another program."""
        lib.rs_engine_executed(self._raw)

    def questions(self) -> Iterator[Notification]:
        """Take the calls that are to be decided in Python."""
        raw = ffi.new("struct rs_notification *")
        while lib.rs_engine_question(self._raw, raw):
            yield Notification(
                listener=self._listener.fd,
                launcher=self._listener.launcher,
                id=raw.id,
                tid=raw.pid,
                number=raw.nr,
                args=tuple(raw.args),
                syscall=name_of(raw.nr),
            )

    def clear(self) -> None:
        """Make the fd unreadable until something new comes."""
        try:
            os.eventfd_read(self.fileno())
        except BlockingIOError:
            return

    def take_records(self, *, kept: bool) -> bytes:
        """Take records as bytes, for `read_records`.

        Args:
            kept: Those that must be on record; otherwise what is left of the others.
        """
        found = []
        while size := lib.rs_engine_records(self._raw, int(not kept), self._buffer, len(self._buffer)):
            found.append(ffi.buffer(self._buffer, size)[:])
        return b"".join(found)

    def number(self) -> int:
        """Take the next number in the order of the tree's decisions."""
        return int(lib.rs_engine_number(self._raw))

    @property
    def counts(self) -> tuple[int, int]:
        """How many calls were answered here, and how many became questions."""
        answered, asked = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.rs_engine_counts(self._raw, answered, asked)
        return answered[0], asked[0]

    def stop(self) -> bool:
        """End the threads; False if one hangs in the kernel: then neither close this nor the listener.

        What is left of questions and records can still be taken.
        """
        return bool(lib.rs_engine_stop(self._raw) != -errno.EBUSY)

    def close(self) -> None:
        """Free everything, after a successful `stop`."""
        raw, self._raw = self._raw, ffi.NULL
        lib.rs_engine_free(raw)


def read_records(raw: bytes) -> Iterator[Record]:
    """Read what `Engine.take_records` gave."""
    at = 0
    while at < len(raw):
        (
            size, path_size, who_size, flags, number, serial, _, held, tid, tgid, call, error, operation, _,
        ) = _RECORD.unpack_from(raw, at)  # fmt: skip
        start = at + _RECORD.size
        processes, argv = _read_who(raw[start + path_size : start + path_size + who_size])
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
            processes=processes,
            argv=argv,
        )
        at += size


def _read_who(raw: bytes) -> tuple[tuple[Acting, ...], tuple[bytes, ...]]:
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
