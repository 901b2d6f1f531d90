"""``rampart-seccomp explain``: which rule decides about something, why, and what would change that."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rampart_seccomp.approval.escape import printable
from rampart_seccomp.cli import Parser, complain

if TYPE_CHECKING:
    from rampart_seccomp.events import Event
    from rampart_seccomp.policy import AnyMatcher, Explanation
    from rampart_seccomp.policy.explanation import Loser

__all__ = ["main"]

WIDTH = 100

FILES = ("read", "write", "create", "modify", "delete", "metadata")


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, whatever the policy says.
    """
    options = _parse(argv)
    from rampart_seccomp.cli.policies import load
    from rampart_seccomp.policy import explain

    matcher = load(options.policy, grants=options.grants).matcher()
    # `write` is four operations; where they are decided alike, once is enough.
    answers: dict[tuple[str, str, str], list[Explanation]] = {}
    for event in _events(matcher, options):
        answer = explain(matcher, event)
        key = (answer.decision.verdict, printable(answer.object), "\n".join(_reasons(matcher, answer)))
        answers.setdefault(key, []).append(answer)
    for (verdict, subject, reasons), alike in answers.items():
        print(f"{verdict}: {', '.join(str(answer.decision.operation) for answer in alike)} {subject}")
        print("\n".join([reasons, *_others(loser for answer in alike for loser in answer.losers)]))
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("explain", "Say which rule decides, why not the others, and how to change that.")
    parser.usage = (
        f"{parser.prog} [--policy FILE|PROFILE]… [--program PATH] [--within CMD] [--env NAME]… "
        f"{'|'.join(FILES)} PATH | exec CMD [ARG…] | "
        "connect HOST:PORT | listen [ADDRESS:]PORT"
    )
    parser.add_argument(
        "--policy",
        action="append",
        metavar="FILE|PROFILE",
        help="default: the profile agent; several: a stack",
    )
    parser.add_argument("--grants", metavar="FILE", help="an overrides file for the last policy")
    parser.add_argument("--program", metavar="PATH", help="the program that acts; default: an unknown one")
    parser.add_argument("--within", metavar="CMD", help="the command, as one word, beneath which it acts")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="a variable that the exec adds or changes"
    )
    parser.add_argument("operation", choices=(*FILES, "exec", "connect", "listen"), metavar="OPERATION")
    parser.add_argument("object", nargs=argparse.REMAINDER, metavar="OBJECT …")
    options = parser.parse_args(argv)
    if options.object[:1] == ["--"]:
        del options.object[0]
    if not options.object:
        parser.error(f"{options.operation} of what?")
    if len(options.object) > 1 and options.operation != "exec":
        parser.error(f"{options.operation} takes one object")
    if options.env and options.operation != "exec":
        parser.error(f"--env is for exec, and not for {options.operation}")
    return options


def _events(matcher: AnyMatcher, options: argparse.Namespace) -> Iterator[Event]:
    """Return the events that the words stand for, here and now."""
    from rampart_seccomp.policy.cases import events

    operation, words = options.operation, options.object
    ask = functools.partial(
        events,
        matcher,
        operation,
        program=None if options.program is None else _here(options.program),
        within=None if options.within is None else _found(options.within),
    )
    if operation in FILES:
        return ask(path=_here(words[0]))
    if operation == "exec":
        program = shutil.which(words[0])
        if program is None and "/" not in words[0]:
            complain(f"{words[0]!r} is not in PATH, and judged as if it lay in /usr/bin", "note")
        path = None if program is None else os.path.abspath(program)
        return ask(path=path, command=shlex.join(words), env=options.env)
    if operation == "connect":
        return ask(host=words[0])
    return ask(port=words[0])


def _here(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _found(command: str) -> str:
    """Give a command line with its program as it is found here, if it is."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    program = shutil.which(words[0]) if words else None
    return command if program is None else shlex.join([os.path.abspath(program), *words[1:]])


def _reasons(matcher: AnyMatcher, explanation: Explanation) -> Iterator[str]:
    decision = explanation.decision
    where = decision.where
    if decision.rule is None and decision.reason == "default":
        policy = matcher.policy.layers[decision.layer]
        place = policy.places.get(f"default.{decision.operation}")
        where = f"the default, which says {decision.verdict}"
        if place is not None:
            where += f" ({os.path.basename(place)})"
        elif policy.source is not None:
            where += f" ({os.path.basename(policy.source)} does not name it)"
    yield f"  decided by   {printable(where)}"
    if decision.rule is not None and decision.rule.reason:
        yield f"  reason       {printable(decision.rule.reason)}"
    if decision.message:
        yield f"  message      {printable(decision.message)}"
    if explanation.shown is not None:
        yield f"  {explanation.effect:<11}  {printable(explanation.shown)}"
    yield f"  {explanation.flip:<11}  {printable(explanation.suggestion)}"


def _others(losers: Iterable[Loser]) -> Iterator[str]:
    """Return lines about the rules that did not decide, each once; those that do not match come together."""
    matching: list[tuple[str, Loser]] = []
    missing: dict[str, list[str]] = {}
    for loser in dict.fromkeys(losers):
        if loser.matches:
            place = f" ({os.path.basename(loser.place)})" if loser.place else ""
            matching.append((printable(loser.name + place), loser))
        else:
            missing.setdefault(loser.why, []).append(printable(loser.name))
    if matching or missing:
        yield "  not by"
    width = max((len(name) for name, _ in matching), default=0)
    for name, loser in matching:
        yield f"    {name:<{width}}  {loser.verdict:<5}  {printable(loser.why)}"
    for why, names in missing.items():
        text = f"{printable(why)}: {', '.join(names)}"
        yield from textwrap.wrap(
            text, WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
        )
