"""Patterns of ``hosts:`` and ``ports:``: names, addresses, unix sockets, and local ports."""

from __future__ import annotations

import functools
import ipaddress
import re

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Address, ConnectEvent, ListenEvent
from rampart_seccomp.policy import globs

__all__ = ["HostPattern", "LocalPattern", "parse_host", "parse_local", "split_host"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Ports = tuple[tuple[int, int], ...]

EPHEMERAL = (32768, 60999)
"""Ports the kernel gives out for port 0 unless configured otherwise (ip(7), ip_local_port_range)."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_AMBIGUOUS = frozenset("\u00df\u03c2\u200c\u200d")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\Z")


@attrs.frozen(repr=False)
class HostPattern:
    """One parsed entry of ``hosts:``; exactly one of the first five is set.

    Attributes:
        name: Host name, lower case, without a trailing dot.
        beneath: End of the names that it means: ``.example.com`` of ``*.example.com``, empty for any name.
        network: Address or CIDR.
        socket: Pattern of the real path of a unix socket.
        abstract: Expression over the whole abstract name, without its ``@``.
        ports: Ranges, ends included; empty for any port.
    """

    text: str = attrs.field(eq=False)
    name: str | None = None
    beneath: str | None = None
    network: Network | None = None
    socket: globs.Glob | None = None
    abstract: re.Pattern[bytes] | None = None
    ports: Ports = ()

    @property
    def by_name(self) -> bool:
        """True if it is about names, and not about addresses or unix sockets."""
        return self.name is not None or self.beneath is not None

    def means(self, name: str) -> bool:
        """Say whether it is about this name (lower case, no trailing dot), whatever the port."""
        return name == self.name if self.beneath is None else name.endswith(self.beneath)

    def matches(self, event: ConnectEvent) -> bool:
        """Say whether this entry speaks about an IP or abstract destination.

        Path sockets are matched by the automaton that holds `socket`.
        """
        if event.socket is not None:
            return (
                self.abstract is not None
                and event.socket.startswith(b"@")
                and self.abstract.match(event.socket, 1) is not None
            )
        if not _in(self.ports, event.port):
            return False
        if self.name is not None:
            return self.name in event.names
        if self.beneath is not None:
            return any(name.endswith(self.beneath) for name in event.names)
        return self.network is not None and any(
            address in self.network
            for address in _meant(event.address)
            if address.version == self.network.version
        )


@attrs.frozen(repr=False)
class LocalPattern:
    """One parsed entry of ``ports:``.

    Attributes:
        network: Local address or CIDR; None for every address.
        ports: Ranges, ends included; empty for any port.
    """

    text: str = attrs.field(eq=False)
    network: Network | None = None
    ports: Ports = ()

    def matches(self, event: ListenEvent, *, strict: bool) -> bool:
        """Say whether this entry speaks about a local port.

        Args:
            event: What would listen.
            strict: True where a match restricts. Then an unspecified address (0.0.0.0, ::) counts as each
                address that it includes, and port 0 as each port that the kernel may choose for it.
        """
        if not _in(self.ports, event.port) and not (
            strict
            and event.port == 0
            and any(lo <= EPHEMERAL[1] and hi >= EPHEMERAL[0] for lo, hi in self.ports)
        ):
            return False
        if self.network is None:
            return True
        if event.address.version == self.network.version and event.address in self.network:
            return True
        return (
            strict
            and event.address.is_unspecified
            and (event.address.version == 6 or self.network.version == 4)
        )


def _in(ports: Ports, port: int | None) -> bool:
    return not ports or (port is not None and any(lo <= port <= hi for lo, hi in ports))


def _meant(address: Address | None) -> tuple[Address, ...]:
    """Connecting to the unspecified address reaches the loopback address: judge both."""
    if address is None:
        return ()
    if address.is_unspecified:
        return (address, ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1"))
    return (address,)


@functools.lru_cache(maxsize=4096)
def parse_host(text: str) -> HostPattern:
    """Parse one entry of ``hosts:``.

    Raises:
        PolicyError: It is not valid, or not supported by this version.
    """
    if text.startswith("unix:"):
        return _unix(text, text[len("unix:") :])
    if "://" in text:
        raise PolicyError(f"{text!r} is a URL", hint="write the host and the port: 'example.com:443'")
    host, ports = split_host(text)
    if host == "*" or host.startswith("*."):
        beneath = "" if host == "*" else "." + _name(host[2:], text)
        return HostPattern(text, beneath=beneath, ports=_ports(ports, text))
    if "*" in host:
        raise PolicyError(
            f"{text!r} has a '*' in the middle of a name",
            hint="write '*.example.com' for all names beneath one, or '*' for any name",
        )
    network = _network(host)
    if network is not None:
        return HostPattern(text, network=network, ports=_ports(ports, text))
    return HostPattern(text, name=_name(host, text), ports=_ports(ports, text))


@functools.lru_cache(maxsize=4096)
def parse_local(text: str) -> LocalPattern:
    """Parse one entry of ``ports:``: ``8000``, ``8000-9000``, ``127.0.0.1:8000``, ``[::1]``, ``10.0.0.0/8``.

    Raises:
        PolicyError: It is not valid.
    """
    if re.fullmatch(r"[0-9,\- ]+", text):
        return LocalPattern(text, ports=_ports(text, text))
    host, ports = split_host(text)
    network = _network(host)
    if network is None:
        raise PolicyError(
            f"{text!r} is neither a port nor a local address",
            hint="write '8000', '8000-9000', '127.0.0.1:8000' or '[::1]:8000'",
        )
    return LocalPattern(text, network=network, ports=_ports(ports, text))


def _unix(text: str, path: str) -> HostPattern:
    if path.startswith("@"):
        if path in globs.SETS or len(path) == 1:
            raise PolicyError(
                f"{text!r} does not name an abstract socket",
                hint="write 'unix:@name', with '*' for any bytes",
            )
        return HostPattern(text, abstract=globs.wildcard(path[1:]))
    return HostPattern(text, socket=globs.parse(path))


def split_host(text: str) -> tuple[str, str]:
    """Split ``host:ports``, ``[v6]:ports``, a bare IPv6 address or CIDR; ports may be missing."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise PolicyError(f"{text!r} is not an address", hint="write '[::1]:443'")
        if rest == ":":
            raise PolicyError(f"{text!r} has no port behind ':'", hint="leave ':' out for any port")
        return host, rest[1:]
    if text.count(":") > 1:
        return text, ""
    host, colon, ports = text.partition(":")
    if colon and not ports:
        raise PolicyError(f"{text!r} has no port behind ':'", hint="leave ':' out for any port")
    return host, ports


def _network(host: str) -> Network | None:
    """Give the network that ``host`` names, or None if it is a name."""
    if "%" in host:
        raise PolicyError(f"{host!r} has a scope", hint="write the address without '%' and what follows")
    try:
        network: Network = ipaddress.ip_network(host)
    except ValueError as error:
        if "has host bits set" in str(error):
            whole = ipaddress.ip_network(host, strict=False)
            raise PolicyError(
                f"{host!r} has bits set behind its prefix", hint=f"write '{whole}' or the address alone"
            ) from None
        if "/" in host or ":" in host or _NUMERIC.match(host.lower()):
            raise PolicyError(
                f"{host!r} is not an address", hint="write '10.0.0.1', '10.0.0.0/8', '[::1]' or 'fd00::/8'"
            ) from None
        return None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network


def _name(host: str, text: str) -> str:
    name = host.rstrip(".").lower() if host.count(".") else host.lower()
    if not _AMBIGUOUS.isdisjoint(name):
        raise PolicyError(
            f"{text!r} has two ASCII forms, an old and a new one (UTS 46)",
            hint="write the one that is meant, 'xn--…'",
        )
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise PolicyError(f"{text!r} is not a host name", hint="write its ASCII form, 'xn--…'") from None
    if not name or len(name) > 253 or not all(_LABEL.match(label) for label in name.split(".")):
        raise PolicyError(
            f"{text!r} is not a host", hint="write 'name:443', '10.0.0.0/8:5432', '[::1]:443' or 'unix:/path'"
        )
    return name


def _ports(text: str, whole: str) -> Ports:
    if not text:
        return ()
    found = []
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        high = high if dash else low
        if not (low.isdecimal() and high.isdecimal() and low.isascii() and high.isascii()):
            raise PolicyError(
                f"{part!r} is not a port, in {whole!r}", hint="write '443', '80,443' or '8000-9000'"
            )
        if len(low) > 5 or len(high) > 5 or not 0 <= int(low) <= int(high) <= 65535:
            raise PolicyError(f"the ports {part!r} are out of order or above 65535, in {whole!r}")
        found.append((int(low), int(high)))
    return tuple(found)
