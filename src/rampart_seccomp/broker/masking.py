"""Dotenv files with their values masked: names, comments and lines stay.

There is no one grammar of such files: shells, docker and a dozen libraries disagree about quotes, escapes and
comments. Only what all of them read alike is understood here; of a file with anything else in it, nothing is
shown. What is shown is built from what was understood, never cut out of the rest.
"""

from __future__ import annotations

import re

from rampart_seccomp.audit.redact import redacted

__all__ = ["SIZE_MAX", "NotUnderstood", "mask_file", "masked"]

SIZE_MAX = 1 << 20
"""Bytes of a file that is masked."""

MASK = b"***"

_NAME = re.compile(rb"[ \t]*(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_.-]{0,62}[ \t]*=")
_UNQUOTED = re.compile(rb"(?!=)[^\"'`(<]*")
_REST = re.compile(rb"[ \t]*(?:[ \t]#.*)?\r?")
_INLINE = re.compile(rb"[ \t]#")
_WORD = re.compile(rb"\S{20,}")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r.")
_QUOTES = (b'"', b"'", b"`")
_BOM = b"\xef\xbb\xbf"


class NotUnderstood(ValueError):
    """The file cannot be read as a dotenv file. The text says where, and nothing of what is there."""


def mask_file(fd: int) -> bytes:
    """Read a file, and give it as `masked` does.

    Raises:
        NotUnderstood: As `masked`.
        OSError: It cannot be read.
    """
    with open(fd, "rb", closefd=False) as file:
        return masked(file.read(SIZE_MAX + 1))


def masked(content: bytes) -> bytes:
    """Give a dotenv file with ``***`` in place of each value; as many lines as before.

    Comments of their own line stay, but for what stands behind the first ``=`` or ``:`` in them (such as
    settings that were commented out), for words of 20 characters and more, and for what looks like a secret.
    A value without anything in it stays empty.

    Raises:
        NotUnderstood: A line is neither empty, nor a comment, nor ``NAME=value``, or its value is quoted or
            escaped in a way that programs read differently; or the file is too large.
    """
    if len(content) > SIZE_MAX:
        raise NotUnderstood(f"the file is larger than {SIZE_MAX // 1024} KiB")
    start = len(_BOM) if content.startswith(_BOM) else 0
    lines = content[start:].split(b"\n")
    shown: list[bytes] = []
    while len(shown) < len(lines):
        shown += _statement(lines, len(shown))
    return content[:start] + b"\n".join(shown)


def _statement(lines: list[bytes], at: int) -> list[bytes]:
    """Give what is shown of the statement that begins at a line: as many lines as it has."""
    line = lines[at]
    ending = b"\r" if line.endswith(b"\r") else b""
    text = line.strip(b" \t\r")
    if not text:
        return [ending]
    if text.startswith(b"#"):
        return [_comment(text, at) + ending]
    name = _NAME.match(line)
    if name is None:
        raise _not_understood(at, "it is neither empty, nor a comment, nor NAME=value")
    value = line[name.end() :].lstrip(b" \t")
    quote = value[:1]
    if quote in _QUOTES:
        count = _quoted(lines, at, value[1:], quote)
        middle = [b""] * (count - 2) + [quote + ending] if count > 1 else []
        return [name[0] + quote + MASK + (quote + ending if count == 1 else b""), *middle]
    return [name[0] + _unquoted(value, at) + ending]


def _comment(text: bytes, at: int) -> bytes:
    if _CONTROL.search(text):
        raise _not_understood(at, "a comment has a control character")
    cut = re.search(rb"[=:]", text)
    if cut is not None:
        text = text[: cut.end()] + (MASK if text[cut.end() :].strip() else b"")
    text = _WORD.sub(lambda word: MASK if re.search(rb"\w", word[0]) else word[0], text)
    return redacted(text.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def _unquoted(value: bytes, at: int) -> bytes:
    """Give what is shown of a value without quotes, which ends with its line."""
    begun = _INLINE.search(b" " + value)
    plain = value[: max(0, begun.start() - 1)] if begun else value
    plain = plain.strip(b" \t\r")
    if not _UNQUOTED.fullmatch(plain) or _CONTROL.search(value) or value.rstrip(b" \t\r").endswith(b"\\"):
        raise _not_understood(at, "programs disagree about where its value ends")
    return MASK if value.strip(b" \t\r") else b""


def _quoted(lines: list[bytes], at: int, value: bytes, quote: bytes) -> int:
    """Say how many lines a quoted value has; ``value`` is what follows its first quote on its first line."""
    count = 1
    while quote not in value:
        _ensure_plain(value, quote, at)
        if at + count == len(lines):
            raise _not_understood(at, "its quote is not closed")
        value = lines[at + count]
        count += 1
    inside, _, rest = value.partition(quote)
    _ensure_plain(inside + quote, quote, at)
    if not _REST.fullmatch(rest):
        raise _not_understood(at, "something follows its closing quote")
    return count


def _ensure_plain(part: bytes, quote: bytes, at: int) -> None:
    """Raise where some programs take a quote for an escaped one, and others for the end of the value."""
    if b"\\" + quote in part or _CONTROL.search(part):
        raise _not_understood(at, "programs disagree about where its value ends")


def _not_understood(at: int, why: str) -> NotUnderstood:
    return NotUnderstood(f"line {at + 1} is not understood: {why}")
