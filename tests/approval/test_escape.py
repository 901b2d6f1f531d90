"""Untrusted text cannot move the cursor, hide, or change the reading order."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rampart_seccomp.approval import printable, shortened


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("/home/me/a b.txt", "/home/me/a b.txt"),
        ("Grüße/日本/😀", "Grüße/日本/😀"),
        (b"/tmp/\xff\xc3\xa4", "/tmp/\\xffä"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("\x9b31m", "\\u009b31m"),
        ("back\\slash", "back\\\\slash"),
        ("exe\u202etxt.", "exe\\u202etxt."),
        ("pass\u200bword\ufeff", "pass\\u200bword\\ufeff"),
        ("a\u00a0b\u3000c\u2028", "a\\u00a0b\\u3000c\\u2028"),
        ("\ud800", "\\ud800"),
        ("\u3164\u2800\ufe0f", "\\u3164\\u2800\\ufe0f"),
        ("tag\U000e0041", "tag\\U000e0041"),
    ],
)
def test_examples(raw: str | bytes, shown: str) -> None:
    """What each kind of character becomes."""
    assert printable(raw) == shown


@given(st.text() | st.binary())
def test_nothing_invisible_is_left(raw: str | bytes) -> None:
    """The result is one line of visible characters that any UTF-8 terminal can be sent."""
    shown = printable(raw)
    shown.encode()
    assert [c for c in shown if unicodedata.category(c)[0] in "CZ" and c != " "] == []


@given(st.text(), st.text())
def test_different_texts_look_different(one: str, other: str) -> None:
    """Escaping is unambiguous: a file cannot be named like the escape of another."""
    assert (printable(one) == printable(other)) == (one == other)


@given(st.text(), st.integers(10, 100))
def test_shortening_keeps_both_ends_and_says_how_much_is_missing(text: str, limit: int) -> None:
    """Padding cannot pass for the whole."""
    short = shortened(text, limit)
    if len(text) <= limit:
        assert short == text
    else:
        half = limit // 2
        assert short == f"{text[:half]} [… {len(text) - 2 * half} more characters …] {text[-half:]}"
