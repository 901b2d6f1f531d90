"""Classes of words and of paths: none is missed, and each has a word that is in it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.policy import Policy, deny
from rampart_seccomp.policy.analysis import words
from rampart_seccomp.policy.analysis.exploring import explore
from rampart_seccomp.policy.analysis.words import ARGUMENTS, NAMES, VARIABLES, Language, TooLarge
from rampart_seccomp.policy.globs import ANY, Automaton, Tail, Wildcard, component, starred

_texts = st.sampled_from(
    ["a", "b", "ab", "x", ".", "..", "*", "a*", "*b", "*a*", "?", "??", "[ab]", "[!a]", "[!a]*", "a?b"]
)
_some = [bytes(each) for size in range(1, 5) for each in itertools.product(b"abx.", repeat=size)]


def matched(patterns: frozenset[bytes | Wildcard], word: bytes) -> frozenset[bytes | Wildcard]:
    return frozenset(
        each for each in patterns if (each.regex.match(word) if isinstance(each, Wildcard) else each == word)
    )


@strategies.bounded
@given(st.lists(_texts, max_size=6, unique=True))
def test_every_class_of_names(texts: list[str]) -> None:
    """What any name matches is a class, and the name given for a class matches just that."""
    patterns = frozenset(map(component, texts))
    classes = dict(NAMES.classes(patterns))
    assert all(matched(patterns, name) == key for key, name in classes.items())
    assert {matched(patterns, name) for name in _some if name not in (b".", b"..")} <= set(classes)


@pytest.mark.parametrize(
    ("language", "texts", "expected"),
    [
        (NAMES, [], {b"x"}),
        (NAMES, ["*"], {b"x"}),
        (NAMES, ["?", ".", ".."], {b"x", b"xx"}),
        (NAMES, [".*"], {b"x", b".x"}),
        (NAMES, ["x" * 255, "x" * 256], {b"x" * 255, b"x"}),
        (ARGUMENTS, ["a*"], {b"a", b"x"}),
        (ARGUMENTS, ["[a]"], {b"[a]", b"x"}),
        (ARGUMENTS, ["", "*"], {b"", b"x"}),
        (VARIABLES, ["LD_*", "LD_PRELOAD"], {b"x", b"LD_", b"LD_PRELOAD"}),
    ],
)
def test_shortest(language: Language, texts: list[str], expected: set[bytes]) -> None:
    """Words are shortest ones of their language; there is no name `.`, none of 256 bytes, no empty one."""
    make = component if language.globbing else lambda text: starred(text.encode())
    assert expected == {word for _, word in language.classes(frozenset(map(make, texts)))}  # type: ignore[arg-type]


def test_too_many_kinds_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that does not end soon says so."""
    monkeypatch.setattr(words, "STATES_MAX", 100)
    patterns = [f"*{one}{two}*" for one in "abcd" for two in "efgh"]
    with pytest.raises(TooLarge, match="100 beginnings"):
        NAMES.classes(frozenset(map(component, patterns)))  # type: ignore[arg-type]


@strategies.bounded
@given(st.lists(strategies.patterns(), min_size=1, max_size=4), st.lists(strategies.paths(), max_size=8))
def test_every_class_of_paths(texts: list[str], paths: list[bytes]) -> None:
    """What any path matches is found, with a path that matches just that."""
    rules = [deny("read", paths=[text], name=f"r{number}") for number, text in enumerate(texts)]
    matcher = Policy(rules=rules).matcher(home=strategies.HOME, directory=strategies.DIRECTORY)
    found = dict(explore(matcher.automaton.patterns(), NAMES))
    relevant = {slot for _, slot in matcher.automaton.patterns()}
    assert relevant
    for mask, names in found.items():
        assert mask == matcher.automaton.walk(b"/" + b"/".join(names)).mask
    assert {matcher.automaton.walk(path).mask for path in paths} <= set(found)


def test_shortest_paths() -> None:
    """The path is one with the fewest names, and of these the shortest."""
    patterns: list[tuple[Tail, int]] = [((b"a", ANY, b"long"), 1), ((ANY, Wildcard(b"b*", (b"b", b""))), 2)]
    assert dict(explore(patterns, NAMES)) == {0: (), 1: (b"a", b"long"), 2: (b"b",)}
    assert dict(explore(patterns, NAMES, least=1)) == {0: (b"a",), 1: (b"a", b"long"), 2: (b"b",)}
    assert Automaton(patterns).walk(b"/a/long").mask == 1
