"""Which environment variables a command starts with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import AnyStr, Protocol

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.globs import ANY, Component, Wildcard, component

__all__ = [
    "AnyEnvironment",
    "Environment",
    "StackedEnvironment",
    "check_name",
    "check_variable",
    "matches_name",
]


class AnyEnvironment(Protocol):
    """What changes the variables at the start of a command."""

    @property
    def patterns(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """Layers of patterns: what is dropped, and what is passed all the same."""

    def apply(self, variables: Mapping[AnyStr, AnyStr]) -> dict[AnyStr, AnyStr]:
        """Give the variables that the command starts with."""


def _names(value: Iterable[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen(kw_only=True)
class Environment:
    """Variables that are dropped at the start of a command; the others are passed unchanged.

    Attributes:
        drop: Patterns of names, with ``*``, ``?`` and ``[...]``.
        pass_: Patterns of names that are passed although `drop` matches them.
    """

    drop: tuple[str, ...] = attrs.field(default=(), converter=_names)
    pass_: tuple[str, ...] = attrs.field(default=(), converter=_names)

    def __attrs_post_init__(self) -> None:
        for key, texts in (("drop", self.drop), ("pass", self.pass_)):
            for index, text in enumerate(texts):
                try:
                    check_name(text)
                except PolicyError as error:
                    place = f"environment.{key}[{index}]"
                    raise PolicyError(error.problem, key=place, hint=error.hint) from None
        if self.pass_ and not self.drop:
            raise PolicyError(
                "`pass` means nothing without `drop`",
                key="environment.pass",
                hint='all variables are passed unless dropped; write drop: ["*"] to pass these only',
            )

    @property
    def patterns(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """What is dropped, and what is passed all the same; nothing if nothing is dropped."""
        return ((self.drop, self.pass_),) if self.drop else ()

    def apply(self, variables: Mapping[AnyStr, AnyStr]) -> dict[AnyStr, AnyStr]:
        """Give the variables that the command starts with. The mapping itself is not changed."""
        drop = [component(text) for text in self.drop]
        keep = [component(text) for text in self.pass_]
        return {
            name: value
            for name, value in variables.items()
            if not matches_name(drop, os.fsencode(name)) or matches_name(keep, os.fsencode(name))
        }


@attrs.frozen(repr=False)
class StackedEnvironment:
    """The environments of a stack: what one layer drops, no other brings back."""

    layers: tuple[AnyEnvironment, ...]

    @property
    def patterns(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """The patterns of each layer in turn."""
        return tuple(pair for layer in self.layers for pair in layer.patterns)

    def apply(self, variables: Mapping[AnyStr, AnyStr]) -> dict[AnyStr, AnyStr]:
        """Give the variables that every layer passes."""
        passed = dict(variables)
        for layer in self.layers:
            passed = layer.apply(passed)
        return passed


def check_name(text: str) -> None:
    """Check one pattern of variables' names.

    Raises:
        PolicyError: No variable can have such a name.
    """
    if not text or "=" in text or "\0" in text:
        raise PolicyError(f"{text!r} is not the name of a variable", hint="write the name alone: 'AWS_*'")
    if component(text) == ANY:
        raise PolicyError("'**' has no meaning in the name of a variable", hint="write '*'")


def check_variable(text: str) -> None:
    """Check the name of one variable; there are no patterns.

    Raises:
        PolicyError: No variable has such a name, or it is a pattern.
    """
    check_name(text)
    if isinstance(component(text), Wildcard):
        raise PolicyError(f"{text!r} is a pattern", hint="name one variable, such as LD_PRELOAD")


def matches_name(patterns: Iterable[Component], name: bytes) -> bool:
    """Say whether a variable's name matches one of the patterns."""
    return any(
        pattern.regex.match(name) is not None if isinstance(pattern, Wildcard) else pattern == name
        for pattern in patterns
    )
