"""Proof that a log is whole: every line, its place, and its end."""

from __future__ import annotations

import fcntl
import os
from typing import Any

import attrs

from rampart_seccomp.audit.chain import (
    CHECKPOINT_SIZE,
    GENESIS,
    Checkpoint,
    Malformed,
    checkpoint_path,
    parse,
)
from rampart_seccomp.errors import AuditError

__all__ = ["Verified", "read_checkpoint", "verify"]


@attrs.frozen
class Verified:
    """What a whole log holds.

    Attributes:
        records: Number of lines, the headers of sessions included.
        sessions: How often the log was opened for writing.
        head: Hash of the last line. Kept somewhere else, it proves later that nothing before it changed.
    """

    records: int
    sessions: int
    head: str


def verify(path: str | bytes | os.PathLike[Any], *, checkpoint: bool = True) -> Verified:
    """Check a whole log against its chain and its checkpoint.

    A log that is being written is read up to where it is now.

    Args:
        path: The log.
        checkpoint: False for a log that came without its ``.head`` file: a log that was shortened at its
            end then passes.

    Raises:
        AuditError: It cannot be read, or it was edited, shortened or reordered; names the first line that
            shows it.
    """
    name = os.fsencode(path)
    # Read before the log: the checkpoint is never ahead of a log that grows meanwhile.
    expected = read_checkpoint(name) if checkpoint else None
    last = Checkpoint()
    reached = expected is None
    sessions = 0
    try:
        with open(name, "rb") as log:
            for number, line in enumerate(log, 1):
                if reached and not line.endswith(b"\n") and _is_being_written(log.fileno()):
                    break
                record = _record(name, number, line, last)
                last = Checkpoint(number, record["hash"])
                sessions += record.get("record") == "session"
                reached = reached or last == expected
                if not sessions:
                    raise AuditError("edited: the log does not begin with a header", file=name, line=1)
    except AuditError:
        raise
    except OSError as problem:
        raise AuditError("cannot read the audit log", file=name, errno=problem.errno) from problem
    if expected is not None and not reached:
        _fail_end(name, expected, last)
    if not last.seq:
        raise AuditError("the audit log is empty", file=name)
    return Verified(records=last.seq, sessions=sessions, head=last.hash)


def read_checkpoint(path: bytes) -> Checkpoint:
    """Read the checkpoint of a log.

    Returns:
        The checkpoint; one of nothing (``seq`` 0) if the file is empty or missing.

    Raises:
        AuditError: It is unreadable or edited.
    """
    name = checkpoint_path(path)
    try:
        with open(name, "rb") as file:
            content = file.read(CHECKPOINT_SIZE + 1)
    except FileNotFoundError:
        return Checkpoint()
    except OSError as problem:
        raise AuditError("cannot read the checkpoint", file=name, errno=problem.errno) from problem
    try:
        return Checkpoint.parse(content) if content else Checkpoint()
    except Malformed as problem:
        raise AuditError(str(problem), file=name, line=1) from None


def _record(path: bytes, number: int, line: bytes, last: Checkpoint) -> dict[str, Any]:
    """Return the record of a line that is sound and in its place."""
    if not line.endswith(b"\n"):
        raise AuditError("truncated: the line is cut off", file=path, line=number)
    try:
        record = parse(line[:-1])
    except Malformed as problem:
        raise AuditError(str(problem), file=path, line=number) from None
    seq = record["seq"]
    if seq > number:
        missing = f"record {number}" if seq == number + 1 else f"records {number} to {seq - 1}"
        raise AuditError(f"gap: {missing} should stand before record {seq}", file=path, line=number)
    if seq < number:
        raise AuditError(
            f"out of order or twice: record {seq} stands where {number} should", file=path, line=number
        )
    if record["prev"] != last.hash:
        what = "the line before" if last.hash != GENESIS else "the beginning"
        raise AuditError(f"edited: the record does not continue {what}", file=path, line=number)
    return record


def _fail_end(path: bytes, expected: Checkpoint, last: Checkpoint) -> None:
    """Raise AuditError, saying how a sound chain disagrees with its checkpoint."""
    if expected.seq > last.seq:
        raise AuditError(
            f"truncated: there were {expected.seq} records, {last.seq} are left", file=path, line=last.seq + 1
        )
    if expected.seq:
        raise AuditError("rewritten: the checkpoint knows another record here", file=path, line=expected.seq)
    if last.seq:
        raise AuditError(
            "there is no checkpoint, so nothing tells whether the log was shortened",
            file=checkpoint_path(path),
            hint="keep the .head file beside its log",
        )


def _is_being_written(fd: int) -> bool:
    """Return whether a writer has the log open, so that its last line may be on its way."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
