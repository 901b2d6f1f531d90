"""The form of a line, the chain between lines, and the checkpoint beside the log.

A line is the canonical JSON of one record. Its ``hash`` is the SHA-256 of the canonical JSON of everything
else in it, which includes ``prev``, the hash of the line before. ``seq`` is the number of the line.

The chain shows any change that does not recompute every later hash; the checkpoint shows a shortened log.
Whoever can rewrite both files can write another history: that is why the tree is denied both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = [
    "CHECKPOINT_SIZE",
    "GENESIS",
    "Checkpoint",
    "Malformed",
    "canonical",
    "checkpoint_path",
    "digest",
    "parse",
]

GENESIS = "0" * 64
"""``prev`` of the first line."""

CHECKPOINT_SIZE = 128
"""Bytes of a checkpoint; constant, so that it is overwritten in place by one pwrite(2)."""


class Malformed(ValueError):
    """A line, or a checkpoint, is not what this package writes."""


def canonical(value: Mapping[str, Any]) -> str:
    """Return the one JSON text of a record: sorted keys, no spaces, ASCII only.

    Undecodable bytes must come as surrogate escapes (os.fsdecode); they are written as ``\\udcXX``, which
    JSON reads back to the same string.

    Raises:
        TypeError, ValueError: A value that JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(record: Mapping[str, Any]) -> str:
    """Return the hash of a record, in hex, over everything but its own ``hash``."""
    content = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(canonical(content).encode("ascii")).hexdigest()


def parse(line: bytes) -> dict[str, Any]:
    """Return the record of a line, without its newline.

    Raises:
        Malformed: It is not canonical JSON of an object, its hash is not that of its content, or it lacks
            what every record has.
    """
    try:
        record: dict[str, Any] = json.loads(line.decode("ascii"))
        unchanged = isinstance(record, dict) and canonical(record).encode("ascii") == line
    except (ValueError, RecursionError):
        raise Malformed("edited: this is not a record") from None
    if not unchanged:
        raise Malformed("edited: this is not a record in the form it was written")
    if type(record.get("seq")) is not int or type(record.get("prev")) is not str:
        raise Malformed("edited: the record lacks its place in the chain")
    if record.get("hash") != digest(record):
        raise Malformed("edited: the hash is not that of the content")
    return record


@attrs.frozen
class Checkpoint:
    """How far the log has come.

    Attributes:
        seq: Number of the last line; 0 before the first.
        hash: Its hash.
    """

    seq: int = 0
    hash: str = GENESIS

    def render(self) -> bytes:
        """Return the content of the checkpoint file."""
        return canonical(attrs.asdict(self)).encode("ascii").ljust(CHECKPOINT_SIZE - 1) + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Checkpoint:
        """Read the content of a checkpoint file.

        Raises:
            Malformed: It is none.
        """
        try:
            fields = json.loads(content.decode("ascii"))
            checkpoint = cls(seq=fields["seq"], hash=fields["hash"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Malformed("edited: this is not a checkpoint") from None
        if checkpoint.render() != content:
            raise Malformed("edited: this is not a checkpoint in the form it was written")
        return checkpoint


def checkpoint_path(path: bytes) -> bytes:
    """Return the name of the checkpoint of a log."""
    return path + b".head"
