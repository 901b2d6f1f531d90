"""Exceptions with conditions of their own: a mapping under ``except:``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy.commands import parse_command
from rampart_seccomp.policy.environment import check_name
from rampart_seccomp.policy.globs import parse
from rampart_seccomp.policy.hosts import parse_host, parse_local
from rampart_seccomp.policy.terms import FILE_OPERATIONS

__all__ = ["CONDITIONS", "KINDS", "Except", "Exemption", "problems", "to_excepts", "to_texts"]

Kinds = Mapping[str, tuple[frozenset[Operation], Callable[[str], object]]]

KINDS: Kinds = MappingProxyType(
    {
        "paths": (FILE_OPERATIONS | {Operation.EXEC}, parse),
        "commands": (frozenset({Operation.EXEC}), parse_command),
        "hosts": (frozenset({Operation.CONNECT}), parse_host),
        "ports": (frozenset({Operation.LISTEN}), parse_local),
    }
)
"""The keys that match an object: the operations they apply to, and the parser of their entries."""

CONDITIONS: Kinds = MappingProxyType(
    {
        **KINDS,
        "env": (frozenset({Operation.EXEC}), check_name),
        "programs": (frozenset(Operation), parse),
        "within": (frozenset(Operation), parse_command),
    }
)
"""All keys that match: what is done to which object, and who does it."""


def _text(value: Any) -> str:
    return str(value) if isinstance(value, int) else os.fsdecode(value)


def to_texts(value: Any) -> tuple[str, ...]:
    """Give one entry, or several, as texts."""
    if isinstance(value, (str, bytes, os.PathLike, int)):
        return (_text(value),)
    return tuple(map(_text, value))


@attrs.frozen(kw_only=True, repr=False)
class Exemption:
    """Conditions under which a rule is silent: alternatives within a key, all of them across keys.

    Attributes:
        paths, commands, hosts, ports, env, programs, within: As in a rule; at least one has entries.
    """

    paths: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    commands: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    hosts: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    ports: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    env: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    programs: tuple[str, ...] = attrs.field(default=(), converter=to_texts)
    within: tuple[str, ...] = attrs.field(default=(), converter=to_texts)

    def __attrs_post_init__(self) -> None:
        if not self.given:
            raise PolicyError(
                "the exception has no conditions", hint="write patterns, or take the exception out"
            )

    @property
    def given(self) -> Mapping[str, tuple[str, ...]]:
        """The keys that have entries, with them."""
        return {key: getattr(self, key) for key in CONDITIONS if getattr(self, key)}

    def __str__(self) -> str:
        return ", ".join(f"{key} {' '.join(entries)}" for key, entries in self.given.items())


Except = str | Exemption


def to_excepts(value: Any) -> tuple[Except, ...]:
    """Give the entries of ``except``: texts, mappings and `Exemption` values; one, or several.

    Raises:
        PolicyError: A mapping has a key that is no condition, or none at all.
    """
    if isinstance(value, (str, bytes, os.PathLike, int, Mapping, Exemption)):
        return (_except(value),)
    return tuple(map(_except, value))


def _except(value: Any) -> Except:
    if isinstance(value, Exemption):
        return value
    if isinstance(value, Mapping):
        unknown = next((key for key in value if key not in CONDITIONS), None)
        if unknown is not None:
            raise PolicyError(
                f"an exception has no key {unknown!r}",
                key="except",
                hint=f"the keys are {', '.join(CONDITIONS)}",
            )
        _not_empty(value.items())
        return Exemption(**value)
    return _text(value)


def _not_empty(items: Iterable[tuple[str, Any]]) -> None:
    for key, entries in items:
        if not to_texts(entries):
            raise PolicyError(f"`{key}` of an exception is empty", key="except", hint="leave it out")


def problems(entry: Exemption, operations: frozenset[Operation]) -> Iterator[tuple[str, str, str | None]]:
    """Give what is wrong with an exception of a rule on these operations: key, problem and hint."""
    for key, entries in entry.given.items():
        applies, parser = CONDITIONS[key]
        strangers = operations - applies
        if strangers:
            listed = ", ".join(str(each) for each in Operation if each in strangers)
            yield key, f"`{key}` does not apply to {listed}", "make a second rule for the other operations"
        for index, text in enumerate(entries):
            try:
                parser(text)
            except PolicyError as error:
                yield f"{key}[{index}]", error.problem, error.hint
