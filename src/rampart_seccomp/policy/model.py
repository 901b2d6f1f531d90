"""What a policy is: a frozen value. YAML is one way to write it down, Python is another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy.answering import Names, to_names
from rampart_seccomp.policy.environment import Environment
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.policy.features import to_features
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.limits import Limits
from rampart_seccomp.policy.rules import CONDITIONS, Decide, PolicyTest, Rule
from rampart_seccomp.policy.terms import VERDICTS, to_operations
from rampart_seccomp.verdicts import Redirect

if TYPE_CHECKING:
    from rampart_seccomp.policy.matcher import Matcher
    from rampart_seccomp.policy.stack import Stack

__all__ = ["Policy"]

F = TypeVar("F", bound=Decide)


def _rules(value: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(value)


def _tests(value: Iterable[PolicyTest]) -> tuple[PolicyTest, ...]:
    return tuple(value)


def _grants(value: Iterable[Grant]) -> tuple[Grant, ...]:
    return tuple(value)


def _places(value: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(value))


def _files(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


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


AUDITS = ("denials", "all", "required")
"""What goes on record, the strictest last."""


def _audit(_instance: object, _attribute: object, value: object) -> None:
    if value not in AUDITS:
        hint = f"write {', '.join(AUDITS[:-1])} or {AUDITS[-1]}"
        raise PolicyError(f"{value!r} is not what can be recorded", key="audit", hint=hint)


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
        grants: What is allowed although a rule asks.
        environment: Which variables a command starts with.
        features: Families of system calls that are opened by name, such as ``sysv-ipc``; none if not given.
        limits: What a tree may use up.
        linger: Whether what a command leaves running lives until its broker is closed.
        names: What a look-up of a name is answered with: ``resolved``, ``synthetic`` or a mapping, as in a
            file; held as `Names`.
        tests: What was written under ``tests:``; it held when the policy was loaded.
        audit: ``all`` or ``denials``: what is recorded.
        version: 1.
        source: Where it was loaded from: a path, ``profile:agent``; None if made in Python.
        files: Absolute names of all files that it was read from, as named and as they really are.
        places: ``file:line`` of what is no rule, such as ``default.read``.
    """

    rules: tuple[Rule, ...] = attrs.field(default=(), converter=_rules)
    default: Mapping[Operation, str] = attrs.field(factory=dict, converter=_defaults, hash=False)
    grants: tuple[Grant, ...] = attrs.field(default=(), converter=_grants)
    environment: Environment = attrs.field(factory=Environment)
    features: frozenset[str] = attrs.field(default=frozenset(), converter=to_features)
    limits: Limits = attrs.field(factory=Limits)
    linger: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    names: Names = attrs.field(factory=Names, converter=to_names, repr=str)
    tests: tuple[PolicyTest, ...] = attrs.field(default=(), converter=_tests)
    audit: str = attrs.field(default="all", validator=_audit)
    version: int = attrs.field(default=1, validator=_version)
    source: str | None = attrs.field(default=None, eq=False)
    files: tuple[str, ...] = attrs.field(default=(), converter=_files, eq=False)
    places: Mapping[str, str] = attrs.field(factory=dict, converter=_places, eq=False, repr=False)
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

    @staticmethod
    def stack(*layers: Policy | Stack) -> Stack:
        """Put policies on top of each other: each is evaluated alone, and the strictest verdict wins.

        Args:
            layers: The authorities, the highest first; what is a stack already adds all its layers.

        Raises:
            PolicyError: There is none.
        """
        from rampart_seccomp.policy.stack import Stack

        return Stack(layers)

    def dumps(self) -> str:
        """Write the policy as YAML text, complete in itself: `loads` of it gives an equal policy.

        Raises:
            PolicyError: It cannot be written as one file: it has callables, or what a file must not have,
                such as a rule that never decides.
        """
        from rampart_seccomp.policy import writing

        return writing.dumps(self)

    @property
    def layers(self) -> tuple[Policy, ...]:
        """The policies that are evaluated alone: this one. A stack has several."""
        return (self,)

    def unrestricted(self, operation: Operation) -> bool:
        """Say whether the operation is certainly allowed on every object."""
        rules = [rule for rule in self.effective if operation in rule.operations]
        if any(rule.restricts for rule in rules):
            return False
        open_to_all = any(not any(getattr(rule, key) for key in (*CONDITIONS, "except_")) for rule in rules)
        return open_to_all or (self.default[operation] == "allow" and operation is not Operation.CONNECT)

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
            "grants": [_content(grant) for grant in self.grants],
            "environment": attrs.asdict(self.environment),
            "features": sorted(self.features),
            "limits": attrs.asdict(self.limits),
            "linger": self.linger,
            "names": str(self.names),
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

    def with_grants(self, *grants: Grant) -> Policy:
        """Give a policy that has these grants too, as read from an overrides file or given by a person."""
        found = tuple(dict.fromkeys((*self.grants, *grants)))
        files = (*self.files, *(os.path.abspath(grant.file) for grant in grants if grant.file))
        return attrs.evolve(self, grants=found, files=files, registered=list(self._registered))

    def on(
        self,
        operations: str | Iterable[str],
        *,
        name: str | None = None,
        paths: Any = (),
        commands: Any = (),
        hosts: Any = (),
        ports: Any = (),
        env: Any = (),
        programs: Any = (),
        within: Any = (),
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
            paths, commands, hosts, ports, env, programs, within, except_, timeout: As in a rule.

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
                env=env,
                programs=programs,
                within=within,
                except_=except_,
                timeout=timeout,
                decide=decide,
            )
            self._unique((*self.effective, rule))
            self._registered.append(rule)
            return decide

        return register

    def matcher(
        self,
        *,
        home: bytes | None = None,
        directory: bytes | None = None,
        protected: Iterable[bytes] = (),
        planted: Iterable[bytes] = (),
        substitutes: Iterable[bytes] = (),
    ) -> Matcher:
        """Bind the policy to a place: what ``~``, ``./`` and the named sets mean is fixed from here on.

        Args:
            home: Home of the launching user; None for ``~`` of this process.
            directory: Launch directory; None for the working directory of this process.
            protected: Rampart's own files: nothing in the tree may write them, nor anything beneath them.
            planted: The same for directories with code that the harness runs.
            substitutes: Real paths of files of which the broker gives a version of its own if a rule or
                grant names a host.
        """
        from rampart_seccomp.policy.matcher import Matcher

        return Matcher(
            self,
            home=home,
            directory=directory,
            protected=protected,
            planted=planted,
            substitutes=substitutes,
        )


def _qualified(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _content(value: Rule | PolicyTest | Grant) -> dict[str, Any]:
    """Give the fields that equality compares, as JSON."""
    content: dict[str, Any] = {}
    for field in attrs.fields(type(value)):
        if field.eq:
            part = getattr(value, field.name)
            if isinstance(part, frozenset):
                part = sorted(map(str, part))
            elif isinstance(part, Redirect):
                part = [str(part), None if part.content is None else part.content.hex()]
            elif isinstance(part, bytes):
                part = os.fsdecode(part)
            elif isinstance(part, tuple):
                part = [
                    dict(each.given) if isinstance(each, Exemption) else os.fsdecode(each) for each in part
                ]
            elif callable(part):
                part = f"{getattr(part, '__module__', '')}.{_qualified(part)}"
            content[field.name] = part
    return content
