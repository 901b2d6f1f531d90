"""``names:``, what the broker answers when a tree looks up a name: real addresses, or made-up ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.hosts import Network

__all__ = ["DEFAULTS", "Names", "is_within", "to_names", "to_range"]

DEFAULTS: Mapping[int, Network] = {
    4: ipaddress.IPv4Network("198.18.0.0/15"),
    6: ipaddress.IPv6Network("fd72:616d:7061::/64"),
}
"""By version of IP: the network for benchmarks (RFC 2544), and a unique local one (RFC 4193)."""

_PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "fc00::/7"),
    )
)
"""Where nobody on the internet is, and the kernel has no meaning of its own for an address."""

_BITS_MIN = 2
"""A network has at least so many bits for its addresses: two of its own, and its ends, which are not used."""


@attrs.frozen(repr=False)
class Names:
    """How names are answered.

    Attributes:
        synthetic: The networks of the addresses that stand for a name and an address of it, IPv4 first;
            empty: the real addresses are answered.
    """

    synthetic: tuple[Network, ...] = ()

    def __str__(self) -> str:
        return " ".join(["synthetic", *map(str, self.synthetic)]) if self.synthetic else "resolved"


def to_names(value: Any) -> Names:
    """Read what a policy says: ``resolved``, ``synthetic``, or ``{synthetic: …}`` with one or two networks.

    A version of IP for which no network is named has the one of `DEFAULTS`.

    Raises:
        PolicyError: It is none of these, or a network cannot be used.
    """
    if isinstance(value, Names):
        return value
    if value == "resolved":
        return Names()
    if value == "synthetic":
        return Names(tuple(DEFAULTS.values()))
    if isinstance(value, Mapping) and set(value) == {"synthetic"}:
        given = value["synthetic"]
        texts = [given] if isinstance(given, str) else given
        if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
            return _ranges(texts)
    hint = "write resolved, synthetic or {synthetic: '198.18.0.0/15'}"
    raise PolicyError(f"{value!r} is no way to answer names", key="names", hint=hint)


def _ranges(texts: Iterable[str]) -> Names:
    found = dict(DEFAULTS)
    seen: set[int] = set()
    for text in texts:
        network = to_range(text)
        if network.version in seen:
            problem = f"{text!r} is a second network of IPv{network.version}"
            raise PolicyError(problem, key="names.synthetic", hint="name one for each version of IP")
        seen.add(network.version)
        found[network.version] = network
    if not seen:
        raise PolicyError("`synthetic` is empty", key="names.synthetic", hint="write names: synthetic")
    return Names((found[4], found[6]))


def to_range(text: str) -> Network:
    """Read a network of addresses that can be made up.

    Raises:
        PolicyError: It is none, is not within one of `_PRIVATE`, or has too few addresses.
    """
    hint = "write a private network, such as '198.18.0.0/15' or 'fd00:1:2::/64'"
    try:
        network: Network = ipaddress.ip_network(text)
    except ValueError:
        raise PolicyError(f"{text!r} is no network", key="names.synthetic", hint=hint) from None
    if not any(is_within(network, private) for private in _PRIVATE):
        raise PolicyError(f"{text!r} is no private network", key="names.synthetic", hint=hint)
    if network.max_prefixlen - network.prefixlen < _BITS_MIN:
        raise PolicyError(f"{text!r} has too few addresses", key="names.synthetic", hint=hint)
    return network


def is_within(small: Network, large: Network) -> bool:
    """Say whether every address of the first network is one of the second."""
    return (
        small.version == large.version
        and small.prefixlen >= large.prefixlen
        and small.network_address in large
    )
