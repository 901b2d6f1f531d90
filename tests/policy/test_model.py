"""Policies as values: builders, equality, fingerprints, registered handlers."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import Policy, Rule, allow, ask, deny


@strategies.bounded
@given(strategies.policies(), strategies.policies())
def test_fingerprints(one: Policy, other: Policy) -> None:
    """Policies are equal exactly if their fingerprints are; a source does not count."""
    assert (one == other) == (one.fingerprint == other.fingerprint)
    moved = attrs.evolve(one, source="elsewhere", registered=[])
    assert one == moved
    assert (one.fingerprint, hash(one)) == (moved.fingerprint, hash(moved))


def test_any_change_shows() -> None:
    """Each field of a rule is part of the fingerprint; where it was read is not."""
    rule = Rule(name="r", verdict="ask", operations="exec", commands=["x"])
    changes = [
        {"name": "s"},
        {"verdict": "deny"},
        {"commands": ["y"]},
        {"except_": ["x y"]},
        {"message": "m"},
        {"errno": 2},
        {"timeout": 5},
        {"log": False},
        {"decide": print},
        {"reason": "because"},
    ]
    policies = [Policy(rules=[rule]), *(Policy(rules=[attrs.evolve(rule, **change)]) for change in changes)]
    assert len(policies) == len({policy.fingerprint for policy in policies})
    assert Policy(rules=[rule]) == Policy(rules=[attrs.evolve(rule, file="x", line=3)])


def test_frozen() -> None:
    """Nothing of a policy can be changed."""
    policy = Policy(rules=[allow("read")])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        policy.rules = ()
    with pytest.raises(TypeError):
        policy.default["read"] = "allow"


def test_builders() -> None:
    """A rule written in Python may be as short as it reads; a name is derived if none is given."""
    rule = allow(["read", "write"], paths="./**", except_=["./x"])
    assert rule.name == "allow read,create,modify,delete,metadata ./** except ./x"
    assert rule == Rule(
        name=rule.name, verdict="allow", operations=["read", "write"], paths=["./**"], except_=["./x"]
    )
    assert deny("listen", ports=8000).ports == ("8000",)
    assert ask("exec", commands=(each for each in ["a", "b"]), timeout="1m").commands == ("a", "b")
    assert allow("read", paths=[b"/\xff"]).paths == ("/\udcff",)


@pytest.mark.parametrize(
    "make",
    [
        lambda: allow("write", paths=[]),
        lambda: allow("write", paths=["x"]),
        lambda: allow([]),
        lambda: allow("all"),
        lambda: allow("connect", paths=["/a"]),
        lambda: deny("read", timeout=5),
        lambda: ask("read", timeout=0),
        lambda: deny("read", errno=True),
        lambda: deny("read", errno=99999),
        lambda: Rule(name="", verdict="deny", operations="read"),
        lambda: Policy(rules=[allow("read", name="a"), deny("read", name="a")]),
        lambda: Policy(default={"read": True}),
        lambda: Policy(default={"all": "allow"}),
        lambda: Policy(version=2),
        lambda: Policy(audit="some"),
    ],
)
def test_bad_values(make: object) -> None:
    """What would be refused in a file is refused in Python: above all an empty list of patterns."""
    with pytest.raises(PolicyError):
        make()


class TestOn:
    def test_registers_an_ask(self) -> None:
        """A decorated function answers for what it names, and stays an ordinary function."""
        policy = Policy(default={"connect": "allow"})

        @policy.on("connect", hosts=["example.com"])
        def judge(event: object) -> None:
            """Never called here."""

        (rule,) = policy.effective
        assert (rule.verdict, rule.decide, rule.hosts) == ("ask", judge, ("example.com",))
        assert "judge" in rule.name
        assert policy.rules == ()

    def test_counts(self) -> None:
        """What is registered is part of equality and fingerprint, and kept by `with_rules`."""
        plain, policy = Policy(), Policy()
        policy.on("read", name="r", paths=["/a"])(print)
        assert plain != policy
        assert plain.fingerprint != policy.fingerprint
        more = policy.with_rules(allow("read", name="all"))
        assert [rule.name for rule in more.effective] == ["all", "r"]
        more.on("read", name="s")(print)
        assert [rule.name for rule in policy.effective] == ["r"]

    def test_names_are_unique(self) -> None:
        """A name cannot be taken twice, whichever way."""
        policy = Policy(rules=[allow("read", name="a")])
        with pytest.raises(PolicyError, match="used twice"):
            policy.on("read", name="a")(print)
        with pytest.raises(PolicyError, match="used twice"):
            policy.with_rules(deny("read", name="a"))
        assert len(policy.effective) == 1
