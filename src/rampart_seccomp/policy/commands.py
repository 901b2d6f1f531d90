"""Patterns of ``commands:``: the argv of an exec, token by token."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Sequence

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import globs

__all__ = ["CommandPattern", "parse_command"]

Argument = re.Pattern[bytes] | None


@attrs.frozen(repr=False)
class CommandPattern:
    """One parsed entry of ``commands:``.

    Attributes:
        base: Component that the base name of the program must match; None if `program` is set.
        program: Pattern of the program's path; None if `base` is set.
        arguments: One expression an argument; None stands for any number of arguments (``**``).
    """

    text: str = attrs.field(eq=False)
    base: globs.Component | None
    program: globs.Glob | None
    arguments: tuple[Argument, ...]

    def matches_arguments(self, arguments: Sequence[bytes]) -> bool:
        """Say whether the arguments (argv without its first entry) match; linear in their number."""
        last = len(self.arguments)
        reached = self._closed({0})
        for argument in arguments:
            after = set()
            for position in reached:
                if position == last:
                    continue
                expected = self.arguments[position]
                if expected is None:
                    after.add(position)
                elif expected.match(argument):
                    after.add(position + 1)
            if not after:
                return False
            reached = self._closed(after)
        return last in reached

    def matches_base(self, name: bytes) -> bool:
        """Say whether a base name is the program's."""
        if isinstance(self.base, globs.Wildcard):
            return self.base.regex.match(name) is not None
        return self.base == name

    @property
    def tail(self) -> globs.Tail:
        """The arguments as the components of a pattern, in which nothing but ``*`` is special."""
        return tuple(
            globs.ANY if token == "**" else globs.starred(os.fsencode(token))
            for token in shlex.split(self.text)[1:]
        )

    def _closed(self, positions: set[int]) -> set[int]:
        for position in tuple(positions):
            while position < len(self.arguments) and self.arguments[position] is None:
                position += 1
                positions.add(position)
        return positions


@functools.lru_cache(maxsize=4096)
def parse_command(text: str) -> CommandPattern:
    """Parse one entry of ``commands:``: ``git ** push **``, ``/usr/bin/npm publish``.

    Tokens are split, and quoted, as a shell does. In an argument ``*`` is special only.

    Raises:
        PolicyError: It is not valid.
    """
    try:
        tokens = shlex.split(text)
    except ValueError as error:
        raise PolicyError(f"{text!r} is not a command: {error}", hint="close the quotation") from None
    if not tokens:
        raise PolicyError("the command is empty", hint="leave `commands` out to speak about every exec")
    if "\0" in text:
        raise PolicyError("an argument has no NUL byte, so this command matches nothing")
    program, *arguments = tokens
    base, path = _program(program)
    return CommandPattern(text, base, path, tuple(_argument(token, text) for token in arguments))


def _program(token: str) -> tuple[globs.Component | None, globs.Glob | None]:
    if token.startswith(("/", "~/", "./")):
        return None, globs.parse(token)
    if "/" in token:
        raise PolicyError(
            f"the program {token!r} is neither a base name nor an absolute path",
            hint="write 'git' or '/usr/bin/git'",
        )
    base = globs.component(token)
    if isinstance(base, globs.AnyComponents):
        raise PolicyError("'**' cannot stand for the program", hint="write '*' for any program")
    return base, None


def _argument(token: str, text: str) -> Argument:
    if token == "**":
        return None
    if "**" in token:
        raise PolicyError(
            f"'**' is part of the argument {token!r}, in {text!r}",
            hint="'**' stands alone, for any number of arguments; '*' is any part of one",
        )
    return globs.wildcard(token)
