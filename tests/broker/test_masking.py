"""Dotenv files with their values masked: nothing that was not understood is shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.broker.masking import SIZE_MAX, NotUnderstood, masked

WHOLE = b"""\
# Settings of the service
# OLD_KEY=sk-abc
# see: https://example.com/token
# MIIEowIBAAKCAQEAwJ and more

API_KEY=sk-12345
export TOKEN = "a b"   # why
EMPTY=
  indented='it is "x"'
KEY="-----BEGIN
A=b
-----END"
PATH_=C:\\x\\y # note
LAST=x"""

SHOWN = b"""\
# Settings of the service
# OLD_KEY=***
# see:***
# MIIEowIBAAKCAQEAwJ and more

API_KEY=***
export TOKEN ="***"
EMPTY=
  indented='***'
KEY="***

"
PATH_=***
LAST=***"""


def test_a_whole_file() -> None:
    """Names, comments and lines stay; values do not."""
    assert masked(WHOLE) == SHOWN


@pytest.mark.parametrize("raw", [b"", b"\n", b"A=\n", b"# a\n", b"#\n", b" \t\n"])
def test_without_a_value(raw: bytes) -> None:
    """Where there is nothing to hide, nothing changes but blanks."""
    assert masked(raw) == raw.replace(b" \t", b"")


def test_line_endings_and_byte_order_mark() -> None:
    """Carriage returns and the mark stay where they were."""
    assert masked(b"\xef\xbb\xbfA=x\r\nB='y\r\nz'\r\n") == b"\xef\xbb\xbfA=***\r\nB='***\n'\r\n"


def test_a_long_word_in_a_comment() -> None:
    """What is left of a key that was commented out is no comment."""
    assert masked(b"# MIIEowIBAAKCAQEAwJ1234567890 x") == b"# *** x"
    assert masked(b"# ghp_abcd1234") == b"# ***"
    line = b"# " + b"-" * 40
    assert masked(line) == line


@pytest.mark.parametrize(
    "raw",
    [
        b"secret",
        b"export NAME",
        b"NAME: secret",
        b"- secret",
        b"[section]\nA=b",
        b'{"a": "secret"}',
        b"A=x\nsecret",
        b"A=x\\\nB=secret",
        b"A=x\\  \nB=secret",
        b"A=it's\nB=y'",
        b'A=x"y',
        b"A=`cat\nB=x`y",
        b"A=$(cat <<E\nB=secret\nE\n)",
        b"A=(x\nB=secret)",
        b"A=<<E\nB=secret\nE",
        b"A==secret",
        b"c2VjcmV0==",
        b'A="x',
        b'A="x\\"\nB="secret"',
        b"A='x\\'\nB='secret'",
        b'A="""x\nB=secret\n"""',
        b'A="x"secret',
        b'A="x" secret',
        b"A='x'\"y\"",
        b"A=x\x00y",
        b'A="x\x00y"',
        b"A=x\rB=secret",
        b'A="x\rB=secret"',
        b"# a\rA=secret",
        b"# a\x0bA secret",
        b"A" * 64 + b"=",
        b"1A=x",
        b"\xffA=x",
        b"A=b\n" * (SIZE_MAX // 4 + 1),
    ],
)
def test_not_understood(raw: bytes) -> None:
    """Of what programs may read otherwise, nothing is shown, and what is said of it holds nothing of it."""
    with pytest.raises(NotUnderstood) as caught:
        masked(raw)
    assert "secret" not in str(caught.value)


parts = st.sampled_from(
    [
        b"A",
        b"B",
        b"=",
        b'"',
        b"'",
        b"`",
        b"\\",
        b"#",
        b" ",
        b"\t",
        b"\n",
        b"\r",
        b"S3",
        b"export ",
        b":",
        b"(",
    ]
)


@strategies.bounded
@given(st.lists(parts, max_size=24).map(b"".join))
def test_no_value_is_shown(raw: bytes) -> None:
    """Whatever stands behind the first sign of equality of a line is not in what is shown, as a shell or a
    program that takes each line by itself reads it; and the lines stay."""
    try:
        shown = masked(raw)
    except NotUnderstood:
        return
    assert shown.count(b"\n") == raw.count(b"\n")
    for line, said in zip(raw.split(b"\n"), shown.split(b"\n"), strict=True):
        name, sign, _ = line.partition(b"=")
        if sign and not line.lstrip().startswith(b"#"):
            assert said in (b"", b"'", b'"', b"`", b"\r", b"'\r", b'"\r', b"`\r") or (
                re.fullmatch(re.escape(name) + b"=(|\"\\*{3}\"?|'\\*{3}'?|`\\*{3}`?|\\*{3})\r?", said)
            ), (line, said)
