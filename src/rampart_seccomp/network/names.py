"""Which names an address has: those that a tree was given it for, those in /etc/hosts, those to look out for.

A connection is made to an address, and the policy speaks about names. An address belongs to a name because
the broker has answered this tree's question for the name with it; for as long as the tree runs, since a
program may keep what it got. The names of hosts(5), which programs read by themselves, belong to their
addresses from the start. For an address that has none of these, the exact names count that something in the
policy restricts, as far as the host's resolver knows their addresses: no denied name is reached by number.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from rampart_seccomp.events import Address
from rampart_seccomp.network.addresses import is_inside
from rampart_seccomp.network.synthetic import Meant, Synthetic
from rampart_seccomp.policy.hosts import Network
from rampart_seccomp.policy.reach import Reach

__all__ = ["HostNames", "TreeNames", "canonical", "read_hosts"]

NAMES_MAX = 65_536
"""Pairs of address and name that one tree may collect; further answers are refused."""

_LABEL = re.compile(rb"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_LOCALHOST = {ipaddress.ip_address(text): frozenset({"localhost"}) for text in ("127.0.0.1", "::1")}


def canonical(labels: Iterable[bytes]) -> str | None:
    """Give a name as policies have it: lower case, ASCII, no trailing dot; None if it is no host name.

    Args:
        labels: As they are in a DNS message, without the root's empty one.
    """
    given = [bytes(label) for label in labels]
    if not given or not all(_LABEL.match(label) for label in given):
        return None
    name = b".".join(given).decode("ascii").lower()
    return name if len(name) <= 253 else None


def read_hosts(text: bytes) -> dict[Address, frozenset[str]]:
    """Give the names of each address in hosts(5), and ``localhost`` (RFC 6761); skip what cannot be read."""
    found: dict[Address, frozenset[str]] = dict(_LOCALHOST)
    for line in text.splitlines():
        words = line.partition(b"#")[0].split()
        try:
            address = ipaddress.ip_address(words[0].decode("ascii"))
        except (IndexError, ValueError):
            continue
        names = {canonical(word.rstrip(b".").split(b".")) for word in words[1:]} - {None}
        found[address] = found.get(address, frozenset()) | frozenset(map(str, names))
    return found


def _hosts_file() -> bytes:
    try:
        with open("/etc/hosts", "rb") as file:
            return file.read()
    except OSError:
        return b""


class HostNames:
    """Names that addresses have whatever the trees of a broker ask, under one policy.

    Args:
        reach: The policy.
        inside: Says which addresses are no answer for a public name.
        written: The text of /etc/hosts; None to read it. It is read once: a tree may be able to change it.
        known: Addresses that restricted names had so far.
        ranges: Networks of the addresses that stood for names so far.

    Attributes:
        hosts: What /etc/hosts says about names that the policy means.
        ranges: Networks of addresses that may stand for names, under this policy or an earlier one.
    """

    FRESH = 2.0
    """Seconds for which what the resolver said about the restricted names holds."""

    def __init__(
        self,
        reach: Reach,
        inside: Callable[[Address], bool] = is_inside,
        written: bytes | None = None,
        known: Mapping[Address, frozenset[str]] | None = None,
        ranges: tuple[Network, ...] = (),
    ) -> None:
        self.reach = reach
        self.ranges = tuple(dict.fromkeys((*ranges, *reach.synthetic)))
        self.inside = inside
        self._written = _hosts_file() if written is None else written
        self.hosts = _spoken_of(read_hosts(self._written), reach, inside) if reach.judges_names else {}
        self._restricted = sorted(reach.restricted)
        self._known = dict(known or {})
        self._asked = float("-inf")
        self._lock = threading.Lock()
        if self._restricted:
            threading.Thread(target=self._resolve, name="rampart-names", daemon=True).start()

    def changed(self, reach: Reach) -> HostNames:
        """Give the same under another policy; an address stays that of the names that are still there."""
        kept = reach.restricted
        known = {address: found & kept for address, found in self._known.items() if found & kept}
        return HostNames(reach, self.inside, self._written, known, self.ranges)

    def restricted(self, address: Address, *, ask: bool) -> frozenset[str]:
        """Give the restricted names for an address; if there is none yet, ``ask`` has the resolver asked."""
        if ask and self._restricted and address not in self._known:
            self._resolve()
        return self._known.get(address, frozenset())

    def _resolve(self) -> None:
        with self._lock:
            if time.monotonic() - self._asked < self.FRESH:
                return
            known = dict(self._known)
            for name in self._restricted:
                for address in _addresses(name):
                    known[address] = known.get(address, frozenset()) | {name}
            self._known = known
            self._asked = time.monotonic()


def _spoken_of(
    hosts: Mapping[Address, frozenset[str]], reach: Reach, inside: Callable[[Address], bool]
) -> dict[Address, frozenset[str]]:
    """Leave the names that the policy means; ``*`` alone means no address inside: nobody wrote that name."""
    found = {}
    for address, names in hosts.items():
        meant = frozenset(
            name
            for name in names
            if reach.named(name) or (reach.name(name).verdict != "deny" and not inside(address))
        )
        if meant:
            found[address] = meant
    return found


def _addresses(name: str) -> set[Address]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers}


class TreeNames:
    """The names that addresses have for one tree. Safe to use from several threads.

    Args:
        shared: What holds for every tree under the policy in force.
    """

    def __init__(self, shared: HostNames) -> None:
        self.shared = shared
        self._told = _Told()
        self._synthetic = Synthetic()

    def under(self, shared: HostNames) -> TreeNames:
        """Give the same under another policy: what the tree was told stays, and is judged anew."""
        names = TreeNames(shared)
        names._told = self._told
        names._synthetic = self._synthetic
        return names

    def answer(self, name: str, addresses: Sequence[Address]) -> list[Address] | None:
        """Give what the tree gets for a name that has these addresses, and note it; None if it has too many.

        These are the addresses themselves, or those that stand for them (`Policy.names`).
        """
        ranges = self.shared.reach.synthetic
        if ranges:
            return self._synthetic.give(name, addresses, ranges)
        return list(addresses) if self.bind(name, addresses) else None

    def meant(self, address: Address) -> Meant | None:
        """Say what an address stands for that the tree got in place of a real one; None for others."""
        return self._synthetic.meant(address)

    def reserved(self, address: Address) -> bool:
        """Say whether an address is one of those that stand for others, though it may stand for none yet."""
        return any(address in network for network in self.shared.reach.synthetic)

    def bind(self, name: str, addresses: Iterable[Address]) -> bool:
        """Note that the tree gets these addresses for a name; False if it has too many: then it must not."""
        return self._told.add(name, addresses)

    def bound(self, address: Address) -> frozenset[str]:
        """Give the names that the tree got an address for."""
        return self._told.names.get(address, frozenset())

    def of(self, address: Address, *, ask: bool = True) -> frozenset[str]:
        """Give all names of an address that count; ``ask`` has the resolver asked about restricted ones."""
        found = self.bound(address) | self.vouched(address)
        return found or self.shared.restricted(address, ask=ask)

    def vouched(self, address: Address) -> frozenset[str]:
        """Give the names that /etc/hosts has for an address: they count wherever that is."""
        return self.shared.hosts.get(address, frozenset())


class _Told:
    """What one tree was told, under whatever policy."""

    def __init__(self) -> None:
        self.names: dict[Address, frozenset[str]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def add(self, name: str, addresses: Iterable[Address]) -> bool:
        with self._lock:
            for address in addresses:
                found = self.names.get(address, frozenset())
                if name in found:
                    continue
                if self._count >= NAMES_MAX:
                    return False
                self.names[address] = found | {name}
                self._count += 1
        return True
