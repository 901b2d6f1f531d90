"""What Popen, run and create_subprocess_exec share: reading the arguments and finding the broker."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

import attrs

if TYPE_CHECKING:
    from rampart_seccomp.broker import Broker, Session, Wrapped
    from rampart_seccomp.policy import AnyPolicy

__all__ = ["Argument", "Command", "Supervision", "nudge", "supervise"]

Argument = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@attrs.frozen(eq=False, repr=False)
class Command:
    """A command as subprocess understands its arguments.

    Args:
        argv: The argument vector, at least one.
        program: The file to execute; None: argv[0], through PATH.
        name: What an error about the program names: what the caller gave.
    """

    argv: list[bytes]
    program: bytes | None
    name: Argument

    @classmethod
    def read(
        cls, args: Argument | Iterable[Argument], *, executable: Argument | None = None, shell: bool = False
    ) -> Command:
        """Read `args` as subprocess.Popen does.

        Raises:
            TypeError: An argument is not str, bytes or path-like; a path-like `args` with `shell`.
            IndexError: There is no argument at all.
            PermissionError: The program's name is empty; execve(2) would be given a directory.
        """
        if isinstance(args, os.PathLike) and shell:
            raise TypeError("path-like args is not allowed when shell is true")
        given: list[Argument] = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
        if shell:
            given = ["/bin/sh" if executable is None else executable, "-c", *given]
        name = given[0] if executable is None else executable
        if not os.fspath(name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        argv = [os.fsencode(argument) for argument in given]
        return cls(argv, None if executable is None else os.fsencode(executable), name)

    def blame(self, error: OSError) -> None:
        """Let a start error name the program as the caller did, as subprocess does."""
        if error.filename is not None:
            error.filename = os.fspath(self.name)


def nudge(launcher: int) -> None:
    """Continue a launcher that stopped with its command: it reads no orders. Not passed on to the command."""
    from rampart_seccomp.calls.shim import lib

    try:
        pidfd = os.pidfd_open(launcher)
    except ProcessLookupError:
        return
    try:
        lib.rs_nudge(pidfd)
    finally:
        os.close(pidfd)


@attrs.define(eq=False, repr=False)
class Supervision:
    """A session, and the broker if it was made for this one command."""

    wrapped: Wrapped
    own_broker: Broker | None

    @property
    def session(self) -> Session:
        return self.wrapped.session

    def abandon(self) -> None:
        """Have whatever was started killed; `settle` waits for that."""
        self.wrapped.close()
        self.session.kill_tree()

    def close(self) -> None:
        """Close the broker if nobody else can have a use for it. May be called again."""
        if self.own_broker is not None:
            self.own_broker.close()
            self.own_broker = None

    def settle(self, seconds: float) -> None:
        """After the tree has ended: wait until all of it is recorded, at most `seconds`."""
        self.session.wait_finished(seconds)
        self.close()


def supervise(
    command: Command,
    *,
    directory: Argument | None,
    policy: AnyPolicy | str | os.PathLike[str] | None,
    broker: Broker | None,
    on_ask: Any = None,
    audit: Any = None,
    explain: TextIO | None = None,
) -> Supervision:
    """Wrap a command with the caller's broker, or with one of its own under `policy`.

    Args:
        command: What is to be run.
        directory: Its working directory; None: the caller's.
        policy: A policy, a stack, or what Policy.load takes; None: the profile ``agent``.
        broker: Excludes all the following, which belong to a broker.
        on_ask: Who answers questions; see Broker.
        audit: Where decisions are recorded; see Broker.
        explain: Where denials are explained; see Broker.

    Raises:
        TypeError: Both a broker and something that belongs to one.
    """
    where = None if directory is None else os.fsencode(directory)
    if broker is not None:
        settings = {"policy": policy, "on_ask": on_ask, "audit": audit, "explain": explain}
        for name, value in settings.items():
            if value is not None:
                raise TypeError(f"{name}= belongs to the broker: give it to Broker(...), or give no broker=")
        return Supervision(broker.wrap(command.argv, program=command.program, directory=where), None)

    # Imported late: the broker speaks this package's protocol.
    from rampart_seccomp.broker import Broker
    from rampart_seccomp.policy import Policy, Stack

    if not isinstance(policy, Policy | Stack):
        policy = Policy.load("agent" if policy is None else policy)
    own = Broker(policy, on_ask=on_ask, audit=audit, explain=explain)
    try:
        wrapped = own.wrap(command.argv, program=command.program, directory=where, linger=False)
        own._crews.close()  # there is no next tree that could use its threads
        return Supervision(wrapped, own)
    except BaseException:
        own.close()
        raise
