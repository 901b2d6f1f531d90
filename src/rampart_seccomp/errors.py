"""Every error that Rampart raises on its own account.

One root, `RampartError`; each leaf also derives from the built-in it refines, carries its facts as
fields, and its text ends with the hint that fixes it.
"""

from __future__ import annotations

import os

__all__ = [
    "AuditError",
    "BrokerClosed",
    "CommandDenied",
    "ExecUnverifiable",
    "FilterError",
    "KernelSupportError",
    "LauncherMissing",
    "LibraryMissing",
    "LimitExceeded",
    "ListenerBusy",
    "NotEnforceable",
    "PolicyError",
    "RampartError",
    "SyscallError",
    "TargetGone",
    "TargetUnreadable",
    "ThreadsPatched",
]


class RampartError(Exception):
    """Root of all errors of this package."""


def _bounded(text: str, limit: int = 500) -> str:
    """Cut what a file can make as long as it likes."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


class PolicyError(RampartError, ValueError):
    """A policy cannot be loaded: nothing of it is in force.

    Args:
        problem: What is wrong, in one sentence without a full stop.
        file: The file (or profile) it stands in; None for a policy built in Python.
        line: Line number, from 1.
        key: Path of the key, such as ``rules[2].paths[0]``.
        hint: What to write instead.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem = _bounded(problem)
        self.file = file
        self.line = line
        self.key = None if key is None else _bounded(key)
        self.hint = hint
        super().__init__(self.problem)

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        parts = [part for part in (where, self.key) if part]
        text = ": ".join([*parts, self.problem])
        return f"{text} ({self.hint})" if self.hint else text


class KernelSupportError(RampartError, RuntimeError):
    """The running kernel lacks, or refuses, something that cannot be done without."""

    def __init__(self, feature: str, *, syscall: str | None = None, hint: str | None = None) -> None:
        self.feature = feature
        self.syscall = syscall
        self.hint = hint
        super().__init__(feature)

    def __str__(self) -> str:
        text = f"{self.syscall}: {self.feature}" if self.syscall else self.feature
        return f"{text} ({self.hint})" if self.hint else text


class LibraryMissing(RampartError, ImportError):
    """A shared library of the system is not installed."""

    def __init__(self, library: str, hint: str) -> None:
        self.hint = hint
        super().__init__(f"{library} is not installed ({hint})", name=library)


class LauncherMissing(RampartError, FileNotFoundError):
    """The program that starts commands is not where the package should have it."""

    def __init__(self, errno: int, path: str) -> None:
        super().__init__(
            errno,
            "the launcher is not a program in the package directory "
            "(install rampart-seccomp again with pip, unpacked: it does not run from a zip file)",
            path,
        )


class FilterError(RampartError, RuntimeError):
    """The exported BPF program does not do what the syscall table says; it is not installed."""

    def __init__(self, problem: str, *, syscall: str | None = None) -> None:
        self.problem = problem
        self.syscall = syscall
        super().__init__(f"{syscall}: {problem}" if syscall else problem)


class SyscallError(RampartError, OSError):
    """A system call of Rampart's own failed. ``errno``, ``strerror`` and ``filename`` are OSError's."""

    def __init__(self, syscall: str, errno: int, filename: bytes | str | None = None) -> None:
        self.syscall = syscall
        super().__init__(errno, f"{syscall}: {os.strerror(errno)}", filename)


class ListenerBusy(RampartError, OSError):
    """The process already lives under a seccomp listener; the kernel allows one (EBUSY)."""

    def __init__(self, errno: int) -> None:
        super().__init__(
            errno,
            "seccomp: another supervisor already listens to this process "
            "(start Rampart outside of the other sandbox, or switch its user notifications off)",
        )


class TargetUnreadable(RampartError, PermissionError):
    """The broker cannot read the memory of the process it should judge, so it refuses to start it."""

    def __init__(self, errno: int, problem: str, hint: str) -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(errno, f"{problem} ({hint})")


class TargetGone(RampartError, ProcessLookupError):
    """The notification is no longer valid: its process died or its call was interrupted."""


class CommandDenied(RampartError, PermissionError):
    """The policy denies the command itself; nothing was started."""


class ExecUnverifiable(RampartError, PermissionError):
    """The policy restricts what is executed, and ptrace(2), which verifies that, is refused here."""

    def __init__(self, errno: int) -> None:
        super().__init__(
            errno,
            f"ptrace: {os.strerror(errno)}: execs cannot be verified, and the policy relies on it "
            "(set kernel.yama.ptrace_scope to at most 2, let the container allow ptrace(2), or accept that: "
            "allow_degraded={'exec'}, --allow-degraded exec)",
        )


class LimitExceeded(RampartError, OSError):
    """A limit of the policy ended the tree before its command ran."""


class BrokerClosed(RampartError, RuntimeError):
    """The broker was closed; it judges nothing any more."""

    def __init__(self) -> None:
        super().__init__("the broker is closed (make a new one; a broker is not reopened)")


class ThreadsPatched(RampartError, RuntimeError):
    """threading.Thread starts cooperative tasks (gevent, eventlet); one that waits would stop all of them."""

    def __init__(self) -> None:
        super().__init__(
            "held calls are answered by threads, and threading was patched to start none (with gevent: "
            "monkey.patch_all(thread=False, queue=False), or run the broker in a process of its own)"
        )


class NotEnforceable(RampartError, RuntimeError):
    """A running tree does not ask about what a new policy restricts; nothing was changed.

    Args:
        restriction: What restricts it, in words, with its place.
        rule: Name of the rule; None where it is no rule.
        key: Key of the policy otherwise, such as ``default.read`` or ``features``.
        operation: The operation that is restricted, or the feature that the policy lacks.
        lacking: What the tree does without asking.
        pid: The command of the tree; None if it has not started yet.
    """

    def __init__(
        self,
        restriction: str,
        *,
        rule: str | None,
        key: str | None,
        operation: str,
        lacking: str,
        pid: int | None,
    ) -> None:
        self.restriction = restriction
        self.rule = rule
        self.key = key
        self.operation = operation
        self.lacking = lacking
        self.pid = pid
        tree = "a tree that starts just now" if pid is None else f"the running tree of process {pid}"
        super().__init__(
            f"{restriction} cannot be enforced on {tree}: it was launched so that {lacking} "
            f"(end it first, or launch trees by Broker(may_restrict=[{operation!r}]))"
        )


class AuditError(RampartError, OSError):
    """The audit log cannot be opened or written, or does not verify.

    Args:
        problem: What is wrong, in one sentence without a full stop.
        file: The log.
        line: Line number, from 1, where something is wrong with a record.
        errno: Error of the system call that failed; None where the content is wrong.
        hint: What to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: bytes | str | None = None,
        line: int | None = None,
        errno: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = file
        self.line = line
        self.hint = hint
        if errno is None:
            super().__init__(problem)
        else:
            super().__init__(errno, problem, file)

    def __str__(self) -> str:
        name = os.fsdecode(self.file) if self.file is not None else None
        where = ":".join(str(part) for part in (name, self.line) if part is not None)
        text = f"{where}: {self.problem}" if where else self.problem
        if self.errno is not None:
            text = f"{text}: {os.strerror(self.errno)}"
        return f"{text} ({self.hint})" if self.hint else text
