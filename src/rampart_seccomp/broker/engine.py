"""The engine, seen from Python: C threads that answer what the policy decides without asking anybody.

What they cannot answer comes out as questions, which are notifications like any other; what they have
answered comes out as records.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
from collections.abc import Collection, Iterator
from typing import Any

import attrs

from rampart_seccomp.broker.verifying import Stage
from rampart_seccomp.calls.notification import Listener, Notification
from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.calls.stillness import Stillness
from rampart_seccomp.kernel.libseccomp import number_of
from rampart_seccomp.kernel.syscalls import name_of
from rampart_seccomp.policy import AnyMatcher
from rampart_seccomp.policy.hosts import Network
from rampart_seccomp.policy.tables import compile_tables

__all__ = ["Engine", "Tables"]

_hung: list[Engine] = []
_serials = itertools.count(1)
_compiled = functools.lru_cache(maxsize=16)(compile_tables)
_CHUNK = 1 << 16  # small enough that the C library gives the memory back, or uses it again
_CHUNKS = 128  # more than the largest of the engine's journals


@functools.cache
def _numbers() -> Any:
    """Give the numbers of the calls that the engine answers; -1 for those that there are none of here."""
    numbers = ffi.new("struct rs_numbers *")
    for field, _ in ffi.typeof("struct rs_numbers").fields:
        number = number_of(field)
        setattr(numbers, field, -1 if number is None else number)
    return numbers


@attrs.define(eq=False, repr=False)
class Tables:
    """A policy as the engine takes it; made beforehand, so that putting it in force cannot fail.

    Attributes:
        serial: Tells it apart from all others of this process.
    """

    serial: int
    _raw: Any

    @classmethod
    def of(cls, matcher: AnyMatcher, questions: tuple[Network, ...]) -> Tables:
        """Compile a policy.

        Args:
            matcher: The policy.
            questions: Networks of addresses that stand for others.

        Raises:
            OSError: ENOMEM.
        """
        serial = next(_serials)
        blob = _compiled(matcher, questions)
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
        made = ffi.new("struct rs_engine **")
        checked(
            lib.rs_engine_new(listener.fd, listener.launcher, member, names.raw, _numbers(), made),
            "start the engine",
        )
        self._raw = made[0]
        self._buffer = ffi.new("char[]", max(_CHUNK, lib.RS_RECORD_ROOM))
        self._landed = ffi.new("char[]", max(_CHUNK, lib.RS_LANDED_ROOM))

    def trace(self, channel: int, launcher: int, loaders: Collection[tuple[int, int]]) -> None:
        """Have execs judged, once one was traced (`traced`); before `start`.

        Args:
            channel: Leads to the launcher, which has the listener, too (`protocol.Lent`). Ours from here.
            launcher: A pidfd of it. Ours from here.
            loaders: The dynamic loaders of the system, by device and inode.
        """
        files = ffi.new("struct rs_file[]", list(loaders))
        checked(lib.rs_engine_trace(self._raw, channel, launcher, files, len(loaders)), "malloc")

    def traced(self) -> None:
        """Judge execs from here on: one has been traced."""
        lib.rs_engine_traces(self._raw)

    def claim(self, tgid: int) -> bool:
        """Judge no exec of this process until `unclaim`; False while one is on its way."""
        result = lib.rs_engine_claim(self._raw, tgid)
        return result != -errno.EBUSY and checked(result, "malloc") == 0

    def unclaim(self, tgid: int) -> None:
        """Judge execs of this process again."""
        lib.rs_engine_unclaim(self._raw, tgid)

    def take_landed(self) -> bytes:
        """Take what came of execs as bytes, for `read_landed`: all that the launcher has said so far."""
        found = []
        while size := lib.rs_engine_landed(self._raw, self._landed, len(self._landed)):
            found.append(ffi.buffer(self._landed, size)[:])
            if len(found) == _CHUNKS:
                self.wake()
                break
        return b"".join(found)

    def start(self) -> None:
        """Start the threads. EAGAIN if the user may have no more."""
        checked(lib.rs_engine_start(self._raw, min(self.THREADS, max(2, os.cpu_count() or 1))), "clone")

    def fileno(self) -> int:
        """An fd that is readable (poll(2)) while there are questions or records."""
        return int(lib.rs_engine_fd(self._raw))

    def put_in_force(
        self, tables: Tables | None, *, record_all: bool, record_logged: bool, required: bool
    ) -> None:
        """Decide by another policy from the next call on; None makes everything a question.

        Args:
            tables: What decides; it cannot be used again.
            record_all: Keep records of allowed calls, too.
            record_logged: Keep those of calls that are allowed by a rule which wants them recorded.
            required: Deny a call if there is no room for what is to be recorded of it; otherwise it is then a
                question, which takes longer.

        Raises:
            OSError: ENOMEM; nothing has changed.
        """
        wanted = (
            (record_all, lib.RS_RECORD_ALL),
            (record_logged, lib.RS_RECORD_LOGGED),
            (required, lib.RS_RECORD_REQUIRED),
        )
        flags = sum(flag for given, flag in wanted if given)
        raw = ffi.NULL if tables is None else tables.release()
        checked(lib.rs_engine_decide(self._raw, raw, flags), "malloc")

    def executing(self, stage: Stage, *, leader: bool) -> None:
        """Note where an exec is, before the task can go on from there.

        Args:
            stage: Where it is.
            leader: Whether the leader of the thread group makes it. If not, the leader goes on meanwhile, and
                its number is the one that the process has afterwards.
        """
        if stage is Stage.LOST:
            lib.rs_engine_forget(self._raw, 1)
        else:
            lib.rs_engine_forget(self._raw, 0 if leader else 1 if stage is Stage.BEGUN else -1)

    def wake(self) -> None:
        """Make the fd readable."""
        os.eventfd_write(self.fileno(), 1)

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
                arrived=raw.error if raw.arrived else None,
            )

    def clear(self) -> None:
        """Make the fd unreadable until something new comes."""
        try:
            os.eventfd_read(self.fileno())
        except BlockingIOError:
            return

    def take_records(self, *, kept: bool) -> list[bytes]:
        """Take records as pieces of bytes, each for `records.read_records`.

        Args:
            kept: Those that must be on record; otherwise what is left of the others.

        Returns:
            What there is, at least all that was there when it was called.
        """
        found = []
        while size := lib.rs_engine_records(self._raw, int(not kept), self._buffer, len(self._buffer)):
            found.append(ffi.buffer(self._buffer, size)[:])
            if len(found) == _CHUNKS:  # all that was there at first: a tree can fill it as fast as we take
                self.wake()
                break
        return found

    def take_unrecorded(self) -> int:
        """Say how many calls were denied for want of room since this was last asked."""
        return int(lib.rs_engine_unrecorded(self._raw))

    def number(self) -> int:
        """Take the next number in the order of the tree's decisions."""
        return int(lib.rs_engine_number(self._raw))

    @property
    def counts(self) -> tuple[int, int]:
        """How many calls were answered here, and how many became questions."""
        answered, asked = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.rs_engine_counts(self._raw, answered, asked)
        return answered[0], asked[0]

    def depart(self, notification: Notification, copy: int, address: bytes) -> bool:
        """Wait for a connection, and give the call as a question again (`arrived`). False: nobody waits."""
        n = ffi.new("struct rs_notification *")
        n.id, n.pid, n.nr, n.args = notification.id, notification.tid, notification.number, notification.args
        return int(lib.rs_engine_depart(self._raw, n, copy, address, len(address))) == 0

    def stop(self) -> bool:
        """End the threads; False if one hangs in the kernel: then neither close this nor the listener.

        What is left of questions and records can still be taken.
        """
        stopped = bool(lib.rs_engine_stop(self._raw) != -errno.EBUSY)
        if not stopped:
            _hung.append(self)  # with what its thread uses should it ever come back
        return stopped

    def close(self) -> None:
        """Free everything, after a successful `stop`."""
        raw, self._raw = self._raw, ffi.NULL
        lib.rs_engine_free(raw)

    def forsake(self) -> None:
        """In a forked child, where its threads are not: close its descriptors, and leave its memory alone."""
        raw, self._raw = self._raw, ffi.NULL
        lib.rs_engine_forsake(raw)
