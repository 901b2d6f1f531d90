"""Questions put to a policy in words: the ``tests:`` of a file, and what ``explain`` asks."""

from __future__ import annotations

import ipaddress
import os
import shlex
from collections.abc import Iterable, Iterator

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import (
    ConnectEvent,
    Event,
    ExecEvent,
    FileEvent,
    ListenEvent,
    Operation,
    Process,
    Program,
)
from rampart_seccomp.policy.hosts import parse_host, parse_local
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import PolicyTest
from rampart_seccomp.policy.stack import AnyMatcher
from rampart_seccomp.policy.terms import FILE_OPERATIONS, to_operations
from rampart_seccomp.verdicts import Redirect

__all__ = ["DIRECTORY", "HOME", "events", "run_tests"]

HOME = b"/home/user"
DIRECTORY = b"/home/user/project"
"""Where the tests of a policy take place, so that they say the same on every machine."""

_MEMFD, _DELETED = b"/memfd:", b" (deleted)"


def run_tests(policy: Policy, *, file: str | None = None) -> None:
    """Evaluate the tests of a policy, with `HOME` as home and `DIRECTORY` as launch directory.

    Raises:
        PolicyError: One of them fails, or asks nothing that can be asked.
    """
    if not policy.tests:
        return
    matcher = policy.matcher(home=HOME, directory=DIRECTORY)
    names = {rule.name for rule in policy.effective}
    for index, test in enumerate(policy.tests):
        problem, hint = None, None
        try:
            problem = _failure(matcher, test)
            if test.by is not None and test.by not in names:
                problem = f"there is no rule {test.by!r}"
        except PolicyError as error:
            problem, hint = error.problem, error.hint
        if problem is not None:
            raise PolicyError(problem, file=file, line=test.line, key=f"tests[{index}]", hint=hint)


def _failure(matcher: AnyMatcher, test: PolicyTest) -> str | None:
    asked = events(
        matcher,
        test.operation,
        path=test.path,
        command=test.command,
        host=test.host,
        port=test.port,
        program=test.program,
        within=test.within,
        env=test.env,
    )
    for event in asked:
        decision = matcher.decide(event)
        if decision.verdict != test.verdict:
            return (
                f"the test fails: {event.operation} of {_shown(test)} is {decision.verdict}, "
                f"by {decision.where}, and not {test.verdict}"
            )
        decided_by = None if decision.rule is None else decision.rule.name
        if test.by is not None and decided_by != test.by:
            return (
                f"the test fails: {event.operation} of {_shown(test)} is decided "
                f"by {decision.where}, and not by {test.by}"
            )
        if test.redirect is not None and decision.redirect != (test.redirect or None):
            return (
                f"the test fails: {event.operation} of {_shown(test)} is "
                f"{_redirected(decision.redirect)}, and should be {_redirected(test.redirect)}"
            )
    return None


def _redirected(redirect: Redirect | bool | None) -> str:
    return f"redirected {redirect}" if redirect else "redirected nowhere"


def _shown(test: PolicyTest) -> str:
    return next(repr(part) for part in (test.path, test.command, test.host, test.port) if part is not None)


def events(
    matcher: AnyMatcher,
    operation: str,
    *,
    path: str | None = None,
    command: str | None = None,
    host: str | None = None,
    port: str | None = None,
    program: str | None = None,
    within: str | None = None,
    env: Iterable[str] = (),
) -> Iterator[Event]:
    """Give the events that a question in words stands for.

    Args:
        matcher: Says what ``~`` and ``./`` are.
        operation: An operation, or ``write`` for its four.
        path: A file, or a program; symbolic links are followed as far as the path exists. A program that ends
            in `` (deleted)`` stands for a memfd or a deleted file.
        command: A command line. A bare program name stands for that name in ``/usr/bin``.
        host: ``name:port``, ``address:port``, ``unix:PATH`` or ``unix:@name``.
        port: ``port`` on every address, or ``address:port``.
        program: Path of the program that acts.
        within: The command line beneath whose exec it acts; alone, it is what acts. Without both, who acts
            is unknown.
        env: Names of the variables that an exec adds or changes.

    Raises:
        PolicyError: The operation lacks its object, or has one that is not its own.
    """
    operations = to_operations(operation)
    changed = frozenset(map(os.fsencode, env))
    process = _process(matcher, program, within)
    given = {"path": path, "command": command, "host": host, "port": port}
    fitting = {
        Operation.EXEC: {"path", "command"},
        Operation.CONNECT: {"host"},
        Operation.LISTEN: {"port"},
    }
    for each in Operation:
        if each not in operations:
            continue
        allowed = fitting.get(each, {"path"})
        strangers = [key for key, value in given.items() if value is not None and key not in allowed]
        if strangers:
            raise PolicyError(f"`{strangers[0]}` does not go with {operation}")
        if changed and each is not Operation.EXEC:
            raise PolicyError(f"`env` does not go with {operation}", hint="it is for exec")
        if all(given[key] is None for key in allowed):
            raise PolicyError(f"{operation} needs `{'` or `'.join(sorted(allowed))}`")
        if each in FILE_OPERATIONS:
            assert path is not None
            real = os.path.realpath(_absolute(matcher, path))
            yield FileEvent(operation=each, path=real, process=process)
        elif each is Operation.EXEC:
            yield attrs.evolve(_exec(matcher, path, command), changed=changed, process=process)
        elif each is Operation.CONNECT:
            assert host is not None
            yield attrs.evolve(_connect(matcher, host), process=process)
        else:
            assert port is not None
            yield attrs.evolve(_listen(port), process=process)


