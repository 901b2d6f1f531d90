"""`subprocess.Popen` and `subprocess.run` for a command behind a policy."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any, AnyStr, TextIO

from rampart_seccomp.launch.command import Argument, Command, Supervision, nudge, supervise

if TYPE_CHECKING:
    from rampart_seccomp.broker import Broker, Decided, Denial, Session, Wrapped
    from rampart_seccomp.policy import AnyPolicy

__all__ = ["CompletedProcess", "Popen", "run"]

# The tree is gone by then; what is left is the broker's own writing.
SETTLE_SECONDS = 5.0

_POLL_MAX = 2**31 - 1
"""Milliseconds that poll(2) can wait."""

PREEXEC_REFUSED = (
    "preexec_fn is not supported: it would run before the filter is in, in a copy of this process, and the "
    "launcher would be its process rather than the command (use cwd=, env=, umask=, user=, "
    "start_new_session= or process_group=, or a wrapper program as the command)"
)

_File = int | IO[Any] | None


class Popen(subprocess.Popen[AnyStr]):
    """Run a command behind a policy, otherwise as subprocess.Popen does.

    `pid` is the launcher's, which stands in for the command: its exit status is the command's. `kill` and
    `terminate` act on the whole tree, `send_signal` on the command. `wait` returns when the whole tree has
    ended; with a broker whose policy says `linger`, when the command has.

    Args:
        policy: A Policy, a stack of them, or the name of a file or profile; None: the profile ``agent``.
        broker: A broker to use instead; it is not closed. Without it the process has a broker of its own.
        on_ask: Who answers questions; see Broker.
        audit: Where decisions are recorded; see Broker.
        explain: Where denials are explained; see Broker.
        start_timeout: Seconds until the command must have been started, which a question may delay; None:
            any time. TimeoutError after that, and nothing is left running.

    The other arguments are subprocess.Popen's. `close_fds=False` makes the control socket inheritable for a
    moment, so another thread that starts a program meanwhile passes it on, too.

    Raises:
        ValueError: `preexec_fn` is given.
        CommandDenied: The policy denies the command itself.
        OSError: As from subprocess.Popen: FileNotFoundError, PermissionError, ENOEXEC, ...
    """

    def __init__(
        self,
        args: Argument | Iterable[Argument],
        bufsize: int = -1,
        executable: Argument | None = None,
        stdin: _File = None,
        stdout: _File = None,
        stderr: _File = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: Argument | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        universal_newlines: bool | None = None,
        startupinfo: None = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = False,
        pass_fds: Collection[int] = (),
        *,
        policy: AnyPolicy | str | os.PathLike[str] | None = None,
        broker: Broker | None = None,
        on_ask: Any = None,
        audit: Any = None,
        explain: TextIO | None = None,
        start_timeout: float | None = None,
        **options: Any,
    ) -> None:
        if preexec_fn is not None:
            raise ValueError(PREEXEC_REFUSED)
        if pass_fds and not close_fds:
            warnings.warn("pass_fds overriding close_fds.", RuntimeWarning, stacklevel=2)
            close_fds = True
        command = Command.read(args, executable=executable, shell=shell)
        self._supervision: Supervision = supervise(
            command,
            directory=cwd,
            policy=policy,
            broker=broker,
            on_ask=on_ask,
            audit=audit,
            explain=explain,
        )
        wrapped: Wrapped = self._supervision.wrapped
        try:
            if not close_fds:
                for fd in wrapped.pass_fds:
                    os.set_inheritable(fd, True)
            super().__init__(
                wrapped.argv,
                bufsize=bufsize,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                close_fds=close_fds,
                cwd=cwd,
                env=env,
                universal_newlines=universal_newlines,
                startupinfo=startupinfo,
                creationflags=creationflags,
                restore_signals=restore_signals,
                start_new_session=start_new_session,
                pass_fds=(*pass_fds, *wrapped.pass_fds) if close_fds else (),
                **options,
            )
        except BaseException:
            self._supervision.abandon()
            self._supervision.settle(SETTLE_SECONDS)
            raise
        # typeshed has no word for what subprocess.Popen really accepts and keeps here.
        self.args = args  # type: ignore[assignment]
        try:
            wrapped.close()
            self.session.wait_started(start_timeout)
        except BaseException as error:
            self._clear_away()
            if isinstance(error, OSError):
                command.blame(error)
            raise

    def _clear_away(self) -> None:
        """Leave nothing behind of a command that was not started."""
        self._supervision.abandon()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        super().wait()
        self._supervision.settle(SETTLE_SECONDS)
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    @property
    def session(self) -> Session:
        """The broker's view of this tree."""
        return self._supervision.session

    @property
    def command_pid(self) -> int | None:
        """The pid of the command itself; None before it is known."""
        return self.session.command_pid

    @property
    def denials(self) -> list[Denial]:
        """What was denied so far."""
        return list(self.session.denials)

    @property
    def events(self) -> list[Decided]:
        """What was decided so far."""
        return list(self.session.events)

    def poll(self) -> int | None:
        """Return the exit status if command and tree have ended, else None.

        Of a tree that lingers, it is enough that the command has.
        """
        status = super().poll()
        if status is None:
            status = self._leave_lingering()
        elif not self.session.lingers:
            self._supervision.settle(SETTLE_SECONDS)
        return status

    def wait(self, timeout: float | None = None) -> int:
        """Wait until command and tree have ended; return the command's exit status.

        What lingers is not waited for: it goes on until the broker is closed.
        """
        if self.session.lingers and self.returncode is None:
            if not self.session.command_ended.wait(timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            status = self._leave_lingering()
            if status is not None:
                return status
        status = super().wait(timeout)
        if not self.session.lingers:
            self._supervision.settle(SETTLE_SECONDS)
        return status

    def _wait(self, timeout: float | None) -> int:
        """Wait for the launcher in subprocess's place, which would look for its end only now and then.

        Interrupted in here, `wait` gives the command a moment to end; so all of the waiting is in here.
        """
        if timeout is None or self.returncode is not None:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]
        left = _wait_ended(self.pid, timeout)
        try:
            return super()._wait(left)  # type: ignore[misc,no-any-return]
        except subprocess.TimeoutExpired as error:
            error.timeout = timeout
            raise

    def _leave_lingering(self) -> int | None:
        """Return the status of a command whose tree lingers, None if it is no such; the launcher goes on."""
        status = self.session.command_status if self.session.lingers else None
        if status is not None and self.returncode is None:
            self.returncode = status
            # The launcher lives as long as its tree, and is no longer this object's to reap.
            threading.Thread(target=_reap, args=(self.pid,), name="rampart-reaper", daemon=True).start()
        return status

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command; nothing happens if it has ended."""
        self._signal(sig, tree=False)

    def terminate(self) -> None:
        """Send SIGTERM to every process of the tree."""
        self._signal(signal.SIGTERM, tree=True)

    def kill(self) -> None:
        """Send SIGKILL to every process of the tree."""
        self._signal(signal.SIGKILL, tree=True)

    def _signal(self, sig: int, *, tree: bool) -> None:
        if self.poll() is not None:
            return
        self.session.signal(sig, tree=tree)
        # A launcher that stopped with its command does not read orders.
        if sig in (signal.SIGCONT, signal.SIGKILL):
            nudge(self.pid)


def _wait_ended(pid: int, timeout: float) -> float:
    """Sleep until a child has ended, at most so many seconds; give what is left of them."""
    deadline = time.monotonic() + timeout
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return timeout  # somebody else has reaped it, or there are no descriptors left
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(min(max(0.0, timeout) * 1000, _POLL_MAX))
    finally:
        os.close(pidfd)
    return deadline - time.monotonic()


def _reap(pid: int) -> None:
    """Wait for a child in its parent's place; somebody else may have."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


