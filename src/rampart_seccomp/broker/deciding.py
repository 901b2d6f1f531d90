"""Who decides the calls of one tree: a judge in Python, an engine in C, both under the policy in force."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from rampart_seccomp.broker import forks
from rampart_seccomp.broker.engine import Engine, Tables
from rampart_seccomp.broker.judge import Judge
from rampart_seccomp.broker.ledger import Ledger
from rampart_seccomp.broker.lineage import Lineage
from rampart_seccomp.broker.lookups import TreeDns
from rampart_seccomp.broker.pool import Pool
from rampart_seccomp.broker.verifying import Stage
from rampart_seccomp.calls.call import Setting
from rampart_seccomp.calls.notification import Listener, Notification
from rampart_seccomp.calls.starting import system_loaders
from rampart_seccomp.network.names import HostNames
from rampart_seccomp.policy import AnyMatcher

if TYPE_CHECKING:
    from rampart_seccomp.broker.telling import Telling
    from rampart_seccomp.network.upstream import Upstream

__all__ = ["Deciding"]

_PATIENCE = 5.0
"""Seconds that somebody who asks what was decided waits for the session's thread to collect it."""

_stuck: list[Engine] = []
"""Engines with a thread that hangs in the kernel: what it uses stays for as long as the process does."""


class Deciding:
    """Judge and engine of one tree, which an update exchanges together.

    Args:
        judge: Decides at first.
        tables: The same policy for the engine; None: every call is a question to the judge.
        setting: Learns which features the policy opens.
        ledger: Where the engine's decisions are collected.
        telling: Knows what is to be recorded.
        pool: Threads that wait for the host's resolver.
        upstream: The host's resolver; None for the one of this host.

    Attributes:
        judge: Decides what the engine does not, from the next call on.
        lineage: What the processes of the tree were verified to be; None before it has started.
        engine: None before the tree has started, after its end, and without tables.
        dns: Answers in place of name servers, while the policy has host names.
    """

    def __init__(
        self,
        judge: Judge,
        tables: Tables | None,
        setting: Setting,
        ledger: Ledger,
        telling: Telling,
        pool: Pool,
        upstream: Upstream | None,
    ) -> None:
        self.judge = judge
        self.lineage: Lineage | None = None
        self.engine: Engine | None = None
        self._tables = tables
        self._setting = setting
        self._ledger = ledger
        self._telling = telling
        self._questioned = telling.broken
        self._changing = threading.Lock()
        self._caught_up = threading.Condition()
        self._asked_for = self._collected = 0
        self._answered = 0
        self.dns = TreeDns(lambda: self.judge, ledger, telling, pool, upstream)
        self._serve_names()

    @property
    def native(self) -> bool:
        """True if an engine answers what the policy decides without asking anybody."""
        return self._tables is not None

    def begin(
        self, lineage: Lineage, listener: Listener, member: int, launcher: int, channel: int | None
    ) -> None:
        """Decide from here on: the tree is there.

        Args:
            lineage: Who is who in it.
            listener: Where its calls arrive; must stay open until `end` has returned True.
            member: Pid of a process of it.
            launcher: A pidfd of its launcher, who traces what the engine lets execute.
            channel: Leads to the launcher (`Control.lend`), and is the engine's from here; None without one.

        Raises:
            OSError: ENOMEM, EMFILE, or /proc/<member>/root cannot be opened.
        """
        with self._changing:
            self.lineage = self.judge.lineage = lineage
            if channel is None:
                return
            with forks.excluded:
                try:
                    self.engine = engine = Engine(listener, member, self._setting.names)
                except BaseException:
                    os.close(channel)
                    raise
                engine.trace(channel, os.dup(launcher), system_loaders())
                self._ledger.attach(engine, lineage)
                self._put_in_force()
        engine.start()

    def exchange(
        self, matcher: AnyMatcher, names: HostNames, features: frozenset[str], tables: Tables | None
    ) -> None:
        """Judge by another policy from the next call on; ``tables`` are those of the policy, if `native`."""
        with self._changing:
            self.judge = self.judge.under(matcher, names)
            self._serve_names()
            self._setting.features = features
            if tables is not None:
                self._tables = tables
                self._put_in_force()

    @property
    def answered(self) -> int:
        """How many calls the engine has answered."""
        with self._changing:
            return self._answered if self.engine is None else self.engine.counts[0]

    def question_everything(self) -> None:
        """Have the engine decide nothing from here on, whatever policy comes: Python knows more than it."""
        with self._changing:
            self._questioned = True
            self._put_in_force()

    # What the engine is told, and tells, about execs (`verifying.Beside`)

    def executing(self, stage: Stage, *, leader: bool) -> None:
        """Tell the engine about an exec: what it knows of tasks may not hold any more."""
        with self._changing:
            if self.engine is not None:
                self.engine.executing(stage, leader=leader)

    def claim(self, tgid: int) -> bool:
        """Keep a process for an exec that Python has traced; False while the engine has one there."""
        with self._changing:
            return self.engine is None or self.engine.claim(tgid)

    def unclaim(self, tgid: int) -> None:
        """Nothing that Python has traced is on its way there any more."""
        with self._changing:
            if self.engine is not None:
                self.engine.unclaim(tgid)

    def traced(self) -> None:
        """Tell the engine that execs can be traced here."""
        with self._changing:
            if self.engine is not None:
                self.engine.traced()

    def take_landed(self) -> bytes:
        """Take what came of the engine's execs; for the session's thread, which ends it."""
        return b"" if self.engine is None else self.engine.take_landed()

    def end(self) -> bool:
        """Stop the engine and keep its last records; False if one of its threads hangs in the kernel."""
        engine = self.engine
        stopped = engine is None or engine.stop()
        self._ledger.detach()
        if engine is None:
            return True
        with self._changing, self._caught_up:
            self._answered = engine.counts[0]
            self.engine = None
            self._caught_up.notify_all()
        if stopped:
            engine.close()
        else:
            _stuck.append(engine)
        return stopped

    def forsake(self) -> None:
        """In a forked child: let go of what is the parent's; whoever held a lock is not here."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.forsake()
        self.dns.forsake()
        self._changing = threading.Lock()
        self._caught_up = threading.Condition()

    def depart(self, notification: Notification, copy: int, address: bytes) -> bool:
        """Have the engine wait for a connection; False without one."""
        with self._changing:
            return self.engine is not None and self.engine.depart(notification, copy, address)

    # What the engine has decided, on its way to the ledger

    def catch_up(self) -> None:
        """Have the session's thread collect what the engine has decided so far; not for that thread."""
        with self._caught_up:
            if self.engine is None:
                return
            self._asked_for += 1
            wanted = self._asked_for
            self.engine.wake()
            self._caught_up.wait_for(
                lambda: self._collected >= wanted or self.engine is None, timeout=_PATIENCE
            )

    @property
    def asked_for(self) -> int:
        """How often somebody wanted to `catch_up`."""
        with self._caught_up:
            return self._asked_for

    def collected(self, asked_for: int) -> None:
        """Note that everything is in the ledger that was decided before `asked_for` was read."""
        with self._caught_up:
            self._collected = asked_for
            self._caught_up.notify_all()

    def _serve_names(self) -> None:
        self._setting.dns = self.dns if self.judge.names.shared.reach.judges_names else None
        self._setting.synthetic = self.judge.names

    def _put_in_force(self) -> None:
        if self.engine is None or self._tables is None:
            return
        if self._questioned or self._telling.broken:
            self.engine.put_in_force(None, record_all=False, record_logged=False, required=False)
            return
        self._ledger.judged_by(self._tables.serial, self.judge)
        self.engine.put_in_force(
            self._tables,
            record_all=self._telling.records_allowed,
            record_logged=self._telling.audit is not None,
            required=self._telling.required,
        )
