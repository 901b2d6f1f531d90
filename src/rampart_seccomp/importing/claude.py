"""Claude Code: ``permissions`` of its ``settings.json``.

Facts from its public documentation: a rule is ``Tool`` or ``Tool(specifier)``; deny before ask before allow.
Edit rules speak about every tool that edits files, Read rules about every tool that reads them, and a denied
Read also blocks editing. Reading needs no permission, editing and running commands are asked about.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from rampart_seccomp.importing import scaffold
from rampart_seccomp.importing.commands import MIXED, from_text
from rampart_seccomp.importing.draft import Draft, Entry, Imported, Untranslatable
from rampart_seccomp.importing.paths import from_gitignore, literal
from rampart_seccomp.importing.source import Reader
from rampart_seccomp.policy.document import Node

__all__ = ["convert"]

TITLE = "the permissions of Claude Code"

VERDICTS = ("deny", "ask", "allow")
READING = ("Read", "Glob", "Grep", "LS", "NotebookRead")
WRITING = ("Edit", "Write", "MultiEdit", "NotebookEdit")

MODES: Mapping[str, Mapping[str, str]] = {
    "default": {"read": "allow", "write": "ask", "exec": "ask", "connect": "ask", "listen": "ask"},
    "acceptEdits": {"read": "allow", "write": "ask", "exec": "ask", "connect": "ask", "listen": "ask"},
    "plan": {"read": "allow", "write": "deny", "exec": "ask", "connect": "ask", "listen": "deny"},
    "auto": {"read": "allow", "write": "ask", "exec": "ask", "connect": "ask", "listen": "ask"},
    "dontAsk": {"read": "allow", "write": "deny", "exec": "deny", "connect": "deny", "listen": "deny"},
    "bypassPermissions": dict.fromkeys(("read", "write", "exec", "connect", "listen"), "allow"),
}

PROTECTED = (".git/**", ".claude/**", ".vscode/**", ".idea/**")
"""What, in a working directory, Claude Code asks about before it edits, even where edits are accepted."""

HARMLESS = (
    "disableBypassPermissionsMode",
    "disableAutoMode",
    "skipDangerousModePermissionPrompt",
    "$schema",
)
"""Keys of ``permissions`` about Claude Code's own prompts, which say nothing about what is allowed."""

NOT_SYSTEM_CALLS = "a tool of the agent, not a system call: only the agent itself can refuse it"


def convert(node: Node, file: str) -> Imported:
    """Translate the settings.

    Args:
        node: The document.
        file: Its name.

    Raises:
        PolicyError: Something is not what such a file holds.
    """
    return _Settings(file).convert(node)


