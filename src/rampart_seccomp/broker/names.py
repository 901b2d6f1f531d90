"""Host names of a policy and the addresses they have, asked of the host's own resolver."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterable, Mapping

from rampart_seccomp.events import Address

__all__ = ["HostNames", "nameservers"]


class HostNames:
    """Which names of the policy an address belongs to.

    Names are resolved when the broker starts and again when an address is met that none of them has, at most
    once in `FRESH` seconds. An address that a name once had stays its own for the life of the broker.

    Args:
        names: Lower case, no trailing dot.
        known: Names of addresses from the start.
    """

    FRESH = 2.0
    """Seconds."""

    def __init__(self, names: Iterable[str], known: Mapping[Address, frozenset[str]] | None = None) -> None:
        self._names = sorted(set(names))
        self._known = dict(known or {})
        self._asked = float("-inf")
        self._lock = threading.Lock()
        if self._names:
            threading.Thread(target=self._resolve, name="rampart-names", daemon=True).start()

    def changed(self, names: Iterable[str]) -> HostNames:
        """Give what another policy names; an address stays that of the names that are still there."""
        kept = frozenset(names)
        if kept == frozenset(self._names):
            return self
        known = {address: found & kept for address, found in self._known.items() if found & kept}
        return HostNames(kept, known)

    def names_of(self, address: Address) -> frozenset[str]:
        """Return the policy's names for an address; asks the resolver if there is none yet."""
        found = self._known.get(address, frozenset())
        if found or not self._names:
            return found
        self._resolve()
        return self._known.get(address, frozenset())

    def known(self, address: Address) -> frozenset[str]:
        """Return the policy's names for an address, as far as they are known; asks nobody."""
        return self._known.get(address, frozenset())

    def _resolve(self) -> None:
        with self._lock:
            if time.monotonic() - self._asked < self.FRESH:
                return
            known = dict(self._known)
            for name in self._names:
                for address in _addresses(name):
                    known[address] = known.get(address, frozenset()) | {name}
            self._known = known
            self._asked = time.monotonic()


def _addresses(name: str) -> set[Address]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers}


def nameservers() -> frozenset[Address]:
    """Return the name servers of /etc/resolv.conf (resolv.conf(5)); the local one if none is named."""
    found: set[Address] = set()
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if len(words) >= 2 and words[0] == "nameserver":
                    try:
                        found.add(ipaddress.ip_address(words[1].partition("%")[0]))
                    except ValueError:
                        continue
    except OSError:
        pass
    return frozenset(found) or frozenset({ipaddress.ip_address("127.0.0.1")})
