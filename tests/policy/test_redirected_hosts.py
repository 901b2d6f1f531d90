"""Where a connection is led, beside whether it may be made; and what a policy's own tests say about it."""

from __future__ import annotations

import ipaddress
from typing import Any

import attrs
import pytest
from compiled import Compiled, Verdict

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ConnectEvent, Operation, Process, Program
from rampart_seccomp.policy import (
    Decision,
    Grant,
    Matcher,
    Policy,
    Stack,
    allow,
    ask,
    check,
    deny,
    diff,
    explain,
)
from rampart_seccomp.policy.reach import Reach
from rampart_seccomp.verdicts import Redirect
from strategies import DIRECTORY, HOME

PROXY = Redirect(to="127.0.0.1:8443")
OTHER = Redirect(to="[::1]:8443")
SITE = allow("connect", hosts=["site.example:443"], name="site", redirect=PROXY)
PLACE = {"home": HOME, "directory": DIRECTORY}


def bind(*rules: Any, default: str = "deny", **extra: Any) -> Matcher:
    return Policy(rules=rules, default={"connect": default}, **extra).matcher(**PLACE)


def event(name: str = "site.example", process: Process | None = None) -> ConnectEvent:
    address = ipaddress.ip_address("192.0.2.1")
    return ConnectEvent(protocol="tcp", address=address, port=443, names=frozenset({name}), process=process)


def connect(matcher: Any, name: str = "site.example", process: Process | None = None) -> Decision:
    return matcher.decide(event(name, process))


def acting(path: bytes) -> Process:
    return Process(pid=1, tid=1, lineage=(Program(path, (path,), True),))


class TestDecision:
    @pytest.mark.parametrize("default", ["allow", "ask", "deny"])
    def test_the_rule_allows(self, default: str) -> None:
        """The rule allows what it leads elsewhere, and leads nothing else."""
        bound = bind(SITE, default=default)
        assert (connect(bound).verdict, connect(bound).redirect) == ("allow", PROXY)
        assert (connect(bound, "x").verdict, connect(bound, "x").redirect) == (default, None)

    def test_nothing_lifts_it(self) -> None:
        """Neither another rule, a grant, nor a question that is answered; a denial stands."""
        grant = Grant(operation="connect", host="192.0.2.1:443")
        asking = (SITE, ask("connect", name="q"))
        for bound, verdict in (
            (bind(allow("connect", name="all"), SITE), "allow"),
            (bind(*asking), "ask"),
            (bind(*asking, grants=[grant]), "allow"),
            (bind(SITE, deny("connect", hosts=["192.0.2.1"], name="no")), "deny"),
        ):
            assert (connect(bound).verdict, connect(bound).redirect) == (verdict, PROXY)

    def test_who_acts(self) -> None:
        """For an unknown program it does not allow, and leads what something else allows."""
        rule = attrs.evolve(SITE, programs=("/a/git",))
        assert connect(bind(rule), process=acting(b"/a/git")).redirect == PROXY
        assert connect(bind(rule)).verdict == "deny"
        open_ = bind(rule, default="allow")
        assert connect(open_).redirect == PROXY
        assert connect(open_, process=acting(b"/x")).redirect is None

    def test_an_exception(self) -> None:
        """`except` leads nowhere, and leaves the rest to others."""
        rule = allow("connect", hosts=["0.0.0.0/0"], except_=["site.example"], name="all", redirect=PROXY)
        assert connect(bind(rule)).verdict == "deny"
        assert connect(bind(rule, default="allow")).redirect is None
        assert connect(bind(rule), "x").redirect == PROXY

    def test_stack(self) -> None:
        """Any layer's redirect holds; of two the first layer's."""
        leading, open_ = Policy(rules=[SITE]), Policy(default={"connect": "allow"})
        other = Policy(rules=[attrs.evolve(SITE, redirect=OTHER)])
        for layers, verdict, redirect in (
            ((open_, leading), "allow", PROXY),
            ((leading, Policy()), "deny", PROXY),
            ((leading, other), "allow", PROXY),
            ((other, leading), "allow", OTHER),
        ):
            said = connect(Stack(layers).matcher(**PLACE))
            assert (said.verdict, said.redirect) == (verdict, redirect)

    def test_the_engine_asks(self) -> None:
        """The tables leave it to Python wherever the rule may speak, whatever else allows."""
        rule = allow("connect", hosts=["192.0.2.0/24"], name="net", redirect=PROXY)
        grant = Grant(operation="connect", host="192.0.2.1:443")
        for bound in (
            bind(rule),
            bind(rule, allow("connect", name="all")),
            bind(rule, ask("connect", name="q"), grants=[grant]),
            bind(rule, default="allow", grants=[grant]),
            bind(attrs.evolve(rule, programs=("/a/git",)), default="allow"),
        ):
            assert Compiled(bound).decide(event()) == Verdict("undecided")
        outside = attrs.evolve(event(), address=ipaddress.ip_address("198.51.100.1"))
        assert Compiled(bind(rule, default="allow")).decide(outside).answer == "allow"


