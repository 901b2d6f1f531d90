"""Which variables are passed: all, but those dropped, but those passed."""

from __future__ import annotations

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import Environment, Policy

GIVEN = {"HOME": "/h", "AWS_KEY": "1", "AWS_REGION": "2", "aws_key": "3"}


@pytest.mark.parametrize(
    ("drop", "pass_", "expected"),
    [
        ([], [], {"HOME", "AWS_KEY", "AWS_REGION", "aws_key"}),
        (["AWS_*"], [], {"HOME", "aws_key"}),
        (["AWS_*"], ["*_REGION"], {"HOME", "AWS_REGION", "aws_key"}),
        (["*"], ["HOME"], {"HOME"}),
        (["[Aa]*", "HOM?"], [], set()),
        (["AWS"], [], {"HOME", "AWS_KEY", "AWS_REGION", "aws_key"}),
    ],
)
def test_apply(drop: list[str], pass_: list[str], expected: set[str]) -> None:
    """Names are matched whole and by case, as text and as bytes; the mapping given stays as it was."""
    environment = Environment(drop=drop, pass_=pass_)
    given = dict(GIVEN)
    assert set(environment.apply(given)) == expected
    assert given == GIVEN
    raw = {name.encode(): value.encode() for name, value in GIVEN.items()}
    assert set(environment.apply(raw)) == {name.encode() for name in expected}


def test_default_is_unchanged() -> None:
    """A policy that says nothing about the environment passes it as it is, odd names included."""
    odd = {b"A\xff": b"1", b"": b"2"}
    assert Policy().environment.apply(odd) == odd


def test_a_stack_drops_what_any_layer_drops() -> None:
    """No layer brings back what another dropped."""
    first = Policy(environment=Environment(drop=["*"], pass_=["HOME", "AWS_REGION"]))
    second = Policy(environment=Environment(drop=["AWS_*"]))
    for layers in ((first, second), (second, first)):
        assert set(Policy.stack(*layers).environment.apply(GIVEN)) == {"HOME"}


@pytest.mark.parametrize("fields", [{"drop": ["A=B"]}, {"drop": [""]}, {"drop": ["**"]}, {"pass_": ["A"]}])
def test_bad(fields: dict[str, list[str]]) -> None:
    """What no variable can be called is an error, and so is passing where nothing is dropped."""
    with pytest.raises(PolicyError):
        Environment(**fields)
