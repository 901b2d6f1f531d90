"""Whom the broker tells what was decided: the audit log, and people; and what follows if the log fails."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from rampart_seccomp.broker.denials import Denial, shortened
from rampart_seccomp.broker.judge import Judgement
from rampart_seccomp.errors import AuditError
from rampart_seccomp.policy import AnyPolicy

if TYPE_CHECKING:
    from rampart_seccomp.audit import AuditLog

__all__ = ["Path", "Telling"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_TOLD_MAX = 10_000
"""Distinct denials that are explained; a program can make as many as it likes."""


class Telling:
    """The audit log of a broker, and the stream on which it explains.

    Args:
        audit: Where to record: a path, an open log, or nowhere.
        explain: Stream on which each distinct denial is told once.
        policy: In force at first.
        broken: Method of the broker; called once, when the log has failed.

    Attributes:
        audit: The log.
        broken: True once the log has failed: what cannot be recorded does not happen.
        records_allowed: True if allowed calls are recorded, too.
        required: True if a call for whose record there is no room has to be denied.

    Raises:
        AuditError: The log cannot be opened, or the policy requires one and there is none.
    """

    def __init__(
        self,
        audit: Path | AuditLog | None,
        explain: TextIO | None,
        policy: AnyPolicy,
        broken: Callable[[], None],
    ) -> None:
        self.audit = _open_audit(audit, policy)
        self.broken = False
        self._own = isinstance(audit, (str, bytes, os.PathLike))
        self._explain = explain
        self._on_broken = weakref.WeakMethod(broken)  # a broker that nobody uses any more shall go
        self._told: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()
        self.ensure_recordable(policy)
        self.adopt(policy)

    def ensure_recordable(self, policy: AnyPolicy) -> None:
        """Raise `AuditError` if a policy requires a log, and there is none."""
        if policy.audit == "required" and self.audit is None:
            problem = "the policy has `audit: required`, and there is no log"
            raise AuditError(problem, hint="give `audit=` or --audit FILE")

    def adopt(self, policy: AnyPolicy) -> None:
        """Record as much as this policy says, from here on."""
        self.records_allowed = self.audit is not None and policy.audit != "denials"
        self.required = self.records_allowed and policy.audit == "required"

    def close(self) -> None:
        """Close the log, if it is nobody else's."""
        if self.audit is not None and self._own:
            self.audit.close()

    def forsake(self) -> None:
        """In a forked child, where nobody is who held a lock."""
        self._lock = threading.Lock()

    # Decisions

    def denial(self, judgement: Judgement, suggestion: str | None) -> Denial:
        """Make a value of a denial for the harness, and explain it.

        Args:
            judgement: What was decided.
            suggestion: What to write into the policy to allow it; None if nothing would.
        """
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

    def wants(self, judgement: Judgement) -> bool:
        """Tell whether a decision is to be on record."""
        if self.audit is None:
            return False
        return not judgement.allowed or self.records_allowed or judgement.log or judgement.asked

    def write(self, judgement: Judgement, error: int | None, enforced: str, held_ns: int) -> None:
        """Record a decision; arguments as for `ledger.Entry.record`."""
        if self.audit is None:
            return
        from rampart_seccomp.audit import make_record

        try:
            self.audit.write(
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
                    redirect=None if judgement.redirect is None else str(judgement.redirect),
                )
            )
        except AuditError as failure:
            self.failed(failure)

    # What else happens

    def change(self, kind: str, **fields: Any) -> None:
        """Record something that is no decision about a call.

        Raises:
            AuditError: That is not possible.
        """
        if self.audit is None:
            return
        from rampart_seccomp.audit import make_change

        self.audit.write(make_change(kind, **fields))

    def unrecorded(self, count: int) -> None:
        """Record that calls were denied since there was no room left for what is to be recorded of them."""
        self._note("unrecorded", count=count)

    def limit(self, denial: Denial) -> None:
        """Tell and record that a tree is ended because of a limit."""
        if self._explain is not None:
            self.report(f"rampart: {denial.message}: {denial.object}\n  {denial.suggestion}\n")
        self._note("limit", object=denial.object, where=denial.where)

    def failed(self, failure: AuditError) -> None:
        """Have everything denied from here on: what cannot be recorded does not happen."""
        if not self.broken:
            self.broken = True
            on_broken = self._on_broken()
            if on_broken is not None:
                on_broken()
            self.report(f"rampart: everything is denied from here on: {failure}\n")

    def report(self, text: str) -> None:
        """Tell of a failure of the broker itself."""
        stream = self._explain or sys.stderr
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError, AttributeError):
            return

    def _note(self, kind: str, **fields: Any) -> None:
        try:
            self.change(kind, **fields)
        except AuditError as failure:
            self.failed(failure)

    def _tell(self, denial: Denial, stream: TextIO) -> None:
        from rampart_seccomp.approval.escape import printable

        key = (denial.operation, denial.object, denial.where)
        with self._lock:
            if key in self._told or len(self._told) >= _TOLD_MAX:
                return
            self._told.add(key)
        parts = [f"rampart: denied {denial.operation} {printable(denial.object)}: {printable(denial.where)}"]
        parts += [f"  {printable(text)}" for text in (denial.message, denial.suggestion) if text]
        try:
            stream.write("\n".join(parts) + "\n")
            stream.flush()
        except (OSError, ValueError):
            self._explain = None


def _open_audit(audit: Path | AuditLog | None, policy: AnyPolicy) -> AuditLog | None:
    if isinstance(audit, (str, bytes, os.PathLike)):
        from rampart_seccomp.audit import AuditLog

        return AuditLog(audit, about={"policy": policy.source, "fingerprint": policy.fingerprint})
    return audit
