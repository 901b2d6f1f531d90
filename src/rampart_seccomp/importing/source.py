"""Files of other tools as trees that remember their lines, and typed access to them."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.document import Items, Node, Pairs, Scalar, read

__all__ = ["Reader", "detect", "read_json", "read_text", "read_yaml"]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_WORD = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null")


def read_text(path: str) -> str:
    """Read a file of at most `MAX_BYTES`, as UTF-8.

    Raises:
        PolicyError: It cannot be read, is larger, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}", file=path) from None
    except ValueError as error:
        raise PolicyError(f"cannot be read: {error}", file=path) from None
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"the file is larger than {MAX_BYTES // 1024} KiB", file=path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PolicyError("the file is not UTF-8", file=path, line=line, hint="save it as UTF-8") from None


def detect(text: str) -> str:
    """Say which format a text is in: JSON is Claude Code's, everything else peg/rampart's YAML."""
    return "claude" if text.lstrip("\ufeff \t\r\n").startswith("{") else "peg"


def read_yaml(text: str, file: str) -> Node:
    """Read one YAML document, without anchors, aliases, tags and duplicate keys.

    Raises:
        PolicyError: It is not such a document; file and line are named.
    """
    return read(text, file)


def read_json(text: str, file: str) -> Node:
    """Read one JSON document (RFC 8259), without duplicate keys.

    Raises:
        PolicyError: It is not such a document; file and line are named.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise PolicyError(f"the file is larger than {MAX_BYTES // 1024} KiB", file=file)
    return _Json(text, file).document()


class _Json:
    """A JSON reader that knows lines, which the one of the standard library does not tell."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._counted = (0, 1)

    def document(self) -> Node:
        node = self._value(0, "")
        self._space()
        if self._at < len(self._text):
            self._fail("something follows the end of the document")
        return node

    def _line(self) -> int:
        at, line = self._counted
        line += self._text.count("\n", at, self._at)
        self._counted = (self._at, line)
        return line

    def _space(self) -> str:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _value(self, depth: int, path: str) -> Node:
        if depth > MAX_DEPTH:
            self._fail("nested too deeply")
        character = self._space()
        if character == "{":
            return self._pairs(depth, path)
        if character == "[":
            return self._items(depth, path)
        if character == '"':
            return self._string(path)
        word = _WORD.match(self._text, self._at)
        if word is None:
            self._fail("a value is expected here" if character else "it ends in the middle", path)
        line = self._line()
        self._at = word.end()
        if len(word[0]) > 100:
            self._fail("a number that long has no place here", path)
        return Scalar(word[0], json.loads(word[0]), line)

    def _string(self, path: str) -> Scalar:
        line = self._line()
        try:
            text, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self._fail(error.msg[:1].lower() + error.msg[1:], path)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._fail("half of a surrogate pair is not text", path)
        return Scalar(text, text, line)

    def _items(self, depth: int, path: str) -> Items:
        line = self._line()
        self._at += 1
        items: list[Node] = []
        if self._space() == "]":
            self._at += 1
            return Items((), line)
        while True:
            items.append(self._value(depth + 1, f"{path}[{len(items)}]"))
            if self._end("]", path):
                return Items(tuple(items), line)

    def _pairs(self, depth: int, path: str) -> Pairs:
        line = self._line()
        self._at += 1
        pairs: list[tuple[Scalar, Node]] = []
        seen: dict[str, int] = {}
        if self._space() == "}":
            self._at += 1
            return Pairs((), line)
        while True:
            if self._space() != '"':
                self._fail("a key in double quotes is expected here", path)
            key = self._string(path)
            here = f"{path}.{key.text}" if path else key.text
            if key.text in seen:
                hint = f"the first one is on line {seen[key.text]}"
                self._fail(f"the key {key.text!r} is there twice", here, hint)
            seen[key.text] = key.line
            if self._space() != ":":
                self._fail("':' is expected here", here)
            self._at += 1
            pairs.append((key, self._value(depth + 1, here)))
            if self._end("}", path):
                return Pairs(tuple(pairs), line)

    def _end(self, closing: str, path: str) -> bool:
        """Step over a comma (False) or the closing bracket (True)."""
        character = self._space()
        if character not in (",", closing) or not character:
            self._fail(f"',' or '{closing}' is expected here" if character else "it ends in the middle", path)
        self._at += 1
        return character == closing

    def _fail(self, problem: str, path: str = "", hint: str | None = None) -> NoReturn:
        problem = f"not valid JSON: {problem}" if "twice" not in problem else problem
        raise PolicyError(problem, file=self._file, line=self._line(), key=path or None, hint=hint)


@attrs.frozen
class Reader:
    """Typed access to the nodes of one file; each problem names file, line and key."""

    file: str

    def pairs(self, node: Node, path: str) -> dict[str, Node]:
        """Give the content of a mapping."""
        if not isinstance(node, Pairs):
            self.fail(f"{self._name(path)} is {node.kind}, and not a mapping", node, path)
        return {key.text: value for key, value in node.pairs}

    def items(self, node: Node, path: str) -> tuple[Node, ...]:
        """Give the content of a list."""
        if not isinstance(node, Items):
            self.fail(f"{self._name(path)} is {node.kind}, and not a list", node, path)
        return node.items

    def text(self, node: Node, path: str) -> str:
        """Give a single value that is text."""
        if not isinstance(node, Scalar):
            self.fail(f"{self._name(path)} is {node.kind}, and not text", node, path)
        if not isinstance(node.value, str):
            self.fail(f"{self._name(path)} is {node.text or 'empty'}, and not text", node, path)
        return node.value

    def value(self, node: Node, path: str, kind: type, words: str) -> Any:
        """Give a single value of a type; `words` names the type in the error."""
        if not isinstance(node, Scalar) or not isinstance(node.value, kind):
            self.fail(f"{self._name(path)} is not {words}", node, path)
        return node.value

    def texts(self, node: Node, path: str) -> list[tuple[str, Node]]:
        """Give the texts of a list, or the one that stands instead, with their nodes."""
        if isinstance(node, Scalar):
            return [(self.text(node, path), node)]
        return [
            (self.text(item, f"{path}[{index}]"), item) for index, item in enumerate(self.items(node, path))
        ]

    def fail(self, problem: str, node: Node, path: str, hint: str | None = None) -> NoReturn:
        """Raise the error for one place of the file."""
        raise PolicyError(problem, file=self.file, line=node.line, key=path or None, hint=hint)

    @staticmethod
    def _name(path: str) -> str:
        return f"`{path}`" if path else "the document"
