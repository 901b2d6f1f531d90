"""Grants: exact answers to questions that would otherwise be asked again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent, ListenEvent, Operation
from rampart_seccomp.policy.hosts import HostPattern, parse_host, parse_local
from rampart_seccomp.policy.terms import FILE_OPERATIONS

__all__ = ["Grant", "GrantIndex", "granted_events"]

Key = tuple[Operation, bytes | None]

NEEDED = {Operation.EXEC: ("path", "command"), Operation.CONNECT: ("host",), Operation.LISTEN: ("port",)}
"""What a grant must say, and may; of all other operations the path."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)\Z", re.ASCII)


def _operation(value: Any) -> Operation:
    try:
        return Operation(value)
    except ValueError:
        raise PolicyError(
            f"a grant is for one operation, and {str(value)!r} is none",
            key="operation",
            hint=f"the operations are {', '.join(map(str, Operation))}",
        ) from None


def _path(value: str | bytes | os.PathLike[Any] | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _command(value: Iterable[str | bytes] | None) -> tuple[bytes, ...] | None:
    if isinstance(value, (str, bytes)):
        raise PolicyError(
            "the command of a grant is a list of arguments", key="command", hint="write [npm, publish]"
        )
    return None if value is None else tuple(map(os.fsencode, value))


@attrs.frozen(kw_only=True)
class Grant:
    """One thing that is allowed although a rule asks about it or the default denies it; a deny stays.

    Everything is compared exactly: there are no patterns in a grant.

    Attributes:
        operation: One operation.
        path: Real absolute path: of the file, or of the image of an exec.
        command: The whole argv of an exec, beside `path`.
        host: ``name:port``, ``address:port``, ``unix:PATH`` or ``unix:@name``.
        port: Local port: ``8000`` on every address, or ``address:port``.
        rule: Name of the rule that asked.
        by: Who granted it.
        at: When: ISO 8601, with a time zone.
        file, line: Where it was read; None for a grant made in Python.
    """

    operation: Operation = attrs.field(converter=_operation)
    path: bytes | None = attrs.field(default=None, converter=_path)
    command: tuple[bytes, ...] | None = attrs.field(default=None, converter=_command)
    host: str | None = None
    port: str | None = attrs.field(default=None, converter=attrs.converters.optional(str))
    rule: str | None = None
    by: str | None = None
    at: str | None = None
    file: str | None = attrs.field(default=None, eq=False)
    line: int | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        needed = {
            Operation.EXEC: ("path", "command"),
            Operation.CONNECT: ("host",),
            Operation.LISTEN: ("port",),
        }
        wanted = needed.get(self.operation, ("path",))
        for key in ("path", "command", "host", "port"):
            present = getattr(self, key) is not None
            if present and key not in wanted:
                raise self._error(key, f"`{key}` does not go with {self.operation}")
            if not present and key in wanted:
                raise self._error(None, f"a grant of {self.operation} needs `{'` and `'.join(wanted)}`")
        if self.path is not None:
            self._check_path("path", self.path)
        if self.host is not None:
            self._check_host(self.host)
        if self.port is not None:
            self._check_port(self.port)
        if self.at is not None and not _TIME.match(self.at):
            raise self._error("at", f"{self.at!r} is not a time", "write '2026-01-31T12:00:00Z'")

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> tuple[Grant, ...]:
        """Load an overrides file: a YAML list of grants; an empty file has none.

        Raises:
            PolicyError: It cannot be read, or an entry is not valid; then none of them counts.
        """
        from rampart_seccomp.policy import loader

        return loader.load_grants(source)

    @staticmethod
    def dumps(grants: Iterable[Grant]) -> str:
        """Write grants as the text of an overrides file, one line each, so that it can be appended to."""
        from rampart_seccomp.policy import writing

        return writing.dump_grants(grants)

    def matches(self, event: Event) -> bool:
        """Say whether the grant is for exactly this."""
        if event.operation is not self.operation:
            return False
        if isinstance(event, ExecEvent):
            return (event.path, event.argv) == (self.path, self.command)
        if isinstance(event, FileEvent):
            return event.path == self.path
        if isinstance(event, ConnectEvent):
            assert self.host is not None
            if self.host.startswith("unix:"):
                return event.socket == os.fsencode(self.host[len("unix:") :])
            return event.socket is None and parse_host(self.host).matches(event)
        assert isinstance(event, ListenEvent)
        assert self.port is not None
        pattern = parse_local(self.port)
        if pattern.network is None and not event.address.is_unspecified:
            return False
        return pattern.matches(event, strict=False)

    @property
    def object(self) -> str:
        """What it is for, in words, unescaped."""
        if self.command is not None:
            return " ".join(map(os.fsdecode, self.command))
        if self.path is not None:
            return os.fsdecode(self.path)
        return self.host or self.port or ""

    @property
    def key(self) -> Key:
        """Operation and path that an event must have; the path is None where other things are compared."""
        if self.host is not None and self.host.startswith("unix:"):
            return self.operation, os.fsencode(self.host[len("unix:") :])
        return self.operation, self.path

    @property
    def host_pattern(self) -> HostPattern | None:
        """The name or address that it is for; None if it is for something else."""
        if self.host is None or self.host.startswith("unix:"):
            return None
        return parse_host(self.host)

    @property
    def where(self) -> str:
        """Where it is written, or whose it is: ``grant (overrides.yaml:3)``."""
        if self.file is not None:
            return f"grant ({os.path.basename(self.file)}:{self.line})"
        return f"grant by {self.by}" if self.by else "grant"

    def _check_path(self, key: str, path: bytes) -> None:
        if not path.startswith(b"/") or b"\0" in path or os.path.normpath(path) != path or path[:2] == b"//":
            raise self._error(
                key, f"{os.fsdecode(path)!r} is not a real absolute path", "a grant names one object exactly"
            )

    def _check_host(self, host: str) -> None:
        if host.startswith("unix:@"):
            return
        if host.startswith("unix:"):
            self._check_path("host", os.fsencode(host[len("unix:") :]))
            return
        try:
            pattern = parse_host(host)
        except PolicyError as error:
            raise self._error("host", error.problem, error.hint) from None
        one = pattern.name is not None or (pattern.network is not None and pattern.network.num_addresses == 1)
        if not one or not _one_port(pattern.ports):
            raise self._error("host", f"{host!r} is not one destination", "write 'example.com:443'")

    def _check_port(self, port: str) -> None:
        try:
            pattern = parse_local(port)
        except PolicyError as error:
            raise self._error("port", error.problem, error.hint) from None
        one = pattern.network is None or pattern.network.num_addresses == 1
        if not one or not _one_port(pattern.ports):
            raise self._error("port", f"{port!r} is not one port", "write '8000' or '127.0.0.1:8000'")

    def _error(self, key: str | None, problem: str, hint: str | None = None) -> PolicyError:
        return PolicyError(problem, file=self.file, line=self.line, key=key, hint=hint)


def _one_port(ports: tuple[tuple[int, int], ...]) -> bool:
    return len(ports) == 1 and ports[0][0] == ports[0][1]


class GrantIndex:
    """Finds the grant for an event.

    Args:
        grants: Any number of them.
    """

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants: dict[Key, list[Grant]] = {}
        for grant in grants:
            self._grants.setdefault(grant.key, []).append(grant)

    def __bool__(self) -> bool:
        return bool(self._grants)

    def find(self, event: Event) -> Grant | None:
        """Give the first grant for exactly this event."""
        key: Key = (event.operation, None)
        if isinstance(event, (FileEvent, ExecEvent)):
            key = (event.operation, event.path)
        elif isinstance(event, ConnectEvent):
            key = (event.operation, event.socket)
        return next((grant for grant in self._grants.get(key, ()) if grant.matches(event)), None)

    def beneath(self, path: bytes) -> list[Grant]:
        """Give the grants for this path or anything beneath it."""
        inside = path.rstrip(b"/") + b"/"
        return [
            grant
            for (_, granted), grants in self._grants.items()
            if granted is not None and (granted == path or granted.startswith(inside))
            for grant in grants
        ]


def granted_events(grant: Grant, path: bytes) -> list[Event]:
    """Give the events that a grant is for, as they would be if its object were at another path."""
    if grant.operation in FILE_OPERATIONS:
        return [FileEvent(operation=grant.operation, path=path)]
    if grant.operation is Operation.EXEC:
        return [ExecEvent(path=path, argv=grant.command or (), named=path)]
    return [ConnectEvent(protocol="unix", socket=path, in_tree=inside) for inside in (False, True)]
