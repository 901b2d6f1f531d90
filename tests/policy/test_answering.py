"""`names:`, how a policy wants look-ups answered."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from compiled import Compiled, Verdict

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ConnectEvent
from rampart_seccomp.policy import Policy, allow, check, deny, diff

SITE = allow("connect", hosts=["site.example:443"], name="site")


def load(names: str) -> Policy:
    rule = '{name: site, allow: connect, hosts: ["site.example:443"]}'
    return Policy.loads(f"version: 1\n{names}\nrules:\n  - {rule}\n")


@pytest.mark.parametrize(
    ("written", "given", "shown"),
    [
        ("", "resolved", "resolved"),
        ("names: resolved", "resolved", "resolved"),
        ("names: synthetic", "synthetic", "synthetic 198.18.0.0/15 fd72:616d:7061::/64"),
        (
            'names: {synthetic: "10.1.0.0/16"}',
            {"synthetic": "10.1.0.0/16"},
            "synthetic 10.1.0.0/16 fd72:616d:7061::/64",
        ),
        (
            'names: {synthetic: ["fd00:1::/96", "100.64.0.0/10"]}',
            {"synthetic": ["100.64.0.0/10", "fd00:1::/96"]},
            "synthetic 100.64.0.0/10 fd00:1::/96",
        ),
    ],
)
def test_read_and_written(written: str, given: Any, shown: str) -> None:
    """The file, the value in Python and what is written again are the same; each has its fingerprint."""
    policy = load(written)
    assert policy == Policy(rules=[SITE], names=given)
    assert str(policy.names) == shown
    assert Policy.loads(policy.dumps()) == policy
    assert (policy.fingerprint == load("").fingerprint) == (shown == "resolved")


@pytest.mark.parametrize(
    "given",
    [
        *("real", "", None, 1, True, {}, {"synthetic": []}, {"range": "10.0.0.0/8"}),
        *({"synthetic": text} for text in ("x", "1.0.0.0/8", "0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16")),
        *(
            {"synthetic": text}
            for text in ("198.18.0.0/14", "10.0.0.0/31", "::/0", "fe80::/64", "fd00::/127")
        ),
        {"synthetic": ["10.0.0.0/8", "10.0.0.0/8"]},
        {"synthetic": "::ffff:10.0.0.0/104"},
    ],
    ids=str,
)
def test_no_way_to_answer(given: Any) -> None:
    """What is no network of private addresses, or too small a one, is an error."""
    with pytest.raises(PolicyError) as caught:
        Policy(names=given)
    assert (caught.value.key or "").startswith("names")


def test_inherited(tmp_path: Path) -> None:
    """The nearest file that says something counts."""
    (tmp_path / "base.yaml").write_text("version: 1\nnames: synthetic\n")
    for own, expected in (("", "synthetic"), ("names: resolved\n", "resolved")):
        near = tmp_path / "near.yaml"
        near.write_text(f"version: 1\nextends: [base.yaml]\n{own}")
        assert Policy.load(near).names == Policy(names=expected).names


def test_stacked() -> None:
    """The first layer that wants made-up addresses says of which networks."""
    plain, one, two = Policy(), Policy(names="synthetic"), Policy(names={"synthetic": "10.0.0.0/8"})
    assert Policy.stack(plain, plain).names == plain.names
    assert Policy.stack(plain, two, one).names == two.names
    assert Policy.stack(one, two).names == one.names


def test_compared() -> None:
    """A difference, and real addresses are the laxer."""
    (found,) = diff(Policy(), Policy(names="synthetic")).settings
    assert (found.key, found.a, found.laxer) == ("names", "resolved", False)
    (found,) = diff(Policy(names="synthetic"), Policy()).settings
    assert (found.b, found.laxer) == ("resolved", True)


def test_remarks() -> None:
    """Without a rule about names it is for nothing, and a rule about such addresses reaches nobody."""

    def messages(*rules: Any) -> list[str]:
        return [finding.message for finding in check(Policy(rules=rules, names="synthetic"))]

    wide = allow("connect", hosts=["0.0.0.0/0:80"], name="wide")
    assert messages(SITE, wide) == []
    assert messages(wide) == ["synthetic addresses are for nothing: no rule is about a host name"]
    inner = deny("connect", hosts=["198.18.7.0/24:80"], name="inner")
    (message,) = messages(SITE, wide, inner)
    assert message.startswith("'198.18.7.0/24:80' is never reached by its address")


def test_the_engine_asks() -> None:
    """The tables do not decide about addresses that may stand for others, and go on to decide the rest."""
    policy = Policy(rules=[allow("connect", name="all"), deny("connect", hosts=["10.0.0.0/8"], name="no")])
    matcher = Policy.stack(policy, policy).matcher(home=b"/h", directory=b"/h/p")
    ranges = tuple(map(ipaddress.ip_network, ("198.18.0.0/15", "10.1.0.0/16", "fd00::/64")))
    tables = Compiled(matcher, questions=ranges)
    for text, answer in (
        *(("198.18.0.1", "undecided"), ("198.19.255.255", "undecided"), ("198.20.0.0", "allow")),
        *(
            ("10.1.2.3", "undecided"),
            ("10.2.0.1", "deny"),
            ("fd00::1", "undecided"),
            ("fd00:0:0:1::", "allow"),
        ),
        ("::ffff:198.18.0.1", "undecided"),
    ):
        event = ConnectEvent(protocol="tcp", address=ipaddress.ip_address(text), port=9)
        assert tables.decide(event).answer == answer
    assert Compiled(matcher).decide(event) != Verdict("undecided")
