"""Addresses that stand for a name and an address of it: made up, one for each such pair, for one tree."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import attrs

from rampart_seccomp.events import Address
from rampart_seccomp.policy.hosts import Network

__all__ = ["Meant", "Synthetic"]

PAIRS_MAX = 65_536
"""Pairs that one tree may collect, however many addresses there are."""


@attrs.frozen(eq=False, repr=False)
class Meant:
    """What a made-up address stands for.

    Attributes:
        name: Lower case, ASCII, no trailing dot.
        address: Real address; a v4-mapped one is the IPv4 address that it reaches.
    """

    name: str
    address: Address


class Synthetic:
    """The made-up addresses of one tree. What was given stays given: none stands for another pair later.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._meant: dict[Address, Meant] = {}
        self._given: dict[tuple[str, Address], Address] = {}
        self._used: dict[Network, int] = {}
        self._lock = threading.Lock()

    def give(
        self, name: str, addresses: Iterable[Address], networks: Sequence[Network]
    ) -> list[Address] | None:
        """Give the addresses that stand for these of a name; None, and none new, if there are too few left.

        Args:
            name: The name.
            addresses: As they were resolved.
            networks: Where new ones are from; one for each version of IP.
        """
        with self._lock:
            made: dict[Address, Address] = {}
            used = dict(self._used)
            for address in dict.fromkeys(addresses):
                if (name, address) in self._given:
                    continue
                network = next((each for each in networks if each.version == address.version), None)
                free = None if network is None else self._free(network, used)
                if free is None or len(self._meant) + len(made) >= PAIRS_MAX:
                    return None
                made[address] = free
            self._used = used
            for address, free in made.items():
                self._given[name, address] = free
                self._meant[free] = Meant(name, getattr(address, "ipv4_mapped", None) or address)
            return [self._given[name, address] for address in addresses]

    def _free(self, network: Network, used: dict[Network, int]) -> Address | None:
        # The ends are left out: the network itself, and where IPv4 has its broadcast address.
        at = used.get(network, 0) + 1
        while at < network.num_addresses - 1:
            address = network[at]
            if address not in self._meant:
                used[network] = at
                return address
            at += 1
        return None

    def meant(self, address: Address) -> Meant | None:
        """Say what an address stands for; None if it is none of these."""
        return self._meant.get(address)