class _Settings:
    def __init__(self, file: str) -> None:
        self._reader = Reader(file)
        self._draft = Draft(file)
        user = os.path.expanduser("~/.claude")
        # In a user's settings a single leading slash begins in ~/.claude, in a project's in the project.
        self._slash = "~/.claude/" if os.path.dirname(os.path.abspath(file)) == user else "./"

    def convert(self, node: Node) -> Imported:
        top = self._reader.pairs(node, "")
        if "permissions" not in top:
            self._reader.fail(
                "there is no `permissions`", node, "", "is this the settings.json of Claude Code?"
            )
        keys = self._reader.pairs(top["permissions"], "permissions")
        self._defaults(keys)
        for verdict in VERDICTS:
            if verdict in keys:
                path = f"permissions.{verdict}"
                for index, item in enumerate(self._reader.items(keys[verdict], path)):
                    here = f"{path}[{index}]"
                    self._entry(Entry(here, item.line, verdict, self._reader.text(item, here)))
        self._directories(keys)
        scaffold.add(self._draft)
        self._others(top, keys)
        return self._draft.finish(TITLE)

    def _defaults(self, keys: Mapping[str, Node]) -> None:
        self._mode = "default"
        if "defaultMode" in keys:
            path = "permissions.defaultMode"
            self._mode = self._reader.text(keys["defaultMode"], path)
            if self._mode not in MODES:
                hint = f"the modes are {', '.join(MODES)}"
                self._reader.fail(f"there is no mode {self._mode!r}", keys["defaultMode"], path, hint)
        self._draft.default.update(MODES[self._mode])
        if self._mode == "auto":
            self._draft.remark("defaultMode auto: there is no classifier here, so a person is asked instead")
        if self._mode == "plan":
            self._draft.remark(
                "defaultMode plan: starting programs is asked about and not denied, since the agent is one"
            )
        if "denyInsteadOfPrompting" in keys:
            path = "permissions.denyInsteadOfPrompting"
            self._never = self._reader.value(keys["denyInsteadOfPrompting"], path, bool, "true or false")
        else:
            self._never = False
        if self._never:
            for operation, verdict in self._draft.default.items():
                self._draft.default[operation] = "deny" if verdict == "ask" else verdict
        if "ask" in self._draft.default.values():
            self._draft.remark(
                "as Claude Code does, the defaults ask about everything that no rule allows; here that is "
                "also each program that an allowed command starts in turn, and each file that it writes, "
                "temporary files and caches included: add rules (paths: @tmp, @caches) or change `default` "
                "where that is too much"
            )

    def _entry(self, entry: Entry) -> None:
        match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", entry.text, re.DOTALL)
        if match is None:
            self._draft.lose(entry, "it is neither 'Tool' nor 'Tool(specifier)'")
            return
        tool, specifier = match[1], match[2]
        if self._never and entry.verdict == "ask":
            entry = Entry(entry.key, entry.line, "deny", entry.text)
        whole = specifier is None or (entry.verdict != "allow" and specifier.strip() in ("", "*", "**"))
        try:
            if tool in READING:
                operations = ["read", "write"] if entry.verdict == "deny" else ["read"]
                self._files(entry, operations, None if whole else specifier)
            elif tool in WRITING:
                self._files(entry, ["write"], None if whole else specifier)
            elif tool == "Bash":
                self._command(entry, None if whole else specifier)
            elif tool == "WebFetch":
                self._fetch(entry, None if whole else specifier)
            else:
                self._draft.lose(entry, self._why_not(tool))
        except Untranslatable as error:
            self._draft.lose(entry, str(error))

    @staticmethod
    def _why_not(tool: str) -> str:
        if tool.startswith("mcp__"):
            return "an MCP tool, not a system call: put the MCP server itself behind a policy"
        if tool == "WebSearch":
            return "the search runs at the model's provider, not on this machine"
        return NOT_SYSTEM_CALLS

    def _files(self, entry: Entry, operations: list[str], specifier: str | None) -> None:
        notes = []
        if entry.verdict == "deny" and operations[0] == "read":
            notes.append("Holds for every program now, not only for the agent's own tools.")
        if specifier is None:
            self._draft.add(entry, entry.verdict, operations, name=self._name(entry), **self._reason(entry))
            return
        specifier = specifier.strip()
        if specifier in ("", "*", "**"):
            specifier = "./**"
        if specifier.startswith("/") and not specifier.startswith("//"):
            notes.append(f"A single leading '/' is {self._slash} there; of the root it would be '//'.")
        patterns = from_gitignore(specifier, restricts=entry.verdict != "allow", settings=self._slash)
        self._draft.add(
            entry,
            entry.verdict,
            operations,
            name=self._name(entry),
            key="paths",
            patterns=patterns,
            notes=notes,
            **self._reason(entry),
        )

    def _command(self, entry: Entry, specifier: str | None) -> None:
        if specifier is None:
            self._draft.add(entry, entry.verdict, ["exec"], name=self._name(entry), **self._reason(entry))
            return
        text = specifier.strip()
        if text.endswith(":*"):
            text = f"{text[:-2].rstrip()} *"
        restricts = entry.verdict != "allow"
        patterns = from_text(text, restricts=restricts, tail=True)
        program = text.split()[0]
        if restricts and program in MIXED:
            self._draft.lose(entry, f"shells do {program!r} themselves; the rule holds for the program only")
        self._draft.add(
            entry,
            entry.verdict,
            ["exec"],
            name=self._name(entry),
            key="commands",
            patterns=patterns,
            **self._reason(entry),
        )

    def _fetch(self, entry: Entry, specifier: str | None) -> None:
        allows = entry.verdict == "allow"
        if specifier is None:
            hosts: tuple[str, ...] = scaffold.WEB if allows else scaffold.ANYWHERE
            notes = [] if allows else ["Every address: whatever connects is taken for a fetch."]
        else:
            domain = specifier.strip()
            if not domain.startswith("domain:"):
                raise Untranslatable("a connection has a host and a port, and no URL or other parameter")
            host = domain[len("domain:") :].strip()
            if re.search(r"[/:\[\]]", host) or not host:
                raise Untranslatable("it does not name a host")
            hosts = (f"{host}:80,443",) if allows else (host,)
            if host == "*":
                hosts = scaffold.WEB if allows else scaffold.ANYWHERE
            notes = ["Holds for every program now, and for whatever shares the address."]
        self._draft.add(
            entry,
            entry.verdict,
            ["connect"],
            name=self._name(entry),
            key="hosts",
            patterns=hosts,
            notes=notes,
            **self._reason(entry),
        )

    @staticmethod
    def _name(entry: Entry) -> str:
        return f"{entry.verdict} {entry.text}"

    @staticmethod
    def _reason(entry: Entry) -> dict[str, str]:
        return (
            {"message": f"Claude Code's settings {entry.verdict}: {entry.text}"}
            if entry.verdict == "deny"
            else {}
        )

    def _directories(self, keys: Mapping[str, Node]) -> None:
        path = "permissions.additionalDirectories"
        patterns = ["./**"]
        node = keys.get("additionalDirectories")
        for index, item in enumerate(self._reader.items(node, path) if node is not None else ()):
            here = f"{path}[{index}]"
            text = self._reader.text(item, here)
            entry = Entry(here, item.line, "allow", text)
            directory = re.sub(r"/+", "/", text).rstrip("/") or "/"
            if not directory.startswith(("/", "~/", "./")) or "/../" in f"{directory}/":
                self._draft.lose(entry, "it is relative, and where to is not known: write its absolute path")
            else:
                patterns.append(f"{literal(directory)}/**".replace("//", "/"))
        protected = [pattern.removesuffix("**") + name for pattern in patterns for name in PROTECTED]
        if self._mode == "acceptEdits":
            mode = keys["defaultMode"]
            self._draft.add(
                Entry("permissions.defaultMode", mode.line, "allow", "acceptEdits"),
                "allow",
                ["write"],
                name="allow edits of the working directories",
                key="paths",
                patterns=patterns,
                except_=protected,
                notes=["Asked about there, too. If git works inside, take './.git/**' out of `except`."],
            )
        elif self._mode == "bypassPermissions":
            mode = keys["defaultMode"]
            self._draft.add(
                Entry("permissions.defaultMode", mode.line, "ask", "bypassPermissions"),
                "ask",
                ["write"],
                name="ask protected directories",
                key="paths",
                patterns=protected,
                notes=["Asked about there, too. If git works inside, take './.git/**' out."],
            )
        elif len(patterns) > 1:
            self._draft.remark(
                "additionalDirectories: reading is allowed everywhere by default, and editing in them is "
                "decided as it is elsewhere, so they need no rule"
            )

    def _others(self, top: Mapping[str, Node], keys: Mapping[str, Node]) -> None:
        known = {*VERDICTS, "defaultMode", "additionalDirectories", "denyInsteadOfPrompting", *HARMLESS}
        for key, node in keys.items():
            if key not in known:
                self._draft.lose(
                    Entry(f"permissions.{key}", node.line, "deny", key), "this version does not know the key"
                )
        if "sandbox" in top:
            self._draft.lose(
                Entry("sandbox", top["sandbox"].line, "deny", "sandbox"),
                "the settings of Claude Code's own sandbox are not imported: write its lists as rules",
            )
        rest = sorted(set(top) - {"permissions", "sandbox", "$schema"})
        if rest:
            self._draft.remark(f"not about permissions, and not imported: {', '.join(rest)}")
