"""`asyncio.create_subprocess_exec` for a command behind a policy."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import functools
import os
import signal
from typing import TYPE_CHECKING, Any, TextIO

from rampart_seccomp.launch.command import Argument, Command, Supervision, nudge, supervise
from rampart_seccomp.launch.popen import PREEXEC_REFUSED, SETTLE_SECONDS

if TYPE_CHECKING:
    from rampart_seccomp.broker import Broker, Decided, Denial, Session
    from rampart_seccomp.policy import AnyPolicy

__all__ = ["Process", "create_subprocess_exec"]

_LOOK = 0.02
"""Seconds between two looks at a command whose tree may linger."""

_STREAM_LIMIT = 2**16  # asyncio's own


class Process(asyncio.subprocess.Process):
    """An asyncio process whose signals go to the command or the tree; see Popen for the differences."""

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        protocol: asyncio.subprocess.SubprocessStreamProtocol,
        loop: asyncio.AbstractEventLoop,
        supervision: Supervision,
    ) -> None:
        super().__init__(transport, protocol, loop)
        self._launcher = transport
        self._supervision = supervision

    @property
    def session(self) -> Session:
        """The broker's view of this tree."""
        return self._supervision.session

    @property
    def command_pid(self) -> int | None:
        """The pid of the command itself."""
        return self.session.command_pid

    @property
    def denials(self) -> list[Denial]:
        """What was denied so far."""
        return list(self.session.denials)

    @property
    def events(self) -> list[Decided]:
        """What was decided so far."""
        return list(self.session.events)

    async def wait(self) -> int:
        """Wait until command and tree have ended; return the command's exit status.

        What lingers is not waited for: it goes on until the broker, or the event loop, is closed.
        """
        if self.session.lingers:
            return await self._wait_command()
        status = await super().wait()
        await asyncio.to_thread(self._supervision.settle, SETTLE_SECONDS)
        return status

    @property
    def returncode(self) -> int | None:
        """The exit status; None while it runs."""
        status = self._launcher.get_returncode()
        return self.session.command_status if status is None and self.session.lingers else status

    async def _wait_command(self) -> int:
        launcher = asyncio.ensure_future(super().wait())
        try:
            while not launcher.done() and self.session.command_status is None:
                await asyncio.wait([launcher], timeout=_LOOK)
        finally:
            launcher.cancel()
        status = self.returncode
        assert status is not None
        return status

    def send_signal(self, signal: int) -> None:
        """Send a signal to the command."""
        self._signal(signal, tree=False)

    def terminate(self) -> None:
        """Send SIGTERM to every process of the tree."""
        self._signal(signal.SIGTERM, tree=True)

    def kill(self) -> None:
        """Send SIGKILL to every process of the tree."""
        self._signal(signal.SIGKILL, tree=True)

    def _signal(self, sig: int, *, tree: bool) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        self.session.signal(sig, tree=tree)
        # A launcher that stopped with its command does not read orders.
        if sig in (signal.SIGCONT, signal.SIGKILL):
            nudge(self.pid)


async def create_subprocess_exec(
    program: Argument,
    *args: Argument,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _STREAM_LIMIT,
    policy: AnyPolicy | str | os.PathLike[str] | None = None,
    broker: Broker | None = None,
    on_ask: Any = None,
    audit: Any = None,
    explain: TextIO | None = None,
    **options: Any,
) -> Process:
    """Start a command behind a policy; asyncio's function of this name, with Popen's additional arguments.

    Start errors are raised before it returns, and the loop goes on meanwhile: a question about the command
    itself can be answered by a coroutine of the same loop.

    Raises:
        ValueError: `preexec_fn` is given.
        CommandDenied: The policy denies the command itself.
        OSError: The command could not be started.
    """
    if options.pop("preexec_fn", None) is not None:
        raise ValueError(PREEXEC_REFUSED)
    command = Command.read([program, *args], executable=options.pop("executable", None))
    loop = asyncio.get_running_loop()
    supervision = await asyncio.to_thread(
        supervise,
        command,
        directory=options.get("cwd"),
        policy=policy,
        broker=broker,
        on_ask=on_ask,
        audit=audit,
        explain=explain,
    )
    wrapped = supervision.wrapped
    try:
        transport, protocol = await loop.subprocess_exec(
            functools.partial(asyncio.subprocess.SubprocessStreamProtocol, limit=limit, loop=loop),
            *wrapped.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            **{**options, "pass_fds": (*options.get("pass_fds", ()), *wrapped.pass_fds)},
        )
    except BaseException:
        supervision.abandon()
        await asyncio.shield(asyncio.to_thread(supervision.settle, SETTLE_SECONDS))
        raise
    process = Process(transport, protocol, loop, supervision)
    try:
        wrapped.close()
        await asyncio.to_thread(supervision.session.wait_started)
    except BaseException as error:
        supervision.abandon()
        # Not closed before it has ended: closing kills the launcher, which would leave the tree to itself.
        await asyncio.shield(process.wait())
        transport.close()
        if isinstance(error, OSError):
            command.blame(error)
        raise
    return process
