"""peg/rampart: YAML policies about the tool calls of agents.

Facts from its public documentation and behaviour: policies select calls by agent, session and tool; within a
policy the first rule that matches speaks; over all policies deny wins over ask over watch and allow; where no
rule speaks, ``default_action`` does. Patterns are alternatives within a condition, and conditions must all
hold. Commands are matched as text.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping

import attrs

from rampart_seccomp.importing import scaffold
from rampart_seccomp.importing.commands import from_text
from rampart_seccomp.importing.draft import Draft, Entry, Imported, Pointless, Untranslatable
from rampart_seccomp.importing.paths import from_peg
from rampart_seccomp.importing.source import Reader
from rampart_seccomp.policy.document import Node, Scalar

__all__ = ["convert"]

TITLE = "a policy of peg/rampart"

ACTIONS: Mapping[str, str] = {
    "allow": "allow",
    "watch": "allow",
    "log": "allow",
    "ask": "ask",
    "require_approval": "ask",
    "webhook": "ask",
    "deny": "deny",
}

TOOLS: Mapping[str, tuple[str, ...]] = {
    "exec": ("exec", "bash", "shell"),
    "read": ("read",),
    "write": ("write", "edit"),
    "connect": ("fetch", "web_fetch", "http"),
}

KEYS: Mapping[str, str] = {"commands": "command", "paths": "path", "hosts": "domain"}
CONDITIONS: Mapping[str, frozenset[str]] = {
    "commands": frozenset({"command_matches", "command_contains"}),
    "paths": frozenset({"path_matches"}),
    "hosts": frozenset({"domain_matches"}),
}
EXCEPTIONS = frozenset({"command_not_matches", "path_not_matches"})
APPLIES: Mapping[str, tuple[str, ...]] = {
    "commands": ("exec",),
    "paths": ("read", "write"),
    "hosts": ("connect",),
}
EVERYTHING: Mapping[str, tuple[str, ...]] = {
    "commands": ("* **",),
    "paths": ("/**",),
    "hosts": scaffold.ANYWHERE,
}

SCOPES = ("session_matches", "session_not_matches", "agent_depth")
"""Conditions about the agent that calls; a rule that restricts holds for every one instead."""

BEYOND: Mapping[str, str] = {
    "command_env_assignments": "the environment of a program is not judged by this version",
    "url_matches": "a connection has a host and a port, and no URL: write the host",
    "response_matches": "what a call gives back is not looked at",
    "response_not_matches": "what a call gives back is not looked at",
    "tool_param_matches": "the parameters of a tool are not seen in system calls",
    "call_count": "calls are not counted",
}

POLICY_KEYS = ("name", "description", "priority", "enabled", "match", "rules")
RULE_KEYS = ("action", "ask", "when", "message", "added", "webhook", "expires_at", "once", "reason")
TOP_KEYS = ("version", "default_action", "policies", "notify", "tests")


@attrs.frozen
class _Earlier:
    """What a laxer rule above, of the same policy, takes out of a stricter one."""

    verdict: str
    key: str | None
    operations: frozenset[str]
    patterns: tuple[str, ...]


@attrs.frozen
class _Scope:
    """Which calls a policy is about."""

    name: str
    operations: frozenset[str]
    others: tuple[str, ...]
    limit: str | None


def convert(node: Node, file: str, *, floating: bool) -> Imported:
    """Translate a policy file.

    Args:
        node: The document.
        file: Its name.
        floating: Keep ``**/x`` as it is.

    Raises:
        PolicyError: Something is not what such a file holds.
    """
    return _File(file, floating).convert(node)


class _File:
    def __init__(self, file: str, floating: bool) -> None:
        self._reader = Reader(file)
        self._draft = Draft(file)
        self._floating = floating

    def convert(self, node: Node) -> Imported:
        top = self._reader.pairs(node, "")
        if "policies" not in top and "default_action" not in top:
            self._reader.fail(
                "there is neither `policies` nor `default_action`",
                node,
                "",
                "is this a policy of peg/rampart?",
            )
        if "version" in top:
            version = top["version"]
            if not isinstance(version, Scalar) or version.text.strip() != "1":
                self._reader.fail("only version 1 is known", version, "version")
        self._default(top)
        seen: dict[str, int] = {}
        nodes = self._reader.items(top["policies"], "policies") if "policies" in top else ()
        for index, each in enumerate(nodes):
            self._policy(each, f"policies[{index}]", seen)
        scaffold.add(self._draft)
        for key in top:
            if key in ("notify", "tests"):
                self._draft.remark(f"`{key}` is not imported")
            elif key not in TOP_KEYS:
                self._draft.remark(f"`{key}`: a key that peg/rampart does not know either")
        return self._draft.finish(TITLE)

    def _default(self, top: Mapping[str, Node]) -> None:
        action = "deny"
        if "default_action" in top:
            node = top["default_action"]
            action = self._reader.text(node, "default_action").strip().lower()
            if action not in ACTIONS or action == "webhook":
                hint = "write allow, deny, ask or watch"
                self._reader.fail(f"{action!r} is no action", node, "default_action", hint)
        verdict = ACTIONS[action]
        self._draft.default.update(dict.fromkeys(("read", "write", "exec", "connect", "listen"), verdict))
        if verdict != "allow":
            self._draft.remark(
                f"default_action {action} is a default for every system call here: each program that an "
                "allowed command starts in turn, and each file that it reads or writes, needs a rule"
            )

    def _policy(self, node: Node, path: str, seen: dict[str, int]) -> None:
        keys = self._reader.pairs(node, path)
        if "name" not in keys:
            self._reader.fail("the policy has no `name`", node, path)
        name = self._reader.text(keys["name"], f"{path}.name")
        if name in seen:
            hint = f"the first one is on line {seen[name]}"
            self._reader.fail(f"the name {name!r} is used twice", keys["name"], f"{path}.name", hint)
        seen[name] = keys["name"].line
        for key in keys:
            if key not in POLICY_KEYS:
                self._draft.remark(f"{path}.{key}: a key that peg/rampart does not know either")
        if "enabled" in keys and not self._reader.value(
            keys["enabled"], f"{path}.enabled", bool, "true or false"
        ):
            self._draft.remark(f"the policy {name!r} is not enabled, and not imported")
            return
        scope = self._scope(name, keys.get("match"), f"{path}.match")
        earlier: list[_Earlier] = []
        rules = self._reader.items(keys["rules"], f"{path}.rules") if "rules" in keys else ()
        for index, each in enumerate(rules):
            self._rule(each, f"{path}.rules[{index}]", scope, earlier)

    def _scope(self, name: str, node: Node | None, path: str) -> _Scope:
        keys = self._reader.pairs(node, path) if node is not None else {}
        limits = []
        for key in keys:
            if key in ("agent", "session"):
                if self._reader.text(keys[key], f"{path}.{key}") not in ("", "*"):
                    limits.append(key)
            elif key != "tool":
                limits.append(key)
        tools = (
            [text for text, _ in self._reader.texts(keys["tool"], f"{path}.tool")] if "tool" in keys else []
        )
        operations = frozenset(
            operation
            for operation, names in TOOLS.items()
            if not tools or any(fnmatch.fnmatchcase(name, tool) for tool in tools for name in names)
        )
        known = [name for names in TOOLS.values() for name in names]
        others = tuple(tool for tool in tools if not fnmatch.filter(known, tool))
        return _Scope(name, operations, others, " and ".join(limits) or None)

    def _rule(self, node: Node, path: str, scope: _Scope, earlier: list[_Earlier]) -> None:
        keys = self._reader.pairs(node, path)
        if "action" not in keys:
            self._reader.fail("the rule has no `action`", node, path)
        action = self._reader.text(keys["action"], f"{path}.action").strip().lower()
        if action not in ACTIONS:
            hint = "the actions are allow, ask, deny, watch and webhook"
            self._reader.fail(f"{action!r} is no action", keys["action"], f"{path}.action", hint)
        when = self._reader.pairs(keys["when"], f"{path}.when") if "when" in keys else {}
        message = self._reader.text(keys["message"], f"{path}.message") if "message" in keys else None
        text = f"{scope.name}: {message}" if message else scope.name
        entry = Entry(path, node.line, ACTIONS[action], text)
        notes = []
        if action == "webhook":
            notes.append("A webhook decided there; a person is asked here.")
        if action in ("watch", "log"):
            notes.append("Watched there; the audit log records it here.")
        if scope.others:
            names = ", ".join(scope.others)
            self._draft.lose(entry, f"tools of the agent, which are no system calls: {names}")
        for key in keys:
            if key not in RULE_KEYS:
                self._draft.remark(f"{path}.{key}: a key that peg/rampart does not know either")
        reason = self._beyond(entry, keys, when, scope, notes)
        if reason is not None:
            self._draft.lose(entry, reason)
        elif scope.operations:
            # What holds for some calls only, or for a time, takes nothing out of the rules below it.
            steady = not scope.limit and not {*SCOPES, "once", "expires_at"} & {*when, *keys}
            below = earlier if steady else list(earlier)
            self._translate(entry, path, when, scope, below, notes, message)

    def _beyond(
        self,
        entry: Entry,
        keys: Mapping[str, Node],
        when: Mapping[str, Node],
        scope: _Scope,
        notes: list[str],
    ) -> str | None:
        """Say why a rule cannot be translated at all; add notes where it can, but only more strictly."""
        known = {"default", *SCOPES, *BEYOND, *EXCEPTIONS}.union(*CONDITIONS.values())
        for key in when:
            if key in BEYOND:
                return BEYOND[key]
            if key not in known:
                return f"the condition {key!r} is not known"
        limits = [key for key in SCOPES if key in when] + ([scope.limit] if scope.limit else [])
        temporary = [key for key in ("once", "expires_at") if key in keys]
        if entry.verdict == "allow" and limits:
            return f"{' and '.join(limits)} is not seen in system calls, and without it more would be allowed"
        if entry.verdict == "allow" and temporary:
            return f"it was meant for a time ({', '.join(temporary)}), and would stay here"
        if limits:
            notes.append(f"Stricter than it was: holds whatever {' and '.join(limits)}.")
        if temporary:
            notes.append(f"Stricter than it was: stays in force whatever {' and '.join(temporary)}.")
        return None

    def _translate(
        self,
        entry: Entry,
        path: str,
        when: Mapping[str, Node],
        scope: _Scope,
        earlier: list[_Earlier],
        notes: list[str],
        message: str | None,
    ) -> None:
        always = "default" in when and self._reader.value(
            when["default"], f"{path}.when.default", bool, "true or false"
        )
        used = [] if always else [key for key, names in CONDITIONS.items() if not names.isdisjoint(when)]
        if len(used) > 1:
            self._draft.lose(entry, "it has conditions of two kinds, which no single effect has")
            return
        if not used and not always and not EXCEPTIONS.isdisjoint(when):
            self._draft.remark(f"{path}: exceptions and no patterns, which peg/rampart never applies either")
            return
        fields = {"message": message} if message and entry.verdict != "allow" else {}
        if not used:
            self._whole(entry, scope, earlier, notes, fields)
            return
        key = used[0]
        wanted = APPLIES[key]
        operations = [each for each in wanted if each in scope.operations]
        if key == "hosts" and not operations and entry.verdict != "allow":
            operations = ["connect"]
        if not operations:
            self._draft.remark(f"{path}: its tools have no {KEYS[key]}, so it never applied there either")
            return
        given = f"{path}.when"
        patterns = self._patterns(entry, key, when, given, restricts=entry.verdict != "allow")
        narrow = self._patterns(None, key, when, given, restricts=False)
        silent = self._excluded(entry, key, when, given, notes)
        if silent is None:
            return
        excepted, idle = _shadow(entry.verdict, key, frozenset(operations), earlier)
        if key == "commands":
            excepted = [each for each in excepted if any(_same_program(each, other) for other in patterns)]
        operations = [each for each in operations if each not in idle]
        if operations:
            self._draft.add(
                entry,
                entry.verdict,
                operations,
                name=_name(entry.verdict, scope.name),
                key=key,
                patterns=patterns,
                except_=[*silent, *excepted],
                notes=notes,
                **fields,
            )
        if not silent:
            earlier.append(_Earlier(entry.verdict, key, frozenset(wanted) & scope.operations, tuple(narrow)))

    def _whole(
        self,
        entry: Entry,
        scope: _Scope,
        earlier: list[_Earlier],
        notes: list[str],
        fields: Mapping[str, str],
    ) -> None:
        """Translate a rule without conditions: one rule for each kind of operation."""
        for key, wanted in APPLIES.items():
            excepted, idle = _shadow(entry.verdict, key, scope.operations, earlier)
            operations = [each for each in wanted if each in scope.operations - idle]
            if not operations:
                continue
            plain = not excepted and key != "hosts"
            hosts = scaffold.WEB if entry.verdict == "allow" else scaffold.ANYWHERE
            said = notes
            if key == "commands" and excepted:
                excepted += scaffold.SHELLS
                said = [
                    *notes,
                    "Shells are excepted as well: each program that they start is judged by itself.",
                ]
            self._draft.add(
                entry,
                entry.verdict,
                operations,
                name=_name(entry.verdict, scope.name),
                key=None if plain else key,
                patterns=() if plain else hosts if key == "hosts" else EVERYTHING[key],
                except_=excepted,
                notes=said,
                **fields,
            )
        earlier.append(_Earlier(entry.verdict, None, scope.operations, ()))

    def _patterns(
        self, entry: Entry | None, key: str, when: Mapping[str, Node], path: str, *, restricts: bool
    ) -> list[str]:
        """Translate the patterns of a condition; those that cannot be are losses of the entry."""
        found: list[str] = []
        for name in (f"{KEYS[key]}_matches", f"{KEYS[key]}_contains"):
            for text, _ in self._reader.texts(when[name], f"{path}.{name}") if name in when else ():
                try:
                    if name.endswith("_contains"):
                        if not restricts:
                            raise Untranslatable("an allow of whatever contains a text is not translated")
                        text = f"*{re.sub(r'[*]', '', text)}*"
                    found += self._pattern(key, text, restricts=restricts)
                except Pointless as error:
                    self._draft.remark(f"{path}.{name}: '{text}': {error}")
                except Untranslatable as error:
                    if entry is not None:
                        self._draft.lose(entry, str(error), text)
        return found

    def _excluded(
        self, entry: Entry, key: str, when: Mapping[str, Node], path: str, notes: list[str]
    ) -> list[str] | None:
        """Translate the exceptions of a rule: narrowly where it restricts. None: it must be left out."""
        found: list[str] = []
        name = f"{KEYS[key]}_not_matches"
        dropped = []
        for text, _ in self._reader.texts(when[name], f"{path}.{name}") if name in when else ():
            try:
                # What an allow is silent about must be all of it: there a floating pattern stays one.
                allows = entry.verdict == "allow"
                found += self._pattern(key, text, restricts=allows, floating=allows)
            except Pointless:
                continue
            except Untranslatable as error:
                if entry.verdict == "allow":
                    self._draft.lose(entry, f"its exception cannot be said: {error}", text)
                    return None
                dropped.append(repr(text))
        if dropped:
            notes.append(
                f"Stricter than it was: exceptions that cannot be said are left out: {', '.join(dropped)}."
            )
        return found

    def _pattern(self, key: str, text: str, *, restricts: bool, floating: bool = False) -> list[str]:
        if key == "hosts":
            host = text.strip().lower().rstrip(".")
            if host == "*":
                return list(scaffold.ANYWHERE if restricts else scaffold.WEB)
            return [host] if restricts else [f"{host}:80,443"]
        if key == "paths":
            floating = floating or self._floating
            if re.match(r"/?\*\*/", text.replace("\\", "/")) and not floating:
                self._draft.remark(
                    "'**/x' is written as '~/**/x' and './**/x', since a pattern for any depth of the "
                    "whole machine leaves nothing to the kernel; it is NOT ENFORCED elsewhere (--floating "
                    "keeps it as it is)"
                )
            return from_peg(text, restricts=restricts, floating=floating)
        return from_text(_star(text, restricts), restricts=restricts)


def _star(text: str, restricts: bool) -> str:
    """Turn a command glob into one whose only special character is a star that stands for anything."""
    if restricts:
        return re.sub(r"\[[^\]]*\]|\?", "*", text)
    if re.search(r"[?\[]", text):
        raise Untranslatable("'?' and '[…]' in commands are not translated where they allow")
    inner = text[:-1] if text.endswith("*") and "**" not in text else text
    if not text.startswith("*") and "*" in inner.replace("**", ""):
        raise Untranslatable("'*' within a command stopped at '/' there, and would allow more here")
    return text


def _shadow(
    verdict: str, key: str, operations: frozenset[str], earlier: Iterable[_Earlier]
) -> tuple[list[str], frozenset[str]]:
    """Say what laxer rules above take out of a rule: patterns, and whole operations."""
    order = ("allow", "ask", "deny")
    patterns: list[str] = []
    idle: frozenset[str] = frozenset()
    for each in earlier:
        if order.index(each.verdict) >= order.index(verdict):
            continue
        if each.key is None:
            idle |= each.operations & operations
        elif each.key == key:
            patterns += each.patterns
    return patterns, idle


def _same_program(one: str, other: str) -> bool:
    """Say whether two command patterns may be about the same program."""
    first, second = one.split()[0], other.split()[0]
    return first == second or any(special in first + second for special in "*?[/")


def _name(verdict: str, name: str) -> str:
    return name if name.startswith(verdict) else f"{verdict} {name}"
