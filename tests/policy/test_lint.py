"""`check`: what it remarks on is certain."""

from __future__ import annotations

import pytest
from hypothesis import given

import strategies
from rampart_seccomp.events import ExecEvent, FileEvent
from rampart_seccomp.policy import Finding, Policy, Rule, allow, ask, check, deny
from rampart_seccomp.policy.globs import parse
from rampart_seccomp.policy.lint import covers


def remarks(*rules: Rule, default: dict[str, str] | None = None) -> list[tuple[str, str]]:
    found = structural(Policy(rules=rules, default=default or {}))
    return [(each.severity, each.key or "") for each in found]


def structural(policy: Policy) -> list[Finding]:
    """What is said about rules, beside the secrets that these small policies leave readable."""
    return [found for found in check(policy) if "secrets" not in found.message]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([allow("write", paths=["./**"])], []),
        ([deny("read", paths=["~/**"]), allow("read", paths=["~/a/*"])], [("error", "rules[1]")]),
        ([deny("read"), ask("read", paths=["/a"])], [("error", "rules[1]")]),
        ([deny("read", paths=["~/**"], except_=["~/a/b"]), allow("read", paths=["~/a/*"])], []),
        ([deny("read", paths=["~/*"]), allow("read", paths=["~/**"])], []),
        ([deny("read"), allow(["read", "exec"], paths=["/a"])], []),
        ([deny("connect", hosts=["a:1", "b:1"]), allow("connect", hosts=["a:1"])], [("error", "rules[1]")]),
        ([allow("read", paths=["/a/**"]), allow("read", paths=["/a/b"])], [("warning", "rules[1]")]),
        ([allow("read", name="a"), allow("read", name="b")], [("warning", "rules[1]")]),
        ([deny("read", paths=["**/.env"])], [("warning", "rules[0]"), ("warning", "rules[0].paths[0]")]),
        ([allow("read", paths=["/**"])], [("warning", "rules[0].paths[0]")]),
        (
            [allow("write", paths=["./**"]), allow("exec", commands=["git **"])],
            [("warning", "rules[1].commands[0]")],
        ),
        ([allow("exec", commands=["git **"])], []),
    ],
)
def test_findings(rules: list[Rule], expected: list[tuple[str, str]]) -> None:
    """Unreachable is an error; redundant, floating, all-matching and weak are warnings."""
    assert expected == remarks(*rules)


def test_redundant_with_the_default() -> None:
    """A rule that says what the default says, against nothing, changes nothing."""
    assert remarks(allow("read", paths=["/a"]), default={"read": "allow"}) == [("warning", "rules[0]")]
    assert remarks(deny("read", paths=["/a"]), allow("read")) == []


def test_finding_as_text() -> None:
    """A finding reads as file, line, key and sentence."""
    policy = Policy.loads("version: 1\nrules:\n  - {name: a, allow: read, paths: [/**]}\n", source="x.yaml")
    (found,) = structural(policy)
    assert str(found).startswith("x.yaml:3: rules[0].paths[0]: warning: '/**' matches everything")


@strategies.bounded
@given(strategies.policies(), strategies.file_events() | strategies.exec_events())
def test_unreachable_never_decides(policy: Policy, event: FileEvent | ExecEvent) -> None:
    """A rule reported as unreachable decides about nothing; one reported as redundant changes no verdict."""
    decided = policy.matcher(home=b"/h", directory=b"/h/p").decide(event)
    for found in structural(policy):
        index = int(found.key[len("rules[") :].partition("]")[0])
        if found.severity == "error":
            assert decided.rule is not policy.rules[index]
        elif "changes nothing" in found.message:
            rest = [rule for rule in policy.rules if rule is not policy.rules[index]]
            other = Policy(rules=rest, default=policy.default).matcher(home=b"/h", directory=b"/h/p")
            assert decided.verdict == other.decide(event).verdict


@strategies.bounded
@given(strategies.patterns(), strategies.patterns(), strategies.paths())
def test_covers_is_sound(large: str, small: str, path: bytes) -> None:
    """If one pattern covers another, it matches whatever the other does."""
    if covers(parse(large), parse(small)):
        policy = Policy(
            rules=[allow("read", paths=[small], name="small"), deny("read", paths=[large], name="large")]
        )
        event = FileEvent(operation="read", path=path)
        assert policy.matcher(home=b"/h", directory=b"/h/p").decide(event).verdict == "deny"
