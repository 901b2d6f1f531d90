"""Tables as the tests use them: a bound policy compiled, loaded, and asked about events."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import attrs

from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent, ListenEvent, Operation
from rampart_seccomp.policy import AnyMatcher, Decision
from rampart_seccomp.policy.hosts import Network
from rampart_seccomp.policy.tables import compile_tables

OPERATIONS = tuple(Operation)
ANSWERS = {lib.RS_DENY: "deny", lib.RS_ALLOW: "allow", lib.RS_UNDECIDED: "undecided"}

_serials = itertools.count(1)


@attrs.frozen
class Verdict:
    """What the tables say; of a denial the errno, of an allowance whether it is to be recorded."""

    answer: str
    error: int = 0
    log: bool = False

    @classmethod
    def of(cls, decision: Decision) -> Verdict:
        """What they must say if they say anything. Denials are always recorded."""
        if decision.verdict == "deny":
            return cls("deny", decision.errno, True)
        if decision.redirect is not None:
            return cls("undecided")
        return cls(decision.verdict, 0, bool(decision.rule and decision.rule.log))


UNDECIDED = Verdict("undecided")


def load(blob: bytes, serial: int | None = None) -> Any:
    """Load tables.

    Raises:
        SyscallError: EINVAL if they are no tables.
    """
    out = ffi.new("struct rs_tables **")
    number = next(_serials) if serial is None else serial
    checked(lib.rs_tables_load(blob, len(blob), number, out), "tables")
    return ffi.gc(out[0], lib.rs_tables_free)


def walker(memory: int = 1 << 20) -> Any:
    """Make a walker."""
    out = ffi.new("struct rs_walker **")
    checked(lib.rs_walker_new(memory, out), "walker")
    return ffi.gc(out[0], lib.rs_walker_free)


class Compiled:
    """A bound policy as tables, with a walker."""

    def __init__(
        self, matcher: AnyMatcher, memory: int = 1 << 20, questions: tuple[Network, ...] = ()
    ) -> None:
        self.tables = load(compile_tables(matcher, questions))
        self.walker = walker(memory)
        self._out = ffi.new("struct rs_verdict *")

    def path(self, operation: Operation, path: bytes) -> Verdict:
        """Decide about a path.

        Raises:
            SyscallError: EINVAL if it is not absolute, or not an operation on files.
        """
        number = OPERATIONS.index(operation)
        result = lib.rs_decide_path(self.tables, self.walker, number, path, len(path), self._out)
        checked(result, "decide", path)
        return self._verdict()

    def address(self, operation: Operation, address: bytes, port: int) -> Verdict:
        """Decide about an IP address in network order.

        Raises:
            SyscallError: EINVAL if it is none, or the operation is neither connect nor listen.
        """
        number = OPERATIONS.index(operation)
        checked(lib.rs_decide_address(self.tables, number, address, len(address), port, self._out), "decide")
        return self._verdict()

    def alike(self, one: bytes, other: bytes) -> bool:
        """Say whether the rules do not tell two names apart, nor what may be beneath them."""
        alike = lib.rs_alike(self.tables, self.walker, one, len(one), other, len(other))
        return bool(checked(alike, "compare", one))

    def unwatched(self, path: bytes) -> bool:
        """Say whether no rule has come further at a name than at its directory."""
        return bool(checked(lib.rs_unwatched(self.tables, self.walker, path, len(path)), "compare", path))

    def plants(self, names: Iterable[bytes]) -> int:
        """Say whether some rule may be about one of these variables."""
        given = b"".join(name + b"=x\0" for name in names)
        return checked(lib.rs_plants(self.tables, self.walker, given, len(given)), "plants")

    def start(self, event: ExecEvent) -> Verdict:
        """Decide about a start with no variables but those that have changed.

        Raises:
            SyscallError: EINVAL if a name is not absolute.
        """
        names = [event.path, event.named or event.path, event.argv[0] if event.argv else b""]
        texts = [ffi.new("char[]", name) for name in names]
        given = ffi.new("struct rs_program_names *", texts)
        plants = self.plants(event.changed or ())
        checked(lib.rs_decide_exec(self.tables, self.walker, given, plants, self._out), "decide")
        return self._verdict()

    def decide(self, event: Event) -> Verdict:
        """Decide about an event that the tables may be asked about."""
        if isinstance(event, FileEvent):
            return self.path(event.operation, event.path)
        if isinstance(event, ExecEvent):
            return self.start(event)
        assert isinstance(event, ListenEvent | ConnectEvent)
        assert event.address is not None
        assert event.port is not None
        return self.address(event.operation, event.address.packed, event.port)

    def _verdict(self) -> Verdict:
        return Verdict(ANSWERS[self._out.answer], self._out.error, bool(self._out.log))
