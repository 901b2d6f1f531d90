"""The classes of destinations and local ports that rules tell apart."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from rampart_seccomp.events import Address, ConnectEvent, ListenEvent, Operation
from rampart_seccomp.policy.analysis.ground import Ground
from rampart_seccomp.policy.analysis.paths import Paths
from rampart_seccomp.policy.analysis.words import ABSTRACT, TooLarge
from rampart_seccomp.policy.conditions import Entry
from rampart_seccomp.policy.globs import starred
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.hosts import EPHEMERAL, Network, Ports, parse_host, parse_local

__all__ = ["connects", "listens"]

NAME_SETS_MAX = 1_024
"""Sets of host names that one address is taken to have, after which it is too large."""

TRIALS_MAX = 3_000_000
"""Conditions that are compared with destinations, after which it is too large."""

_ORDINARY = ("203.0.113.1", "192.0.2.1", "2001:db8::1", "127.0.0.1", "::1")
"""Addresses for what no rule tells apart: those for examples (RFC 5737, RFC 3849), and this host."""

_SPECIAL = ("0.0.0.0", "127.0.0.1", "::", "::1")
"""Addresses that patterns treat in their own way (hosts.py)."""

_PORTS = (443, 80, 8000, 22, 53)

_Event = TypeVar("_Event")


def connects(ground: Ground, paths: Paths, about: frozenset[Entry] | None = None) -> Iterator[ConnectEvent]:
    """Give a connection to each kind of destination: addresses with and without names, unix sockets.

    Args:
        ground: The matchers.
        paths: Finds classes of paths.
        about: As for `Paths.classes`.

    Raises:
        TooLarge: There are too many.
    """
    yield from _internet(ground)
    for _, path in paths.classes(Operation.CONNECT, about=about):
        yield from (ConnectEvent(protocol="unix", socket=path, in_tree=inside) for inside in (False, True))
    for name in _abstract(ground):
        yield from (
            ConnectEvent(protocol="unix", socket=b"@" + name, in_tree=inside) for inside in (False, True)
        )


def listens(ground: Ground) -> Iterator[ListenEvent]:
    """Give a local port of each kind.

    Raises:
        TooLarge: There are too many.
    """
    conditions = {
        given.ports
        for layer in ground.layers
        for entry in layer.entries[Operation.LISTEN]
        for given in (entry.conditions, *entry.excepts)
        if given.ports
    }
    conditions |= {(parse_local(grant.port),) for grant in _grants(ground) if grant.port is not None}
    patterns = {pattern for given in conditions for pattern in given}
    bounds = [pattern.ports for pattern in patterns]
    ports = _ports([*bounds, ((0, 0),), (EPHEMERAL,)])
    addresses = _addresses(pattern.network for pattern in patterns)
    _bounded(len(ports) * len(addresses) * len(conditions))
    events = (
        ListenEvent(protocol="tcp", address=address, port=port) for address in addresses for port in ports
    )

    def told(event: ListenEvent) -> Hashable:
        return tuple(
            any(pattern.matches(event, strict=strict) for pattern in given)
            for given in conditions
            for strict in (True, False)
        ) + tuple(grant.matches(event) for grant in _grants(ground) if grant.operation is Operation.LISTEN)

    return _distinct(events, told)


def _internet(ground: Ground) -> Iterator[ConnectEvent]:
    conditions = {
        given.hosts
        for layer in ground.layers
        for entry in layer.entries[Operation.CONNECT]
        for given in (entry.conditions, *entry.excepts)
        if given.hosts
    }
    conditions |= {
        (parse_host(grant.host),)
        for grant in _grants(ground)
        if grant.host is not None and not grant.host.startswith("unix:")
    }
    patterns = {pattern for given in conditions for pattern in given}
    ports = _ports(pattern.ports for pattern in patterns)
    addresses = _addresses(pattern.network for pattern in patterns)
    names = sorted({pattern.name for pattern in patterns if pattern.name is not None})
    _bounded(len(ports) * (len(addresses) + len(names)) * len(patterns))

    def told(address: Address | None, name: str | None, port: int) -> frozenset[int]:
        event = ConnectEvent(
            protocol="tcp", address=address, port=port, names=frozenset({name} if name else ())
        )
        return frozenset(
            number
            for number, given in enumerate(conditions)
            if any(pattern.matches(event) for pattern in given)
        )

    seen: set[frozenset[int]] = set()
    for port in ports:
        places = {told(address, None, port): address for address in reversed(addresses)}
        single = {told(None, name, port): name for name in reversed(names)}
        for matched, called in _unions(single):
            for more, address in sorted(places.items(), key=lambda each: len(each[0])):
                if matched | more not in seen:
                    seen.add(matched | more)
                    yield ConnectEvent(protocol="tcp", address=address, port=port, names=called)


def _unions(single: dict[frozenset[int], str]) -> Iterator[tuple[frozenset[int], frozenset[str]]]:
    """Give what sets of names match, each with a smallest such set."""
    nothing: frozenset[int] = frozenset()
    queue: list[tuple[frozenset[int], frozenset[str]]] = [(nothing, frozenset())]
    seen = {nothing}
    for matched, names in queue:
        yield matched, names
        for more, name in single.items():
            if matched | more not in seen:
                seen.add(matched | more)
                queue.append((matched | more, names | {name}))
        if len(seen) > NAME_SETS_MAX:
            raise TooLarge(f"more than {NAME_SETS_MAX} sets of host names that the rules tell apart")


def _abstract(ground: Ground) -> Iterator[bytes]:
    """Give names of abstract sockets, without their ``@``."""
    texts = {
        host.text
        for layer in ground.layers
        for entry in layer.entries[Operation.CONNECT]
        for given in (entry.conditions, *entry.excepts)
        for host in given.hosts
        if host.abstract is not None
    }
    patterns = {starred(_raw(text)) for text in texts}
    patterns |= {
        _raw(grant.host)
        for grant in _grants(ground)
        if grant.host is not None and grant.host.startswith("unix:@")
    }
    for _, name in ABSTRACT.classes(frozenset(patterns)):
        yield name


def _raw(text: str) -> bytes:
    return text[len("unix:@") :].encode(errors="surrogateescape")


def _grants(ground: Ground) -> Iterator[Grant]:
    for layer in ground.layers:
        yield from layer.policy.grants


def _bounded(trials: int) -> None:
    if trials > TRIALS_MAX:
        raise TooLarge(f"more than {TRIALS_MAX} pairs of a destination and a pattern")


def _distinct(events: Iterable[_Event], told: Callable[[_Event], Hashable]) -> Iterator[_Event]:
    """Give the first event of each that are told apart."""
    seen = set()
    for event in events:
        key = told(event)
        if key not in seen:
            seen.add(key)
            yield event


def _ports(given: Iterable[Ports]) -> list[int]:
    """Give one port of each stretch between the ends of these ranges."""
    bounds = {0, 65536}
    for ranges in given:
        for low, high in ranges:
            bounds |= {low, high + 1}
    ends = sorted(bounds)
    found = [
        next((port for port in _PORTS if low <= port < high), low) for low, high in itertools.pairwise(ends)
    ]
    return sorted(found, key=lambda port: (port not in _PORTS, port))


def _addresses(networks: Iterable[Network | None]) -> list[Address]:
    """Give one address of each stretch between the ends of these networks, ordinary ones first."""
    bounds: dict[int, set[int]] = {4: {0, 1 << 32}, 6: {0, 1 << 128}}
    special = [ipaddress.ip_network(text) for text in _SPECIAL]
    for network in (*networks, *special):
        if network is not None:
            first = int(network.network_address)
            bounds[network.version] |= {first, first + network.num_addresses}
    ordinary = [ipaddress.ip_address(text) for text in _ORDINARY]
    make: dict[int, Callable[[int], Address]] = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}
    found: list[Address] = []
    for version, ends in ((version, sorted(ends)) for version, ends in bounds.items()):
        for low, high in itertools.pairwise(ends):
            found.append(
                next(
                    (each for each in ordinary if each.version == version and low <= int(each) < high),
                    make[version](low),
                )
            )
    ranks = {each: rank for rank, each in enumerate(ordinary)}
    return sorted(found, key=lambda each: (ranks.get(each, len(ranks)), each.version, int(each)))
