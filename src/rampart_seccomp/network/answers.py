"""One DNS message of a tree: judged, and answered with what the host's resolver says.

A name that the policy denies does not exist (NXDOMAIN), and nobody outside hears of it. Of a name that it
allows, addresses are answered which were resolved here and belong to the name from then on; other records are
passed on as they are, if they are of a type that says nothing about where to connect (RFC 1035, 2782). Hints
in service bindings (RFC 9460) would: those types are empty, and programs go on with addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from rampart_seccomp.events import Address
from rampart_seccomp.network.names import TreeNames, canonical
from rampart_seccomp.network.upstream import Failed, Upstream, bytes_of, read

if TYPE_CHECKING:
    from dnslib import DNSRecord

__all__ = ["Answers", "Lookups"]

_PASSED_ON = frozenset(
    ["CNAME", "MX", "NS", "SOA", "TXT", "SRV", "NAPTR", "CAA", "SSHFP", "TLSA", "DS", "DNSKEY"]
)
_QUERY_MAX = 4096
_PAYLOAD_MIN, _PAYLOAD_MAX = 512, 1232
_TTL_HOSTS = 60
_IN = 1


class Lookups(Protocol):
    """Decides about the names that a tree looks up, and keeps record of it."""

    @property
    def names(self) -> TreeNames:
        """What the tree was told, under the policy in force."""

    def verdict(self, name: str) -> str:
        """Say ``allow``, ``ask`` or ``deny``, and ask nobody."""

    def ask(self, name: str, query: str, who: Any) -> bool:
        """Have a question about a name answered; may take its time."""

    def note(self, name: str, query: str, who: Any, *, allowed: bool) -> bool:
        """Put on record what was decided; False if that is not possible: then it must not happen."""

    def note_inside(self, name: str, query: str, who: Any, addresses: Iterable[Address]) -> None:
        """Put on record which addresses of an allowed name are kept from the tree."""

    def note_exhausted(self, name: str, query: str, who: Any) -> None:
        """Put on record that no address is left for an allowed name."""

    def reachable(self, address: Address) -> bool:
        """Say whether rules about addresses let the tree connect to this one on some port."""


Later = Callable[[], bytes]
"""Gives the reply, some time: it has to ask."""


class Answers:
    """Answers the queries of one tree.

    Args:
        lookups: Decides.
        upstream: Knows the answers.
    """

    def __init__(self, lookups: Lookups, upstream: Upstream) -> None:
        self._lookups = lookups
        self._upstream = upstream

    def to(self, raw: bytes, who: Any, *, stream: bool) -> bytes | Later | None:
        """Answer one message.

        Args:
            raw: The message, without a length before it.
            who: The process that asks, for the record; opaque here.
            stream: True for TCP, where an answer may be long.

        Returns:
            The reply, or what gives it; None if none is due.
        """
        from dnslib import OPCODE, QTYPE, RCODE

        query = read(raw) if len(raw) <= _QUERY_MAX else None
        if query is None:
            return _malformed(raw)
        if query.header.qr:
            return None
        reply = _Reply(query, stream)
        if query.header.opcode != OPCODE.QUERY:
            return reply.coded(RCODE.NOTIMP)
        if len(query.questions) != 1:
            return reply.coded(RCODE.FORMERR)
        if query.q.qclass != _IN:
            return reply.coded(RCODE.REFUSED)
        kind = str(QTYPE.forward.get(query.q.qtype, f"TYPE{query.q.qtype}"))
        labels = bytes_of(query.q.qname.label)
        name = canonical(labels)
        if name is None:
            self._lookups.note(_shown(labels), kind, who, allowed=False)
            return reply.coded(RCODE.NXDOMAIN)
        if kind == "PTR":
            names = self._names_of(name)
            if names:
                return reply.pointers(names)
        verdict = self._lookups.verdict(name)
        if verdict == "deny":
            self._lookups.note(name, kind, who, allowed=False)
            return reply.coded(RCODE.NXDOMAIN)
        return lambda: self._resolved(reply, name, kind, who, asked=verdict == "ask")

    def _names_of(self, reverse: str) -> frozenset[str]:
        address = _reversed(reverse)
        names = self._lookups.names
        if address is None:
            return frozenset()
        meant = names.meant(address)
        return frozenset({meant.name}) if meant else names.bound(address) | names.vouched(address)

    def _resolved(self, reply: _Reply, name: str, kind: str, who: Any, *, asked: bool) -> bytes:
        from dnslib import RCODE

        if asked and not self._lookups.ask(name, kind, who):
            return reply.coded(RCODE.NXDOMAIN)
        if not asked and not self._lookups.note(name, kind, who, allowed=True):
            return reply.coded(RCODE.SERVFAIL)
        try:
            if kind in ("A", "AAAA"):
                return self._addresses(reply, name, kind, who)
            if kind in _PASSED_ON:
                return reply.passed_on(self._upstream.ask(name, reply.kind), kind)
        except Failed:
            return reply.coded(RCODE.SERVFAIL)
        return reply.coded(RCODE.NOTIMP if kind == "ANY" else RCODE.NOERROR)

    def _addresses(self, reply: _Reply, name: str, kind: str, who: Any) -> bytes:
        from dnslib import RCODE

        version = 4 if kind == "A" else 6
        names = self._lookups.names
        written = [address for address, known in names.shared.hosts.items() if name in known]
        if written:
            return reply.addresses([each for each in written if each.version == version], _TTL_HOSTS)
        code, found, ttl = self._upstream.addresses(name, version)
        # What is inside is no answer for a name, unless an address rule opens it: it is judged by that then.
        kept = [each for each in found if self._upstream.inside(each) and not self._lookups.reachable(each)]
        if kept:
            self._lookups.note_inside(name, kind, who, kept)
        given = names.answer(name, [address for address in found if address not in kept])
        if given is None:
            self._lookups.note_exhausted(name, kind, who)
            return reply.coded(RCODE.SERVFAIL)
        return reply.addresses(given, ttl) if found else reply.coded(code)


class _Reply:
    """The reply to one query, in the making."""

    def __init__(self, query: DNSRecord, stream: bool) -> None:
        from dnslib import QTYPE

        self.kind = query.q.qtype
        self._query = query
        options = [record for record in query.ar if record.rtype == QTYPE.OPT]
        self._extended = bool(options)
        asked = options[0].edns_len if options else _PAYLOAD_MIN
        self._room = 65535 if stream else max(_PAYLOAD_MIN, min(asked, _PAYLOAD_MAX))

    def coded(self, code: int) -> bytes:
        """Give a reply without records."""
        return self._packed(code, [])

    def addresses(self, addresses: Iterable[Address], ttl: int) -> bytes:
        """Give these as the addresses of the name asked for, whatever aliases led to them."""
        from dnslib import AAAA, RR, A

        records = [
            RR(self._query.q.qname, self.kind, ttl=ttl, rdata=(A if each.version == 4 else AAAA)(str(each)))
            for each in addresses
        ]
        return self._packed(0, records)

    def pointers(self, names: Iterable[str]) -> bytes:
        """Give these as the names of the address asked for."""
        from dnslib import PTR, RR

        rdata = [PTR(name) for name in sorted(names)]
        return self._packed(
            0, [RR(self._query.q.qname, self.kind, ttl=_TTL_HOSTS, rdata=each) for each in rdata]
        )

    def passed_on(self, found: DNSRecord, kind: str) -> bytes:
        """Give the records of one type, and the aliases that lead to them."""
        from dnslib import QTYPE

        wanted = (self.kind, QTYPE.CNAME)
        return self._packed(found.header.rcode, [each for each in found.rr if each.rtype in wanted])

    def _packed(self, code: int, records: list[Any]) -> bytes:
        from dnslib import EDNS0

        reply = self._query.reply(ra=1, aa=0)
        reply.header.rcode = code
        reply.questions = self._query.questions[:1]
        for record in records:
            reply.add_answer(record)
        if self._extended:
            reply.add_ar(EDNS0(udp_len=_PAYLOAD_MAX))
        packed = bytes(reply.pack())
        if len(packed) <= self._room:
            return packed
        reply.rr = []
        reply.header.tc = 1
        return bytes(reply.pack())


def _malformed(raw: bytes) -> bytes | None:
    """Give FORMERR for what has the header of a query; nothing for the rest."""
    from dnslib import RCODE, DNSHeader, DNSRecord

    if len(raw) < 12 or raw[2] & 0x80:
        return None
    header = DNSHeader(id=int.from_bytes(raw[:2], "big"), qr=1, rcode=RCODE.FORMERR)
    return bytes(DNSRecord(header).pack())


def _reversed(name: str) -> Address | None:
    """Give the address that a name of in-addr.arpa or ip6.arpa is for (RFC 1035, 3596); None for others."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        return None
    return None


def _shown(labels: list[bytes]) -> str:
    return b".".join(labels).decode("latin-1")
