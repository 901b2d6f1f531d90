"""Command patterns of other tools, which match the text given to a shell, as patterns of the argv.

A star of theirs may swallow spaces, hence arguments; ours stops at the end of one. So one pattern becomes a
few. What speaks about the shell's own syntax never reaches an exec, and is not translated.
"""

from __future__ import annotations

import re
import shlex

from rampart_seccomp.importing.draft import Untranslatable
from rampart_seccomp.importing.paths import crossing

__all__ = ["BUILTINS", "MIXED", "from_text"]

MAX_READINGS = 16

BUILTINS = frozenset(
    {
        "alias",
        "bg",
        "bind",
        "break",
        "builtin",
        "caller",
        "cd",
        "command",
        "compgen",
        "complete",
        "continue",
        "declare",
        "dirs",
        "disown",
        "enable",
        "eval",
        "exec",
        "exit",
        "export",
        "fc",
        "fg",
        "function",
        "getopts",
        "hash",
        "help",
        "history",
        "jobs",
        "let",
        "local",
        "logout",
        "mapfile",
        "popd",
        "pushd",
        "read",
        "readarray",
        "readonly",
        "return",
        "set",
        "shift",
        "shopt",
        "source",
        "suspend",
        "times",
        "trap",
        "type",
        "typeset",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "wait",
        ".",
        ":",
    }
)
"""Commands that only a shell has: running them starts no program."""

MIXED = frozenset({"[", "echo", "false", "kill", "printf", "pwd", "test", "true"})
"""Programs that shells do themselves as well."""

_SYNTAX = re.compile(r"[|&;<>()`$\n]")
_CODE = re.compile(r"(?<=\s)(-c|-e|--eval)\s+(?=\S)")


def from_text(text: str, *, restricts: bool, tail: bool = False) -> list[str]:
    """Translate one pattern in which ``*`` is any text and everything else is itself.

    Args:
        text: The pattern.
        restricts: True if the rule denies or asks. Then ``-c CODE`` is also read as one argument, and a
            star that stands alone may be nothing.
        tail: True if `` *`` at the end may be nothing, whatever the rule.

    Raises:
        Untranslatable: It cannot be said, or enforced.
    """
    text = re.sub(r"\*+", "*", text.strip())
    found: list[str] = []
    problem: Untranslatable | None = None
    code = _CODE.search(text)
    if restricts and code is not None:
        try:
            whole = _unquoted(text[code.end() :])
            found += _readings([*_tokens(text[: code.end()]), whole], restricts, tail)
        except Untranslatable as error:
            problem = error
    try:
        found += _readings(_tokens(text), restricts, tail)
    except Untranslatable as error:
        problem = problem or error
    if not found and problem is not None:
        raise problem
    return list(dict.fromkeys(found))


def _unquoted(text: str) -> str:
    quoted = re.fullmatch(r"(['\"])(.*)\1", text, re.DOTALL)
    return quoted[2] if quoted else text


def _tokens(text: str) -> list[str]:
    syntax = _SYNTAX.search(re.sub(r"'[^']*'", "", text))
    if syntax is not None:
        if syntax[0] == "$":
            raise Untranslatable("a shell expands '$' before a program starts: the argv has no '$'")
        raise Untranslatable(
            f"{syntax[0]!r} is syntax of a shell, which never reaches the start of a program"
        )
    if "\\" in text:
        raise Untranslatable("a backslash is a shell's own: the argv does not have it")
    try:
        tokens = shlex.split(text)
    except ValueError as error:
        raise Untranslatable(f"it is not a command: {error}") from None
    if not tokens:
        raise Untranslatable("it names no command")
    if re.match(r"[A-Za-z_]\w*=", tokens[0]):
        raise Untranslatable("an assignment before a command is the shell's; it is not in the argv")
    if re.match(r"[a-z_]+:[^/]", tokens[0]):
        raise Untranslatable("it speaks about a parameter of the tool, not about a command")
    for token in tokens[1:]:
        if token == "~" or token.startswith("~/"):
            raise Untranslatable("a shell expands '~' before a program starts; write a rule about the path")
        if re.search(r"\{[^{}]*,[^{}]*\}", token):
            raise Untranslatable("a shell expands braces before a program starts")
    if tokens[0] in BUILTINS:
        raise Untranslatable(f"{tokens[0]!r} is done by the shell itself: no program starts")
    return tokens


def _readings(tokens: list[str], restricts: bool, tail: bool) -> list[str]:
    readings: list[list[str]] = [[]]
    for number, token in enumerate(tokens):
        last = number == len(tokens) - 1
        ways = _argument(token, restricts or (last and tail)) if number else _program(token, restricts)
        readings = [[*reading, *way] for reading in readings for way in ways]
        if len(readings) > MAX_READINGS:
            raise Untranslatable("its stars give it too many readings: write the arguments one by one")
    return [_joined(reading) for reading in readings]


def _argument(token: str, optional: bool) -> list[list[str]]:
    if token == "*":
        return [["**"]] if optional else [["*", "**"]]
    return _ways(token)


def _program(token: str, restricts: bool) -> list[list[str]]:
    if token == "*":
        return [["*", "**"]]
    found: list[list[str]] = []
    for way in _ways(token):
        if way[0] == "**":
            # A leading star: the program itself, or any program and then an argument.
            ends = way[1:]
            found += [[program, *ends[1:]] for program in _image(ends[0], restricts)]
            found.append(["*", "**", *ends])
        else:
            found += [[program, *way[1:]] for program in _image(way[0], restricts)]
    return found


def _image(token: str, restricts: bool) -> list[str]:
    """Give patterns of a program: a base name, or a path; a star crosses slashes where that is stricter."""
    token = re.sub(r"[\[?{\\]", lambda special: f"[{special[0]}]", token)
    if "/" not in token:
        return [token]
    if token.startswith("*"):
        token = f"/**/{token.partition('/')[2]}" if token.startswith("*/") else f"/**/{token}"
    elif not token.startswith(("/", "~/", "./")):
        token = f"./{token}"
    if not restricts:
        return [token]
    return crossing(re.sub(r"(?<![*])\*(?![*])", "**", token))


def _ways(token: str) -> list[list[str]]:
    """Say how a token may be cut into arguments where its stars swallow spaces."""
    if "*" not in token:
        return [[token]]
    first, *others = token.split("*")
    ways: list[list[str]] = [[first]] if first else [["**", "*"]]
    if not first:
        ways = [["**", f"*{others.pop(0)}"]]
    for part in others:
        if not part:
            ways = [[*way[:-1], f"{way[-1]}*", "**"] for way in ways]
        else:
            ways = [[*way[:-1], f"{way[-1]}*{part}"] for way in ways] + [
                [*way[:-1], f"{way[-1]}*", "**", f"*{part}"] for way in ways
            ]
        if len(ways) > MAX_READINGS:
            raise Untranslatable("its stars give it too many readings: write the arguments one by one")
    return ways


def _joined(reading: list[str]) -> str:
    """Write a reading as a pattern, without arguments that others include."""
    kept: list[str] = []
    for number, token in enumerate(reading):
        if token == "**" and kept and kept[-1] == "**" and number > 1:
            continue
        kept.append(token)
    return " ".join(shlex.quote(token) if re.search(r"[\s'\"\\#]|^$", token) else token for token in kept)