class CompletedProcess(subprocess.CompletedProcess[AnyStr]):
    """A finished command, and what was decided about it.

    Attributes:
        denials: What was denied.
    """

    def __init__(
        self,
        args: Any,
        returncode: int,
        stdout: Any = None,
        stderr: Any = None,
        *,
        denials: list[Denial],
        events: Callable[[], list[Decided]],
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.denials = denials
        self._read_events: Callable[[], list[Decided]] | None = events
        self._events: list[Decided] = []

    @property
    def events(self) -> list[Decided]:
        """What was decided, oldest first; read when it is first asked for."""
        if self._read_events is not None:
            self._events, self._read_events = self._read_events(), None
        return self._events

    def __getstate__(self) -> dict[str, Any]:
        _ = self.events
        return self.__dict__


def run(
    args: Argument | Iterable[Argument],
    *,
    input: str | bytes | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> CompletedProcess[Any]:
    """Run a command behind a policy and wait for it, as subprocess.run does.

    Args:
        args: The command.
        input: Sent to its standard input.
        capture_output: Collect its output.
        timeout: Seconds for everything, the time that questions take included.
        check: Raise CalledProcessError unless the status is 0.
        options: Those of Popen.

    Raises:
        subprocess.TimeoutExpired: The tree was killed.
        subprocess.CalledProcessError: With `check`.
        OSError: The command could not be started; see Popen.
    """
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        process: Popen[Any] = Popen(args, start_timeout=timeout, **options)
    except TimeoutError as error:
        raise subprocess.TimeoutExpired(args, timeout or 0.0) from error  # type: ignore[arg-type]
    with process:
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            stdout, stderr = process.communicate(input, timeout=left)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            error.timeout = timeout or 0.0
            raise
        except BaseException:
            process.kill()
            raise
        status = process.wait()
    if check and status:
        raise subprocess.CalledProcessError(status, process.args, output=stdout, stderr=stderr)
    return CompletedProcess(
        process.args, status, stdout, stderr, denials=process.denials, events=lambda: process.events
    )
