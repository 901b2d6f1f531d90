"""Policies from YAML files. Loading is total: either a whole policy comes out, or one error.

The schema is the tables below. They are walked by hand rather than with a structuring library, because each
problem is to be named with the line, the key path and the way out, and because such a library costs more at
import than a whole policy does to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import cases, lint
from rampart_seccomp.policy.document import MAX_BYTES, Items, Node, Pairs, Scalar, read
from rampart_seccomp.policy.model import KINDS, Policy, PolicyTest, Rule
from rampart_seccomp.policy.terms import VERDICTS, to_errno, to_operations, to_seconds

__all__ = ["load", "loads", "profiles"]

T = TypeVar("T")

PROFILES = Path(__file__).with_name("profiles")

TOP = ("version", "default", "rules", "tests", "audit")
TOP_LATER = {
    "extends": "copy the profile and change the copy",
    "grants": "write an allow rule",
    "features": None,
    "environment": None,
    "limits": None,
    "linger": None,
    "names": None,
    "redact": None,
}
RULE = ("name", *VERDICTS, *KINDS, "except", "message", "errno", "timeout", "log", "reason")
RULE_LATER = {"programs": None, "within": None, "env": None, "redirect": None}
TEST = (*VERDICTS, "path", "command", "host", "port", "by")


def profiles() -> list[str]:
    """Name the shipped profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load(source: str | os.PathLike[str]) -> Policy:
    """Load a file or a shipped profile. A bare word is a profile unless a file of that name exists.

    Raises:
        PolicyError: It cannot be read or is not a valid policy, or one of its tests fails.
    """
    name = os.fspath(source)
    looks_like_file = "/" in name or name.endswith((".yaml", ".yml")) or not isinstance(source, str)
    if looks_like_file or os.path.exists(name):
        return loads(_read(name, name), source=name)
    if name not in profiles():
        raise PolicyError(
            f"there is no profile and no file {name!r}",
            file=name,
            hint=f"the profiles are {', '.join(profiles())}; a file ends in .yaml or has a '/' in its name",
        )
    return _policy(_read(str(PROFILES / f"{name}.yaml"), name), f"{name}.yaml", f"profile:{name}")


def loads(text: str, *, source: str = "<string>") -> Policy:
    """Load a policy from YAML text.

    Raises:
        PolicyError: It is not a valid policy, or one of its tests fails.
    """
    return _policy(text, source, source)


def _read(path: str, name: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "check the name" if isinstance(error, FileNotFoundError) else None
        raise PolicyError(f"cannot be read: {error.strerror}", file=name, hint=hint) from None
    except ValueError as error:
        raise PolicyError(f"cannot be read: {error}", file=name) from None
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"the file is larger than {MAX_BYTES // 1024} KiB", file=name)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PolicyError("the file is not UTF-8", file=name, line=line, hint="save it as UTF-8") from None


def _policy(text: str, file: str, source: str) -> Policy:
    reader = _Structure(file)
    policy = reader.policy(read(text, file), source)
    for finding in lint.check(policy):
        if finding.severity == "error":
            raise PolicyError(finding.message, file=file, line=finding.line, key=finding.key)
    cases.run_tests(policy, file=file)
    return policy


