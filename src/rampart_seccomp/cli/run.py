"""``rampart-seccomp run``: a command behind a policy, otherwise as if it had been started bare."""

from __future__ import annotations

import argparse
import contextlib
import errno as errnos
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rampart_seccomp.cli import FAILURE, Parser, complain, flush
from rampart_seccomp.errors import CommandDenied, RampartError

if TYPE_CHECKING:
    from rampart_seccomp.broker import Broker, Session
    from rampart_seccomp.events import Event
    from rampart_seccomp.policy import AnyPolicy
    from rampart_seccomp.verdicts import Verdict

__all__ = ["main"]

DENIED, NOT_FOUND = 126, 127

FORWARDED = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
)
"""Passed on to the command if a process sent them to us; what a terminal sends, the command gets itself."""

SETTLE_SECONDS = 5.0
"""For the broker to write down what happened after everything has ended."""


def main(argv: Sequence[str]) -> int:
    """Run the command; does not return if a signal killed it, but dies of the same signal.

    Returns:
        The command's exit status; 125 if Rampart failed, 126 if the command is denied or not executable,
        127 if it was not found. In these cases nothing was started.
    """
    options, command = _parse(list(argv))
    policy = _policy(options)
    audit = options.audit
    if options.observe and audit is None:
        audit = _observation_log()
        complain(f"recording to {audit}")
    with contextlib.ExitStack() as stack:
        # Before the broker makes threads: a signal must find nobody but our own loop.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            # Inherited like that, the kernel would throw the exit status away.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from rampart_seccomp.broker import Broker

        approver, withdraw = _approver(options.ask)
        explain = sys.stderr if options.explain else None
        broker = stack.enter_context(
            Broker(
                policy,
                on_ask=approver,
                audit=audit,
                explain=explain,
                allow_degraded=options.allow_degraded,
            )
        )
        # A question that still stands must not hold up the end.
        stack.callback(withdraw)
        status = _run(broker, [os.fsencode(word) for word in command], before, explained=options.explain)
    return status if status >= 0 else _die_of(-status)


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser("run", "Put a command behind a policy.")
    parser.usage = f"{parser.prog} [OPTION…] -- CMD [ARG…]"
    parser.add_argument(
        "--policy",
        action="append",
        metavar="FILE|PROFILE",
        help="the policy; without it: the profile agent; several: a stack, whose strictest verdict wins",
    )
    parser.add_argument("--allow-host", action="append", default=[], metavar="HOST", help="allow connecting")
    parser.add_argument("--allow-write", action="append", default=[], metavar="PATH", help="allow writing")
    parser.add_argument("--allow-read", action="append", default=[], metavar="PATH", help="allow reading")
    parser.add_argument(
        "--allow-degraded",
        action="append",
        default=[],
        choices=("exec",),
        help="what may be enforced less than fully: exec, to go on unverified where ptrace is refused",
    )
    parser.add_argument("--grants", metavar="FILE", help="what was granted before: an overrides file")
    parser.add_argument("--audit", metavar="FILE", help="record every decision there")
    parser.add_argument(
        "--ask",
        choices=("tty", "queue", "deny"),
        default="tty",
        help="who answers what the policy asks: a person at the terminal (default), or nobody",
    )
    parser.add_argument("--observe", action="store_true", help="restrict nothing, record everything")
    parser.add_argument(
        "--explain", action="store_true", help="say on standard error what was denied, and why"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD …")
    command: list[str] = []
    if "--" in argv:
        border = argv.index("--")
        argv, command = argv[:border], argv[border + 1 :]
    options = parser.parse_args(argv)
    if options.command and command:
        parser.error(f"{options.command[0]!r} stands before --: options go there, the command after it")
    command = command or options.command
    if not command:
        parser.error("a command is missing")
    if options.ask == "queue":
        parser.error("--ask queue is not supported by this version")
    if options.observe and options.policy:
        parser.error("--observe is a policy of its own: leave --policy out")
    return options, command


def _policy(options: argparse.Namespace) -> AnyPolicy:
    """Return the policy with what the flags add to the last one; a deny of it stays a deny."""
    from rampart_seccomp.cli.policies import load
    from rampart_seccomp.policy import allow

    reads = [_pattern(path) for path in options.allow_read]
    writes = [_pattern(path) for path in options.allow_write]
    rules = []
    if options.allow_host:
        rules.append(allow("connect", name="--allow-host", hosts=options.allow_host))
    if reads:
        rules.append(allow("read", name="--allow-read", paths=reads))
    if writes:
        rules.append(allow("write", name="--allow-write", paths=writes))
    return load(["observe"] if options.observe else options.policy, rules=rules, grants=options.grants)


def _pattern(path: str) -> str:
    """Return the pattern for a path as people give it to a shell; a directory means all of it."""
    if path.startswith(".."):
        path = os.path.abspath(path)
    elif path == ".":
        path = "./"
    elif not path.startswith(("/", "~", "@", "./", "**/")):
        path = f"./{path}"
    if os.path.isdir(os.path.expanduser(path)):
        return path.rstrip("/") + "/**"
    return path


def _observation_log() -> str:
    """Return a new name for the record of an observation, in the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    directory = os.path.join(state, "rampart-seccomp")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return os.path.join(
        directory, time.strftime(f"observe-%Y%m%dT%H%M%SZ-{os.getpid()}.jsonl", time.gmtime())
    )


def _approver(ask: str) -> tuple[Callable[[Event], Verdict], Callable[[], Any]]:
    """Return who is asked, and what withdraws the questions."""
    from rampart_seccomp import approval

    if ask == "deny":
        return approval.headless_approver(), lambda: None
    terminal = approval.terminal_approver()
    return terminal, terminal.close


def _run(broker: Broker, command: list[bytes], mask: set[signal.Signals | int], *, explained: bool) -> int:
    """Start the command behind the broker and wait for it.

    Args:
        broker: Judges it.
        command: Its argument vector.
        mask: The signal mask that the command inherits.
        explained: The broker itself says why a tree was ended.

    Returns:
        The exit status; negative: the number of the signal it died of.
    """
    with broker.wrap(command, linger=False) as wrapped:
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            launcher = subprocess.Popen(wrapped.argv, pass_fds=wrapped.pass_fds)
        except OSError as error:
            complain(f"cannot start the launcher: {error}")
            return DENIED if error.errno == errnos.E2BIG else FAILURE
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    session = wrapped.session
    status = _wait(launcher, session)
    try:
        session.wait_started(SETTLE_SECONDS)
    except OSError as error:
        return status if status < 0 else _not_started(command[0], error)
    session.wait_finished(SETTLE_SECONDS)
    for denial in session.denials:
        if denial.operation == "limit" and not explained:
            complain(f"{denial.message}: {denial.object} ({denial.suggestion})")
    return status


def _wait(launcher: subprocess.Popen[bytes], session: Session) -> int:
    """Wait for the launcher, which ends as the command did, and pass signals on meanwhile."""
    while (status := launcher.poll()) is None:
        received = signal.sigwaitinfo(FORWARDED | {signal.SIGCHLD})
        if _is_to_be_passed_on(received):
            session.signal(received.si_signo, tree=False)
    return status


def _is_to_be_passed_on(received: signal.struct_siginfo) -> bool:
    """Tell whether the command has not got a signal by itself."""
    if received.si_signo == signal.SIGCHLD:
        return False
    # Positive codes are the kernel's: the terminal signals the foreground group, and so the command, too.
    # Except when it goes away: then it tells the leader of the session, which bare would be the command.
    return received.si_code <= 0 or (received.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid())


def _not_started(program: bytes, error: OSError) -> int:
    """Say why the command was not started, and return the exit status for that."""
    if isinstance(error, TimeoutError):
        complain("the launcher ended before it started the command")
        return FAILURE
    if isinstance(error, RampartError) and not isinstance(error, CommandDenied):
        complain(str(error))
        return FAILURE
    complain(f"{os.fsdecode(program)}: {error.strerror or error}")
    return NOT_FOUND if isinstance(error, FileNotFoundError) else DENIED


def _die_of(signo: int) -> int:
    """Die of a signal, as the command did, without a second core file."""
    flush()
    # One byte is too little for a core file, and tells core(5) not to start a handler either.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, hard))
    with contextlib.suppress(OSError, ValueError):
        signal.signal(signo, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signo})
    os.kill(os.getpid(), signo)
    return 128 + signo
