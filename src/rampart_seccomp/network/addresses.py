"""Addresses that no name of the internet has: of this machine, of its networks, and what leads there."""

from __future__ import annotations

import errno
import ipaddress
import socket

from rampart_seccomp.events import Address

__all__ = ["is_inside"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is assigned for the internet (RFC 4291, IANA)
_EMBEDDING = ipaddress.IPv6Network("::/96")
_METADATA = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")))


def is_inside(address: Address) -> bool:
    """Say whether an address is not one of the public internet, as the answer for a public name must be.

    Loopback, link-local, private, shared (RFC 6598), reserved, multicast and cloud metadata addresses, those
    of this machine, and IPv6 addresses by which a translator or a tunnel reaches such an IPv4 address.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return True
        inner = _embedded(address)
        if inner is not None:
            return is_inside(inner)
        if address not in _UNICAST:
            return True
    return address in _METADATA or not address.is_global or address.is_multicast or _is_own(address)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Give the IPv4 address that packets for an IPv6 address end at; None if they do not."""
    if address in _NAT64 or (address in _EMBEDDING and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def _is_own(address: Address) -> bool:
    """Say whether an interface of this machine has the address: only then it can be bound (ip(7)).

    Where ``ip_nonlocal_bind`` allows any, every address counts.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True
