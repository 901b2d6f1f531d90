"""Secrets out of command lines, before they are put on record.

A list of shapes, not a promise: a secret that looks like nothing in particular stays. The patterns err
towards masking, and each takes linear time on any input, since the argument vectors come from the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["MASK", "redacted", "redacted_argv"]

MASK = "***"

_SECRET_WORD = (
    r"(?:passwords?|passwd|passphrase|secrets?|token|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|secret[-_]?key|account[-_]?key|credentials?|signature)"
)

_VALUE = r"(?:\"[^\"]*\"?|'[^']*'?|[^\s\"'&;,]+)"

_SECRET_OPTION = re.compile(rf"(?!--?no-)--?[\w.-]{{0,64}}?{_SECRET_WORD}", re.IGNORECASE)
"""A whole argument, after which the secret is the next argument."""

_USER_OPTIONS = {
    "curl": ("-u", "--user", "-U", "--proxy-user"),
    "sshpass": ("-p",),
}
"""Options of well-known programs whose argument is, or holds, a password."""

_REPLACEMENTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END|\Z)", re.DOTALL),
        f"-----BEGIN PRIVATE KEY-----{MASK}-----END",
    ),
    (re.compile(r"((?:Authorization|Cookie)[\"']?\s{0,8}[:=]\s{0,8})[^\"'\n]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\bBearer\s{1,8})[^\s\"',;]+", re.IGNORECASE), rf"\1{MASK}"),
    # name=value, name: value and "name": "value", in options, variables, headers, queries and JSON
    (
        re.compile(
            rf"({_SECRET_WORD}[\"']?\s{{0,8}}[:=]\s{{0,8}})(?:\"[^\"]*\"?|'[^']*'?|[^\s\"'&;,]+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # an option and its value inside of one argument: sh -c "deploy --token abc"
    (
        re.compile(
            rf"((?<![\w-])(?!--?no-)--?[\w.-]{{0,64}}?{_SECRET_WORD}\s{{1,8}}){_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # scheme://user:secret@host; git@ names nobody
    (re.compile(r"(?<=://)(?!git@)[^\s/?#\"'<>]*@"), f"{MASK}@"),
    (
        re.compile(
            r"(?<![A-Za-z0-9_-])(?:"
            r"gh[pousr]_[A-Za-z0-9_]{4,}"
            r"|github_pat_\w{4,}"
            r"|glpat-[\w-]{8,}"
            r"|sk-(?:[a-z0-9]{1,8}-){0,2}[A-Za-z0-9_]{16}[\w-]*"
            r"|sk_(?:live|test)_\w{8,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{12,}"
            r"|xox[a-z]-[\w-]{4,}"
            r"|npm_[A-Za-z0-9]{8,}"
            r"|pypi-[\w-]{16,}"
            r"|hf_[A-Za-z0-9]{16,}"
            r"|AIza[\w-]{30,}"
            r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
            r")"
        ),
        MASK,
    ),
)


def redacted(text: str) -> str:
    """Return a text with what looks like a secret replaced by ``***``."""
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def redacted_argv(argv: Iterable[bytes]) -> list[str]:
    """Return an argument vector as text (surrogateescape), with what looks like a secret replaced.

    Knows secrets within an argument (``--password=x``, ``TOKEN=x``, headers, URLs, well-known token shapes)
    and secrets that follow one (``--token x``, ``curl -u user:x``).
    """
    words: list[str] = []
    program_options: tuple[str, ...] = ()
    secret_follows = False
    for index, argument in enumerate(argv):
        word = argument.decode(errors="surrogateescape")
        if not index:
            program_options = _USER_OPTIONS.get(word.rpartition("/")[2], ())
        attached = next((option for option in program_options if _attached(word, option)), None)
        if secret_follows:
            words.append(MASK)
        elif attached is not None:
            words.append(attached + MASK)
        else:
            words.append(redacted(word))
        secret_follows = not secret_follows and (
            word in program_options or (len(word) < 128 and _SECRET_OPTION.fullmatch(word) is not None)
        )
    return words


def _attached(word: str, option: str) -> bool:
    """Return whether a word is a short option with its argument attached, such as ``-uname:secret``."""
    return len(option) == 2 and word.startswith(option) and len(word) > 2
