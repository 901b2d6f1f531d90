"""The host's resolver, asked on behalf of a tree.

A forwarding client to the servers of resolv.conf(5), and not getaddrinfo(3): it gives TTLs, and types other
than addresses, ends in time, and one code serves all queries. What only other sources of nsswitch.conf(5)
know (mDNS, LDAP) is not found; /etc/hosts is read elsewhere.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rampart_seccomp.events import DNS_PORT, Address
from rampart_seccomp.network.addresses import is_inside
from rampart_seccomp.network.names import canonical

if TYPE_CHECKING:
    from dnslib import RR, DNSRecord

__all__ = ["RESOLV_CONF", "Failed", "Server", "Upstream", "read", "servers_of"]

RESOLV_CONF = "/etc/resolv.conf"

Server = tuple[str, int]

_PAYLOAD = 1232
"""Bytes of a UDP answer that pass any network unfragmented (dnsflagday.net, 2020)."""

_CHAIN_MAX = 8
"""CNAMEs that are followed over several questions."""

_ANSWERS_MAX = 64
"""Addresses taken of one answer."""

_TTL_MAX = 3600


class Failed(Exception):
    """No server gave an answer that can be used."""


def servers_of(text: str) -> list[Server]:
    """Give the name servers of a resolv.conf(5); the local one if it has none."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            found.append((words[1], DNS_PORT))
    return found or [("127.0.0.1", DNS_PORT)]


class Upstream:
    """Asks name servers. Safe to use from several threads.

    Args:
        servers: Address and port; None for those of /etc/resolv.conf, which is read for each question.
        inside: Says which addresses are no answer for a public name.
    """

    TIMEOUT = 1.5
    """Seconds that one server is waited for."""

    ROUNDS = 2
    """How often all servers are asked before that is given up; libraries wait for five seconds."""

    def __init__(
        self, servers: Sequence[Server] | None = None, inside: Callable[[Address], bool] = is_inside
    ) -> None:
        self._given = servers
        self.inside = inside

    def addresses(self, name: str, version: int) -> tuple[int, list[Address], int]:
        """Ask for the addresses of a name, and follow its aliases.

        Args:
            name: Lower case, no trailing dot.
            version: 4 or 6.

        Returns:
            Response code, addresses, and for how many seconds they hold.

        Raises:
            Failed: Nobody answers.
        """
        from dnslib import QTYPE, RCODE

        kind = QTYPE.A if version == 4 else QTYPE.AAAA
        wanted, ttl = name, _TTL_MAX
        for _ in range(_CHAIN_MAX):
            reply = self.ask(wanted, kind)
            target, ttl = _follow(reply.rr, wanted, ttl)
            records = [each for each in reply.rr if each.rtype == kind and _owner(each) == target]
            found = [ipaddress.ip_address(str(each.rdata)) for each in records[:_ANSWERS_MAX]]
            if found or target == wanted or reply.header.rcode != RCODE.NOERROR:
                return reply.header.rcode, found, min([ttl, *(each.ttl for each in records)])
            if canonical(target.encode("latin-1").split(b".")) != target:
                break
            wanted = target
        raise Failed(name)

    def ask(self, name: str, kind: int) -> DNSRecord:
        """Ask for records of a name; nothing but name and type of the question is passed on.

        Raises:
            Failed: Nobody answers.
        """
        from dnslib import EDNS0, RCODE, DNSHeader, DNSQuestion, DNSRecord

        for _ in range(self.ROUNDS):
            for server in self._servers():
                header = DNSHeader(id=int.from_bytes(os.urandom(2), "big"), rd=1)
                query = DNSRecord(header, q=DNSQuestion(name, kind))
                query.add_ar(EDNS0(udp_len=_PAYLOAD))
                try:
                    reply = self._exchange(server, query)
                except (OSError, Failed):
                    continue
                if reply.header.rcode in (RCODE.NOERROR, RCODE.NXDOMAIN):
                    return reply
        raise Failed(name)

    def _servers(self) -> Sequence[Server]:
        if self._given is not None:
            return self._given
        try:
            with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
                return servers_of(file.read())
        except OSError:
            return servers_of("")

    def _exchange(self, server: Server, query: DNSRecord) -> DNSRecord:
        deadline = time.monotonic() + self.TIMEOUT
        with _connected(server, socket.SOCK_DGRAM, self.TIMEOUT) as udp:
            udp.send(bytes(query.pack()))
            while True:
                udp.settimeout(max(0.001, deadline - time.monotonic()))
                reply = _parsed(udp.recv(65535), query)
                if reply is not None:
                    break
        if reply.header.tc:
            reply = self._exchange_stream(server, query)
        return reply

    def _exchange_stream(self, server: Server, query: DNSRecord) -> DNSRecord:
        message = bytes(query.pack())
        with _connected(server, socket.SOCK_STREAM, self.TIMEOUT) as tcp, tcp.makefile("rb") as stream:
            tcp.sendall(struct.pack("!H", len(message)) + message)
            size = stream.read(2)
            reply = _parsed(stream.read(*struct.unpack("!H", size)), query) if len(size) == 2 else None
        if reply is None:
            raise Failed(server)
        return reply


def _connected(server: Server, kind: socket.SocketKind, timeout: float) -> socket.socket:
    """Give a socket that hears this server only."""
    family, _, _, _, address = socket.getaddrinfo(*server, type=kind, flags=socket.AI_NUMERICHOST)[0]
    made = socket.socket(family, kind)
    try:
        made.settimeout(timeout)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def read(raw: bytes) -> DNSRecord | None:
    """Read a message; None if it is none, or has names that are too long."""
    from dnslib import DNSRecord
    from dnslib.buffer import BufferError as DNSBufferError
    from dnslib.dns import DNSError
    from dnslib.label import DNSLabelError

    try:
        message = DNSRecord.parse(raw)
        message.pack()
    except (DNSError, DNSLabelError, DNSBufferError, ValueError, struct.error, LookupError):
        return None
    return message


def _parsed(raw: bytes, query: DNSRecord) -> DNSRecord | None:
    """Read a reply; None if it is none to this question."""
    reply = read(raw)
    same = (
        reply is not None
        and reply.header.qr == 1
        and reply.header.id == query.header.id
        and len(reply.questions) == 1
        and reply.q.qtype == query.q.qtype
        and bytes_of(reply.q.qname.label) == bytes_of(query.q.qname.label)
    )
    return reply if same else None


def bytes_of(labels: Sequence[bytes]) -> list[bytes]:
    """Give labels as bytes in lower case, for comparison."""
    return [bytes(label).lower() for label in labels]


def _owner(record: RR) -> str:
    return b".".join(bytes_of(record.rname.label)).decode("latin-1")


def _follow(records: Sequence[RR], name: str, ttl: int) -> tuple[str, int]:
    """Give where the aliases of an answer lead, and for how long they hold."""
    from dnslib import QTYPE

    aliases = {_owner(record): record for record in records if record.rtype == QTYPE.CNAME}
    seen = set()
    while name in aliases and name not in seen:
        seen.add(name)
        record = aliases[name]
        ttl = min(ttl, record.ttl)
        name = b".".join(bytes_of(record.rdata.label.label)).decode("latin-1")
    return name, ttl
