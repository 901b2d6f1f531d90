"""What a policy says about a name, or an address, on the port where it says most."""

from __future__ import annotations

import ipaddress

import attrs
import pytest

from rampart_seccomp.events import FileEvent, Operation
from rampart_seccomp.policy import Grant, Policy, Rule, allow, ask, deny
from rampart_seccomp.policy.reach import Reach

SITE = allow("connect", hosts=["site.example:443", "*.wild.example:8000-8100"], name="site")
OPEN = allow("connect", name="open")


def reach(*rules: Rule, **given: object) -> Reach:
    return Reach(Policy(rules=rules, **given).matcher(home=b"/h", directory=b"/h/p"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([SITE], "allow deny allow deny"),
        ([SITE, deny("connect", hosts=["site.example:443"], name="not")], "deny deny allow deny"),
        ([SITE, deny("connect", hosts=["site.example:80"], name="not")], "allow deny allow deny"),
        ([SITE, deny("connect", hosts=["*.wild.example"], name="not")], "allow deny deny deny"),
        ([SITE, deny("connect", hosts=["0.0.0.0/0", "::/0"], name="not")], "deny deny deny deny"),
        ([SITE, deny("connect", hosts=["::/0", "10.0.0.0/8"], name="not")], "allow deny allow deny"),
        ([SITE, deny("connect", hosts=["1.0.0.0/8"], name="not")], "allow deny allow deny"),
        ([OPEN, deny("connect", hosts=["other.example"], name="not")], "allow allow allow deny"),
        ([OPEN, deny("connect", hosts=["other.example:443"], name="not")], "allow allow allow allow"),
        ([ask("connect", hosts=["site.example"], name="who")], "ask deny deny deny"),
        ([allow("connect", hosts=["*:443"], name="any")], "allow allow allow allow"),
        (
            [allow("connect", hosts=["site.example"], within=["npm publish"], name="in")],
            "allow deny deny deny",
        ),
        ([allow("connect", hosts=["0.0.0.0/0:80"], name="ip"), SITE], "allow allow allow allow"),
    ],
)
def test_names(rules: list[Rule], expected: str) -> None:
    """A name may be looked up if somebody could connect to it on some port; addresses play no part."""
    asked = reach(*rules)
    names = ("site.example", "wild.example", "a.wild.example", "other.example")
    assert " ".join(asked.name(name).verdict for name in names) == expected


def test_stack_and_grants() -> None:
    """Every layer has to allow one and the same port; a grant opens the name that it is for."""
    ports = [Policy(rules=[allow("connect", hosts=[f"site.example:{port}"])]) for port in (80, 443)]
    assert Reach(Policy.stack(*ports).matcher()).name("site.example").verdict == "deny"
    assert Reach(Policy.stack(ports[0], ports[0]).matcher()).name("site.example").verdict == "allow"
    granted = ports[0].with_grants(Grant(operation="connect", host="other.example:25"))
    assert Reach(granted.matcher()).name("other.example").verdict == "allow"


def test_addresses() -> None:
    """An address is within reach if a rule about addresses allows a port; names play no part."""
    asked = reach(SITE, allow("connect", hosts=["10.0.0.0/8:5432", "[fd00::/8]:1"], name="inside"))
    verdicts = [
        asked.address(ipaddress.ip_address(text)).verdict for text in ("10.1.2.3", "fd00::1", "127.0.0.1")
    ]
    assert verdicts == ["allow", "allow", "deny"]


def test_named_and_restricted() -> None:
    """`*` names nobody; names that restrict are those of denials, of questions, of exceptions from allows."""
    asked = reach(
        allow("connect", hosts=["*:443", "*.wild.example"], except_=["bad.example"], name="a"),
        deny("connect", hosts=["worse.example", "*.worst.example"], except_=["fine.example"], name="d"),
        ask("connect", hosts=["who.example:22"], name="q"),
    )
    assert [asked.named(name) for name in ("x.example", "x.wild.example", "bad.example")] == [
        False,
        True,
        True,
    ]
    assert asked.restricted == {"bad.example", "worse.example", "who.example"}


@pytest.mark.parametrize("operation", ["create", "modify", "delete", "metadata"])
def test_whom_the_broker_asks(operation: str) -> None:
    """Where names are judged, no rule lets anybody change the file that says who is asked about them."""
    everything = allow(["read", "write"], name="files")
    event = FileEvent(operation=Operation(operation), path=b"/etc/resolv.conf")
    for hosts, verdict in ((["site.example"], "deny"), (["10.0.0.1"], "allow")):
        policy = Policy(rules=[everything, allow("connect", hosts=hosts, name="hosts")])
        matcher = policy.matcher(substitutes=[b"/etc/resolv.conf"])
        assert matcher.decide(event).verdict == verdict
        assert matcher.decide(attrs.evolve(event, operation=Operation.READ)).verdict == "allow"
