"""What was decided in one tree, for its harness and for the audit log: by Python, and by the engine."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import threading
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import attrs

from rampart_seccomp.broker.denials import Decided, Denial, bounded
from rampart_seccomp.broker.engine import Engine
from rampart_seccomp.broker.judge import Judge, Judgement
from rampart_seccomp.broker.landing import started_program
from rampart_seccomp.broker.lineage import Lineage
from rampart_seccomp.broker.processes import acting
from rampart_seccomp.broker.records import Record, read_records
from rampart_seccomp.broker.sequence import Sequence
from rampart_seccomp.events import ConnectEvent, Event, FileEvent, Operation, Process

if TYPE_CHECKING:
    from rampart_seccomp.broker.telling import Telling

__all__ = ["Entry", "Ledger"]

T = TypeVar("T")

_ENFORCED = {Operation.EXEC: "verified"}
"""How the engine carries out what is allowed, unless by itself."""

_KEPT = 10_000
"""Decisions and denials that are kept for the harness; the audit log has all."""

_UNREAD_MAX = 8 << 20
"""Bytes of the engine's records that wait for somebody who asks for the events."""


class Entry:
    """One call in the ledger, which has one place in the order of decisions; a context manager.

    Args:
        ledger: The ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._number: int | None = None

    def settle(self) -> int:
        """Take the place that it keeps, unless it has one: before the program gets its answer."""
        if self._number is None:
            self._number = self._ledger._begin()
        return self._number

    def deny(self, denial: Denial) -> None:
        """Note a denial, for the harness."""
        self._ledger._deny(self.settle(), denial)

    def record(self, judgement: Judgement, error: int | None, enforced: str, held_ns: int) -> None:
        """Note a decision, and put it on record.

        Args:
            judgement: What was decided.
            error: What the program saw; None for success.
            enforced: How: ``performed``, ``answered`` and the like.
            held_ns: How long the call was held, in nanoseconds.
        """
        self._ledger._record(self.settle(), judgement, error, enforced, held_ns)

    def __enter__(self) -> Entry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number is not None:
            self._ledger._over(self._number)


class Ledger:
    """The decisions of one tree. Safe to use from several threads.

    What the engine decides is in its journal before the program goes on. It is collected by one thread, the
    one that also learns of execs, so that it knows who acted.

    Args:
        telling: Tells and records.

    Attributes:
        entered: How many of the engine's records were put on record.
    """

    def __init__(self, telling: Telling) -> None:
        self.entered = 0
        self._telling = telling
        self._lock = threading.RLock()
        self._denials: deque[tuple[int, Denial]] = deque(maxlen=_KEPT)
        self._events: deque[tuple[int, Decided]] = deque(maxlen=_KEPT)
        self._numbers = itertools.count()
        self._sequence = Sequence(self.number)
        self._horizon: int | None = None
        self._engine: Engine | None = None
        self._lineage: Lineage | None = None
        self._judges: dict[int, Judge] = {}
        self._unread: deque[bytes] = deque()
        self._unread_size = 0
        self._acted: tuple[object, Process] | None = None

    def attach(self, engine: Engine, lineage: Lineage) -> None:
        """Collect the records of an engine, too."""
        with self._lock:
            self._engine = engine
            self._lineage = lineage

    def detach(self) -> None:
        """Take what is left in the engine, which can be closed then, and write all that there is."""
        with self._lock:
            if self._engine is not None:
                self.enter(self.take())
                self._take_others()
                self._numbers = itertools.count(self._engine.number())
                self._engine = None
                self._horizon = None
        self._sequence.write(waiting=False)

    def forsake(self) -> None:
        """In a forked child: keep what is known, and ask the engine, which is not here, for nothing."""
        self._lock = threading.RLock()
        self._engine = None

    def judged_by(self, serial: int, judge: Judge) -> None:
        """Say who can explain what tables of this serial decide.

        Without the lock: whoever has it may be about to end what is in force, and wait for the caller.
        """
        self._judges[serial] = judge

    @property
    def denials(self) -> list[Denial]:
        """What was denied, oldest first; the latest 10,000."""
        with self._lock:
            return _ordered(self._denials)

    @property
    def events(self) -> list[Decided]:
        """What was decided, oldest first; the latest 10,000."""
        with self._lock:
            self._take_others()
            unread, self._unread, self._unread_size = self._unread, deque(), 0
            for raw in unread:
                for record in read_records(raw):
                    self._keep(record.number, self._judgement(record), record.errno)
            return _ordered(self._events)

    def entry(self) -> Entry:
        """Return what notes the decisions about one call."""
        return Entry(self)

    def number(self) -> int:
        """Take the next number in the order of decisions."""
        with self._lock:
            return next(self._numbers) if self._engine is None else self._engine.number()

    def deny(self, denial: Denial) -> None:
        """Note a denial, for the harness, of which there is another record."""
        self._deny(self.number(), denial)

    def write(self) -> None:
        """Write what is to be on record and need not wait any longer."""
        self._sequence.write(self._horizon)

    def _begin(self) -> int:
        with self._lock:
            return self.number() if self._telling.audit is None else self._sequence.begin()

    def _deny(self, number: int, denial: Denial) -> None:
        with self._lock:
            self._denials.append((number, denial))

    def _record(
        self, number: int, judgement: Judgement, error: int | None, enforced: str, held_ns: int
    ) -> None:
        with self._lock:
            self._keep(number, judgement, error)
        self._put(number, judgement, error, enforced, held_ns)

    def _put(self, number: int, judgement: Judgement, error: int | None, enforced: str, held_ns: int) -> None:
        if self._telling.wants(judgement):
            telling = functools.partial(self._telling.write, judgement, error, enforced, held_ns)
            self._sequence.put(number, telling)

    def _over(self, number: int) -> None:
        if not self._sequence.over(number):
            return
        with self._lock:
            engine = self._engine
            if engine is not None:
                engine.wake()  # whose records may come before
        if engine is None:
            self.write()

    def take(self) -> list[bytes]:
        """Take from the engine what must be on record, for `enter`."""
        with self._lock:
            if self._engine is None:
                return []
            self._horizon = self._engine.number()
            return self._engine.take_records(kept=True)

    def enter(self, taken: Iterable[bytes]) -> None:
        """Put on record what was taken."""
        with self._lock:
            for record in itertools.chain.from_iterable(map(read_records, taken)):
                self._enter(record)
                self.entered += 1
            unrecorded = 0 if self._engine is None else self._engine.take_unrecorded()
        self.write()
        if unrecorded:
            self._telling.unrecorded(unrecorded)

    def _enter(self, record: Record) -> None:
        judgement = self._judgement(record)
        if not judgement.allowed:
            suggestion = self._judges[record.serial].suggest(judgement)
            self._denials.append((record.number, self._telling.denial(judgement, suggestion)))
        self._keep(record.number, judgement, record.errno)
        enforced = _ENFORCED.get(record.operation, "performed") if judgement.allowed else "answered"
        self._put(record.number, judgement, record.errno, enforced, record.held_ns)
        self._sequence.write(record.number + 1)

    def _judgement(self, record: Record) -> Judgement:
        process = self._process(record)
        event: Event
        if record.operation is Operation.CONNECT:
            event = ConnectEvent(
                protocol=record.protocol,
                address=ipaddress.ip_address(record.path),
                port=record.port,
                syscall=record.syscall,
                process=process,
            )
        elif record.operation is Operation.EXEC:
            event = attrs.evolve(started_program(record.path, syscall=record.syscall), process=process)
        else:
            event = FileEvent(
                operation=record.operation, path=record.path, syscall=record.syscall, process=process
            )
        return self._judges[record.serial].recall(event, allowed=record.allowed)

    def _process(self, record: Record) -> Process | None:
        if not record.processes:
            return None
        standing = None if self._lineage is None else self._lineage.standing_then(record.processes)
        who = (record.tgid, record.tid, record.processes, record.argv, standing)
        if self._acted is None or self._acted[0] != who:
            self._acted = who, acting(*who)
        return self._acted[1]

    def _keep(self, number: int, judgement: Judgement, error: int | None) -> None:
        verdict = "allow" if judgement.allowed else "deny"
        event = bounded(judgement.event)
        decided = Decided(
            event, verdict, judgement.rule, judgement.where, error, judgement.asked, judgement.redirect
        )
        self._events.append((number, decided))

    def _take_others(self) -> None:
        if self._engine is None:
            return
        taken = self._engine.take_records(kept=False)
        self._unread.extend(taken)
        self._unread_size += sum(map(len, taken))
        while self._unread_size > _UNREAD_MAX and len(self._unread) > 1:
            self._unread_size -= len(self._unread.popleft())


def _ordered(numbered: Iterable[tuple[int, T]]) -> list[T]:
    return [value for _, value in sorted(numbered, key=lambda item: item[0])]