def _process(matcher: AnyMatcher, program: str | None, within: str | None) -> Process | None:
    """Give a process that acts as the words say; None if they say nothing."""
    lineage = []
    if program is not None:
        path = os.path.realpath(_absolute(matcher, program))
        lineage.append(Program(path=path, argv=(path,), clean=True))
    if within is not None:
        started = _exec(matcher, None, within)
        lineage.append(Program(path=started.path, argv=started.argv, clean=True, execs=(started,)))
    return Process(pid=0, tid=0, lineage=tuple(lineage)) if lineage else None


def _absolute(matcher: AnyMatcher, path: str) -> bytes:
    raw = os.fsencode(path)
    if raw == b"~" or raw.startswith(b"~/"):
        raw = matcher.home + raw[1:]
    elif raw in (b".", b"..") or raw.startswith((b"./", b"../")):
        raw = os.path.join(matcher.directory, raw)
    if not raw.startswith(b"/") or b"\0" in raw:
        raise PolicyError(f"{path!r} is not the path of one object", hint="begin it with '/', '~/' or './'")
    return os.path.normpath(raw)


def _exec(matcher: AnyMatcher, path: str | None, command: str | None) -> ExecEvent:
    try:
        argv = shlex.split(command) if command is not None else []
    except ValueError as error:
        raise PolicyError(f"{command!r} is not a command line: {error}") from None
    program = path if path is not None else (argv[0] if argv else "")
    if not program:
        raise PolicyError("the command is empty")
    words = tuple(map(os.fsencode, argv or [program]))
    raw = os.fsencode(program)
    if raw.startswith(_MEMFD) and raw.endswith(_DELETED):
        return ExecEvent(path=b"/" + raw[1:].replace(b"/", b":"), argv=words, linked=False)
    named = _absolute(matcher, program if "/" in program else f"/usr/bin/{program}")
    real = os.path.realpath(named)
    if real.endswith(_DELETED):
        return ExecEvent(path=real, argv=words, named=real.removesuffix(_DELETED), linked=False)
    return ExecEvent(path=real, argv=words, named=named)


def _connect(matcher: AnyMatcher, host: str) -> ConnectEvent:
    if host.startswith("unix:@"):
        return ConnectEvent(protocol="unix", socket=os.fsencode(host[len("unix:") :]))
    if host.startswith("unix:"):
        socket = os.path.realpath(_absolute(matcher, host[len("unix:") :]))
        return ConnectEvent(protocol="unix", socket=socket)
    pattern = parse_host(host)
    if len(pattern.ports) != 1 or pattern.ports[0][0] != pattern.ports[0][1]:
        raise PolicyError(f"{host!r} does not name one port", hint="write 'example.com:443'")
    port = pattern.ports[0][0]
    if pattern.name is not None:
        return ConnectEvent(protocol="tcp", port=port, names=frozenset({pattern.name}))
    if pattern.network is None:
        raise PolicyError(f"{host!r} does not name one host", hint="write a name that it is to match")
    if pattern.network.num_addresses != 1:
        raise PolicyError(f"{host!r} does not name one address")
    return ConnectEvent(protocol="tcp", port=port, address=pattern.network.network_address)


def _listen(port: str) -> ListenEvent:
    pattern = parse_local(port)
    if len(pattern.ports) != 1 or pattern.ports[0][0] != pattern.ports[0][1]:
        raise PolicyError(f"{port!r} does not name one port", hint="write '8000' or '127.0.0.1:8000'")
    if pattern.network is None:
        address = ipaddress.ip_address("0.0.0.0")
    elif pattern.network.num_addresses == 1:
        address = pattern.network.network_address
    else:
        raise PolicyError(f"{port!r} does not name one address")
    return ListenEvent(protocol="tcp", address=address, port=pattern.ports[0][0])
