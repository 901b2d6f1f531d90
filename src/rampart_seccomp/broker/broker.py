"""The broker: owns the policy, the approvers and the audit log, and judges the trees it launched."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import attrs

from rampart_seccomp.broker.denials import Denial, shortened
from rampart_seccomp.broker.judge import Judge, Judgement
from rampart_seccomp.broker.names import HostNames, nameservers
from rampart_seccomp.broker.ownfiles import harness_code
from rampart_seccomp.broker.questions import Approver
from rampart_seccomp.broker.session import Session
from rampart_seccomp.calls.shim import checked, lib
from rampart_seccomp.errors import AuditError, BrokerClosed
from rampart_seccomp.events import Operation
from rampart_seccomp.kernel.filter import cache_directories, load_filter
from rampart_seccomp.kernel.probes import signal_scope
from rampart_seccomp.launch.handover import offer
from rampart_seccomp.policy import AnyPolicy

if TYPE_CHECKING:
    from rampart_seccomp.audit import AuditLog

__all__ = ["Broker", "Wrapped"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

DEGRADABLE = frozenset({"exec"})

_living: weakref.WeakSet[Broker] = weakref.WeakSet()


@attrs.define(eq=False)
class Wrapped:
    """A command that any spawner can start behind the policy, once.

    Attributes:
        argv: What to start.
        pass_fds: Descriptors that the started process must inherit.
        session: The tree it becomes.
    """

    argv: list[str | bytes]
    pass_fds: tuple[int, ...]
    session: Session
    _socket: socket.socket

    def close(self) -> None:
        """Let go of our copy of the launcher's socket: once the command is spawned, or never will be."""
        self._socket.close()

    def __enter__(self) -> Wrapped:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Broker:
    """Judges the process trees of the commands it wraps; a context manager. Leaving it ends them.

    Args:
        policy: What decides: a policy, or a stack of them.
        on_ask: Called with an event when a rule asks; answers with a verdict. None: such calls are denied.
        audit: Where to record: a path, or an open log.
        explain: Stream on which each distinct denial is told once.
        home: What ``~`` means in the policy; None for the home of the user who launches.
        allow_degraded: What may be enforced less than fully where the machine does not offer more: ``exec``,
            to go on without verification where ptrace(2) is refused.

    Raises:
        ValueError: `allow_degraded` names something that is not known.
        LibraryMissing, FilterError: The filter cannot be built.
        AuditError: The log cannot be opened.
    """

    def __init__(
        self,
        policy: AnyPolicy,
        *,
        on_ask: Approver | None = None,
        audit: Path | AuditLog | None = None,
        explain: TextIO | None = None,
        home: bytes | None = None,
        allow_degraded: Iterable[str] = (),
    ) -> None:
        self._degraded = frozenset({allow_degraded} if isinstance(allow_degraded, str) else allow_degraded)
        unknown = self._degraded - DEGRADABLE
        if unknown:
            raise ValueError(f"allow_degraded: {', '.join(sorted(unknown))} (what may be degraded is: exec)")
        self.policy = policy
        self._on_ask = on_ask
        self._explain = explain
        self._home = os.fsencode(os.path.expanduser("~")) if home is None else home
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()
        self._closed = False
        self._told: set[tuple[str, str, str]] = set()
        self._audit_broken = False
        self._scoped = signal_scope()
        self._filter = load_filter(scoped=self._scoped)
        checked(lib.rs_interrupt_prepare(), "rt_sigaction")
        self._own_audit = audit is not None and isinstance(audit, (str, bytes, os.PathLike))
        self._audit = _open_audit(audit, policy)
        self._records_allowed = self._audit is not None and policy.audit == "all"
        self._names_lock = threading.Lock()
        self._names = HostNames(policy.matcher(home=self._home).host_names)
        _living.add(self)

    def wrap(
        self, argv: Iterable[str | bytes], *, program: Path | None = None, directory: Path | None = None
    ) -> Wrapped:
        """Prepare a command to be started behind the policy by any spawner that can pass descriptors on.

        Args:
            argv: The command and its arguments.
            program: File to execute in place of ``argv[0]``, which is then only a name.
            directory: What ``./`` means in the policy; None for the current directory.

        Returns:
            What to spawn; good for one start. Close it after spawning.

        Raises:
            BrokerClosed: The broker was closed.
            LauncherMissing: The package was installed without its launcher.
        """
        arguments = list(argv)
        if not arguments:
            raise ValueError("there is no command to run")
        where = os.fsencode(os.getcwdb() if directory is None else directory)
        matcher = self.policy.matcher(
            home=self._home,
            directory=os.path.realpath(where),
            protected=self._protected(),
            planted=harness_code(),
            resolvers=nameservers(),
        )
        given = offer(
            self._filter.program,
            arguments,
            None if program is None else os.fsencode(program),
            # Only where any file may be created may a core dump.
            cores=self.policy.unrestricted(Operation.CREATE),
            environment=self.policy.environment.patterns,
        )
        name = os.fsencode(arguments[0] if program is None else program)
        with self._lock:
            if self._closed:
                given.control.close()
                given.theirs.close()
                raise BrokerClosed
            session = Session(
                self, Judge(matcher, self._names, self._on_ask), self._names_lock, given.control, name
            )
            self._sessions.add(session)
        return Wrapped(given.argv, (given.theirs.fileno(),), session, given.theirs)

    def _protected(self) -> list[bytes]:
        """What the trees must not touch, whatever the policy: our own files."""
        found = [*cache_directories(), *map(os.fsencode, self.policy.files)]
        if self._audit is not None:
            found += self._audit.paths
        return found

    def close(self) -> None:
        """End all trees, write what is to be written, and judge nothing any more. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            sessions = list(self._sessions)
        if os.getpid() != self._pid:
            return
        for session in sessions:
            session.close()
        for session in sessions:
            session.wait_finished(5)
        if self._audit is not None and self._own_audit:
            self._audit.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For the sessions

    def degraded(self, operation: Operation) -> bool:
        """Tell whether the operation may go on unverified: it is not restricted, or that was allowed."""
        return str(operation) in self._degraded or self.policy.unrestricted(operation)

    def _forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)

    def _denial(self, judgement: Judgement, suggestion: str | None) -> Denial:
        event = judgement.event
        denial = Denial(
            operation="syscall" if event.operation is None else str(event.operation),
            object=shortened(event.object),
            rule=judgement.rule,
            message=judgement.message,
            suggestion=suggestion,
            errno=judgement.errno,
            where=judgement.where,
        )
        if self._explain is not None:
            self._tell(denial, self._explain)
        return denial

    def _tell(self, denial: Denial, stream: TextIO) -> None:
        from rampart_seccomp.approval.escape import printable

        key = (denial.operation, denial.object, denial.where)
        with self._lock:
            if key in self._told or len(self._told) >= 10_000:
                return
            self._told.add(key)
        parts = [f"rampart: denied {denial.operation} {printable(denial.object)}: {printable(denial.where)}"]
        parts += [f"  {printable(text)}" for text in (denial.message, denial.suggestion) if text]
        try:
            stream.write("\n".join(parts) + "\n")
            stream.flush()
        except (OSError, ValueError):
            self._explain = None

    def _write(self, judgement: Judgement, error: int | None, enforced: str, held_ns: int) -> None:
        if self._audit is None:
            return
        if judgement.allowed and not (self._records_allowed or judgement.log or judgement.asked):
            return
        from rampart_seccomp.audit import make_record

        try:
            self._audit.write(
                make_record(
                    judgement.event,
                    verdict="allow" if judgement.allowed else "deny",
                    rule=judgement.rule,
                    where=judgement.where,
                    errno=error,
                    enforced=enforced,
                    held_ns=held_ns,
                    message=judgement.message,
                    asked=judgement.asked,
                )
            )
        except AuditError as failure:
            # What cannot be recorded does not happen: from here on everything is denied.
            if not self._audit_broken:
                self._audit_broken = True
                self._report(f"rampart: everything is denied from here on: {failure}\n")

    def _report(self, text: str) -> None:
        """Tell of a failure of the broker itself."""
        stream = self._explain or sys.stderr
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError, AttributeError):
            return


def _open_audit(audit: Path | AuditLog | None, policy: AnyPolicy) -> AuditLog | None:
    if isinstance(audit, (str, bytes, os.PathLike)):
        from rampart_seccomp.audit import AuditLog

        return AuditLog(audit, about={"policy": policy.source, "fingerprint": policy.fingerprint})
    return audit


def _close_all() -> None:
    for broker in list(_living):
        broker.close()


atexit.register(_close_all)
