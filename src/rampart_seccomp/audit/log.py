"""The sink: one JSON object a line, appended, chained, and out of reach of a host's logging setup.

structlog renders the lines, through a bound logger made here with its own processors and its own file.
Neither ``structlog.configure`` nor the logging module of the program around us has a part in it, so nothing
there can drop or alter a record. structlog is imported when the first log is opened: it costs more than the
start of most commands.
"""

from __future__ import annotations

import errno as errnos
import fcntl
import os
import stat
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack
from datetime import datetime, timezone
from time import monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rampart_seccomp.audit.chain import Checkpoint, Malformed, canonical, checkpoint_path, digest, parse
from rampart_seccomp.audit.verify import read_checkpoint, verify
from rampart_seccomp.errors import AuditError

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = ["AuditLog"]

FORMAT = 1
_AWAY = "move the log and its .head file away to begin a new one"
_BLOCK = 64 * 1024


class AuditLog:
    """An open audit log; records go in, one at a time, from any thread.

    An existing log is continued: its last record is checked, against the checkpoint too, and the chain goes
    on from there. Each opening adds a header record (``"record": "session"``). Close it, or use it as a
    context manager. A forked child of the process cannot write to it.

    Args:
        path: The file, made with mode 0600 if need be. The checkpoint is ``<path>.head`` beside it.
        about: Further fields of the header, such as the policy and its fingerprint.

    Raises:
        AuditError: It cannot be opened, is a symbolic link, no regular file, has a second name (hard link),
            is being written by somebody else, or was damaged.
    """

    def __init__(
        self, path: str | bytes | os.PathLike[Any], *, about: Mapping[str, Any] | None = None
    ) -> None:
        from structlog import BoundLoggerBase
        from structlog.processors import JSONRenderer

        given = os.fsencode(path)
        self.path = os.path.join(os.path.realpath(os.path.dirname(given) or b"."), os.path.basename(given))
        """Real absolute path, bytes."""
        self.session = os.urandom(16).hex()
        """Stands in every record that names no session of its own."""
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._bound = BoundLoggerBase
        self._processors: list[Processor] = [
            self._chain,
            JSONRenderer(serializer=lambda record, **_: canonical(record)),
        ]
        with ExitStack() as opened:
            self._lines = _Lines(_open(self.path, os.O_APPEND), self.path)
            opened.callback(self._lines.close)
            self._lines.lock()
            self._checkpoint_fd = _open(checkpoint_path(self.path))
            opened.callback(os.close, self._checkpoint_fd)
            self._head = self._next = _resume(self.path, self._lines.fd)
            self.write(_header(about or {}))
            self._opened = opened.pop_all()

    @property
    def paths(self) -> tuple[bytes, bytes]:
        """The log and its checkpoint: what the tree must not touch."""
        return self.path, checkpoint_path(self.path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; ``seq``, ``prev``, ``hash``, and ``session`` if missing, are added.

        Once this returns, the line is with the kernel: it survives the death of the process, though not a
        loss of power.

        Raises:
            AuditError: The record, or the checkpoint after it, could not be written. There is never half
                a line: the log still verifies.
        """
        if os.getpid() != self._pid:
            raise AuditError(
                "the audit log belongs to the parent process",
                file=self.path,
                hint="open one of its own in the forked child",
            )
        with self._lock:
            if self._closed:
                raise AuditError("the audit log is closed", file=self.path)
            try:
                self._bound(self._lines, self._processors, dict(record))._proxy_to_logger("append")
            except (TypeError, ValueError, RecursionError) as problem:
                raise AuditError(f"the record has no JSON form: {problem}", file=self.path) from problem
            self._head = self._next
            try:
                os.pwrite(self._checkpoint_fd, self._head.render(), 0)
            except OSError as problem:
                raise AuditError(
                    "cannot write the checkpoint", file=checkpoint_path(self.path), errno=problem.errno
                ) from problem

    def close(self) -> None:
        """Close the log; a second time, or in a forked child, does nothing."""
        if os.getpid() != self._pid:
            return  # the lock on the file is the parent's, and ours to undo as well
        with self._lock:
            if not self._closed:
                self._closed = True
                self._opened.close()

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _chain(self, _logger: Any, _method: str, record: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Put a record in its place: the structlog processor before the renderer."""
        record.setdefault("session", self.session)
        record["seq"] = self._head.seq + 1
        record["prev"] = self._head.hash
        record["hash"] = digest(record)
        self._next = Checkpoint(record["seq"], record["hash"])
        return record


class _Lines:
    """The file, as the logger that structlog wraps. Owns the fd."""

    def __init__(self, fd: int, path: bytes) -> None:
        self.fd = fd
        self.path = path
        self._broken = False

    def lock(self) -> None:
        """Become the only writer, or raise AuditError."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditError(
                "somebody else is writing to this audit log",
                file=self.path,
                hint="give each broker a file of its own, or all of them one AuditLog",
            ) from None
        except OSError as problem:
            raise AuditError("cannot lock the audit log", file=self.path, errno=problem.errno) from problem

    def append(self, line: str) -> None:
        """Write one line whole, or leave the file as it was and raise AuditError."""
        if self._broken:
            raise AuditError("half a line could not be taken back earlier", file=self.path)
        content = line.encode("ascii") + b"\n"
        before = os.fstat(self.fd).st_size
        try:
            # Only a full disk, a quota or a file size limit makes this short.
            written, code = os.write(self.fd, content), errnos.ENOSPC
        except OSError as problem:
            written, code = 0, problem.errno or errnos.EIO
        if written == len(content):
            return
        try:
            os.ftruncate(self.fd, before)
        except OSError:
            self._broken = True
        raise AuditError("cannot write to the audit log", file=self.path, errno=code)

    def close(self) -> None:
        # A forked child may hold a copy of the fd: the lock goes with the log, not with the last copy.
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


def _open(path: bytes, flags: int = 0) -> int:
    """Open, or make, a regular file of one name for reading and writing."""
    # Without O_NONBLOCK a FIFO or a device under that name could hold us up before it is refused.
    flags |= os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as problem:
        if problem.errno == errnos.ELOOP:
            raise AuditError("is a symbolic link", file=path, hint="name the file itself") from None
        raise AuditError("cannot open the audit log", file=path, errno=problem.errno) from problem
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return fd
    os.close(fd)
    if stat.S_ISREG(status.st_mode):
        raise AuditError("has another name (hard link) by which it could be changed", file=path, hint=_AWAY)
    raise AuditError("is not a regular file", file=path, hint="name a regular file")


def _resume(path: bytes, fd: int) -> Checkpoint:
    """Return where an existing log ends, after checking that it ends there rightly.

    Looks at the last line and the checkpoint only; all of it is verified when the checkpoint is behind,
    which means that the writer died between a line and its checkpoint.
    """
    try:
        checkpoint = read_checkpoint(path)
        line = _last_line(fd)
        if line is None:
            last = Checkpoint()
        elif not line.endswith(b"\n"):
            raise Malformed("cut off in the middle")
        else:
            record = parse(line[:-1])
            last = Checkpoint(record["seq"], record["hash"])
    except Malformed:
        verify(path)
        raise AuditError("is damaged at its end", file=path, hint=_AWAY) from None
    if checkpoint != last:
        verify(path)
    return last


def _last_line(fd: int) -> bytes | None:
    """Return the last line of a file with what ends it; None if the file is empty."""
    position = os.fstat(fd).st_size
    tail = b""
    while position and b"\n" not in tail[:-1]:
        size = min(_BLOCK, position)
        position -= size
        tail = os.pread(fd, size, position) + tail
    return tail[tail.rfind(b"\n", 0, -1) + 1 :] or None


def _header(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record that begins a session."""
    system = os.uname()
    return {
        **about,
        "record": "session",
        "format": FORMAT,
        "time": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        "mono_ns": monotonic_ns(),
        "pid": os.getpid(),
        "uid": os.getuid(),
        "host": system.nodename,
        "kernel": system.release,
    }
