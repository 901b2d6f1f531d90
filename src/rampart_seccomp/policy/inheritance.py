"""``extends``: inheritance by the same author. Rules unite; of the rest, what the nearer file says wins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.structure import Draft, Extension, Place
from rampart_seccomp.policy.walking import suggestion

__all__ = ["unite"]

T = TypeVar("T")


def unite(own: Draft, bases: Sequence[tuple[Extension, Draft]]) -> Draft:
    """Give one draft that says what the file and everything it extends say together.

    A later entry of ``extends`` is nearer than an earlier one, and the file itself the nearest. Tests are not
    inherited: they held for what was extended, before it was amended.

    Args:
        own: The file.
        bases: The entries of its ``extends``, each with what it stands for, itself united.

    Raises:
        PolicyError: An amendment names no rule or does not fit it, or two rules have one name.
    """
    if not bases:
        return own
    united = Draft(file=own.file, version=own.version, tests=own.tests, lines=own.lines)
    rules: dict[str, Rule] = {}
    for extension, base in bases:
        for rule in _amended(own.file, extension, base):
            first = rules.setdefault(rule.name, rule)
            # The same rule may come twice, by two ways.
            if first != rule or first.place != rule.place:
                raise _twice(own.file, extension.target, rule, first)
        _add(united, base, {place.text for place in extension.without})
    for index, rule in enumerate(own.rules):
        first = rules.setdefault(rule.name, rule)
        if first is not rule:
            place = Place(rule.name, rule.line or 0, f"rules[{index}].name")
            raise _twice(own.file, place, rule, first)
    _add(united, own)
    united.rules = list(rules.values())
    return united


def _add(united: Draft, nearer: Draft, without: Collection[str] = ()) -> None:
    united.default.update(nearer.default)
    united.places.update(nearer.places)
    united.audit = united.audit if nearer.audit is None else nearer.audit
    united.limits.update(nearer.limits)
    united.linger = united.linger if nearer.linger is None else nearer.linger
    united.names = united.names if nearer.names is None else nearer.names
    united.grants = _distinct(united.grants, nearer.grants)
    united.drop = _distinct(united.drop, nearer.drop)
    united.pass_ = _distinct(united.pass_, nearer.pass_)
    united.features = _distinct(united.features, [name for name in nearer.features if name not in without])


def _distinct(first: list[T], more: list[T]) -> list[T]:
    return list(dict.fromkeys((*first, *more)))


def _amended(file: str, extension: Extension, base: Draft) -> list[Rule]:
    """Give the inherited rules as the extending file wants them."""
    found = {rule.name: rule for rule in base.rules}
    names = tuple(found)
    for place in extension.without:
        _known(file, place, (*names, *base.features))
        if place.text in names and place.text in base.features:
            raise PolicyError(
                f"{place.text!r} is a rule and a feature of what is extended",
                file=file,
                line=place.line,
                key=place.key,
                hint="give the rule another name",
            )
        found.pop(place.text, None)
    for place, patterns in extension.excepts:
        _known(file, place, names)
        rule = found.get(place.text)
        if rule is None:
            raise PolicyError(
                f"the rule {place.text!r} is both amended and left out",
                file=file,
                line=place.line,
                key=place.key,
            )
        try:
            found[place.text] = attrs.evolve(rule, except_=tuple(dict.fromkeys((*rule.except_, *patterns))))
        except PolicyError as error:
            raise PolicyError(
                error.problem, file=file, line=place.line, key=place.key, hint=error.hint
            ) from None
    return list(found.values())


def _known(file: str, place: Place, names: tuple[str, ...]) -> None:
    if place.text not in names:
        hint = suggestion(place.text, names, "rules") if names else None
        raise PolicyError(
            f"there is no rule {place.text!r} in what is extended",
            file=file,
            line=place.line,
            key=place.key,
            hint=hint,
        )


def _twice(file: str, place: Place, rule: Rule, first: Rule) -> PolicyError:
    return PolicyError(
        f"the rule name {rule.name!r} is used twice",
        file=file,
        line=place.line,
        key=place.key,
        hint=f"the first one is at {first.place}; to replace it, extend that by `without: [{rule.name}]`",
    )
