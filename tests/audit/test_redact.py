"""Secrets do not reach the record, and what is none stays readable."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rampart_seccomp.audit import redacted, redacted_argv

SECRET = "hunter2Hunter2hunter2"

HIDING = [
    ["mysql", f"--password={SECRET}"],
    ["deploy", "--token", SECRET],
    ["deploy", "--github-token", SECRET],
    ["deploy", f"--api-key={SECRET}", "x"],
    ["curl", "-H", f"Authorization: Bearer {SECRET}"],
    ["curl", "-H", f"authorization: token {SECRET}"],
    ["curl", "-H", f"X-Api-Key: {SECRET}"],
    ["curl", "-H", f"Cookie: session={SECRET}; a=b"],
    ["curl", "-u", f"me:{SECRET}", "https://h/"],
    ["/usr/bin/curl", f"-ume:{SECRET}"],
    ["sshpass", "-p", SECRET, "ssh", "h"],
    ["git", "clone", f"https://me:{SECRET}@github.com/a/b"],
    ["git", "clone", f"https://{SECRET}@github.com/a/b"],
    ["git", "clone", f"https://me:p@{SECRET}@github.com/a/b"],
    ["curl", f"https://h/?access_token={SECRET}&x=1"],
    ["env", f"GITHUB_TOKEN={SECRET}", "make"],
    ["env", f"AWS_SECRET_ACCESS_KEY={SECRET}"],
    ["sh", "-c", f"export DB_PASSWORD='{SECRET} {SECRET}'; make"],
    ["sh", "-c", f"deploy --token {SECRET} && true"],
    ["curl", "-d", f'{{"user": "me", "password": "{SECRET}"}}'],
    ["echo", f"ghp_{SECRET}"],
    ["echo", f"github_pat_{SECRET}"],
    ["echo", f"sk-{SECRET}"],
    ["echo", f"sk-ant-api03-{SECRET}"],
    ["echo", f"xoxb-1-{SECRET}"],
    ["echo", f"npm_{SECRET}"],
    ["echo", f"key:glpat-{SECRET}"],
    ["echo", f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----"],
    ["echo", f"-----BEGIN PRIVATE KEY-----\n{SECRET}"],
]


@pytest.mark.parametrize("argv", HIDING, ids=lambda argv: " ".join(argv)[:40])
def test_a_secret_is_masked(argv: list[str]) -> None:
    """The secret is gone, and a mask stands in its place."""
    words = redacted_argv([word.encode() for word in argv])
    assert SECRET not in " ".join(words)
    assert "***" in " ".join(words)
    assert len(words) == len(argv)


def test_an_access_key_id_is_masked() -> None:
    """AWS key ids have a shape of their own."""
    assert redacted("aws AKIAIOSFODNN7EXAMPLE x") == "aws *** x"


@pytest.mark.parametrize(
    "argv",
    [
        ["git", "push", "origin", "main"],
        ["git", "clone", "git@github.com:a/b"],
        ["git", "clone", "ssh://git@github.com/a/b"],
        ["ls", "-la", "/home/me/secrets", "token.txt"],
        ["docker", "login", "--password-stdin", "registry"],
        ["deploy", "--token-file", "/run/token"],
        ["tool", "--no-password", "argument"],
        ["llm", "--max-tokens", "100"],
        ["sort", "-u", "file"],
        ["pip", "install", "sk-learn", "npm_x"],
        ["python", "-c", "print('hello')"],
    ],
    ids=" ".join,
)
def test_what_is_no_secret_stays(argv: list[str]) -> None:
    """Ordinary command lines are recorded as they were."""
    assert redacted_argv([word.encode() for word in argv]) == argv


def test_bytes_survive() -> None:
    """What is not UTF-8 comes back through surrogateescape."""
    argv = [b"cat", b"/tmp/\xff\n\x1b[2J"]
    assert [word.encode(errors="surrogateescape") for word in redacted_argv(argv)] == argv


@given(st.lists(st.binary(), max_size=8))
def test_any_argv_keeps_its_length(argv: list[bytes]) -> None:
    """Redaction never fails and never merges or drops an argument."""
    assert len(redacted_argv(argv)) == len(argv)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "-",
        "eyJ",
        "://",
        "token",
        "--token ",
        "sk-",
        '"',
        "Authorization:",
        "x@",
        " ",
        "-----BEGIN ",
        "Bearer ",
    ],
)
def test_long_arguments_take_linear_time(piece: str) -> None:
    """The largest argument that Linux passes (128 KiB) costs little, however it is built."""
    text = piece * (128 * 1024 // len(piece))
    start = time.process_time()
    redacted(text)
    assert time.process_time() - start < 2.0
