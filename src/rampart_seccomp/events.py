"""What is judged: one frozen value for each effect that a call would have.

A call can have several effects (a rename deletes one name and creates another); it is then several events,
and the strictest verdict wins. Paths are bytes, absolute and real: the name of the object that was pinned,
never the string that the program passed.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import ClassVar

import attrs

__all__ = [
    "DNS_PORT",
    "Address",
    "ConnectEvent",
    "Event",
    "ExecEvent",
    "FileEvent",
    "ListenEvent",
    "Operation",
    "Process",
    "Program",
    "RefusedEvent",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DNS_PORT = 53


class Operation(str, enum.Enum):
    """The operations of the policy language. ``write`` is not one: it stands for four of them."""

    READ = "read"
    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"
    METADATA = "metadata"
    EXEC = "exec"
    CONNECT = "connect"
    LISTEN = "listen"

    def __str__(self) -> str:
        return self.value


@attrs.frozen(repr=False)
class Program:
    """A verified exec: what a process really runs.

    Attributes:
        path: Real path of the image; of a script: of its last interpreter.
        argv: The argument vector that the image got.
        clean: True if it was started without variables that make it run other code.
        execs: The events that this exec was judged by: of a script, one for itself and one for each
            interpreter. Empty: the image alone, with `argv`.
    """

    path: bytes
    argv: tuple[bytes, ...]
    clean: bool
    execs: tuple[ExecEvent, ...] = ()


@attrs.frozen
class Process:
    """Who acts, as far as /proc tells at the time of asking, and as far as its execs were verified.

    Attributes:
        pid: Thread group id, in the broker's pid namespace.
        tid: Thread id of the thread that made the call.
        start_time: Start of the process in clock ticks since boot (proc(5), stat, field 22); tells a
            reused pid apart. None where it could not be read.
        executable: Real path of the image; None where it could not be read.
        argv: Command line as the process shows it now; the process can change it.
        ancestry: Images of the ancestors, nearest first, up to the launched command.
        lineage: Verified programs: the acting one first, then those beneath whose exec it runs (earlier
            execs of the same process included), the launched command last. None if unknown: then what
            restricts programs holds, and what allows them does not.
    """

    pid: int
    tid: int
    start_time: int | None = None
    executable: bytes | None = None
    argv: tuple[bytes, ...] = ()
    ancestry: tuple[bytes, ...] = ()
    lineage: tuple[Program, ...] | None = None


@attrs.frozen(kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        operation: What would be done.
        process: Who does it; None while nobody has asked for it.
        syscall: Name of the system call, such as ``openat``.
    """

    operation: Operation
    process: Process | None = attrs.field(default=None, eq=False)
    syscall: str = attrs.field(default="", eq=False)

    kind: ClassVar[str] = "event"

    @property
    def object(self) -> str:
        """The object in words, unescaped: for matching in tests and for records, not for a terminal."""
        raise TypeError(f"{type(self).__name__} has no object")


@attrs.frozen(kw_only=True)
class FileEvent(Event):
    """read, create, modify, delete or metadata of one file.

    Attributes:
        path: Real absolute name; of what does not exist yet, the real parent's name and the new name.
    """

    path: bytes
    kind: ClassVar[str] = "file"

    @property
    def object(self) -> str:
        return self.path.decode(errors="surrogateescape")


@attrs.frozen(kw_only=True)
class ExecEvent(Event):
    """The start of a program. A script gives one event for itself and one for each interpreter.

    Attributes:
        path: Real absolute name of the image (of the script, of the interpreter). Of one that has none, what
            the kernel calls it: ``/memfd:NAME (deleted)``, ``/old/name (deleted)``.
        argv: The whole argument vector that this image gets.
        named: Absolute name under which it was started, before the last symbolic link was followed.
        changed: Names of the environment variables that it adds or changes with respect to what the calling
            program was started with. None if unknown: then rules that restrict variables hold, and those
            that allow them do not.
        linked: False if no name leads to the image: a memfd, or a deleted file, whose `named` is then the
            name that it had. It is no program that rules which allow could know.
    """

    operation: Operation = Operation.EXEC
    path: bytes
    argv: tuple[bytes, ...] = ()
    named: bytes | None = None
    changed: frozenset[bytes] | None = frozenset()
    linked: bool = True
    kind: ClassVar[str] = "exec"

    @property
    def object(self) -> str:
        return " ".join(part.decode(errors="surrogateescape") for part in (self.argv or (self.path,)))


@attrs.frozen(kw_only=True)
class ConnectEvent(Event):
    """A connection, or a datagram, to somewhere; or looking up a name, which tells others of it.

    Attributes:
        protocol: ``tcp``, ``udp`` or ``unix``; ``dns`` for looking up a name.
        address: IP address, v4-mapped ones as IPv4; None for unix sockets, and for names.
        port: 0 to 65535; None for unix sockets, and for looking up a name.
        names: Host names that the tree was given the address for, or that /etc/hosts has for it; the name
            that is looked up. Lower case, no trailing dot.
        query: What is asked about the name, such as ``A`` or ``TXT``; None if nothing is looked up.
        socket: Real path of a unix socket, or ``@`` and the abstract name; None for IP.
        in_tree: True if the unix socket was bound by a process of the same tree.
    """

    operation: Operation = Operation.CONNECT
    protocol: str
    address: Address | None = None
    port: int | None = None
    names: frozenset[str] = frozenset()
    query: str | None = None
    socket: bytes | None = None
    in_tree: bool = False
    kind: ClassVar[str] = "connect"

    @property
    def object(self) -> str:
        if self.socket is not None:
            return "unix:" + self.socket.decode(errors="surrogateescape")
        if self.query is not None:
            return f"{', '.join(sorted(self.names))} (DNS {self.query})"
        if self.address is None:
            return ", ".join(f"{name}:{self.port}" for name in sorted(self.names))
        host = f"[{self.address}]" if isinstance(self.address, ipaddress.IPv6Address) else str(self.address)
        where = f"{host}:{self.port}"
        return f"{where} ({', '.join(sorted(self.names))})" if self.names else where


@attrs.frozen(kw_only=True)
class ListenEvent(Event):
    """A local port that others can reach.

    Attributes:
        protocol: ``tcp`` or ``udp``.
        address: Local address; 0.0.0.0 and :: mean every address.
        port: 0 to 65535.
    """

    operation: Operation = Operation.LISTEN
    protocol: str
    address: Address
    port: int
    kind: ClassVar[str] = "listen"

    @property
    def object(self) -> str:
        host = f"[{self.address}]" if isinstance(self.address, ipaddress.IPv6Address) else str(self.address)
        return f"{host}:{self.port}"


@attrs.frozen(kw_only=True)
class RefusedEvent(Event):
    """A system call that is not available at all, such as ``mount``: the syscall table refuses it."""

    operation: None = None  # type: ignore[assignment]
    kind: ClassVar[str] = "refused"

    @property
    def object(self) -> str:
        return self.syscall
