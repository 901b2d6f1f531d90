"""Path patterns of other tools in terms of ours.

A pattern that restricts is read as widely as its source may mean it, one that allows as narrowly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rampart_seccomp.importing.draft import Pointless, Untranslatable

__all__ = ["crossing", "from_gitignore", "from_peg", "literal"]

MAX_READINGS = 16

ROOTS = frozenset(
    {
        "bin",
        "boot",
        "dev",
        "etc",
        "home",
        "lib",
        "opt",
        "proc",
        "root",
        "run",
        "sbin",
        "srv",
        "sys",
        "usr",
        "var",
    }
)
"""Directories of `/` that a pattern for any depth is likely to mean."""


def from_gitignore(text: str, *, restricts: bool, settings: str = "./") -> list[str]:
    """Translate a pattern of Claude Code: gitignore(5), with ``//`` for the root and ``~/`` for home.

    As in gitignore a pattern without an inner slash matches at any depth, and one that matches a directory
    covers what is beneath it.

    Args:
        text: What stands between the parentheses.
        restricts: True if the rule denies or asks.
        settings: What a single leading slash stands for, with a slash at its end.

    Raises:
        Untranslatable: It cannot be said.
    """
    if text.startswith("!"):
        raise Untranslatable("a negated pattern has no counterpart: name the exception in `except`")
    if "\\" in text:
        raise Untranslatable("an escape by backslash is not translated")
    if text.endswith(":*"):
        raise Untranslatable("':*' belongs to Bash rules, and matches no path")
    return [
        pattern
        for one in _without_braces(text, restricts)
        for pattern in _gitignore(one, restricts, settings)
    ]


def _gitignore(text: str, restricts: bool, settings: str) -> Iterator[str]:
    anchored = True
    if text.startswith("//"):
        root, rest = "/", text[2:]
    elif text == "~" or text.startswith("~/"):
        root, rest = "~/", text[2:]
    elif text.startswith("/"):
        root, rest = settings, text[1:]
    elif text == "." or text.startswith("./"):
        root, rest = "./", text[2:]
    else:
        root, rest, anchored = "./", text, "/" in text.rstrip("/")
    directory = rest.endswith("/")
    names = [name if name == "**" else re.sub(r"\*+", "*", name) for name in rest.rstrip("/").split("/")]
    if all(name in ("", "*", "**") for name in names):
        yield f"{root}**"
        return
    if not anchored:
        names.insert(0, "**")
    if (restricts or directory) and names[-1] != "**":
        names.append("**")
    yield root + "/".join(names)


def _without_braces(text: str, restricts: bool) -> list[str]:
    """Expand ``{a,b}``, which gitignore knows not and people write all the same."""
    if not re.search(r"\{[^{}]*,[^{}]*\}", text):
        return [text.replace("{", "[{]")]
    if not restricts:
        raise Untranslatable("gitignore knows no braces: write one entry for each alternative")
    done: list[str] = []
    left = [text]
    while left:
        group = re.search(r"\{([^{}]*,[^{}]*)\}", left[0])
        one = left.pop(0)
        if group is None:
            done.append(one.replace("{", "[{]"))
        else:
            left += [one[: group.start()] + part + one[group.end() :] for part in group[1].split(",")]
        if len(done) + len(left) > MAX_READINGS:
            raise Untranslatable("it has too many alternatives: write one entry for each")
    return done


def from_peg(text: str, *, restricts: bool, floating: bool = False) -> list[str]:
    """Translate a path glob of peg/rampart: ``*`` within a name, ``**`` across anything, even inside one.

    Args:
        text: The glob.
        restricts: True if the rule denies or asks.
        floating: Keep a leading ``**/`` instead of anchoring it at home and launch directory.

    Raises:
        Untranslatable: It cannot be said.
        Pointless: It names nothing on Linux.
    """
    text = text.replace("\\", "/")
    if re.match(r"[A-Za-z]:/", text):
        raise Pointless("it names a drive, which no file has here")
    if "[!" in text:
        raise Untranslatable("'[!' negates here and did not there")
    if text.startswith("~") and not restricts:
        raise Untranslatable("'~' was not expanded there, so it allowed nothing")
    text = text.replace("{", "[{]")
    if re.fullmatch(r"/?\*{2,}(/\*{1,2})?" if not restricts else r"[*/]*\*\*[*/]*", text):
        return ["/**"]
    if not text.startswith(("/", "~/", "./", "**")):
        text = f"./{text}"
    start = re.match(r"/?\*{2,}(?:/\*{2,}(?=/))*/?" if restricts else r"/?\*{2,}/?", text)
    if start is None:
        return _inner(crossing(text), restricts)
    rest = text[start.end() :]
    if not start[0].endswith("/") and not rest.startswith("*"):
        rest = f"*{rest}"
    bodies = _inner(crossing(rest.lstrip("/")), restricts)
    if floating:
        anywhere = "/*/**/" if text[0] == "/" and not restricts else "**/"
        return [anywhere + body for body in bodies]
    rooted = [f"/{body}" for body in bodies if restricts and body.split("/")[0] in ROOTS]
    return rooted + [f"{root}**/{body}" for root in ("~/", "./") for body in bodies]


def _inner(patterns: list[str], restricts: bool) -> list[str]:
    """Where it allows, let ``a/**/b`` not be ``a/b``, which it was not there."""
    if restricts:
        return patterns
    return [re.sub(r"(?:^|(?<=/))\*\*(?=/)", "*/**", pattern) for pattern in patterns]


def crossing(text: str) -> list[str]:
    """Give patterns in which ``**`` stands alone, for one where it crosses slashes inside a name as well.

    Raises:
        Untranslatable: It has too many readings.
    """
    readings = [""]
    for number, name in enumerate(text.split("/")):
        ways = _ways(name)
        slash = "/" if number else ""
        readings = [reading + slash + way for reading in readings for way in ways]
        if len(readings) > MAX_READINGS:
            raise Untranslatable("'**' inside names gives it too many readings")
    return list(dict.fromkeys(readings))


def _ways(name: str) -> list[str]:
    if name == "**" or "**" not in name:
        return [name]
    first, *others = re.split(r"\*{2,}", name)
    ways = [first]
    for part in others:
        if not part:
            ways = [f"{way}*/**" for way in ways]
        else:
            ways = [f"{way}*{part}" for way in ways] + [f"{way}*/**/*{part}" for way in ways]
    return ways if first else [re.sub(r"^\*/\*\*/", "**/", way) for way in ways]


def literal(path: str) -> str:
    """Escape a path, so that as a pattern it is only itself."""
    return re.sub(r"[\[*?{\\]", lambda special: f"[{special[0]}]", path)