class TestPolicy:
    def test_restricted(self) -> None:
        """Names that are led elsewhere are known by number, too."""
        assert Reach(bind(SITE, default="allow")).restricted == {"site.example"}
        assert not Policy(rules=[SITE]).unrestricted(Operation.CONNECT)

    def test_written_and_read(self) -> None:
        """`dumps` and `loads` keep rule and test; the fingerprint tells them apart."""
        prints = set()
        for redirect in (PROXY, OTHER, None):
            text = Policy(rules=[attrs.evolve(SITE, redirect=redirect)]).dumps()
            target = f"{{to: '{redirect.to}'}}" if redirect else "false"
            text += (
                f"tests:\n  - {{allow: connect, host: 'site.example:443', by: site, redirect: {target}}}\n"
            )
            policy = Policy.loads(text)
            assert Policy.loads(policy.dumps()) == policy
            assert policy.tests[0].redirect == (redirect or False)
            prints.add(policy.fingerprint)
        assert len(prints) == 3

    def test_of_a_file(self) -> None:
        """The test of a policy says what is shown of a file, too."""
        text = """
version: 1
rules:
  - {name: env, allow: read, paths: [./.env], redirect: {mask: values}}
tests:
  - {allow: read, path: ./.env, redirect: {mask: values}}
"""
        assert Policy.loads(text).tests[0].redirect == Redirect(mask="values")
        for wrong in ("{to: /dev/null}", "false"):
            with pytest.raises(PolicyError, match="read of './.env' is redirected mask values") as caught:
                Policy.loads(text.replace(".env, redirect: {mask: values}}", f".env, redirect: {wrong}}}"))
            assert (caught.value.line, caught.value.key) == (6, "tests[0]")

    @pytest.mark.parametrize(
        "to",
        [
            *("x", "host:1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:1-2"),
            *("[127.0.0.1]:1", "::1:80", "[::1]", "[fe80::1%eth0]:1", "0.0.0.0:1", "[::]:1", "224.0.0.1:1"),
            *("unix:/x", "unix:@x", "127.0.0.1:٣", "127.0.0.1:+1", "127.0.0.1: 1", "10.0.0.0/8:1", ":1"),
        ],
    )
    def test_no_destination(self, to: str) -> None:
        """What is no address with a port is an error."""
        with pytest.raises(PolicyError):
            Redirect(to=to)

    def test_destination(self) -> None:
        """An address and a port; a v4-mapped address is the IPv4 address."""
        assert PROXY.destination == (ipaddress.ip_address("127.0.0.1"), 8443)
        assert Redirect(to="[::ffff:10.0.0.1]:1").destination == (ipaddress.ip_address("10.0.0.1"), 1)
        assert (OTHER.operation, Redirect(to="/x").operation) == (Operation.CONNECT, Operation.READ)

    def test_explained(self) -> None:
        """The explanation says what is reached, and by which rule."""
        text = str(explain(bind(SITE), event()))
        assert "reached: 127.0.0.1:8443 instead, by site" in text
        asked = str(explain(bind(SITE, ask("connect", name="q")), event()))
        assert "not by site, which says allow: it says what is reached" in asked

    def test_compared(self) -> None:
        """A redirect is a difference, and stricter than none; with conditions on who acts as without."""
        plain, leading = (Policy(rules=[attrs.evolve(SITE, redirect=each)]) for each in (None, PROXY))
        for more in ({}, {"programs": ("/a/git",)}):
            a, b = (Policy(rules=[attrs.evolve(each.rules[0], **more)]) for each in (plain, leading))
            (found,) = diff(a, b, **PLACE).differences
            assert (found.operation, found.laxer) == (Operation.CONNECT, False)
            assert (found.a.redirect, found.b.redirect) == (None, PROXY)
            assert diff(b, b, **PLACE).equal


def messages(*rules: Any, **default: str) -> list[str]:
    return [finding.message for finding in check(Policy(rules=rules, default=default))]


def test_remarks() -> None:
    """A substitute that cannot be reached is pointed out, as is a name that the default leaves open."""
    reached = allow("connect", hosts=["127.0.0.1:8443"], name="proxy")
    assert any("may not be reached itself, by default connect: deny" in each for each in messages(SITE))
    assert not any("reached" in each for each in messages(SITE, reached))
    assert not any("reached" in each for each in messages(SITE, connect="allow"))
    further = attrs.evolve(reached, redirect=OTHER)
    assert any("is redirected to [::1]:8443 itself" in each for each in messages(SITE, further))
    everything = allow("connect", hosts=["*", "0.0.0.0/0", "::/0"], name="all", redirect=PROXY)
    assert messages(everything) == []
    wild = attrs.evolve(SITE, hosts=("*.example",))
    assert any("known by name only" in each for each in messages(wild, connect="allow"))
