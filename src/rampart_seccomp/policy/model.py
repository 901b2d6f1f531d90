"""What a policy is: frozen values. YAML is one way to write them down, Python is another."""

from __future__ import annotations

import errno as errno_names
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy.commands import parse_command
from rampart_seccomp.policy.globs import parse
from rampart_seccomp.policy.hosts import parse_host, parse_local
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS, to_errno, to_operations, to_seconds
from rampart_seccomp.verdicts import Verdict

if TYPE_CHECKING:
    from rampart_seccomp.policy.matcher import Matcher

__all__ = [
    "KINDS",
    "Decide",
    "Decision",
    "Policy",
    "PolicyTest",
    "Rule",
]

Decide = Callable[[Any], Verdict | Awaitable[Verdict]]
F = TypeVar("F", bound=Decide)

KINDS: Mapping[str, tuple[frozenset[Operation], Callable[[str], object]]] = MappingProxyType(
    {
        "paths": (FILE_OPERATIONS | {Operation.EXEC}, parse),
        "commands": (frozenset({Operation.EXEC}), parse_command),
        "hosts": (frozenset({Operation.CONNECT}), parse_host),
        "ports": (frozenset({Operation.LISTEN}), parse_local),
    }
)
"""The keys that match: the operations they apply to, and the parser of their entries."""


def _text(value: Any) -> str:
    return str(value) if isinstance(value, int) else os.fsdecode(value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, bytes, os.PathLike, int)):
        return (_text(value),)
    return tuple(map(_text, value))


