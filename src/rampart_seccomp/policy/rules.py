"""Rules and tests of a policy, as frozen values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy.exemptions import (
    CONDITIONS,
    KINDS,
    Except,
    Exemption,
    problems,
    to_excepts,
    to_texts,
)
from rampart_seccomp.policy.terms import VERDICTS, to_errno, to_operations, to_seconds
from rampart_seccomp.verdicts import Redirect, Verdict

__all__ = ["CONDITIONS", "KINDS", "Decide", "PolicyTest", "Rule"]

Decide = Callable[[Any], Verdict | Awaitable[Verdict]]


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
        env: Names of variables that an exec adds or changes.
        programs: Path patterns of the acting program's image.
        within: Commands beneath whose exec the acting program runs.
        except_: What the rule is silent about: patterns of its own kind, and `Exemption` values (or
            mappings) with conditions.
        message: Said to people when the rule denies or asks.
        errno: The error a denial gives; None for the usual one.
        timeout: Seconds until an unanswered question is a denial; None for the broker's own.
        log: Record what the rule allows even if the policy records denials only.
        decide: Answers the question of an ``ask`` rule instead of a person.
        redirect: What is shown in place of the files, or reached in place of the hosts, whatever else allows
            to read or reach them; in a rule that allows ``read``, or ``connect``, and nothing else.
        reason: Why the rule is there, in one line.
        file: File the rule was read from; None for a rule made in Python.
        line: Its line there, from 1.
    """

    name: str
    verdict: str = attrs.field(validator=attrs.validators.in_(VERDICTS))
    operations: frozenset[Operation] = attrs.field(converter=to_operations)
    paths: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    commands: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    hosts: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    ports: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    env: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    programs: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    within: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    except_: tuple[Except, ...] = attrs.field(default=(), converter=to_excepts)
    message: str | None = None
    errno: int | None = attrs.field(default=None, converter=to_errno)
    timeout: float | None = attrs.field(default=None, converter=to_seconds)
    log: bool = True
    decide: Decide | None = None
    redirect: Redirect | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(Redirect))
    )
    reason: str | None = None
    file: str | None = attrs.field(default=None, eq=False)
    line: int | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.name:
            raise PolicyError("a rule has no name", file=self.file, line=self.line, key="name")
        for key, (operations, parser) in CONDITIONS.items():
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
        for index, entry in enumerate(self.except_):
            if isinstance(entry, Exemption):
                for key, problem, hint in problems(entry, self.operations):
                    raise self._error(f"except[{index}].{key}", problem, hint)
            else:
                self._parse(f"except[{index}]", KINDS[self.kind][1], entry)
        for key, verdicts in (("timeout", "ask"), ("decide", "ask"), ("errno", "ask deny")):
            if getattr(self, key) is not None and self.verdict not in verdicts.split():
                raise self._error(key, f"`{key}` means nothing in a rule that says {self.verdict}")
        if self.redirect is not None:
            self._check_redirect(self.redirect)

    def _check_redirect(self, redirect: Redirect) -> None:
        if self.verdict != "allow" or self.operations not in ({Operation.READ}, {Operation.CONNECT}):
            problem = "only reading, or only connecting, can be redirected"
            hint = "write `allow: read` or `allow: connect`, and other rules for the rest"
            raise self._error("redirect", problem, hint)
        if self.operations != {redirect.operation}:
            connecting = self.operations == {Operation.CONNECT}
            what, to = ("connection", "'127.0.0.1:8443'") if connecting else ("file", "FILE")
            problem = f"a {what} cannot be redirected {redirect}"
            raise self._error("redirect", problem, f"write redirect: {{to: {to}}}")
        if Operation.CONNECT in self.operations:
            self._check_redirected_hosts()

    def _check_redirected_hosts(self) -> None:
        # Without `hosts` a rule is also about unix sockets, of which none can be connected to an address.
        if not self.hosts:
            problem = "a rule that redirects connections names their `hosts`"
            hint = "for all of them write hosts: ['*', '0.0.0.0/0', '::/0']"
            raise self._error("redirect", problem, hint)
        for index, text in enumerate(self.hosts):
            if text.startswith("unix:"):
                problem = f"a connection to {text!r} cannot be redirected: unix sockets know no addresses"
                raise self._error(f"hosts[{index}]", problem, "make a rule of its own for it")

    @property
    def restricts(self) -> bool:
        """True if it keeps anything back: it asks, denies, or gives something else than was asked for."""
        return self.verdict != "allow" or self.redirect is not None

    @property
    def level(self) -> int:
        """Place in `VERDICTS` above which another rule leaves this one nothing to say.

        What is asked about is shown as a redirect says, too.
        """
        return VERDICTS.index(self.verdict if self.redirect is None else "ask")

    @property
    def kind(self) -> str:
        """The key whose entries plain patterns of ``except`` are written like.

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
                "make one rule for each kind, or name the key: {paths: [...]}",
            )
        return used[0]

    @property
    def excepted(self) -> tuple[Exemption, ...]:
        """The exceptions, each with its conditions; the plain patterns are the first."""
        plain = tuple(entry for entry in self.except_ if isinstance(entry, str))
        named = tuple(entry for entry in self.except_ if isinstance(entry, Exemption))
        return (Exemption(**{self.kind: plain}), *named) if plain else named

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


@attrs.frozen(kw_only=True, repr=False)
class PolicyTest:
    """One entry of ``tests:``: what the policy must answer.

    Attributes:
        verdict: ``allow``, ``ask`` or ``deny``.
        operation: An operation, or ``write``: then each of its four must get the verdict.
        path: The file, or the program of an exec; begins with ``/``, ``~`` or ``./``.
        command: The command line of an exec.
        host: Where to connect: ``name:port``, ``address:port``, ``unix:PATH``.
        port: Where to listen: ``port`` or ``address:port``.
        program: Path of the program that acts; None: it is unknown, unless `within` says it.
        within: The command line beneath whose exec it acts; without `program`, that command acts itself.
        env: Names of the variables that an exec adds or changes.
        by: Name of the rule that must decide; None for any.
        redirect: What must be shown, or reached, instead; False: nothing else. None: whatever there is.
    """

    verdict: str = attrs.field(validator=attrs.validators.in_(VERDICTS))
    operation: str = attrs.field(converter=_one_operation)
    path: str | None = None
    command: str | None = None
    host: str | None = None
    port: str | None = attrs.field(default=None, converter=attrs.converters.optional(str))
    program: str | None = None
    within: str | None = None
    env: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    by: str | None = None
    redirect: Redirect | bool | None = None
    line: int | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.redirect not in (None, False) and not isinstance(self.redirect, Redirect):
            hint = "write redirect: {to: ...}, {mask: values} or false"
            raise PolicyError(f"{self.redirect!r} is no redirect", key="redirect", hint=hint)
        if self.redirect is not None and self.verdict == "deny":
            raise PolicyError("what is denied is not redirected either", key="redirect", hint="leave it out")
