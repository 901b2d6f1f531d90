"""What a policy says about a host name as such, or about an address as such: on the port where it says most.

Whoever looks a name up tells others of it, and has not said yet which port is meant, nor to which address it
leads. So a name may be looked up if a connection to it could be allowed on some port, to some address about
which the policy says nothing in particular, and for some program.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator

from rampart_seccomp.events import Address, ConnectEvent, Operation
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.hosts import HostPattern
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.stack import AnyMatcher
from rampart_seccomp.policy.terms import VERDICTS

__all__ = ["Reach"]

_SOMEWHERE = (
    *(f"{first}.{second}.0.1" for first in (1, 8, 9, 20, 45, 80, 130, 190, 210) for second in (1, 100, 201)),
    *(f"{first:x}:{second:x}::1" for first in (0x2001, 0x2600, 0x2A00) for second in (0x4860, 0x1F00, 0xD00)),
)
"""Public addresses of which one is taken that no pattern of the policy names."""


class Reach:
    """What a bound policy makes reachable. Safe to use from several threads.

    Args:
        matcher: The policy.

    Attributes:
        judges_names: True if the policy says something about names.
        synthetic: Networks of which names are answered; empty: with their real addresses.
    """

    def __init__(self, matcher: AnyMatcher) -> None:
        self.judges_names = matcher.judges_names
        self.synthetic = matcher.policy.names.synthetic if self.judges_names else ()
        self._matcher = matcher
        self._patterns = matcher.host_patterns
        self._somewhere = _unnamed(self._patterns)
        self.name = functools.lru_cache(maxsize=4096)(self._name)
        self.address = functools.lru_cache(maxsize=4096)(self._address)

    def _name(self, name: str) -> Decision:
        """Give the laxest decision about connections to a name (lower case, no trailing dot)."""
        ports = _ports(each for each in self._patterns if not each.by_name or each.means(name))
        return self._laxest(
            ConnectEvent(protocol="tcp", address=address, port=port, names=frozenset({name}))
            for address in self._somewhere
            for port in ports
        )

    def _address(self, address: Address) -> Decision:
        """Give the laxest decision about connections to an address for which no name was asked."""
        ports = _ports(each for each in self._patterns if not each.by_name)
        return self._laxest(ConnectEvent(protocol="tcp", address=address, port=port) for port in ports)

    def named(self, name: str) -> bool:
        """Say whether the policy names this name, or the names beneath one that it is among; not by ``*``."""
        return any(each.by_name and each.beneath != "" and each.means(name) for each in self._patterns)

    def is_for(self, matcher: AnyMatcher) -> bool:
        """Say whether it was made from a policy that names the same hosts as this one."""
        return self._patterns == matcher.host_patterns

    @functools.cached_property
    def restricted(self) -> frozenset[str]:
        """The exact names that something restricts: their addresses are looked for before anybody asks."""
        layers = (self._matcher,) if isinstance(self._matcher, Matcher) else self._matcher.layers
        return frozenset(name for layer in layers for name in _restricted(layer))

    def _laxest(self, events: Iterable[ConnectEvent]) -> Decision:
        best: Decision | None = None
        for event in events:
            decision = self._matcher.laxest(event)
            if best is None or VERDICTS.index(decision.verdict) < VERDICTS.index(best.verdict):
                best = decision
            if best.verdict == "allow":
                break
        assert best is not None
        return best


def _ports(patterns: Iterable[HostPattern]) -> list[int]:
    """Give one port of each kind that the patterns tell apart."""
    kinds = {443}
    for pattern in patterns:
        for low, high in pattern.ports:
            kinds.update((low, min(high + 1, 65535)))
    return sorted(kinds, key=lambda port: (port != 443, port))


def _unnamed(patterns: Iterable[HostPattern]) -> tuple[Address, Address]:
    """Give a public address of each version that no network of the patterns has, if there is one."""
    networks = [each.network for each in patterns if each.network is not None and each.network.prefixlen]
    found = {}
    for text in reversed(_SOMEWHERE):
        address = ipaddress.ip_address(text)
        if address.version not in found or not any(address in network for network in networks):
            found[address.version] = address
    return found[4], found[6]


def _restricted(layer: Matcher) -> Iterator[str]:
    for entry in (*layer.ordered, *layer.redirects[Operation.CONNECT]):
        stricter = (entry.conditions,) if entry.strict else entry.excepts
        for conditions in stricter:
            yield from (host.name for host in conditions.hosts if host.name is not None)