def _rules(value: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(value)


def _tests(value: Iterable[PolicyTest]) -> tuple[PolicyTest, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Rule:
    """One rule. Conditions are alternatives within a key, and must all hold across keys.

    Attributes:
        name: Unique within the policy.
        verdict: ``allow``, ``ask`` or ``deny``.
        operations: What it speaks about.
        paths: Path patterns, for file operations and exec.
        commands: argv patterns, for exec.
        hosts: Destinations, for connect.
        ports: Local ports, for listen.
        except_: Patterns of the rule's own kind that the rule is silent about.
        message: Said to people when the rule denies or asks.
        errno: The error a denial gives; None for the usual one.
        timeout: Seconds until an unanswered question is a denial; None for the broker's own.
        log: Record what the rule allows even if the policy records denials only.
        decide: Answers the question of an ``ask`` rule instead of a person.
        reason: Why the rule is there, in one line.
        file: File the rule was read from; None for a rule made in Python.
        line: Its line there, from 1.
    """

    name: str
    verdict: str = attrs.field(validator=attrs.validators.in_(VERDICTS))
    operations: frozenset[Operation] = attrs.field(converter=to_operations)
    paths: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    commands: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    hosts: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    ports: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    except_: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    message: str | None = None
    errno: int | None = attrs.field(default=None, converter=to_errno)
    timeout: float | None = attrs.field(default=None, converter=to_seconds)
    log: bool = True
    decide: Decide | None = None
    reason: str | None = None
    file: str | None = attrs.field(default=None, eq=False)
    line: int | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.name:
            raise PolicyError("a rule has no name", file=self.file, line=self.line, key="name")
        for key, (operations, parser) in KINDS.items():
            entries = getattr(self, key)
            strangers = self.operations - operations
            if entries and strangers:
                raise self._error(
                    key,
                    f"`{key}` does not apply to {_listed(strangers)}",
                    "make a second rule for the other operations",
                )
            for index, entry in enumerate(entries):
                self._parse(f"{key}[{index}]", parser, entry)
        if self.except_:
            parser = KINDS[self.kind][1]
            for index, entry in enumerate(self.except_):
                self._parse(f"except[{index}]", parser, entry)
        for key, verdicts in (("timeout", "ask"), ("decide", "ask"), ("errno", "ask deny")):
            if getattr(self, key) is not None and self.verdict not in verdicts.split():
                raise self._error(key, f"`{key}` means nothing in a rule that says {self.verdict}")

    @property
    def kind(self) -> str:
        """The key whose entries ``except`` is written like.

        Raises:
            PolicyError: The rule has several kinds.
        """
        used = [key for key in KINDS if getattr(self, key)]
        if not used:
            used = [key for key, (operations, _) in KINDS.items() if self.operations <= operations][:1]
        if len(used) != 1:
            raise self._error(
                "except",
                "`except` is ambiguous here: the rule has several kinds of conditions"
                if used
                else "`except` is ambiguous here: the operations have different objects",
                "make one rule for each kind",
            )
        return used[0]

    @property
    def place(self) -> str | None:
        """``file:line`` of the rule; None if it was made in Python."""
        return None if self.file is None else f"{self.file}:{self.line}"

    def _parse(self, key: str, parser: Callable[[str], object], entry: str) -> None:
        try:
            parser(entry)
        except PolicyError as error:
            raise self._error(key, error.problem, error.hint) from None

    def _error(self, key: str, problem: str, hint: str | None = None) -> PolicyError:
        return PolicyError(
            f"{problem}, in rule {self.name!r}", file=self.file, line=self.line, key=key, hint=hint
        )


def _listed(operations: Iterable[Operation]) -> str:
    return ", ".join(str(each) for each in Operation if each in operations)


def _one_operation(value: str) -> str:
    to_operations(value)
    return str(value)


@attrs.frozen(kw_only=True)
class PolicyTest:
    """One entry of ``tests:``: what the policy must answer.

    Attributes:
        verdict: ``allow``, ``ask`` or ``deny``.
        operation: An operation, or ``write``: then each of its four must get the verdict.
        path: The file, or the program of an exec; begins with ``/``, ``~`` or ``./``.
        command: The command line of an exec.
        host: Where to connect: ``name:port``, ``address:port``, ``unix:PATH``.
        port: Where to listen: ``port`` or ``address:port``.
        by: Name of the rule that must decide; None for any.
    """

    verdict: str = attrs.field(validator=attrs.validators.in_(VERDICTS))
    operation: str = attrs.field(converter=_one_operation)
    path: str | None = None
    command: str | None = None
    host: str | None = None
    port: str | None = attrs.field(default=None, converter=attrs.converters.optional(str))
    by: str | None = None
    line: int | None = attrs.field(default=None, eq=False)


@attrs.frozen(kw_only=True)
class Decision:
    """What a policy says about one event.

    Attributes:
        verdict: ``allow``, ``ask`` or ``deny``.
        rule: The rule that decided; None for a default and for what is built in.
        reason: ``rule``, ``default`` or ``built-in: …``.
        operation: What was judged.
    """

    verdict: str
    operation: Operation
    rule: Rule | None = None
    reason: str = "rule"

    @property
    def errno(self) -> int:
        """The error that a denial gives: the rule's, else ECONNREFUSED for connect, else EACCES."""
        if self.rule is not None and self.rule.errno is not None:
            return self.rule.errno
        return errno_names.ECONNREFUSED if self.operation is Operation.CONNECT else errno_names.EACCES

    @property
    def message(self) -> str | None:
        """What the rule wants said to people."""
        return None if self.rule is None else self.rule.message

    @property
    def where(self) -> str:
        """Where it is written: ``credentials (agent.yaml:12)``, ``default read: deny``, ``built-in: …``."""
        if self.rule is not None:
            place = self.rule.place
            return f"{self.rule.name} ({os.path.basename(place)})" if place else self.rule.name
        return f"default {self.operation}: {self.verdict}" if self.reason == "default" else self.reason


def _defaults(value: Mapping[Any, str]) -> Mapping[Operation, str]:
    found = dict.fromkeys(Operation, "deny")
    # `write` first, so that the operations it stands for can be named apart beside it.
    for name, verdict in sorted(value.items(), key=lambda item: str(item[0]) != "write"):
        if verdict not in VERDICTS:
            raise PolicyError(
                f"{verdict!r} is not a verdict", key=f"default.{name}", hint="write allow, ask or deny"
            )
        for operation in to_operations(name):
            found[operation] = verdict
    return MappingProxyType(found)


def _audit(_instance: object, _attribute: object, value: object) -> None:
    if value == "required":
        raise PolicyError("`audit: required` is not supported by this version", key="audit")
    if value not in ("all", "denials"):
        raise PolicyError(f"{value!r} is not what can be recorded", key="audit", hint="write all or denials")


def _version(_instance: object, _attribute: object, value: object) -> None:
    if value != 1 or isinstance(value, bool):
        raise PolicyError(f"there is no policy version {value!r}", key="version", hint="write 1")


@attrs.frozen(kw_only=True)
class Policy:
    """Rules and defaults: everything that decides, as a value.

    Equal policies have equal fingerprints. An operation that `default` does not name is denied unless a
    rule speaks.

    Attributes:
        rules: In the order written; the order never decides between verdicts.
        default: The verdict of each operation when no rule speaks; ``write`` may stand for its four.
        tests: What was written under ``tests:``; it held when the policy was loaded.
        audit: ``all`` or ``denials``: what is recorded.
        version: 1.
        source: Where it was loaded from: a path, ``profile:agent``; None if made in Python.
    """

    rules: tuple[Rule, ...] = attrs.field(default=(), converter=_rules)
    default: Mapping[Operation, str] = attrs.field(factory=dict, converter=_defaults, hash=False)
    tests: tuple[PolicyTest, ...] = attrs.field(default=(), converter=_tests)
    audit: str = attrs.field(default="all", validator=_audit)
    version: int = attrs.field(default=1, validator=_version)
    source: str | None = attrs.field(default=None, eq=False)
    _registered: list[Rule] = attrs.field(factory=list, hash=False, repr=False, alias="registered")

    def __attrs_post_init__(self) -> None:
        self._unique(self.effective)

    @staticmethod
    def _unique(rules: Iterable[Rule]) -> None:
        seen: dict[str, Rule] = {}
        for rule in rules:
            first = seen.setdefault(rule.name, rule)
            if first is not rule:
                raise PolicyError(
                    f"the rule name {rule.name!r} is used twice",
                    file=rule.file,
                    line=rule.line,
                    key="name",
                    hint=f"the first one is at {first.place}"
                    if first.place
                    else "give each rule its own name",
                )

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> Policy:
        """Load a file, or a shipped profile by its bare name, and run its tests.

        Raises:
            PolicyError: It cannot be read, is not a valid policy, or one of its tests fails.
        """
        from rampart_seccomp.policy import loader

        return loader.load(source)

    @classmethod
    def loads(cls, text: str, *, source: str = "<string>") -> Policy:
        """Load a policy from YAML text and run its tests.

        Raises:
            PolicyError: It is not a valid policy, or one of its tests fails.
        """
        from rampart_seccomp.policy import loader

        return loader.loads(text, source=source)

    @property
    def effective(self) -> tuple[Rule, ...]:
        """The rules written and those registered with `on`."""
        return (*self.rules, *self._registered)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over everything that equality compares."""
        content = {
            "version": self.version,
            "default": {str(operation): verdict for operation, verdict in self.default.items()},
            "rules": [_content(rule) for rule in self.rules],
            "registered": [_content(rule) for rule in self._registered],
            "tests": [_content(test) for test in self.tests],
            "audit": self.audit,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def with_rules(self, *rules: Rule) -> Policy:
        """Give a policy that has these rules too; what `on` registered is kept.

        Raises:
            PolicyError: A name is used twice.
        """
        return attrs.evolve(self, rules=(*self.rules, *rules), registered=list(self._registered))

    def on(
        self,
        operations: str | Iterable[str],
        *,
        name: str | None = None,
        paths: Any = (),
        commands: Any = (),
        hosts: Any = (),
        ports: Any = (),
        except_: Any = (),
        timeout: float | str | None = None,
    ) -> Callable[[F], F]:
        """Answer questions in code: register an ``ask`` rule whose question the decorated function answers.

        The function, sync or async, gets the event and returns a verdict; it cannot overrule a deny. Rules
        registered here are part of this policy object from then on, and of every broker started with it
        later; a broker that runs already does not see them.

        Args:
            operations: As in a rule.
            name: Name of the rule; None for the function's qualified name.
            paths, commands, hosts, ports, except_, timeout: As in a rule.

        Raises:
            PolicyError: The rule is not valid, or its name is used already.
        """

        def register(decide: F) -> F:
            rule = Rule(
                name=name or _qualified(decide),
                verdict="ask",
                operations=operations,
                paths=paths,
                commands=commands,
                hosts=hosts,
                ports=ports,
                except_=except_,
                timeout=timeout,
                decide=decide,
            )
            self._unique((*self.effective, rule))
            self._registered.append(rule)
            return decide

        return register

    def matcher(
        self, *, home: bytes | None = None, directory: bytes | None = None, protected: Iterable[bytes] = ()
    ) -> Matcher:
        """Bind the policy to a place: what ``~``, ``./`` and the named sets mean is fixed from here on.

        Args:
            home: Home of the launching user; None for ``~`` of this process.
            directory: Launch directory; None for the working directory of this process.
            protected: Paths that nothing in the tree may write, nor anything beneath them.
        """
        from rampart_seccomp.policy.matcher import Matcher

        return Matcher(self, home=home, directory=directory, protected=protected)


def _qualified(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _content(value: Rule | PolicyTest) -> dict[str, Any]:
    """Give the fields that equality compares, as JSON."""
    content: dict[str, Any] = {}
    for field in attrs.fields(type(value)):
        if field.eq:
            part = getattr(value, field.name)
            if isinstance(part, frozenset):
                part = sorted(map(str, part))
            elif callable(part):
                part = f"{getattr(part, '__module__', '')}.{_qualified(part)}"
            content[field.name] = part
    return content
