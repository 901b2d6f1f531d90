"""Rules in Python: ``allow("write", paths=["./**"])``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.policy.rules import CONDITIONS, Decide, Rule
from rampart_seccomp.policy.terms import to_operations

__all__ = ["allow", "ask", "deny"]

Operations = str | Iterable[str]
Patterns = str | Iterable[Any] | None
Excepts = Patterns | Exemption


def allow(
    operations: Operations,
    *,
    name: str | None = None,
    paths: Patterns = None,
    commands: Patterns = None,
    hosts: Patterns = None,
    ports: Patterns | int = None,
    env: Patterns = None,
    programs: Patterns = None,
    within: Patterns = None,
    except_: Excepts = None,
    **extra: Any,
) -> Rule:
    """Make a rule that allows.

    Args:
        operations: An operation, or several; ``write`` stands for four.
        name: Unique name; None derives one from the content.
        paths, commands, hosts, ports, env, programs, within: One pattern or several; None for no such
            condition.
        except_: What the rule is silent about: patterns, and `Exemption` values or mappings.
        extra: Other fields of `Rule`.

    Raises:
        PolicyError: The rule is not valid. An empty list of patterns is not: it would cover everything.
    """
    given = _given(paths, commands, hosts, ports, env, programs, within, except_)
    return _rule("allow", operations, name, given, extra)


def deny(
    operations: Operations,
    *,
    name: str | None = None,
    paths: Patterns = None,
    commands: Patterns = None,
    hosts: Patterns = None,
    ports: Patterns | int = None,
    env: Patterns = None,
    programs: Patterns = None,
    within: Patterns = None,
    except_: Excepts = None,
    **extra: Any,
) -> Rule:
    """Make a rule that denies; arguments as for `allow`."""
    given = _given(paths, commands, hosts, ports, env, programs, within, except_)
    return _rule("deny", operations, name, given, extra)


def ask(
    operations: Operations,
    *,
    name: str | None = None,
    paths: Patterns = None,
    commands: Patterns = None,
    hosts: Patterns = None,
    ports: Patterns | int = None,
    env: Patterns = None,
    programs: Patterns = None,
    within: Patterns = None,
    except_: Excepts = None,
    decide: Decide | None = None,
    **extra: Any,
) -> Rule:
    """Make a rule that asks; arguments as for `allow`, and ``decide`` to answer in code."""
    given = _given(paths, commands, hosts, ports, env, programs, within, except_)
    return _rule("ask", operations, name, given, {**extra, "decide": decide})


def _given(*values: Excepts | int) -> dict[str, Any]:
    return dict(zip((*CONDITIONS, "except_"), values, strict=True))


def _rule(
    verdict: str, operations: Operations, name: str | None, given: dict[str, Any], extra: dict[str, Any]
) -> Rule:
    operations = to_operations(operations)
    rule = Rule(
        name=name or "unnamed",
        verdict=verdict,
        operations=operations,
        **{key: value for key, value in given.items() if value is not None},
        **extra,
    )
    for key, value in given.items():
        if value is not None and not getattr(rule, key):
            raise PolicyError(
                f"`{key.rstrip('_')}` is empty",
                key=f"rule {rule.name!r}",
                hint="leave it out to cover the whole operation",
            )
    if name is not None:
        return rule
    words = [verdict, ",".join(str(each) for each in Operation if each in operations)]
    words += [entry for key in CONDITIONS for entry in getattr(rule, key)]
    if rule.except_:
        words += ["except", *map(str, rule.except_)]
    return attrs.evolve(rule, name=" ".join(words))
