"""Single DNS messages: what is judged, what is asked upstream, and what the answer holds."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

import strategies
from naming import NameServer, inside
from rampart_seccomp.events import Address
from rampart_seccomp.network import names
from rampart_seccomp.network.answers import Answers
from rampart_seccomp.network.names import HostNames, TreeNames
from rampart_seccomp.network.upstream import Upstream
from rampart_seccomp.policy import Policy, Rule, allow
from rampart_seccomp.policy.reach import Reach

PUBLIC = "127.200.0.1"
SITES = allow("connect", hosts=["site.example:443", "*.wild.example:443", "bücher.example"], name="sites")


class Log:
    """Decides by a policy, and keeps what would go on record."""

    def __init__(self, *rules: Rule) -> None:
        self.names = TreeNames(HostNames(Reach(Policy(rules=rules).matcher()), inside))
        self.noted: list[tuple[str, str, bool]] = []
        self.kept: list[Address] = []
        self.exhausted: list[tuple[str, str]] = []
        self.recordable = True

    def verdict(self, name: str) -> str:
        return self.names.shared.reach.name(name).verdict

    def ask(self, name: str, query: str, who: Any) -> bool:
        raise AssertionError

    def note(self, name: str, query: str, who: Any, *, allowed: bool) -> bool:
        self.noted.append((name, query, allowed))
        return self.recordable

    def note_inside(self, name: str, query: str, who: Any, addresses: Iterable[Address]) -> None:
        self.kept += addresses

    def note_exhausted(self, name: str, query: str, who: Any) -> None:
        self.exhausted.append((name, query))

    def reachable(self, address: Address) -> bool:
        return self.names.shared.reach.address(address).verdict != "deny"


@pytest.fixture
def server() -> Iterator[NameServer]:
    made = NameServer({"site.example": [("A", PUBLIC), ("TXT", '"text"')]})
    yield made
    made.close()


def message(name: str | list[bytes], kind: str = "A", **header: Any) -> DNSRecord:
    """Make a query."""
    return DNSRecord(DNSHeader(id=7, rd=1, **header), q=DNSQuestion(name, getattr(QTYPE, kind)))


def answer(log: Log, server: NameServer, query: DNSRecord | bytes, *, stream: bool = False) -> DNSRecord:
    """Give the reply to a query."""
    raw = query if isinstance(query, bytes) else bytes(query.pack())
    reply = Answers(log, server.upstream()).to(raw, None, stream=stream)
    if callable(reply):
        reply = reply()
    assert reply is not None
    found = DNSRecord.parse(reply)
    assert found.header.qr == 1
    assert found.header.id == int.from_bytes(raw[:2], "big")
    return found


def data(reply: DNSRecord) -> list[str]:
    return [str(record.rdata) for record in reply.rr]


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            *("evil.example", "secret.site.example", "site.example.evil.example", "wild.example", "example"),
            *("xsite.example", "127.0.0.1", "1.0.0.127.in-addr.arpa", "xn--bcher-kva.example.evil.example"),
        ],
    )
    @pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "MX", "HTTPS", "NULL", "ANY", "PTR"])
    def test_denied(self, name: str, kind: str, server: NameServer) -> None:
        """A name that is not allowed does not exist, is on record, and no server hears of it."""
        log = Log(SITES)
        reply = answer(log, server, message(name, kind))
        assert (reply.header.rcode, data(reply)) == (RCODE.NXDOMAIN, [])
        assert log.noted == [(name, kind, False)]
        assert server.asked == []

    @pytest.mark.parametrize(
        "labels",
        [
            [b"site\0", b"example"],
            [b"site", b"example\0"],
            [b"site.example"],
            [b"b\xc3\xbccher", b"example"],
            [b"*", b"wild", b"example"],
            [b"a b", b"wild", b"example"],
        ],
    )
    def test_no_host_names(self, labels: list[bytes], server: NameServer) -> None:
        """What is no host name is denied, though its text looks like one that is allowed."""
        log = Log(SITES, allow("connect", hosts=["*"], name="any"))
        raw = bytes(message("x").pack())
        name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
        reply = Answers(log, server.upstream()).to(raw[:12] + name + raw[-4:], None, stream=False)
        assert isinstance(reply, bytes)
        assert reply[3] & 15 == RCODE.NXDOMAIN
        assert [allowed for _, _, allowed in log.noted] == [False]
        assert server.asked == []

    @pytest.mark.parametrize(
        ("name", "asked"),
        [
            ("site.example", "site.example"),
            ("SiTe.EXAMPLE.", "site.example"),
            ("a.wild.example", "a.wild.example"),
            ("a.b.WILD.example", "a.b.wild.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ],
    )
    def test_allowed(self, name: str, asked: str, server: NameServer) -> None:
        """Names are compared canonically; the question comes back as it was, and goes on without its case."""
        log = Log(SITES)
        server.zone[asked] = [("A", PUBLIC)]
        reply = answer(log, server, message(name))
        assert (reply.header.rcode, data(reply)) == (RCODE.NOERROR, [PUBLIC])
        assert [str(reply.q.qname), str(reply.rr[0].rname)] == [name.rstrip(".") + "."] * 2
        assert server.asked == [(asked, "A")]
        assert log.noted == [(asked, "A", True)]
        assert log.names.of(ipaddress.ip_address(PUBLIC)) == {asked}

    def test_what_is_passed_on(self, server: NameServer) -> None:
        """Nothing but name and type: not the id, the case, flags, options or other sections."""
        query = message("SITE.example", z=1, ad=1, cd=1)
        query.add_ar(EDNS0("payload.example", udp_len=4096))
        query.add_auth(*DNSRecord.question("x").reply().rr)
        query.header.id = 0x4242
        answer(Log(SITES), server, query)
        passed = DNSRecord.parse(server.messages[0])
        assert b"payload" not in server.messages[0]
        assert bytes(passed.q.qname.label[0]) == b"site"
        assert (passed.header.ad, passed.header.cd, passed.header.z) == (0, 0, 0)
        assert passed.header.id != 0x4242

    def test_unrecordable(self, server: NameServer) -> None:
        """What cannot be put on record does not happen."""
        log = Log(SITES)
        log.recordable = False
        assert answer(log, server, message("site.example")).header.rcode == RCODE.SERVFAIL
        assert server.asked == []


class TestAddresses:
    def test_aliases(self, server: NameServer) -> None:
        """Aliases are followed, the answer stands at the name asked for, and that name is the address's."""
        server.zone |= {
            "a.wild.example": [("CNAME", "cdn.example.")],
            "cdn.example": [("A", PUBLIC), ("AAAA", "64:ff9b::101:101")],
        }
        log = Log(SITES)
        reply = answer(log, server, message("a.wild.example"))
        assert [(str(each.rname), str(each.rdata)) for each in reply.rr] == [("a.wild.example.", PUBLIC)]
        assert log.names.of(ipaddress.ip_address(PUBLIC)) == {"a.wild.example"}
        assert data(answer(log, server, message("a.wild.example", "AAAA"))) == ["64:ff9b::101:101"]

    def test_too_many(self, server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name for which there is no room fails, and is noted; one that is there already does not."""
        server.zone["a.wild.example"] = [("A", "127.200.0.2")]
        log = Log(SITES)
        monkeypatch.setattr(names, "NAMES_MAX", 1)
        for name, code in (("site.example", 0), ("a.wild.example", RCODE.SERVFAIL), ("site.example", 0)):
            assert answer(log, server, message(name)).header.rcode == code
        assert log.exhausted == [("a.wild.example", "A")]

    def test_alias_loop(self, server: NameServer) -> None:
        """Aliases that lead nowhere, or in a circle, end."""
        log = Log(SITES)

        def records(name: str, kind: str) -> Iterator[Any]:
            from dnslib import RR

            other = "b.wild.example" if name == "a.wild.example" else "a.wild.example"
            yield from RR.fromZone(f"{name}. 60 CNAME {other}.")

        server.zone |= {"a.wild.example": [], "b.wild.example": []}
        server._records = records  # type: ignore[method-assign]
        assert answer(log, server, message("a.wild.example")).header.rcode == RCODE.SERVFAIL
        assert len(server.asked) <= 8

    @pytest.mark.parametrize(
        ("kind", "address"),
        [
            *(
                ("A", address)
                for address in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "224.0.0.1")
            ),
            *(("AAAA", address) for address in ("::1", "fd00:ec2::254", "64:ff9b::a00:1", "fe80::1")),
        ],
    )
    def test_inside(self, kind: str, address: str, server: NameServer) -> None:
        """An address inside is no answer for a name, unless an address rule allows it, on some port."""
        server.zone["site.example"].append((kind, address))
        expected = [PUBLIC] if kind == "A" else []
        log = Log(SITES)
        assert data(answer(log, server, message("site.example", kind))) == expected
        assert list(map(str, log.kept)) == [str(ipaddress.ip_address(address))]
        assert log.names.of(log.kept[0]) == frozenset()
        written = f"[{address}]" if kind == "AAAA" else address
        log = Log(SITES, allow("connect", hosts=[f"{written}:5432"], name="inside"))
        found = data(answer(log, server, message("site.example", kind)))
        assert [*map(ipaddress.ip_address, expected), ipaddress.ip_address(address)] == [
            ipaddress.ip_address(text) for text in found
        ]
        assert log.kept == []

    def test_hosts(self, server: NameServer) -> None:
        """A name of /etc/hosts is answered from there, wherever it leads; nobody is asked."""
        log = Log(allow("connect", hosts=["localhost:80"], name="l"))
        assert data(answer(log, server, message("localhost"))) == ["127.0.0.1"]
        assert server.asked == []

    def test_nobody_answers(self, server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then the answer is a failure, in time."""
        monkeypatch.setattr(Upstream, "TIMEOUT", 0.05)
        server.silent = True
        assert answer(Log(SITES), server, message("site.example")).header.rcode == RCODE.SERVFAIL

    def test_does_not_exist(self, server: NameServer) -> None:
        """An allowed name that does not exist does not, and one without addresses has none."""
        log = Log(SITES)
        assert answer(log, server, message("a.wild.example")).header.rcode == RCODE.NXDOMAIN
        reply = answer(log, server, message("site.example", "AAAA"))
        assert (reply.header.rcode, data(reply)) == (RCODE.NOERROR, [])


class TestOtherTypes:
    def test_text(self, server: NameServer) -> None:
        """Types that say nothing about where to connect are passed on, addresses beside them are not."""
        assert data(answer(Log(SITES), server, message("site.example", "TXT"))) == ['"text"']
        server.zone["site.example"] = [("MX", "10 mail.site.example."), ("A", "10.0.0.1")]
        assert data(answer(Log(SITES), server, message("site.example", "MX"))) == ["10 mail.site.example."]
        assert server.asked == [("site.example", "TXT"), ("site.example", "MX")]

    @pytest.mark.parametrize("kind", ["HTTPS", "SVCB", "NULL", "AXFR", "RRSIG"])
    def test_empty(self, kind: str, server: NameServer) -> None:
        """Service bindings carry addresses: these and unknown types are empty, and nobody is asked."""
        reply = answer(Log(SITES), server, message("site.example", kind))
        assert (reply.header.rcode, data(reply), server.asked) == (RCODE.NOERROR, [], [])

    def test_reverse(self, server: NameServer) -> None:
        """An address has the names that the tree got it for; others are asked about nobody."""
        log = Log(SITES)
        answer(log, server, message("site.example"))
        reverse = ipaddress.ip_address(PUBLIC).reverse_pointer
        assert data(answer(log, server, message(reverse, "PTR"))) == ["site.example."]
        log.names.bind("a.wild.example", [ipaddress.ip_address("2600::1")])
        reverse = ipaddress.ip_address("2600::1").reverse_pointer
        assert data(answer(log, server, message(reverse, "PTR"))) == ["a.wild.example."]
        reverse = ipaddress.ip_address("2600::2").reverse_pointer
        assert answer(log, server, message(reverse, "PTR")).header.rcode == RCODE.NXDOMAIN
        assert server.asked == [("site.example", "A")]


class TestMessages:
    def test_long_answers(self, server: NameServer) -> None:
        """What does not fit says so, and comes by TCP; how much fits is the asker's to say, up to a bound."""
        server.zone["site.example"] = [("A", f"127.200.0.{number}") for number in range(1, 61)]
        log = Log(SITES)
        plain = answer(log, server, message("site.example"))
        assert (plain.header.tc, plain.rr) == (1, [])
        assert len(answer(log, server, message("site.example"), stream=True).rr) == 60
        query = message("site.example")
        query.add_ar(EDNS0(udp_len=4096))
        reply = answer(log, server, query)
        assert (reply.header.tc, len(reply.rr)) == (0, 60)
        assert [each.rtype for each in reply.ar] == [QTYPE.OPT]
        assert len(reply.pack()) <= 1232

    def test_upstream_by_tcp(self, server: NameServer) -> None:
        """An answer that was too long for UDP is asked for again by TCP."""
        server.short = True
        assert data(answer(Log(SITES), server, message("site.example"))) == [PUBLIC]
        assert len(server.asked) == 2

    @pytest.mark.parametrize(
        ("header", "code"), [({"opcode": 5}, RCODE.NOTIMP), ({"opcode": 2}, RCODE.NOTIMP)]
    )
    def test_other_operations(self, header: dict[str, Any], code: int, server: NameServer) -> None:
        """Updates, notifications and the like are not done here, nor anywhere else."""
        assert answer(Log(SITES), server, message("site.example", **header)).header.rcode == code
        assert server.asked == []

    def test_malformed(self, server: NameServer) -> None:
        """Several questions, another class, loops, what is cut off: an error. Replies: silence."""
        log = Log(SITES)
        twice = message("site.example")
        twice.add_question(DNSQuestion("evil.example"))
        assert answer(log, server, twice).header.rcode == RCODE.FORMERR
        chaos = DNSRecord(DNSHeader(), q=DNSQuestion("site.example", QTYPE.TXT, 3))
        assert answer(log, server, chaos).header.rcode == RCODE.REFUSED
        raw = bytes(message("site.example").pack())
        long = b"".join(bytes([63]) + bytes([letter]) * 63 for letter in b"abcd") + raw[12:]
        for broken in (
            raw[:12] + long,
            raw[:-3],
            raw[:12] + b"\xc0\x0c" + raw[-4:],
            raw[:12] + b"\xc0\xff" + raw[-4:],
        ):
            assert answer(log, server, broken).header.rcode == RCODE.FORMERR
        for silent in (b"", raw[:11], raw[:2] + b"\x80" + raw[3:], bytes(answer(log, server, raw).pack())):
            assert Answers(log, server.upstream()).to(silent, None, stream=False) is None
        assert server.asked == [("site.example", "A")]

    @strategies.bounded
    @given(st.binary(max_size=64), st.binary(max_size=64))
    def test_anything(self, head: bytes, tail: bytes) -> None:
        """Whatever the bytes, nothing is raised, and nothing that is not allowed is asked for."""
        log = Log()
        raw = bytes(message("site.example").pack())
        for given_bytes in (head, raw[:12] + head, head[:4] + raw[4:], raw + tail, raw[:-4] + tail):
            reply = Answers(log, Upstream([("127.0.0.1", 1)])).to(given_bytes, None, stream=False)
            assert reply is None or isinstance(reply, bytes)
