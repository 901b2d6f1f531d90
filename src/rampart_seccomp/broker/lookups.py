"""The name service of one tree: network/ answers, and here it is decided and put on record."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import attrs

from rampart_seccomp.broker import forks
from rampart_seccomp.broker.judge import Judge, Judgement
from rampart_seccomp.broker.ledger import Ledger
from rampart_seccomp.broker.pool import Pool
from rampart_seccomp.broker.processes import describe
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.events import Address, ConnectEvent, Process
from rampart_seccomp.network.names import TreeNames
from rampart_seccomp.policy import Decision
from rampart_seccomp.verdicts import Allow, Deny

if TYPE_CHECKING:
    from rampart_seccomp.broker.telling import Telling
    from rampart_seccomp.network.responder import Responder
    from rampart_seccomp.network.upstream import Upstream

__all__ = ["INSIDE", "Lookups", "TreeDns"]

INSIDE = "built-in: a name with an address inside, which no rule about addresses allows"

EXHAUSTED = "built-in: no synthetic address is left for this tree"
MANY = "built-in: this tree was given too many names"

_ANSWERS_MAX = 1024
"""Names of one tree for which it is remembered what a person said."""


class Lookups:
    """Decides which names a tree may look up, and notes it.

    Args:
        judge: Gives the judge in force.
        ledger: Where decisions are noted.
        telling: Told of denials.
    """

    def __init__(self, judge: Callable[[], Judge], ledger: Ledger, telling: Telling) -> None:
        self._judge = judge
        self._ledger = ledger
        self._telling = telling
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Event] = {}
        self._answered: dict[str, bool] = {}

    @property
    def names(self) -> TreeNames:
        """What the tree was told, under the policy in force."""
        return self._judge().names

    def verdict(self, name: str) -> str:
        """Say ``allow``, ``ask`` or ``deny``, and ask nobody.

        Of a name that the policy names, the connection is what is asked about: then who reads the question
        knows where it leads. Other names are asked about before anybody outside hears of them.
        """
        if self._telling.broken:
            return "deny"
        reach = self.names.shared.reach
        verdict = reach.name(name).verdict
        return "allow" if verdict == "ask" and reach.named(name) else verdict

    def ask(self, name: str, query: str, who: Process | None) -> bool:
        """Have a question about a name answered, once for the run; who asks meanwhile waits for it."""
        with self._lock:
            if name in self._answered:
                return self._answered[name]
            waiting = self._asking.get(name)
            if waiting is None:
                self._asking[name] = threading.Event()
        if waiting is not None:
            waiting.wait()
            return self._answered.get(name, False)
        judge = self._judge()
        decision = self._decision(name)
        allowed = False
        try:
            answer = judge.questions.ask_apart(_event(name, query, who), decision)
            allowed = isinstance(answer, Allow)
            message = answer.message if isinstance(answer, Deny) else None
            self._note(_event(name, query, who), decision, allowed=allowed, asked=True, message=message)
        finally:
            with self._lock:
                if len(self._answered) < _ANSWERS_MAX:
                    self._answered[name] = allowed
                self._asking.pop(name).set()
        return allowed

    def note(self, name: str, query: str, who: Process | None, *, allowed: bool) -> bool:
        """Put on record what was decided; False if that is not possible: then it must not happen."""
        self._note(_event(name, query, who), self._decision(name), allowed=allowed)
        return not self._telling.broken

    def note_inside(self, name: str, query: str, who: Process | None, addresses: Iterable[Address]) -> None:
        """Put on record which addresses of an allowed name are kept from the tree."""
        for address in addresses:
            event = attrs.evolve(_event(name, query, who), address=address)
            suggestion = f"a rule about the address too: hosts: [{address}]"
            self._enter(Judgement(event, allowed=False, where=INSIDE, errno=errno.ENOENT), suggestion)

    def note_exhausted(self, name: str, query: str, who: Process | None) -> None:
        """Put on record that an allowed name is not answered, since the tree has as many as it can get."""
        where = EXHAUSTED if self.names.shared.reach.synthetic else MANY
        self._enter(Judgement(_event(name, query, who), allowed=False, where=where, errno=errno.EAGAIN), None)

    def reachable(self, address: Address) -> bool:
        """Say whether rules about addresses let the tree connect to this one on some port."""
        return self.names.shared.reach.address(address).verdict != "deny"

    def _decision(self, name: str) -> Decision:
        return self.names.shared.reach.name(name)

    def _note(
        self,
        event: ConnectEvent,
        decision: Decision,
        *,
        allowed: bool,
        asked: bool = False,
        message: str | None = None,
    ) -> None:
        rule = decision.rule
        judgement = Judgement(
            event,
            allowed=allowed,
            where=decision.where,
            rule=rule.name if rule else None,
            errno=errno.ENOENT,
            message=message or decision.message,
            asked=asked,
            log=bool(rule and rule.log),
        )
        name = min(event.names)
        suggestion = None if allowed or asked else self._judge().suggest_name(name)
        self._enter(judgement, suggestion)

    def _enter(self, judgement: Judgement, suggestion: str | None) -> None:
        with self._ledger.entry() as entry:
            if judgement.allowed:
                entry.record(judgement, None, "answered", 0)
                return
            entry.deny(self._telling.denial(judgement, suggestion))
            entry.record(judgement, judgement.errno, "answered", 0)


def _event(name: str, query: str, who: Process | None) -> ConnectEvent:
    return ConnectEvent(protocol="dns", names=frozenset({name}), query=query, process=who)


class TreeDns:
    """The tree's name service as its calls see it (`calls.call.NameService`).

    Args:
        judge: Gives the judge in force.
        ledger, telling: Where decisions are noted.
        pool: Threads that wait for the host's resolver.
        upstream: The host's resolver; None for the one of this host.
    """

    def __init__(
        self,
        judge: Callable[[], Judge],
        ledger: Ledger,
        telling: Telling,
        pool: Pool,
        upstream: Upstream | None,
    ) -> None:
        self._judge = judge
        self._lookups = Lookups(judge, ledger, telling)
        self._telling = telling
        self._pool = pool
        self._upstream = upstream
        self._lock = threading.Lock()
        self._made: Responder | None = None

    @property
    def substitutes(self) -> frozenset[bytes]:
        """Real paths of files of which the tree is to read another version."""
        return self._judge().substitutes

    def endpoint(self, kind: str, version: int) -> tuple[str, int]:
        """Give the address and port that answer, for ``udp`` or ``tcp`` and 4 or 6. OSError if none does."""
        return self._responder.endpoint(kind, version)

    def substitute(self) -> int:
        """Give a descriptor of the resolv.conf(5) that the tree is to read."""
        from rampart_seccomp.network.responder import resolv_conf

        return resolv_conf(self.endpoint("udp", 4)[0])

    def sending(self) -> AbstractContextManager[Any]:
        """Be inside from before a question is sent until it is noted who asks."""
        return self._responder.sending

    def note(self, notification: Notification, copy: int, kind: str, version: int) -> None:
        """Note that the process asks from this socket."""
        with socket.socket(fileno=os.dup(copy)) as probe:
            name = probe.getsockname()
        if probe.family in (socket.AF_INET, socket.AF_INET6) and name[1]:
            self._responder.note(kind, version, name[1], describe(notification, self._judge().lineage))

    def close(self) -> None:
        """Answer nothing any more."""
        if self._made is not None:
            self._made.close()

    def forsake(self) -> None:
        """In a forked child: close what is the parent's."""
        self._lock = threading.Lock()
        if self._made is not None:
            self._made.forsake()

    @property
    def _responder(self) -> Responder:
        # What it needs is imported when the tree first asks for a name: most never do.
        from rampart_seccomp.network.answers import Answers
        from rampart_seccomp.network.responder import Responder
        from rampart_seccomp.network.upstream import Upstream

        with self._lock:
            if self._made is None:
                answers = Answers(self._lookups, self._upstream or Upstream())
                self._made = Responder(answers, self._run, forks.excluded, self._telling.report)
            return self._made

    def _run(self, job: Callable[[], None]) -> None:
        def waiting() -> None:
            with self._pool.lending():
                job()

        self._pool.submit(waiting)
