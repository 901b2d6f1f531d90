"""YAML text as a tree that remembers its lines, and from which everything surprising is refused.

Policies are plain data: no anchors, aliases, tags, duplicate keys or second documents. Size, depth and time
are bounded, so that no text can do harm.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import attrs

from rampart_seccomp.cache import Cache
from rampart_seccomp.errors import PolicyError

__all__ = ["Items", "Node", "Pairs", "Scalar", "read"]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12

CACHE = Cache("tree")
"""Documents that were read before, without their errors: one that has some is read again."""

_FORM = b"1\n"
"""To be changed with what this module makes of a text."""

Plain = str | int | float | bool | None

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{0,18}\Z", re.ASCII)
_CONSTANTS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@attrs.frozen(repr=False)
class Scalar:
    """A single value. `text` is as written, `value` as YAML 1.2's core schema reads it."""

    text: str
    value: Plain
    line: int

    kind = "a single value"


@attrs.frozen(repr=False)
class Items:
    """A list."""

    items: tuple[Node, ...]
    line: int

    kind = "a list"


@attrs.frozen(repr=False)
class Pairs:
    """A mapping, in the order written."""

    pairs: tuple[tuple[Scalar, Node], ...]
    line: int

    kind = "a mapping"


Node = Scalar | Items | Pairs


def read(text: str, file: str) -> Node:
    """Read one YAML document.

    Args:
        text: The document.
        file: Its name, for errors.

    What was read before is taken from the cache.

    Raises:
        PolicyError: It is not YAML, or YAML that has no place in a policy.
    """
    raw = text.encode(errors="surrogatepass")
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"the file is larger than {MAX_BYTES // 1024} KiB", file=file)
    key = hashlib.sha256(_FORM + raw).hexdigest()
    known = CACHE.find(key)
    if known is not None:
        return _thawed(json.loads(known))
    node = _parsed(text, file)
    CACHE.keep(key, json.dumps(_frozen(node)).encode())
    return node


def _frozen(node: Node) -> list[Any]:
    """Give a tree as JSON has it."""
    if isinstance(node, Scalar):
        return [node.line, node.text, node.value]
    if isinstance(node, Items):
        return [node.line, [_frozen(item) for item in node.items]]
    return [node.line, [[_frozen(key), _frozen(value)] for key, value in node.pairs], None, None]


def _thawed(frozen: list[Any]) -> Node:
    line, content, *value = frozen
    if len(value) == 1:
        return Scalar(content, value[0], line)
    if not value:
        return Items(tuple(map(_thawed, content)), line)
    pairs = []
    for key, node in content:
        name = _thawed(key)
        assert isinstance(name, Scalar)
        pairs.append((name, _thawed(node)))
    return Pairs(tuple(pairs), line)


def _parsed(text: str, file: str) -> Node:
    # Imported here, since importing it costs more than most policies do.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        return _Reader(YAML(typ="safe", pure=True).parse(text), file).document()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PolicyError("a character that YAML does not allow", file=file, line=line) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place: int | None = mark.line + 1 if mark is not None else None
        problem = " ".join(part for part in (error.context, error.problem) if part)
        hint = _hint(text, place)
        raise PolicyError(f"not valid YAML: {problem}", file=file, line=place, hint=hint) from None
    except YAMLError:
        raise PolicyError("not valid YAML", file=file) from None


def _hint(text: str, line: int | None) -> str | None:
    """Guess what a line that does not parse was meant to be."""
    lines = text.split("\n")
    written = lines[line - 1] if line is not None and line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return "indent with spaces"
    if re.search(r"(^|[\s,\[:-])[@*!&%`]", written) or re.search(r"\[[^\]]*\[|\]:", written):
        return 'quote this pattern: "…"'
    return None


class _Reader:
    """Builds the tree from the parser's events."""

    def __init__(self, events: Iterator[Any], file: str) -> None:
        self._events = events
        self._file = file

    def document(self) -> Node:
        kinds = ("StreamStartEvent", "DocumentStartEvent", "CommentEvent")
        event = self._next()
        while type(event).__name__ in kinds:
            event = self._next()
        if type(event).__name__ == "StreamEndEvent":
            raise PolicyError("the file is empty", file=self._file, hint="begin with 'version: 1'")
        node = self._node(event, 0, "")
        event = self._next()
        while type(event).__name__ == "DocumentEndEvent":
            event = self._next()
        if type(event).__name__ != "StreamEndEvent":
            self._fail(event, "a second document begins", "one file holds one policy")
        return node

    def _next(self) -> Any:
        return next(self._events)

    def _node(self, event: Any, depth: int, path: str) -> Node:
        kind = type(event).__name__
        line = event.start_mark.line + 1
        if kind == "AliasEvent":
            hint = f'quote this pattern: "*{event.anchor}"'
            self._fail(event, f"'*{event.anchor}' is a YAML alias", hint, path)
        if event.anchor is not None:
            self._fail(event, f"'&{event.anchor}' is a YAML anchor", "write the value out, or quote it", path)
        if event.tag is not None:
            hint = "quote the value if it begins with '!'"
            self._fail(event, "a YAML tag ('!…') has no place in a policy", hint, path)
        if depth >= MAX_DEPTH:
            self._fail(event, "nested too deeply")
        if kind == "ScalarEvent":
            return Scalar(event.value, _plain(event.value) if event.implicit[0] else event.value, line)
        if kind == "SequenceStartEvent":
            return Items(tuple(self._items(depth, path)), line)
        return Pairs(tuple(self._pairs(depth, path)), line)

    def _items(self, depth: int, path: str) -> Iterator[Node]:
        index = 0
        while type(event := self._next()).__name__ != "SequenceEndEvent":
            yield self._node(event, depth + 1, f"{path}[{index}]")
            index += 1

    def _pairs(self, depth: int, path: str) -> Iterator[tuple[Scalar, Node]]:
        seen: dict[str, int] = {}
        while type(event := self._next()).__name__ != "MappingEndEvent":
            key = self._node(event, depth + 1, path)
            if not isinstance(key, Scalar):
                self._fail(event, f"{key.kind} cannot be a key", path=path)
            here = f"{path}.{key.text}" if path else key.text
            if key.text in seen:
                hint = f"the first one is on line {seen[key.text]}"
                self._fail(event, f"the key {key.text!r} is there twice", hint, here)
            seen[key.text] = key.line
            yield key, self._node(self._next(), depth + 1, here)

    def _fail(self, event: Any, problem: str, hint: str | None = None, path: str = "") -> NoReturn:
        raise PolicyError(
            problem, file=self._file, line=event.start_mark.line + 1, key=path or None, hint=hint
        )


def _plain(text: str) -> Plain:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text
