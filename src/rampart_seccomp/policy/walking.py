"""Walking the tree of a YAML document: each step checks, and each problem names line, key and way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.document import Items, Node, Pairs, Scalar

__all__ = ["Walker", "suggestion"]

T = TypeVar("T")


class Walker:
    """Takes the nodes of one file apart.

    Args:
        file: Its name, for errors.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def keys(
        self,
        node: Node,
        path: str,
        known: tuple[str, ...],
        later: Mapping[str, str | None],
        what: str,
    ) -> dict[str, Node]:
        """Give the values of a mapping whose keys are all known."""
        article = "an" if what[0] in "aeiou" else "a"
        if not isinstance(node, Pairs):
            self.fail(f"{article} {what} is a mapping, and this is {node.kind}", node, path)
        found: dict[str, Node] = {}
        for key, value in node.pairs:
            here = f"{path}.{key.text}" if path else key.text
            if key.text in later:
                self.fail(f"`{key.text}` is not supported by this version", key, here, later[key.text])
            if key.text not in known:
                self.fail(f"{article} {what} has no key {key.text!r}", key, here, suggestion(key.text, known))
            found[key.text] = value
        return found

    def items(self, node: Node | None, path: str, convert: Callable[[Node, str], T]) -> list[T]:
        """Convert each entry of a list; no node is an empty list."""
        if node is None:
            return []
        if not isinstance(node, Items):
            self.fail(f"`{path}` is {node.kind}, and not a list", node, path, "begin each entry with '- '")
        return [convert(item, f"{path}[{index}]") for index, item in enumerate(node.items)]

    def scalar(self, node: Node, path: str) -> Scalar:
        """Give the node as a single value."""
        if not isinstance(node, Scalar):
            self.fail(f"this is {node.kind}, and not a single value", node, path)
        return node

    def text(self, node: Node, path: str) -> str:
        """Give the node as text; a number or an empty value is none."""
        scalar = self.scalar(node, path)
        if not isinstance(scalar.value, str):
            written = scalar.text or "nothing"
            self.fail(
                f"{written} is not text", node, path, f"quote it: '{scalar.text}'" if scalar.text else None
            )
        return scalar.value

    def word(self, node: Node, path: str) -> str:
        """Give the node as text; a number is taken as written."""
        value = self.scalar(node, path)
        is_number = isinstance(value.value, int) and not isinstance(value.value, bool)
        return value.text if is_number else self.text(value, path)

    def texts(
        self,
        node: Node,
        path: str,
        parser: Callable[[str], object],
        *,
        empty: str | None = None,
        numbers: bool = False,
    ) -> list[str]:
        """Give one text or a list of texts, each of which the parser accepts.

        Args:
            node: What to convert.
            path: Its key path.
            parser: Raises `PolicyError` for what it does not accept.
            empty: Hint for an empty list, which is an error.
            numbers: Take numbers as written.
        """
        items = node.items if isinstance(node, Items) else (node,)
        if not items:
            self.fail(f"`{path.rpartition('.')[2]}` is empty", node, path, empty)
        found = []
        for index, item in enumerate(items):
            here = f"{path}[{index}]" if isinstance(node, Items) else path
            if isinstance(item, Scalar) and isinstance(item.value, int) and numbers:
                text = item.text
            elif isinstance(item, Scalar) and item.text == "~":
                text = "~"
            else:
                text = self.text(item, here)
            self.attempt(parser, text, item, here)
            found.append(text)
        return found

    def attempt(self, convert: Callable[[Any], T], value: Any, node: Node, path: str) -> T:
        """Convert a value; what its conversion has to complain about is told with the node's place."""
        try:
            return convert(value)
        except PolicyError as error:
            self.fail(error.problem, node, path, error.hint)

    def fail(self, problem: str, node: Node, key: str, hint: str | None = None) -> NoReturn:
        """Raise the one error."""
        raise PolicyError(problem, file=self.file, line=node.line, key=key or None, hint=hint)


def suggestion(key: str, known: tuple[str, ...], what: str = "keys") -> str:
    """Give the hint for a word that is not known: the closest one that is, or all of them."""
    import difflib

    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the {what} are {', '.join(known)}"
