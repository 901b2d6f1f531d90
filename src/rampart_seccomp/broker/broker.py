"""The broker: owns the policy, the approvers and the audit log, and judges the trees it launched."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from rampart_seccomp.broker import forks, threads
from rampart_seccomp.broker.bindings import Bindings
from rampart_seccomp.broker.crew import Crews
from rampart_seccomp.broker.enforcing import Prospect, ensure_enforceable, traps_for, wants_no_reads
from rampart_seccomp.broker.engine import Tables
from rampart_seccomp.broker.granting import Granted, grants_for, overruled, with_grants
from rampart_seccomp.broker.judge import Judge
from rampart_seccomp.broker.ownfiles import harness_code, import_from_closed_places
from rampart_seccomp.broker.questions import Approver, Questions
from rampart_seccomp.broker.session import Session
from rampart_seccomp.broker.telling import Path, Telling
from rampart_seccomp.broker.wrapping import Wrapped, offer_under
from rampart_seccomp.cache import cache_directories
from rampart_seccomp.calls.machine import machine_is_closed
from rampart_seccomp.calls.shim import checked, lib
from rampart_seccomp.calls.stillness import Stillness
from rampart_seccomp.errors import AuditError, BrokerClosed
from rampart_seccomp.events import Operation
from rampart_seccomp.kernel.filter import Filter, load_filter
from rampart_seccomp.kernel.landlock import signal_scope
from rampart_seccomp.kernel.traps import Traps
from rampart_seccomp.network.names import HostNames, TreeNames
from rampart_seccomp.policy import AnyMatcher, AnyPolicy
from rampart_seccomp.policy.reach import Reach

if TYPE_CHECKING:
    from rampart_seccomp.audit import AuditLog
    from rampart_seccomp.network.upstream import Upstream

__all__ = ["Broker"]

DEGRADABLE = frozenset({"exec"})
ENGINES = ("native", "python")

_PATIENCE = 5.0
"""Seconds that the end of a broker waits for a tree that neither ends nor has anything to write down."""

_living: weakref.WeakSet[Broker] = weakref.WeakSet()


class Broker:
    """Judges the process trees of the commands it wraps; a context manager. Leaving it ends them.

    Args:
        policy: What decides: a policy, or a stack of them; `update` changes it.
        on_ask: Called with an event when a rule asks; answers with a verdict. None: such calls are denied.
        audit: Where to record: a path, or an open log.
        explain: Stream on which each distinct denial is told once.
        home: What ``~`` means in the policy; None for the home of the user who launches.
        allow_degraded: What may be enforced less than fully where the machine does not offer more: ``exec``,
            to go on without verification where ptrace(2) is refused.
        may_restrict: Operations that a later policy may restrict, though this one does not, and features
            that it may lack: trees are launched so that `update` can enforce that.
        engine: ``native``: threads in C answer what the policy decides without asking anybody; or
            ``python``: each call is answered in Python, which is slower and easier to follow. None: what the
            environment variable ``RAMPART_SECCOMP_ENGINE`` says, or else ``native``.

    Attributes:
        policy: The policy in force, without what `grant` adds.

    Raises:
        ValueError: ``allow_degraded`` or ``engine`` names something that is not known.
        PolicyError: ``may_restrict`` names what is neither operation nor feature.
        LibraryMissing, FilterError: The filter cannot be built.
        AuditError: The log cannot be opened, or the policy requires one and there is none.
        ThreadsPatched: threading.Thread starts no threads.
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
        may_restrict: str | Iterable[str] = (),
        engine: str | None = None,
        _upstream: Upstream | None = None,
    ) -> None:
        self._degraded = frozenset({allow_degraded} if isinstance(allow_degraded, str) else allow_degraded)
        unknown = self._degraded - DEGRADABLE
        if unknown:
            raise ValueError(f"allow_degraded: {', '.join(sorted(unknown))} (what may be degraded is: exec)")
        self._native = _engine(engine) == "native"
        threads.ensure_real()
        self.policy = policy
        self._prospect = Prospect.read(may_restrict)
        self._on_ask = on_ask
        self._home = os.fsencode(os.path.expanduser("~")) if home is None else home
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._sessions: dict[Session, bytes] = {}
        self._granted: list[Granted] = []
        self._files = dict.fromkeys(policy.files)
        self._closed = False
        self._scoped = signal_scope()
        self._logs = audit is not None
        self._filters: dict[Traps, Filter] = {}
        checked(lib.rs_interrupt_prepare(), "rt_sigaction")
        self._telling = Telling(audit, explain, policy, self._question_everything)
        self._stillness = Stillness()
        self._bindings = Bindings()
        self._crews = Crews()
        self._planted = tuple(harness_code())
        import_from_closed_places(self._planted)
        # Bound to where the first command most likely starts, which then finds it bound.
        matcher = self._matcher(policy, os.path.realpath(_here()), self._files)
        self._filter(self._traps(policy, matcher))
        reach = Reach(matcher)
        self._upstream = _upstream
        self._names = HostNames(reach) if _upstream is None else HostNames(reach, _upstream.inside)
        with forks.excluded:
            _living.add(self)

    def wrap(
        self,
        argv: Iterable[str | bytes],
        *,
        program: Path | None = None,
        directory: Path | None = None,
        linger: bool = True,
    ) -> Wrapped:
        """Prepare a command to be started behind the policy by any spawner that can pass descriptors on.

        Args:
            argv: The command and its arguments.
            program: File to execute in place of ``argv[0]``, which is then only a name.
            directory: What ``./`` means in the policy; None for the current directory.
            linger: False: what the command leaves running ends with it, although the policy lets it linger.

        Returns:
            What to spawn; good for one start. Close it after spawning.

        Raises:
            BrokerClosed: The broker was closed.
            LauncherMissing: The package was installed without its launcher.
        """
        arguments = list(argv)
        if not arguments:
            raise ValueError("there is no command to run")
        where = os.path.realpath(os.fsencode(os.getcwdb() if directory is None else directory))
        name = os.fsencode(arguments[0] if program is None else program)
        with self._changing:
            policy = with_grants(self.policy, self._granted)
            # Verified while the launcher starts: `_verify`.
            matcher = self._matcher(policy, where, self._files, verified=False)
            traps = self._traps(policy, matcher)
            filtered = self._filter(traps)
            if not self._names.reach.is_for(matcher):  # a rule was registered meanwhile
                self._names = self._names.changed(Reach(matcher))
            tables = Tables.of(matcher, self._names.ranges) if self._native else None
            judge = Judge(matcher, TreeNames(self._names), Questions(self._on_ask))
            with forks.excluded:
                lingers = linger and policy.linger
                given = offer_under(policy, traps, filtered, arguments, program, linger=lingers)
                with self._lock:
                    if self._closed:
                        given.control.close()
                        given.theirs.close()
                        raise BrokerClosed
                    session = Session(
                        self,
                        judge,
                        self._stillness,
                        given.control,
                        name,
                        traps,
                        policy.features,
                        lingers=lingers,
                        limits=policy.limits,
                        tables=tables,
                    )
                    self._sessions[session] = where
        # A forked child keeps its copy of that end: it may be the one that becomes the launcher.
        return Wrapped(given.argv, (given.theirs.fileno(),), session, given.theirs)

    def update(self, policy: AnyPolicy) -> None:
        """Put another policy in force, for the trees that run and for those to come.

        It takes effect at the next call of each tree; a question that somebody is being asked stays with the
        policy that asked it. What is open stays open, and the environment of what runs stays as it is. Each
        tree keeps its home and launch directory, and grants that are in force stay so.

        Args:
            policy: A policy, or a stack of them.

        Raises:
            NotEnforceable: A running tree was launched so that it does not ask about what this policy
                restricts. Nothing was changed; see ``may_restrict``.
            PolicyError: A grant in force is for a layer that this policy does not have. Nothing was changed.
            FilterError, AuditError: The filter cannot be built, the change not recorded. Nothing was changed.
            BrokerClosed: The broker was closed.
        """
        with self._changing:
            self._ensure_enforceable(policy)
            self._telling.ensure_recordable(policy)
            change = {
                "policy": policy.source,
                "before": self.policy.fingerprint,
                "after": policy.fingerprint,
            }
            self._apply(policy, self._granted, "policy", change)

    def grant(
        self,
        *,
        read: Path | None = None,
        create: Path | None = None,
        modify: Path | None = None,
        delete: Path | None = None,
        metadata: Path | None = None,
        write: Path | None = None,
        exec: Sequence[str | bytes] | None = None,
        path: Path | None = None,
        connect: str | None = None,
        listen: int | str | None = None,
        seconds: float | None = None,
        layer: int = -1,
        by: str = "the harness",
    ) -> Granted:
        """Allow one exact thing for a while, though a rule asks about it or the default denies it.

        As every grant, it never stands against a deny, nor answers another layer's question. One that has no
        effect because of that is no error: `Granted.overruled` says what stands against it.

        Args:
            read, create, modify, delete, metadata, write: Real absolute path of a file; write is four grants.
            exec: The whole argv, beside ``path``, the real absolute path of the image.
            connect: ``name:port``, ``address:port``, ``unix:PATH`` or ``unix:@name``.
            listen: A port, on every address, or ``address:port``.
            seconds: How long; it ends then, whether or not anybody revokes it. None: until it is revoked.
            layer: The layer of a stack whose questions it answers; the last one if not given.
            by: Who grants it, for the record.

        Returns:
            What can be revoked; leaving it as a context manager does.

        Raises:
            PolicyError: It is not one exact thing, or there is no such layer.
            ValueError: ``seconds`` is not more than 0.
            AuditError: The grant cannot be recorded, so it is not given.
            BrokerClosed: The broker was closed.
        """
        if seconds is not None and not 0 < seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"seconds={seconds!r} is no time to come (None: until it is revoked)")
        objects = {
            "read": read,
            "create": create,
            "modify": modify,
            "delete": delete,
            "metadata": metadata,
            "write": write,
            "exec": exec,
            "connect": connect,
            "listen": listen,
        }
        granted = Granted(grants_for(objects, path, by), layer, seconds, self._revoke)
        with self._changing:
            self._ensure_enforceable(self.policy)
            granted.start()
            try:
                change = granted.on_record | {"by": by, "seconds": seconds}
                matchers = self._apply(self.policy, [*self._granted, granted], "grant", change)
            except BaseException:
                granted.cancel()
                raise
        found = (overruled(matcher, granted.grants) for matcher in matchers)
        granted.overruled = next((text for text in found if text is not None), None)
        return granted

    def _revoke(self, granted: Granted) -> None:
        if os.getpid() != self._pid:
            return
        with self._changing:
            if granted not in self._granted or self._closed:
                return
            left = [each for each in self._granted if each is not granted]
            try:
                self._apply(self.policy, left, "revocation", granted.on_record)
            except AuditError as failure:
                self._telling.failed(failure)
                self._apply(self.policy, left)

    def _apply(
        self,
        policy: AnyPolicy,
        granted: list[Granted],
        record: str | None = None,
        fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[AnyMatcher]:
        """Put a policy with grants in force: everything is made first, and what comes then cannot fail.

        To be called while nothing else changes.

        Args:
            policy: The policy.
            granted: The grants.
            record: Kind of the record of it; None for none.
            fields: The record's.

        Returns:
            The policy bound to the place of each tree; to the working directory if there is none.
        """
        with self._lock:
            if self._closed:
                raise BrokerClosed
            sessions = dict(self._sessions)
        effective = with_grants(policy, granted)
        files = self._files | dict.fromkeys(effective.files)
        bound = {session: self._matcher(effective, where, files) for session, where in sessions.items()}
        matchers = [*bound.values()] or [self._matcher(effective, _here(), files)]
        self._filter(self._traps(effective, matchers[0]))
        names = self._names.changed(Reach(matchers[0]))
        tables = {
            session: Tables.of(matcher, names.ranges) for session, matcher in bound.items() if session.native
        }
        if record is not None:
            self._telling.change(record, **fields)
        self.policy, self._granted, self._files, self._names = policy, granted, files, names
        self._telling.adopt(policy)
        for session, matcher in bound.items():
            session.judge_under(matcher, names, effective.features, tables.get(session))
        return matchers

    def _ensure_enforceable(self, policy: AnyPolicy) -> None:
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            ensure_enforceable(policy, session.traps, session.command_pid)

    def _matcher(
        self, policy: AnyPolicy, directory: bytes, files: Iterable[str], *, verified: bool = True
    ) -> AnyMatcher:
        """Bind a policy to a launch directory, with what no tree may touch, whatever the policy."""
        protected = (*cache_directories(), *map(os.fsencode, files))
        if self._audit is not None:
            protected += tuple(self._audit.paths)
        return self._bindings.matcher(
            policy,
            verified=verified,
            home=self._home,
            directory=directory,
            protected=protected,
            planted=self._planted,
            substitutes=(os.path.realpath(b"/etc/resolv.conf"),),
        )

    def _traps(self, policy: AnyPolicy, matcher: AnyMatcher) -> Traps:
        # What is free cannot be recorded, nor replaced. Landlock keeps the /proc of processes outside, with
        # the signals.
        held = self._logs or bool(matcher.substitutes)
        free = not held and self._scoped and wants_no_reads(policy, self._prospect)
        return traps_for(
            policy, self._prospect, scoped=self._scoped, opens=not (free and self._machine_is_closed)
        )

    @functools.cached_property
    def _machine_is_closed(self) -> bool:
        return machine_is_closed()

    def _filter(self, traps: Traps) -> Filter:
        if traps not in self._filters:
            self._filters[traps] = load_filter(traps)
        return self._filters[traps]

    def close(self) -> None:
        """End all trees, write what is to be written, and judge nothing any more. May be called again."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.close()
        for session in sessions:
            session.wait_written(_PATIENCE)
        self._crews.close()
        self._telling.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def forsake(self) -> None:
        """In a forked child: its trees are the parent's, so here it is closed."""
        self._closed = True
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._sessions.clear()
        self._crews.forsake()
        self._telling.forsake()

    # For the sessions

    def _verify(self, session: Session) -> None:
        """Have a tree, before it begins, judged as the links on the way of its patterns are now."""
        with self._changing:
            with self._lock:
                where = self._sessions.get(session)
            if where is None:
                return  # it was closed meanwhile
            policy = with_grants(self.policy, self._granted)
            matcher = self._matcher(policy, where, self._files)
            if matcher is not session.matcher:
                tables = Tables.of(matcher, self._names.ranges) if session.native else None
                session.judge_under(matcher, self._names, policy.features, tables)

    def degraded(self, operation: Operation) -> bool:
        """Tell whether the operation may go on unverified although the policy relies on it."""
        return str(operation) in self._degraded

    def _forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.pop(session, None)

    def _question_everything(self) -> None:
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.question_everything()

    @property
    def _audit(self) -> AuditLog | None:
        return self._telling.audit

    @property
    def _audit_broken(self) -> bool:
        return self._telling.broken


def _engine(given: str | None) -> str:
    name = os.environ.get("RAMPART_SECCOMP_ENGINE") or ENGINES[0] if given is None else given
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r} (the engines are: {', '.join(ENGINES)})")
    return name


def _here() -> bytes:
    """The working directory; the root where that is gone."""
    try:
        return os.getcwdb()
    except FileNotFoundError:
        return b"/"


def _close_all() -> None:
    with forks.excluded:
        living = list(_living)
    for broker in living:
        broker.close()


def _forsake_all() -> None:
    for broker in list(_living):
        broker.forsake()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forsake_all)
