"""One decision as a record."""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterable
from datetime import datetime, timezone
from time import monotonic_ns
from typing import Any

from rampart_seccomp.audit.redact import redacted_argv
from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent, ListenEvent, RefusedEvent

__all__ = ["make_change", "make_record"]

_ARGV_LIMIT = 64 * 1024
"""Characters of an argument vector that go on record; a process may have megabytes of them."""


def make_record(
    event: Event,
    *,
    verdict: str,
    rule: str | None,
    where: str,
    errno: int | None,
    enforced: str,
    held_ns: int,
    message: str | None,
    asked: bool,
    redirect: str | None = None,
) -> dict[str, Any]:
    """Return the record of one decision; `AuditLog.write` adds its place in the log.

    Bytes that are not UTF-8 become surrogate escapes: ``os.fsencode(record["path"])`` is the exact name.
    Secrets in argument vectors are masked, and vectors beyond 64 KiB cut with a last element that says so.

    Args:
        event: What was judged.
        verdict: ``allow`` or ``deny``.
        rule: Name of the deciding rule; None for a default or a built-in.
        where: The deciding rule with its place, in words.
        errno: Error the program was given; None if the call took place.
        enforced: ``performed`` (by the broker, for the program), ``continued`` (by the kernel after the
            decision), ``kernel`` (without asking) or ``answered`` (with an error, nothing done).
        held_ns: How long the call was held, in nanoseconds.
        message: The rule's, or the answer's, message for people.
        asked: Whether a person or a callable was asked.
        redirect: What the program was shown, or reached, instead, in words; None: what it asked for, and no
            field.
    """
    process = event.process
    record: dict[str, Any] = {
        "record": "decision",
        "time": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        "mono_ns": monotonic_ns(),
        "operation": "syscall" if isinstance(event, RefusedEvent) else str(event.operation),
        "syscall": event.syscall,
        **_object(event),
        "verdict": verdict,
        "rule": rule,
        "where": where,
        "errno": None if errno is None else errnos.errorcode.get(errno, str(errno)),
        "enforced": enforced,
        "held_us": round(held_ns / 1000, 1),
        "message": message,
        "asked": asked,
    }
    if redirect is not None:
        record["redirect"] = redirect
    if process is not None:
        record.update(
            pid=process.pid,
            tid=process.tid,
            start_time=process.start_time,
            exe=None if process.executable is None else _text(process.executable),
            argv=_argv(process.argv),
            ancestry=[_text(image) for image in process.ancestry],
        )
    return record


def make_change(kind: str, **fields: Any) -> dict[str, Any]:
    """Return the record of a change to what decides; `AuditLog.write` adds its place in the log.

    Args:
        kind: ``policy``, ``grant``, ``revocation``, ``limit`` or ``unrecorded``.
        fields: What it is about.
    """
    return {
        "record": kind,
        "time": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        "mono_ns": monotonic_ns(),
        **fields,
    }


def _object(event: Event) -> dict[str, Any]:
    """Return what was acted on: ``object`` in words, and its parts for programs."""
    if isinstance(event, ExecEvent):
        command = _argv(event.argv)
        fields: dict[str, Any] = {
            "object": " ".join(command) or _text(event.path),
            "path": _text(event.path),
            "command": command,
        }
        if event.named is not None and event.named != event.path:
            fields["named"] = _text(event.named)
        return fields
    fields = {"object": event.object}
    if isinstance(event, FileEvent):
        fields["path"] = _text(event.path)
    elif isinstance(event, ListenEvent):
        fields.update(protocol=event.protocol, address=str(event.address), port=event.port)
    elif isinstance(event, ConnectEvent):
        fields["protocol"] = event.protocol
        if event.socket is not None:
            fields.update(socket=_text(event.socket), in_tree=event.in_tree)
        else:
            address = None if event.address is None else str(event.address)
            fields.update(address=address, port=event.port, names=sorted(event.names))
            if event.query is not None:
                fields["query"] = event.query
    return fields


def _argv(argv: Iterable[bytes]) -> list[str]:
    """Return an argument vector for the record: redacted, and cut where it gets too long."""
    words = redacted_argv(argv)
    room = _ARGV_LIMIT
    for index, word in enumerate(words):
        if len(word) > room:
            cut = sum(map(len, words[index:])) - room
            return [*words[:index], f"{word[:room]}[cut: {cut} more characters, {len(words)} arguments]"]
        room = max(0, room - len(word) - 1)
    return words


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
