"""Rules bound to a place: their patterns get slots of one automaton."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rampart_seccomp.policy import globs
from rampart_seccomp.policy.anchors import Anchors
from rampart_seccomp.policy.commands import CommandPattern, parse_command
from rampart_seccomp.policy.conditions import Command, Conditions, Entry
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.policy.globs import ANY, Tail, component
from rampart_seccomp.policy.hosts import parse_host, parse_local
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.terms import VERDICTS, WRITE

__all__ = ["Binding"]


class Binding:
    """Gives slots to patterns while rules are bound.

    Attributes:
        patterns: What was bound, for the automaton.
    """

    def __init__(self, anchors: Anchors) -> None:
        self.patterns: list[tuple[Tail, int]] = []
        self._anchors = anchors
        self._slots = 0
        self._system = self._paths(["@system"], strict=False)

    def bind(self, rule: Rule) -> Entry:
        """Bind a rule."""
        level = VERDICTS.index(rule.verdict)
        strict = level > 0
        return Entry(
            rule,
            level,
            rule.operations,
            self._conditions(rule, strict=strict),
            tuple(self._conditions(given, strict=not strict) for given in rule.excepted),
        )

    def redirect(self, rule: Rule) -> Entry:
        """Bind the restriction in a rule that redirects: like what asks, it holds for whoever is unknown."""
        return Entry(
            rule,
            VERDICTS.index("ask"),
            rule.operations,
            self._conditions(rule, strict=True),
            tuple(self._conditions(given, strict=False) for given in rule.excepted),
            reason="redirect",
        )

    def protect(self, paths: Iterable[bytes], reason: str) -> Entry:
        """Give an entry that denies writing these paths and everything beneath them."""
        slot = self._slot()
        for path in paths:
            for name in {path, os.path.realpath(path)}:
                parts = tuple(part for part in name.split(b"/") if part)
                self.patterns.append(((*parts, ANY), slot))
        return Entry(None, VERDICTS.index("deny"), WRITE, Conditions(paths=slot), reason=reason)

    def _conditions(self, given: Rule | Exemption, *, strict: bool) -> Conditions:
        hosts = tuple(map(parse_host, given.hosts))
        sockets = [host.socket for host in hosts if host.socket is not None]
        texts = {"env": given.env, "programs": given.programs, "within": given.within}
        return Conditions(
            paths=self._paths(given.paths, strict=strict),
            sockets=self._globs(sockets, strict=strict),
            commands=self._commands(given.commands, strict=strict),
            hosts=hosts,
            ports=tuple(map(parse_local, given.ports)),
            env=tuple(map(component, given.env)),
            programs=self._paths(given.programs, strict=strict),
            within=self._commands(given.within, strict=strict),
            texts=tuple((key, frozenset(entries)) for key, entries in texts.items() if entries),
        )

    def _commands(self, texts: Iterable[str], *, strict: bool) -> tuple[Command, ...]:
        return tuple(self._command(parse_command(text), strict=strict) for text in texts)

    def _command(self, pattern: CommandPattern, *, strict: bool) -> Command:
        if pattern.program is not None:
            program = self._globs([pattern.program], strict=strict)
        else:
            assert pattern.base is not None
            program = self._slot()
            self.patterns.append(((ANY, pattern.base), program))
        return Command(pattern, program, self._system)

    def _paths(self, texts: Iterable[str], *, strict: bool) -> int:
        return self._globs(map(globs.parse, texts), strict=strict)

    def _globs(self, given: Iterable[globs.Glob], *, strict: bool) -> int:
        bound = [tail for glob in given for tail in self._anchors.bind(glob, strict=strict)]
        if not bound:
            return 0
        slot = self._slot()
        self.patterns += [(tail, slot) for tail in bound]
        return slot

    def _slot(self) -> int:
        self._slots += 1
        return 1 << self._slots
