"""What is probably not meant where a rule says who acts: names that are weak where they open something."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rampart_seccomp.policy.commands import parse_command
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.policy.globs import parse
from rampart_seccomp.policy.rules import Rule

__all__ = ["actor_remarks"]

_INTERPRETERS = re.compile(
    r"(python|pypy|perl|ruby|node|nodejs|bun|deno|php|lua|luajit|java|bash|dash|sh|zsh|ksh|busybox|env)[0-9.]*\Z"
)


def actor_remarks(rule: Rule, *, writes_programs: bool) -> Iterator[tuple[str, str, str]]:
    """Give remarks on ``programs`` and ``within`` where they open something: severity, key and sentence.

    Args:
        rule: The rule; of what restricts, its exceptions are what opens.
        writes_programs: True if the policy lets some file be written.
    """
    given: list[tuple[str, Rule | Exemption]] = [("", rule)] if rule.verdict == "allow" else []
    if rule.restricts:
        given += [
            (f".except[{index}]", entry)
            for index, entry in enumerate(rule.except_)
            if isinstance(entry, Exemption)
        ]
    for place, conditions in given:
        for index, text in enumerate(conditions.programs):
            message = _program(text, writes_programs)
            if message is None and not conditions.within and _INTERPRETERS.match(text.rpartition("/")[2]):
                message = (
                    f"{text!r} runs whatever it is told to; narrow it by `within`, or name another program"
                )
            if message is not None:
                yield "warning", f"{place}.programs[{index}]", message
        for index, text in enumerate(conditions.within):
            if parse_command(text).base is not None and writes_programs:
                yield (
                    "warning",
                    f"{place}.within[{index}]",
                    f"{text.split()[0]!r} is a base name: any program of that name that may be written "
                    "and executed is allowed; write its absolute path",
                )


def _program(text: str, writes_programs: bool) -> str | None:
    glob = parse(text)
    if not writes_programs or not (
        text.startswith(("**/", "/**")) or glob.anchor in ("@tmp", "@project", "./")
    ):
        return None
    return f"{text!r} is any program that may be written there; write the absolute path of one"
