"""Names that the tables do not tell apart are no reason to refuse a rename or a symbolic link."""

from __future__ import annotations

import itertools
import os

import pytest
from compiled import Compiled
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from rampart_seccomp.policy import AnyPolicy, Grant, Policy, allow, deny
from rampart_seccomp.policy.planting import plants
from strategies import DIRECTORY, HOME

PLACE = {"home": HOME, "directory": DIRECTORY}


@given(strategies.stacks(), strategies.paths(), strategies.paths(2), strategies.names, st.booleans())
@settings(max_examples=300)
def test_what_is_alike_neither_widens_nor_plants(
    policy: AnyPolicy, one: bytes, far: bytes, name: bytes, sibling: bool
) -> None:
    """The reference finds nothing lost between such names, for whatever is there, and no link watched."""
    matcher = policy.matcher(**PLACE)
    compiled = Compiled(matcher)
    above = one.rpartition(b"/")[0] or b"/"
    other = os.path.join(above, name) if sibling else far
    if compiled.alike(one, other):
        for directory, program in itertools.product((False, True), repeat=2):
            assert matcher.widens(one, other, directory=directory, program=program) is None
    if compiled.unwatched(one):
        assert plants(matcher, one, far) is None


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (b"/w/a", b"/w/b", True),
        (b"/w/a", b"/w/c/d", True),
        (b"/w/a", b"/w/.env", False),
        (b"/w/a", b"/w/.git", False),  # hooks may lie beneath
        (b"/w/.git/a", b"/w/.git/b", True),
        (b"/w/.git/a", b"/w/.git/hooks", False),
        (b"/w/a", b"/x", False),
        (b"/x/s", b"/x/t", False),  # a socket that a rule is about
        (b"/bin/p", b"/bin/q", False),  # an image that a rule is about
        (b"/bin/r", b"/bin/q", False),  # another one
    ],
)
def test_what_tells_names_apart(one: bytes, other: bytes, alike: bool) -> None:
    """Names are told apart by every pattern, of whatever it is about."""
    policy = Policy(
        rules=[
            allow(["read", "write"], paths=["/w/**"], name="work"),
            deny("read", paths=["/w/**/.env"], name="secrets"),
            deny("write", paths=["/w/**/.git/hooks/**"], name="hooks"),
            allow("connect", hosts=["unix:/x/s"], name="socket"),
            allow("read", paths=["/y"], programs=["/bin/p"], name="program"),
            allow("read", paths=["/z"], within=["/bin/r **"], name="within"),
        ]
    )
    compiled = Compiled(policy.matcher(**PLACE))
    assert compiled.alike(one, other) is alike
    assert compiled.alike(other, one) is alike


@pytest.mark.parametrize(
    "grant",
    [
        Grant(operation="read", path="/w/a"),
        Grant(operation="connect", host="unix:/w/a"),
        Grant(operation="exec", path="/w/a", command=("a",)),
    ],
    ids=["read", "connect", "exec"],
)
def test_grants_are_for_single_names(grant: Grant) -> None:
    """Where anything was granted, names are compared elsewhere."""
    rules = [allow(["read", "write"], paths=["/w/**"], name="work")]
    assert Compiled(Policy(rules=rules).matcher(**PLACE)).alike(b"/w/a", b"/w/b")
    assert not Compiled(Policy(rules=rules, grants=[grant]).matcher(**PLACE)).alike(b"/w/a", b"/w/b")


@pytest.mark.parametrize(
    ("name", "unwatched"),
    [
        (b"/w/a", True),
        (b"/w/a/b", True),
        (b"/w/.git", False),
        (b"/w/.git/hooks", False),
        (b"/x", False),
        (b"/y", True),
    ],
)
def test_what_rules_watch(name: bytes, unwatched: bool) -> None:
    """A name is watched where some rule about what is beneath it has come further than at other names."""
    policy = Policy(
        rules=[
            allow(["read", "write"], paths=["/w/**"], name="work"),
            deny("write", paths=["/w/**/.git/hooks/**"], name="hooks"),
            allow("read", paths=["/x/y"], name="other"),
        ]
    )
    assert Compiled(policy.matcher(**PLACE)).unwatched(name) is unwatched
