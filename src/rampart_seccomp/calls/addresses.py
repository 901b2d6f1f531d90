"""Socket addresses as they arrive in memory, and what they really name."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct

import attrs

from rampart_seccomp.events import Address

__all__ = ["IPAddress", "NetlinkAddress", "UnixAddress", "Unspecified", "parse"]

_FAMILY = struct.Struct("=H")
_IN = struct.Struct("!H4s")
_IN6 = struct.Struct("!HI16sI")
_NETLINK = struct.Struct("=HII")
_PATH_OFFSET = 2
_IN_HOST = slice(4, 8)
_IN6_HOST = slice(8, 24)


@attrs.frozen
class Unspecified:
    """AF_UNSPEC: dissolve an association."""


@attrs.frozen
class IPAddress:
    """AF_INET or AF_INET6; a v4-mapped address is the IPv4 address that it reaches.

    Attributes:
        host: The address; 0.0.0.0 and :: as given.
        port: 0 to 65535.
    """

    host: Address
    port: int

    @property
    def destination(self) -> Address:
        """Where a connection to it goes: the kernel takes 0.0.0.0 and :: for loopback (ip(7), ipv6(7))."""
        if int(self.host) == 0:
            return ipaddress.ip_address("127.0.0.1" if self.host.version == 4 else "::1")
        return self.host

    def rewritten(self, raw: bytes) -> bytes:
        """Name the destination in the ``struct sockaddr``: the kernel may take 0 for the local address."""
        if int(self.host) != 0:
            return raw
        if _FAMILY.unpack_from(raw)[0] == socket.AF_INET:
            return raw[: _IN_HOST.start] + self.destination.packed + raw[_IN_HOST.stop :]
        mapped = bytes(10) + b"\xff\xff" if self.host.version == 4 else b""
        return raw[: _IN6_HOST.start] + mapped + self.destination.packed + raw[_IN6_HOST.stop :]

    def directed(self, raw: bytes, host: Address, port: int) -> bytes:
        """Name another destination in the ``struct sockaddr``, which must fit its family; it has no scope.

        One that is too short for the kernel stays so.
        """
        family = raw[: _FAMILY.size]
        if _FAMILY.unpack(family)[0] == socket.AF_INET:
            return (family + _IN.pack(port, host.packed)).ljust(16, b"\0")[: len(raw)]
        packed = host.packed if host.version == 6 else bytes(10) + b"\xff\xff" + host.packed
        return (family + _IN6.pack(port, 0, packed, 0))[: len(raw)]


@attrs.frozen
class UnixAddress:
    """AF_UNIX: ``path`` as bytes, or the ``abstract`` name; neither for an autobind (unix(7))."""

    path: bytes | None = None
    abstract: bytes | None = None


@attrs.frozen
class NetlinkAddress:
    """AF_NETLINK: the port of the receiver, 0 for the kernel, and multicast groups (netlink(7))."""

    port: int
    groups: int


def parse(raw: bytes) -> Unspecified | IPAddress | UnixAddress | NetlinkAddress:
    """Read a ``struct sockaddr`` of the families that the filter lets through.

    Raises:
        OSError: EINVAL if it is too short or too long, EAFNOSUPPORT for another family.
    """
    if len(raw) < _FAMILY.size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    (family,) = _FAMILY.unpack_from(raw)
    if family == socket.AF_UNSPEC:
        return Unspecified()
    if family == socket.AF_INET and len(raw) >= 8:
        port, host = _IN.unpack_from(raw, _PATH_OFFSET)
        return IPAddress(ipaddress.IPv4Address(host), port)
    if family == socket.AF_INET6 and len(raw) >= 24:
        port, _, host6 = _IN6.unpack_from(raw.ljust(28, b"\0"), _PATH_OFFSET)[:3]
        address = ipaddress.IPv6Address(host6)
        return IPAddress(address.ipv4_mapped or address, port)
    if family == socket.AF_UNIX:
        return _unix(raw[_PATH_OFFSET:])
    if family == socket.AF_NETLINK and len(raw) >= 12:
        _, port, groups = _NETLINK.unpack_from(raw, _PATH_OFFSET)
        return NetlinkAddress(port, groups)
    known = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
    error = errno.EINVAL if family in known else errno.EAFNOSUPPORT
    raise OSError(error, os.strerror(error))


def _unix(name: bytes) -> UnixAddress:
    if len(name) > 108:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if not name:
        return UnixAddress()
    if name[:1] == b"\0":
        return UnixAddress(abstract=name[1:])
    return UnixAddress(path=name.split(b"\0")[0])
