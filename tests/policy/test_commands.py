"""`commands:`."""

from __future__ import annotations

import time

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.commands import parse_command


@pytest.mark.parametrize(
    ("pattern", "arguments", "expected"),
    [
        ("git", "", True),
        ("git", "push", False),
        ("git push", "push", True),
        ("git push", "push origin", False),
        ("git push **", "push", True),
        ("git push **", "push origin main", True),
        ("git ** push **", "push", True),
        ("git ** push **", "-C x push origin", True),
        ("git ** push **", "pull", False),
        ("git *", "status", True),
        ("git *", "", False),
        ("git *", "a b", False),
        ("git --*=* x", "--a=b x", True),
        ("git --*=* x", "--a x", False),
        ("git ** x ** x", "x", False),
        ("git ** x ** x", "x x", True),
        ("git '**'", "a b c", True),
        ("git a*c", "a/b/c", True),
        ("git [x]", "[x]", True),
        ("git [x]", "x", False),
    ],
)
def test_arguments(pattern: str, arguments: str, expected: bool) -> None:
    """`*` is one argument or a part of one, `**` any number; nothing else is special."""
    assert expected == parse_command(pattern).matches_arguments([word.encode() for word in arguments.split()])


def test_quoted_and_raw_arguments() -> None:
    """Arguments are bytes, may hold spaces and newlines, and patterns are quoted as in a shell."""
    pattern = parse_command("sh -c 'rm -rf *'")
    assert pattern.matches_arguments([b"-c", b"rm -rf /\n\xff"])
    assert not pattern.matches_arguments([b"-c", b"ls"])


def test_many_arguments() -> None:
    """Ten thousand arguments are judged whole, and in no time."""
    pattern = parse_command("x ** a ** a ** b")
    started = time.perf_counter()
    assert not pattern.matches_arguments([b"a"] * 10_000)
    assert pattern.matches_arguments([*[b"a"] * 10_000, b"b"])
    assert time.perf_counter() - started < 2


def test_programs() -> None:
    """The program is a base name, with wildcards, or an absolute path."""
    assert parse_command("git x").matches_base(b"git")
    assert not parse_command("git x").matches_base(b"gitk")
    assert parse_command("python3* -c").matches_base(b"python3.11")
    assert parse_command("/usr/bin/git x").program is not None
    assert parse_command("./run.sh").program is not None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("git 'x", "is not a command"),
        ("bin/git", "neither a base name nor an absolute path"),
        ("** push", "cannot stand for the program"),
        ("git x**", "stands alone"),
        ("/usr/../git", "'..'"),
    ],
)
def test_bad(pattern: str, expected: str) -> None:
    """What names no command is an error that says so."""
    with pytest.raises(PolicyError) as caught:
        parse_command(pattern)
    assert expected in str(caught.value)
