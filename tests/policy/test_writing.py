"""A policy written down loads as an equal policy."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import Environment, Grant, Policy, PolicyTest, allow, ask, deny
from rampart_seccomp.policy.loader import profiles


@strategies.bounded
@given(strategies.policies(), st.sampled_from(["all", "denials", "required"]))
def test_round_trip(policy: Policy, audit: str) -> None:
    """load(dump(policy)) == policy, unless a rule of it can never decide: then nothing is written."""
    policy = attrs.evolve(policy, audit=audit)
    try:
        text = policy.dumps()
    except PolicyError as error:
        assert "unreachable" in error.problem
        return
    assert policy == Policy.loads(text)
    assert text == Policy.loads(text).dumps()


_odd = st.text(min_size=1, max_size=8)


@strategies.bounded
@given(name=_odd, message=_odd, timeout=st.floats(0.001, 600_000), number=st.sampled_from([1, 2, 13, 111]))
def test_any_text(name: str, message: str, timeout: float, number: int) -> None:
    """Names and messages survive whatever is in them; so do numbers."""
    policy = Policy(
        rules=[
            ask("read", name=name, message=message, reason=message, timeout=timeout, errno=number, log=False)
        ],
    )
    assert policy == Policy.loads(policy.dumps())


@strategies.bounded
@given(st.binary(min_size=1, max_size=6))
def test_any_bytes(raw: bytes) -> None:
    """Patterns and grants keep names that are not UTF-8."""
    assume(not set(raw) & set(b"\0/*?[]{\\") and raw not in (b".", b".."))
    path = b"/a/" + raw
    policy = Policy(rules=[deny("read", name="r", paths=[path])], grants=[Grant(operation="read", path=path)])
    assert policy == Policy.loads(policy.dumps())


@pytest.mark.parametrize("name", profiles())
def test_profiles(name: str) -> None:
    """A profile, with what it extends, is written as one file that needs no other."""
    policy = Policy.load(name)
    text = policy.dumps()
    assert policy == Policy.loads(text)
    assert "extends" not in text


def test_everything() -> None:
    """Every key survives."""
    policy = Policy(
        default={"read": "allow", "write": "ask", "create": "deny"},
        rules=[
            allow(["read", "write", "exec"], name="true", paths=["~", "./**"], except_=["@tmp"]),
            ask("exec", name="ask: me", commands=["npm publish **"], timeout="2m", message="It's\nme"),
            deny("connect", name="net", hosts=["[::1]:80", "unix:@x"], errno="EPERM"),
            allow("listen", name="ports", ports=[8000, "80-90"]),
        ],
        grants=[Grant(operation="exec", path="/bin/x", command=["x", "true", "1"], rule="ask: me", by="a")],
        environment=Environment(drop=["*"], pass_=["PATH", "LC_*"]),
        tests=[PolicyTest(verdict="allow", operation="listen", port=8000, by="ports")],
        audit="denials",
    )
    assert policy == Policy.loads(policy.dumps())


def test_what_cannot_be_written() -> None:
    """Code has no text, and what a file must not hold is not written either."""
    with pytest.raises(PolicyError, match="answered by code"):
        Policy(rules=[ask("read", decide=print)]).dumps()
    policy = Policy()
    policy.on("read", name="r")(print)
    with pytest.raises(PolicyError, match="answered by code"):
        policy.dumps()
    with pytest.raises(PolicyError, match="unreachable"):
        Policy(rules=[deny("read"), allow("read", paths=["/a"])]).dumps()
