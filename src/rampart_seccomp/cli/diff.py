"""``rampart-seccomp diff``: what one policy allows and another does not, and the reverse."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rampart_seccomp.approval.escape import printable
from rampart_seccomp.cli import FAILURE, Parser, complain

if TYPE_CHECKING:
    from rampart_seccomp.policy import AnyPolicy, Comparison, Difference

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0 if both certainly allow the same; 1 if they differ; 125 if that could not be found out.
    """
    parser = Parser(
        "diff",
        "Say what policy B allows and A does not, and the reverse, with a shortest example of each. "
        "Exit status: 0 if they allow the same, 1 if they differ, 125 if that could not be found out.",
    )
    what = "a policy file or profile; several, joined by '+', are a stack ('++' is a '+' of a name)"
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), help=what)
    options = parser.parse_args(argv)
    from rampart_seccomp.policy import diff

    found = diff(_load(options.a), _load(options.b))
    for line in _lines(found, options.a, options.b):
        print(line)
    for operation, why in found.unfinished:
        complain(f"too large: {operation} is not compared to the end, since there are {why}", parser.prog)
    if found.differences or found.settings:
        return 1
    return FAILURE if found.unfinished else 0


def _load(text: str) -> AnyPolicy:
    from rampart_seccomp.cli.policies import load

    # Of a row of '+' the last one joins if their number is odd.
    names = [name.replace("\0", "+") for name in re.sub(r"\+\+", "\0", text).split("+")]
    return load(names)


def _lines(found: Comparison, a: str, b: str) -> Iterator[str]:
    if found.equal:
        yield f"{_shown(b)} allows what {_shown(a)} allows, and nothing else"
    for laxer, word in ((True, "laxer"), (False, "stricter")):
        lines = [*_differences(found, a, b, laxer), *_settings(found, laxer)]
        if lines:
            yield f"{_shown(b)} is {word} than {_shown(a)}:"
            yield from lines


def _differences(found: Comparison, a: str, b: str, laxer: bool) -> Iterator[str]:
    """Give lines on the differences; where operations are decided alike, once is enough."""
    width = max(len(_shown(a)), len(_shown(b)))
    alike: dict[tuple[str, ...], list[Difference]] = {}
    for difference in found.differences:
        if difference.laxer is laxer:
            key = (difference.object, *(_decided(difference, width, a, b)))
            alike.setdefault(key, []).append(difference)
    for (subject, *decided), several in alike.items():
        yield f"  {', '.join(str(each.operation) for each in several)} {printable(subject)}"
        yield from decided


def _decided(difference: Difference, width: int, a: str, b: str) -> Iterator[str]:
    for name, decision in ((a, difference.a), (b, difference.b)):
        where = decision.where if decision.rule or decision.reason != "default" else "default"
        if decision.redirect is not None and decision.verdict != "deny":
            where += f"; {decision.redirect.effect}: {decision.redirect}"
        yield f"    {_shown(name):<{width}}  {decision.verdict:<5}  {printable(where)}"


def _settings(found: Comparison, laxer: bool) -> Iterator[str]:
    for setting in found.settings:
        if setting.laxer is laxer:
            yield f"  {printable(setting.key)}: {setting.a}, then {setting.b}"


def _shown(name: str) -> str:
    return printable(os.fsencode(name))