class _Structure:
    """Turns the tree of one file into values."""

    def __init__(self, file: str) -> None:
        self._file = file

    def policy(self, node: Node, source: str) -> Policy:
        keys = self._keys(node, "", TOP, TOP_LATER, "policy")
        if "version" not in keys:
            self._fail("`version` is missing", node, "", "begin with 'version: 1'")
        rules = self._list(keys.get("rules"), "rules", self._rule)
        self._unique(rules)
        tests = self._list(keys.get("tests"), "tests", self._test)
        fields: dict[str, Any] = {"default": self._default(keys.get("default"))}
        for key in ("version", "audit"):
            if key in keys:
                fields[key] = self._scalar(keys[key], key).value
        try:
            return Policy(rules=rules, tests=tests, source=source, **fields)
        except PolicyError as error:
            self._fail(error.problem, keys.get(error.key or "", node), error.key or "", error.hint)

    def _unique(self, rules: list[Rule]) -> None:
        seen: dict[str, Rule] = {}
        for index, rule in enumerate(rules):
            first = seen.setdefault(rule.name, rule)
            if first is not rule:
                raise PolicyError(
                    f"the rule name {rule.name!r} is used twice",
                    file=self._file,
                    line=rule.line,
                    key=f"rules[{index}].name",
                    hint=f"the first one is on line {first.line}",
                )

    def _default(self, node: Node | None) -> dict[str, str]:
        found: dict[str, str] = {}
        if node is None:
            return found
        if not isinstance(node, Pairs):
            self._fail(
                f"`default` is {node.kind}, and not a mapping",
                node,
                "default",
                "write 'default: {read: allow, exec: allow}'",
            )
        for key, value in node.pairs:
            path = f"default.{key.text}"
            self._attempt(to_operations, key.text, key, path)
            verdict = self._text(value, path)
            if verdict not in VERDICTS:
                self._fail(f"{verdict!r} is not a verdict", value, path, "write allow, ask or deny")
            found[key.text] = verdict
        return found

    def _rule(self, node: Node, path: str) -> Rule:
        keys = self._keys(node, path, RULE, RULE_LATER, "rule")
        if "name" not in keys:
            self._fail("the rule has no `name`", node, path, "give each rule a name of its own")
        verdict = self._verdict(keys, node, path)
        fields: dict[str, Any] = {"name": self._text(keys["name"], f"{path}.name")}
        fields["operations"] = self._operations(keys[verdict], f"{path}.{verdict}")
        for key, (_, parser) in KINDS.items():
            if key in keys:
                fields[key] = self._patterns(keys[key], f"{path}.{key}", parser, numbers=key == "ports")
        if "except" in keys:
            fields["except_"] = self._patterns(keys["except"], f"{path}.except", str, numbers=True)
        for key in ("message", "reason"):
            if key in keys:
                fields[key] = self._text(keys[key], f"{path}.{key}")
        for key, convert in (("errno", to_errno), ("timeout", to_seconds)):
            if key in keys:
                value = self._scalar(keys[key], f"{path}.{key}")
                if value.value is None:
                    self._fail(f"`{key}` is empty", value, f"{path}.{key}")
                fields[key] = self._attempt(convert, value.value, value, f"{path}.{key}")
        if "log" in keys:
            fields["log"] = self._scalar(keys["log"], f"{path}.log").value
            if not isinstance(fields["log"], bool):
                self._fail("`log` is neither true nor false", keys["log"], f"{path}.log")
        try:
            return Rule(verdict=verdict, file=self._file, line=node.line, **fields)
        except PolicyError as error:
            key, bracket, index = (error.key or "").partition("[")
            place = keys.get(key, node)
            if isinstance(place, Items) and bracket:
                place = place.items[int(index.rstrip("]"))]
            self._fail(error.problem, place, f"{path}.{error.key}", error.hint)

    def _verdict(self, keys: Mapping[str, Node], node: Node, path: str) -> str:
        found = [verdict for verdict in VERDICTS if verdict in keys]
        if len(found) != 1:
            self._fail(
                f"the rule says {' and '.join(found)}"
                if found
                else "the rule says neither allow, ask nor deny",
                node,
                path,
                "exactly one of allow, ask and deny, with an operation or a list of them",
            )
        return found[0]

    def _operations(self, node: Node, path: str) -> frozenset[Any]:
        if isinstance(node, Items):
            if not node.items:
                self._fail("no operation is named", node, path, "name one, or a list of them")
            parts = [self._operations(item, f"{path}[{index}]") for index, item in enumerate(node.items)]
            return frozenset().union(*parts)
        return self._attempt(to_operations, self._text(node, path), node, path)

    def _patterns(
        self, node: Node, path: str, parser: Callable[[str], object], *, numbers: bool = False
    ) -> list[str]:
        items = node.items if isinstance(node, Items) else (node,)
        if not items:
            self._fail(
                f"`{path.rpartition('.')[2]}` is empty",
                node,
                path,
                "leave it out to cover the whole operation",
            )
        found = []
        for index, item in enumerate(items):
            here = f"{path}[{index}]" if isinstance(node, Items) else path
            if isinstance(item, Pairs) and path.endswith(".except"):
                self._fail(
                    "an exception with conditions is not supported by this version",
                    item,
                    here,
                    "write patterns only, or a rule of its own",
                )
            if isinstance(item, Scalar) and isinstance(item.value, int) and numbers:
                text = item.text
            elif isinstance(item, Scalar) and item.text == "~":
                text = "~"
            else:
                text = self._text(item, here)
            self._attempt(parser, text, item, here)
            found.append(text)
        return found

    def _test(self, node: Node, path: str) -> PolicyTest:
        keys = self._keys(node, path, TEST, {}, "test")
        found = [verdict for verdict in VERDICTS if verdict in keys]
        if len(found) != 1:
            self._fail(
                "the test says neither allow, ask nor deny"
                if not found
                else f"the test says {' and '.join(found)}",
                node,
                path,
                "write {deny: read, path: ~/.ssh/id, by: rule}",
            )
        fields: dict[str, Any] = {}
        for key in TEST[3:]:
            if key in keys:
                value = self._scalar(keys[key], f"{path}.{key}")
                is_number = isinstance(value.value, int) and not isinstance(value.value, bool)
                fields[key] = value.text if is_number else self._text(value, f"{path}.{key}")
        operation = self._text(keys[found[0]], f"{path}.{found[0]}")
        self._attempt(to_operations, operation, keys[found[0]], f"{path}.{found[0]}")
        return PolicyTest(verdict=found[0], operation=operation, line=node.line, **fields)

    def _keys(
        self,
        node: Node,
        path: str,
        known: tuple[str, ...],
        later: Mapping[str, str | None],
        what: str,
    ) -> dict[str, Node]:
        """Give the values of a mapping whose keys are all known."""
        if not isinstance(node, Pairs):
            self._fail(f"a {what} is a mapping, and this is {node.kind}", node, path)
        found: dict[str, Node] = {}
        for key, value in node.pairs:
            here = f"{path}.{key.text}" if path else key.text
            if key.text in later:
                self._fail(f"`{key.text}` is not supported by this version", key, here, later[key.text])
            if key.text not in known:
                self._fail(f"a {what} has no key {key.text!r}", key, here, _suggestion(key.text, known))
            found[key.text] = value
        return found

    def _list(self, node: Node | None, path: str, convert: Callable[[Node, str], T]) -> list[T]:
        if node is None:
            return []
        if not isinstance(node, Items):
            self._fail(f"`{path}` is {node.kind}, and not a list", node, path, "begin each entry with '- '")
        return [convert(item, f"{path}[{index}]") for index, item in enumerate(node.items)]

    def _scalar(self, node: Node, path: str) -> Scalar:
        if not isinstance(node, Scalar):
            self._fail(f"this is {node.kind}, and not a single value", node, path)
        return node

    def _text(self, node: Node, path: str) -> str:
        scalar = self._scalar(node, path)
        if not isinstance(scalar.value, str):
            written = scalar.text or "nothing"
            self._fail(
                f"{written} is not text", node, path, f"quote it: '{scalar.text}'" if scalar.text else None
            )
        return scalar.value

    def _attempt(self, convert: Callable[[Any], T], value: Any, node: Node, path: str) -> T:
        try:
            return convert(value)
        except PolicyError as error:
            self._fail(error.problem, node, path, error.hint)

    def _fail(self, problem: str, node: Node, key: str, hint: str | None = None) -> NoReturn:
        raise PolicyError(problem, file=self._file, line=node.line, key=key or None, hint=hint)


def _suggestion(key: str, known: tuple[str, ...]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the keys are {', '.join(known)}"
