"""A command, wrapped: what a spawner starts, and the tree that it becomes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from types import TracebackType

import attrs

from rampart_seccomp.broker.session import Session
from rampart_seccomp.kernel.filter import Filter
from rampart_seccomp.kernel.traps import Traps
from rampart_seccomp.launch import protocol
from rampart_seccomp.launch.handover import Offer, offer
from rampart_seccomp.policy import AnyPolicy, Limits

__all__ = ["Wrapped", "offer_under"]


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


def offer_under(
    policy: AnyPolicy,
    traps: Traps,
    filtered: Filter,
    argv: Iterable[str | bytes],
    program: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None,
    *,
    linger: bool,
) -> Offer:
    """Prepare the start of a command as a policy wants it.

    Args:
        policy: Its limits, and the variables that it drops.
        traps: What the tree is launched with.
        filtered: The filter for them.
        argv: The command and its arguments.
        program: File to execute in place of ``argv[0]``; None: look it up through PATH.
        linger: What the command leaves running lives until the broker goes away.

    Raises:
        LauncherMissing: The package was installed without its launcher.
    """
    return offer(
        filtered.program,
        argv,
        None if program is None else os.fsencode(program),
        cores=traps.cores,
        linger=linger,
        limits=_limits(policy.limits),
        environment=policy.environment.patterns,
    )


def _limits(limits: Limits) -> protocol.Limits:
    """Give a policy's limits as the launcher takes them."""
    return protocol.Limits(
        open_files=limits.open_files or 0,
        cpu_seconds=limits.cpu_seconds or 0,
        memory=limits.memory or 0,
        processes=limits.processes or 0,
        wall_ms=0 if limits.wall_time is None else max(1, round(limits.wall_time * 1000)),
    )
