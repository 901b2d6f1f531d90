"""The schema of a policy file: its tree turned into values, one method for each part.

The schema is the tables below. They are walked by hand rather than with a structuring library, because each
problem is to be named with the line, the key path and the way out, and because such a library costs more at
import than a whole policy does to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy.answering import Names, to_names, to_range
from rampart_seccomp.policy.document import Items, Node, Pairs
from rampart_seccomp.policy.environment import check_name, check_variable
from rampart_seccomp.policy.exemptions import Except, Exemption
from rampart_seccomp.policy.features import check_feature
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.rules import CONDITIONS, PolicyTest, Rule
from rampart_seccomp.policy.terms import VERDICTS, to_errno, to_operations, to_seconds
from rampart_seccomp.policy.walking import Walker
from rampart_seccomp.verdicts import Redirect

__all__ = ["RULE", "TOP", "TOP_LATER", "Draft", "Extension", "Place", "Structure"]

TOP = (
    "version",
    "extends",
    "default",
    "features",
    "rules",
    "grants",
    "environment",
    "limits",
    "linger",
    "names",
    "tests",
    "audit",
)
TOP_LATER: Mapping[str, str | None] = {
    "redact": None,
}
RULE = ("name", *VERDICTS, *CONDITIONS, "except", "message", "errno", "timeout", "log", "reason", "redirect")
TEST = (*VERDICTS, "path", "command", "host", "port", "program", "within", "env", "by", "redirect")
GRANT = ("operation", "path", "command", "host", "port", "rule", "by", "at")
EXTENSION = ("profile", "file", "without", "except")
ENVIRONMENT = ("drop", "pass")
REDIRECT = ("to", "mask")

WHOLE_OPERATION = "leave it out to cover the whole operation"


@attrs.frozen(eq=False, repr=False)
class Place:
    """A word with where it stands."""

    text: str
    line: int
    key: str


@attrs.frozen(eq=False, repr=False)
class Extension:
    """One entry of ``extends``.

    Attributes:
        target: What is extended: the name of a profile, or a file as named.
        is_file: Which of the two.
        without: Names of rules and features that are left out.
        excepts: For names of rules, what they are silent about from here on.
    """

    target: Place
    is_file: bool
    without: tuple[Place, ...] = ()
    excepts: tuple[tuple[Place, tuple[Except, ...]], ...] = ()


@attrs.define(kw_only=True, eq=False, repr=False)
class Draft:
    """What one file says, before it is united with what it extends.

    Attributes:
        version: None if the file does not say.
        default: The operations that it names.
        audit: None if the file does not say.
        drop, pass_: Patterns of its ``environment``.
        features: The features that it opens.
        limits: Those that it names, by key.
        linger: None if the file does not say.
        names: The same.
        places: Line of each key path that an error may be about.
    """

    file: str
    version: Any = None
    extends: list[Extension] = attrs.Factory(list)
    default: dict[Operation, str] = attrs.Factory(dict)
    rules: list[Rule] = attrs.Factory(list)
    grants: list[Grant] = attrs.Factory(list)
    drop: list[str] = attrs.Factory(list)
    pass_: list[str] = attrs.Factory(list)
    features: list[str] = attrs.Factory(list)
    tests: list[PolicyTest] = attrs.Factory(list)
    audit: Any = None
    limits: dict[str, Any] = attrs.Factory(dict)
    linger: bool | None = None
    names: Names | None = None
    places: dict[str, str] = attrs.Factory(dict)
    lines: dict[str, int] = attrs.Factory(dict)


class Structure(Walker):
    """Turns the tree of one file into values."""

    def draft(self, node: Node) -> Draft:
        """Give what the file says."""
        keys = self.keys(node, "", TOP, TOP_LATER, "policy")
        if "version" not in keys:
            self.fail("`version` is missing", node, "", "begin with 'version: 1'")
        draft = Draft(file=self.file, version=self.scalar(keys["version"], "version").value)
        draft.lines = {"": node.line, **{key: value.line for key, value in keys.items()}}
        if "audit" in keys:
            draft.audit = self.scalar(keys["audit"], "audit").value
        if "extends" in keys:
            draft.extends = self._extends(keys["extends"])
        if "default" in keys:
            self._default(keys["default"], draft)
        draft.rules = self.items(keys.get("rules"), "rules", self._rule)
        self._unique(draft.rules)
        draft.grants = self.grants(keys.get("grants"), "grants")
        if "features" in keys:
            draft.features = self.texts(keys["features"], "features", check_feature, empty="leave it out")
        if "environment" in keys:
            self._environment(keys["environment"], draft)
        if "limits" in keys:
            self._limits(keys["limits"], draft)
        if "linger" in keys:
            draft.linger = self._flag(keys["linger"], "linger")
        if "names" in keys:
            draft.names = self._names(keys["names"])
        draft.tests = self.items(keys.get("tests"), "tests", self._test)
        return draft

    def grants(self, node: Node | None, path: str) -> list[Grant]:
        """Give the grants of a list."""
        return self.items(node, path, self._grant)

    def _extends(self, node: Node) -> list[Extension]:
        items = node.items if isinstance(node, Items) else (node,)
        return [
            self._extension(item, f"extends[{index}]" if isinstance(node, Items) else "extends")
            for index, item in enumerate(items)
        ]

    def _extension(self, node: Node, path: str) -> Extension:
        if not isinstance(node, Pairs):
            text = self.text(node, path)
            is_file = "/" in text or text.endswith((".yaml", ".yml"))
            return Extension(Place(text, node.line, path), is_file)
        keys = self.keys(node, path, EXTENSION, {}, "entry of `extends`")
        if ("profile" in keys) == ("file" in keys):
            self.fail(
                "an entry of `extends` names either a `profile` or a `file`",
                node,
                path,
                "write {profile: agent, without: [rule]}",
            )
        kind = "file" if "file" in keys else "profile"
        target = Place(self.text(keys[kind], f"{path}.{kind}"), keys[kind].line, f"{path}.{kind}")
        without: list[Place] = []
        if "without" in keys:
            here = f"{path}.without"
            named = keys["without"]
            nodes = named.items if isinstance(named, Items) else (named,)
            without = [
                Place(self.text(item, f"{here}[{index}]"), item.line, f"{here}[{index}]")
                for index, item in enumerate(nodes)
            ]
        excepts = []
        if "except" in keys:
            given = keys["except"]
            if not isinstance(given, Pairs):
                self.fail(
                    f"`except` is {given.kind} here, and not a mapping",
                    given,
                    f"{path}.except",
                    'write except: {rule: ["pattern"]}',
                )
            for key, value in given.pairs:
                here = f"{path}.except.{key.text}"
                excepts.append((Place(key.text, key.line, here), tuple(self._excepts(value, here))))
        return Extension(target, kind == "file", tuple(without), tuple(excepts))

    def _unique(self, rules: list[Rule]) -> None:
        seen: dict[str, Rule] = {}
        for index, rule in enumerate(rules):
            first = seen.setdefault(rule.name, rule)
            if first is not rule:
                raise PolicyError(
                    f"the rule name {rule.name!r} is used twice",
                    file=self.file,
                    line=rule.line,
                    key=f"rules[{index}].name",
                    hint=f"the first one is on line {first.line}",
                )

    def _default(self, node: Node, draft: Draft) -> None:
        if not isinstance(node, Pairs):
            self.fail(
                f"`default` is {node.kind}, and not a mapping",
                node,
                "default",
                "write 'default: {read: allow, exec: allow}'",
            )
        # `write` first, so that the operations it stands for can be named apart beside it.
        for key, value in sorted(node.pairs, key=lambda pair: pair[0].text != "write"):
            path = f"default.{key.text}"
            operations = self.attempt(to_operations, key.text, key, path)
            verdict = self.text(value, path)
            if verdict not in VERDICTS:
                self.fail(f"{verdict!r} is not a verdict", value, path, "write allow, ask or deny")
            for operation in operations:
                draft.default[operation] = verdict
                draft.places[f"default.{operation}"] = f"{self.file}:{key.line}"

    def _environment(self, node: Node, draft: Draft) -> None:
        keys = self.keys(node, "environment", ENVIRONMENT, {}, "environment")
        for key, found in (("drop", draft.drop), ("pass", draft.pass_)):
            if key in keys:
                path = f"environment.{key}"
                found += self.texts(keys[key], path, check_name, empty="leave it out")
                draft.lines[path] = keys[key].line

    def _limits(self, node: Node, draft: Draft) -> None:
        from rampart_seccomp.policy.limits import KEYS, Limits

        for key, value in self.keys(node, "limits", KEYS, {}, "set of limits").items():
            path = f"limits.{key}"
            scalar = self.scalar(value, path)
            if scalar.value is None:
                self.fail(f"`{key}` is empty", value, path)
            given = {key.replace("-", "_"): scalar.value}
            self.attempt(lambda limits: Limits(**limits), given, value, path)
            draft.limits.update(given)

    def _names(self, node: Node) -> Names:
        if not isinstance(node, Pairs):
            return self.attempt(to_names, self.text(node, "names"), node, "names")
        keys = self.keys(node, "names", ("synthetic",), {}, "way to answer names")
        if "synthetic" not in keys:
            self.fail("no network is named", node, "names", "write {synthetic: '198.18.0.0/15'}")
        path = "names.synthetic"
        texts = self.texts(keys["synthetic"], path, to_range, empty="write names: synthetic")
        return self.attempt(to_names, {"synthetic": texts}, keys["synthetic"], path)

    def _flag(self, node: Node, path: str) -> bool:
        value = self.scalar(node, path).value
        if not isinstance(value, bool):
            self.fail(f"`{path.rpartition('.')[2]}` is neither true nor false", node, path)
        return value

    def _grant(self, node: Node, path: str) -> Grant:
        keys = self.keys(node, path, GRANT, {}, "grant")
        fields: dict[str, Any] = {}
        if "operation" not in keys:
            self.fail("the grant has no `operation`", node, path, "a grant is for one operation")
        for key in GRANT:
            if key == "command" and key in keys:
                fields[key] = self._arguments(keys[key], f"{path}.command")
            elif key in keys:
                fields[key] = self.word(keys[key], f"{path}.{key}")
        try:
            return Grant(**fields, file=self.file, line=node.line)
        except PolicyError as error:
            place = keys.get(error.key or "", node)
            self.fail(error.problem, place, f"{path}.{error.key}" if error.key else path, error.hint)

    def _arguments(self, node: Node, path: str) -> list[str]:
        if not isinstance(node, Items):
            self.fail("the command of a grant is a list of arguments", node, path, "write [npm, publish]")
        return [self.word(item, f"{path}[{index}]") for index, item in enumerate(node.items)]

    def _excepts(self, node: Node, path: str) -> list[Except]:
        if not isinstance(node, Items) or not node.items:
            return [self._exemption(node, path)] if isinstance(node, Pairs) else [*self._plain(node, path)]
        found: list[Except] = []
        for index, item in enumerate(node.items):
            here = f"{path}[{index}]"
            if isinstance(item, Pairs):
                found.append(self._exemption(item, here))
            else:
                found += self._plain(self.scalar(item, here), here)
        return found

    def _plain(self, node: Node, path: str) -> list[str]:
        return self.texts(node, path, str, empty=WHOLE_OPERATION, numbers=True)

    def _exemption(self, node: Pairs, path: str) -> Exemption:
        keys = self.keys(node, path, tuple(CONDITIONS), {}, "exception")
        fields = self._conditions(keys, path, "leave it out")
        return self.attempt(lambda given: Exemption(**given), fields, node, path)

    def _conditions(self, keys: Mapping[str, Node], path: str, empty: str) -> dict[str, list[str]]:
        return {
            key: self.texts(keys[key], f"{path}.{key}", parser, empty=empty, numbers=key == "ports")
            for key, (_, parser) in CONDITIONS.items()
            if key in keys
        }

    def _rule(self, node: Node, path: str) -> Rule:
        keys = self.keys(node, path, RULE, {}, "rule")
        if "name" not in keys:
            self.fail("the rule has no `name`", node, path, "give each rule a name of its own")
        verdict = self._verdict(keys, node, path)
        fields: dict[str, Any] = {"name": self.text(keys["name"], f"{path}.name")}
        fields["operations"] = self._operations(keys[verdict], f"{path}.{verdict}")
        fields.update(self._conditions(keys, path, WHOLE_OPERATION))
        if "except" in keys:
            fields["except_"] = self._excepts(keys["except"], f"{path}.except")
        for key in ("message", "reason"):
            if key in keys:
                fields[key] = self.text(keys[key], f"{path}.{key}")
        for key, convert in (("errno", to_errno), ("timeout", to_seconds)):
            if key in keys:
                value = self.scalar(keys[key], f"{path}.{key}")
                if value.value is None:
                    self.fail(f"`{key}` is empty", value, f"{path}.{key}")
                fields[key] = self.attempt(convert, value.value, value, f"{path}.{key}")
        if "log" in keys:
            fields["log"] = self._flag(keys["log"], f"{path}.log")
        if "redirect" in keys:
            fields["redirect"] = self._redirect(keys["redirect"], f"{path}.redirect")
        try:
            return Rule(verdict=verdict, file=self.file, line=node.line, **fields)
        except PolicyError as error:
            key, bracket, index = (error.key or "").partition("[")
            place = keys.get(key, node)
            if isinstance(place, Items) and bracket:
                place = place.items[int(index.partition("]")[0])]
            self.fail(error.problem, place, f"{path}.{error.key}", error.hint)

    def _redirect(self, node: Node, path: str) -> Redirect:
        if not isinstance(node, Pairs):
            hint = "write {to: FILE}, {to: 'ADDRESS:PORT'} or {mask: values}"
            self.fail(f"`redirect` is {node.kind}, and not a mapping", node, path, hint)
        keys = self.keys(node, path, REDIRECT, {}, "redirect")
        given = {key: self.text(value, f"{path}.{key}") for key, value in keys.items()}
        return self.attempt(lambda fields: Redirect(**fields), given, next(iter(keys.values()), node), path)

    def _verdict(self, keys: Mapping[str, Node], node: Node, path: str) -> str:
        found = [verdict for verdict in VERDICTS if verdict in keys]
        if len(found) != 1:
            self.fail(
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
                self.fail("no operation is named", node, path, "name one, or a list of them")
            parts = [self._operations(item, f"{path}[{index}]") for index, item in enumerate(node.items)]
            return frozenset().union(*parts)
        return self.attempt(to_operations, self.text(node, path), node, path)

    def _test(self, node: Node, path: str) -> PolicyTest:
        keys = self.keys(node, path, TEST, {}, "test")
        found = [verdict for verdict in VERDICTS if verdict in keys]
        if len(found) != 1:
            self.fail(
                "the test says neither allow, ask nor deny"
                if not found
                else f"the test says {' and '.join(found)}",
                node,
                path,
                "write {deny: read, path: ~/.ssh/id, by: rule}",
            )
        fields: dict[str, Any] = {}
        for key in TEST[3:]:
            if key == "env" and key in keys:
                fields[key] = self.texts(keys[key], f"{path}.env", check_variable, empty="leave it out")
            elif key == "redirect" and key in keys:
                fields[key] = self._test_redirect(keys[key], f"{path}.redirect")
            elif key in keys:
                fields[key] = self.word(keys[key], f"{path}.{key}")
        operation = self.text(keys[found[0]], f"{path}.{found[0]}")
        self.attempt(to_operations, operation, keys[found[0]], f"{path}.{found[0]}")
        place = keys.get("redirect", node)
        fields |= {"verdict": found[0], "operation": operation, "line": node.line}
        return self.attempt(lambda given: PolicyTest(**given), fields, place, f"{path}.redirect")

    def _test_redirect(self, node: Node, path: str) -> Redirect | bool:
        if isinstance(node, Pairs):
            return self._redirect(node, path)
        if self.scalar(node, path).value is not False:
            hint = "write {to: ...} or {mask: values}; false, if nothing is to be redirected"
            self.fail("`redirect` is neither a mapping nor false", node, path, hint)
        return False
