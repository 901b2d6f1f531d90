"""Made-up addresses: one for each name and address, for good, and only as many as there are."""

from __future__ import annotations

import ipaddress
import threading

import pytest

from rampart_seccomp.network import synthetic
from rampart_seccomp.network.names import HostNames, TreeNames
from rampart_seccomp.network.synthetic import Synthetic
from rampart_seccomp.policy import Policy, allow
from rampart_seccomp.policy.reach import Reach

RANGES = tuple(map(ipaddress.ip_network, ("198.18.0.0/29", "fd00:1::/125")))


def addresses(*texts: str) -> list[synthetic.Address]:
    return [ipaddress.ip_address(text) for text in texts]


def texts(given: list[synthetic.Address] | None) -> list[str] | None:
    return None if given is None else list(map(str, given))


def test_one_for_each_pair() -> None:
    """The same pair has the same address; another name, address or version another one, of its version."""
    made = Synthetic()
    assert texts(made.give("a", addresses("1.1.1.1", "2600::1"), RANGES)) == ["198.18.0.1", "fd00:1::1"]
    assert texts(made.give("b", addresses("1.1.1.1"), RANGES)) == ["198.18.0.2"]
    assert texts(made.give("a", addresses("1.1.1.2", "1.1.1.1", "1.1.1.2"), RANGES)) == [
        "198.18.0.3",
        "198.18.0.1",
        "198.18.0.3",
    ]
    found = made.meant(ipaddress.ip_address("198.18.0.2"))
    assert found is not None
    assert (found.name, str(found.address)) == ("b", "1.1.1.1")
    for nothing in ("198.18.0.0", "198.18.0.4", "1.1.1.1", "fd00:1::2"):
        assert made.meant(ipaddress.ip_address(nothing)) is None


def test_a_mapped_address_is_the_one_that_it_reaches() -> None:
    """Rules about IPv4 addresses judge what an IPv6 answer maps to."""
    made = Synthetic()
    assert texts(made.give("a", addresses("::ffff:10.0.0.1"), RANGES)) == ["fd00:1::1"]
    found = made.meant(ipaddress.ip_address("fd00:1::1"))
    assert found is not None
    assert found.address == ipaddress.ip_address("10.0.0.1")


def test_exhausted() -> None:
    """All of an answer or nothing of it; neither end of a network is given, and what is there stays."""
    made = Synthetic()
    six = [str(ipaddress.ip_address(number)) for number in range(1, 7)]
    assert texts(made.give("a", addresses(*six[:5]), RANGES)) == [f"198.18.0.{each}" for each in range(1, 6)]
    assert made.give("b", addresses(*six[:2]), RANGES) is None
    assert texts(made.give("b", addresses(six[0]), RANGES)) == ["198.18.0.6"]
    assert made.give("c", addresses(six[0]), RANGES) is None
    assert made.give("d", addresses("2600::1"), RANGES[:1]) is None
    assert texts(made.give("a", addresses(six[0]), RANGES)) == ["198.18.0.1"]


def test_other_networks_later() -> None:
    """With another network nothing is given twice, also where it has addresses of the one before."""
    made = Synthetic()
    made.give("a", addresses("1.1.1.1", "1.1.1.2"), RANGES)
    later = [ipaddress.ip_network("198.18.0.0/30"), ipaddress.ip_network("198.18.0.0/28")]
    assert made.give("b", addresses("1.1.1.1"), later[:1]) is None
    assert texts(made.give("b", addresses("1.1.1.1"), later[1:])) == ["198.18.0.3"]
    assert texts(made.give("c", addresses("1.1.1.1"), RANGES)) == ["198.18.0.4"]
    assert texts(made.give("a", addresses("1.1.1.1"), later)) == ["198.18.0.1"]


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree cannot fill the memory with pairs."""
    monkeypatch.setattr(synthetic, "PAIRS_MAX", 2)
    made = Synthetic()
    assert made.give("a", addresses("1.1.1.1", "1.1.1.2"), RANGES) is not None
    assert made.give("b", addresses("1.1.1.1"), RANGES) is None


def test_several_threads() -> None:
    """Whoever comes at the same time gets an address of his own."""
    made = Synthetic()
    wide = [ipaddress.ip_network("198.18.0.0/15")]
    got: list[str] = []

    def take(name: str) -> None:
        for number in range(200):
            got.extend(texts(made.give(name, [ipaddress.ip_address(number)], wide)) or [])

    threads = [threading.Thread(target=take, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == len(got) == 800


def test_names_of_a_tree() -> None:
    """What a tree is answered follows the policy in force; what it was given stays, and is its own."""

    def shared(names: object) -> Reach:
        rules = [allow("connect", hosts=["*.example"])]
        return Reach(Policy(rules=rules, names=names).matcher(home=b"/h", directory=b"/h/p"))

    known = HostNames(shared("synthetic"), written=b"")
    tree, other = TreeNames(known), TreeNames(known)
    real = addresses("1.1.1.1")
    assert texts(tree.answer("a.example", real)) == ["198.18.0.1"]
    assert tree.of(real[0]) == frozenset()
    resolved = known.changed(shared("resolved"))
    later = tree.under(resolved)
    assert later.answer("a.example", real) == real
    assert later.of(real[0]) == {"a.example"}
    made = ipaddress.ip_address("198.18.0.1")
    assert later.meant(made) is not None
    assert (tree.reserved(made), later.reserved(made), other.meant(made)) == (True, False, None)
    assert resolved.ranges == known.ranges
    assert len(known.ranges) == 2
    without = Policy(names="synthetic").matcher(home=b"/h", directory=b"/h/p")
    assert Reach(without).synthetic == ()
