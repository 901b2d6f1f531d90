"""Untrusted text for a terminal: nothing in it moves the cursor, hides, or changes the reading order."""

from __future__ import annotations

__all__ = ["printable", "shortened"]

_NAMED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

_INVISIBLE = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
"""Characters that show as nothing although str.isprintable() accepts them: joiners, fillers, selectors."""


def printable(text: str | bytes) -> str:
    """Return a text on one line, with everything that is not plainly visible as a backslash escape.

    Control characters (and with them ANSI sequences and newlines), bidirectional overrides, zero-width and
    filler characters, spaces other than the ordinary one, and unassigned code points are escaped; so is the
    backslash, which keeps the result unambiguous. Bytes that are not UTF-8 show as ``\\xNN``.

    Args:
        text: Text (undecodable bytes as surrogate escapes) or bytes.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_visible, text))


def shortened(text: str, limit: int) -> str:
    """Return a text of at most about ``limit`` characters, keeping its beginning and its end.

    The length that was left out is named, so that padding cannot pass for the whole.
    """
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [… {len(text) - 2 * half} more characters …] {text[-half:]}"


def _visible(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    if character.isprintable() and code not in _INVISIBLE:
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
