"""Which names an address has."""

from __future__ import annotations

import ipaddress

import pytest

from rampart_seccomp.network import names
from rampart_seccomp.network.names import HostNames, TreeNames, canonical, read_hosts
from rampart_seccomp.policy import Policy, Rule, allow, deny
from rampart_seccomp.policy.reach import Reach

ADDRESS = ipaddress.ip_address("1.2.3.4")


def reach(*rules: Rule) -> Reach:
    return Reach(Policy(rules=rules).matcher(home=b"/h", directory=b"/h/p"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([b"WWW", b"Example", b"com"], "www.example.com"),
        ([b"_sip", b"_tcp", b"example", b"com"], "_sip._tcp.example.com"),
        ([b"xn--bcher-kva", b"example"], "xn--bcher-kva.example"),
        ([b"localhost"], "localhost"),
        ([], None),
        ([b""], None),
        ([b"a", b"", b"b"], None),
        ([b"a.b", b"c"], None),
        ([b"a\0b", b"c"], None),
        ([b"-a", b"c"], None),
        ([b"b\xc3\xbccher", b"example"], None),
        ([b"a" * 63, b"a" * 63, b"a" * 63, b"a" * 61], ".".join(["a" * 63] * 3 + ["a" * 61])),
        ([b"a" * 63, b"a" * 63, b"a" * 63, b"a" * 62], None),
        ([b"a" * 64], None),
        ([b"*", b"example"], None),
    ],
)
def test_canonical(labels: list[bytes], expected: str | None) -> None:
    """Names are lower case and ASCII; what no host can be called is no name."""
    assert canonical(labels) == expected


def test_hosts() -> None:
    """hosts(5): comments, aliases, several lines for one address, both versions; nonsense is skipped."""
    found = read_hosts(
        b"# 9.9.9.9 comment\n1.2.3.4 One.example one # two\n1.2.3.4\tthree.example.\n"
        b"::1 localhost six\nfe80::1%eth0 scoped\nnonsense x\n1.2.3.4\n5.6.7.8 \xff b\xc3\xbc ok.example\n"
    )
    assert found[ADDRESS] == {"one.example", "one", "three.example"}
    assert found[ipaddress.ip_address("::1")] == {"localhost", "six"}
    assert found[ipaddress.ip_address("127.0.0.1")] == {"localhost"}
    assert found[ipaddress.ip_address("5.6.7.8")] == {"ok.example"}
    assert ipaddress.ip_address("9.9.9.9") not in found
    assert set(read_hosts(b"")) == set(map(ipaddress.ip_address, ("127.0.0.1", "::1")))


def test_hosts_that_a_policy_means() -> None:
    """Of /etc/hosts those names count that a policy names; `*` means none whose address is inside."""
    text = b"10.0.0.5 db.corp.example other\n1.2.3.4 public.example\n"
    known = HostNames(reach(allow("connect", hosts=["*.corp.example:5432"])), written=text)
    assert known.hosts == {ipaddress.ip_address("10.0.0.5"): {"db.corp.example"}}
    anything = known.changed(reach(allow("connect", hosts=["*:443"])))
    assert anything.hosts == {ADDRESS: {"public.example"}}
    assert anything.changed(reach(allow("connect", hosts=["10.0.0.5:443"]))).hosts == {}


def test_bound_for_the_run() -> None:
    """What the tree was told stays, whatever policy comes, and is nobody else's."""
    shared = HostNames(reach(allow("connect", hosts=["a.example", "b.example"])))
    tree, other = TreeNames(shared), TreeNames(shared)
    assert tree.bind("a.example", [ADDRESS])
    later = tree.under(shared.changed(reach(allow("connect", hosts=["b.example"]))))
    assert later.bind("b.example", [ADDRESS])
    for known in (tree, later):
        assert known.of(ADDRESS) == {"a.example", "b.example"}
    assert other.of(ADDRESS) == frozenset()


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree cannot fill the memory with names; those that it has go on to work."""
    monkeypatch.setattr(names, "NAMES_MAX", 2)
    tree = TreeNames(HostNames(reach(allow("connect", hosts=["*"]))))
    addresses = [ipaddress.ip_address(number) for number in (1, 2, 3)]
    assert tree.bind("a", addresses[:2])
    assert not tree.bind("a", addresses)
    assert tree.bind("a", addresses[:2])
    assert tree.of(addresses[2]) == frozenset()


def test_restricted_names_are_known_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A denied name has its address though nobody asked for it; unless it was asked for otherwise."""
    monkeypatch.setattr(names, "_addresses", lambda name: {ADDRESS} if name == "evil.example" else set())
    shared = HostNames(
        reach(allow("connect"), deny("connect", hosts=["evil.example", "gone.example"], name="d"))
    )
    tree = TreeNames(shared)
    assert tree.of(ADDRESS) == {"evil.example"}
    assert tree.of(ipaddress.ip_address("1.1.1.1")) == frozenset()
    tree.bind("shared.example", [ADDRESS])
    assert tree.of(ADDRESS) == {"shared.example"}
