"""A name server for tests, which stands for the host's, and addresses that stand for the internet."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

from dnslib import QTYPE, RCODE, RR, DNSRecord

from rampart_seccomp.events import Address
from rampart_seccomp.network.addresses import is_inside
from rampart_seccomp.network.upstream import Upstream

__all__ = ["INTERNET", "NameServer", "inside", "on_one_port"]

INTERNET = ipaddress.ip_network("127.200.0.0/16")
"""Addresses of this machine that count as public ones."""


def inside(address: Address) -> bool:
    """Say what a broker says, but for `INTERNET`."""
    return address not in INTERNET and is_inside(address)


def on_one_port(host: str) -> tuple[socket.socket, socket.socket]:
    """Give a TCP socket that listens and a UDP socket, on the same port; another one's may have either."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(64):
        tcp = socket.create_server((host, 0), family=family)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            udp.bind((host, tcp.getsockname()[1]))
            return tcp, udp
        except OSError:
            tcp.close()
            udp.close()
    raise AssertionError("there is no port that both have free")


class NameServer:
    """Answers by UDP and TCP on one port.

    Attributes:
        zone: Records by name: type and text as in a zone file. A name that is not there does not exist.
        asked: The questions, as name and type, in the order of their arrival.
        messages: The same as they were.
    """

    def __init__(self, zone: dict[str, list[tuple[str, str]]]) -> None:
        self.zone = zone
        self.asked: list[tuple[str, str]] = []
        self.messages: list[bytes] = []
        self.short = False
        """True: by UDP, say that the answer is too long for it."""
        self.silent = False
        self._tcp, self._udp = on_one_port("127.0.0.1")
        self.port = self._tcp.getsockname()[1]
        for serve in (self._datagrams, self._streams):
            threading.Thread(target=serve, daemon=True).start()

    def upstream(self) -> Upstream:
        """Give the resolver that a broker has to ask this server."""
        return Upstream([("127.0.0.1", self.port)], inside)

    def close(self) -> None:
        for end in (self._tcp, self._udp):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _datagrams(self) -> None:
        while True:
            try:
                raw, peer = self._udp.recvfrom(65535)
                if not raw:  # the end: see close
                    return
                reply = self._reply(raw, truncated=self.short)
                if reply is not None:
                    self._udp.sendto(reply, peer)
            except OSError:
                return

    def _streams(self) -> None:
        while True:
            try:
                end, _ = self._tcp.accept()
            except OSError:
                return
            with end, end.makefile("rwb") as stream:
                size = stream.read(2)
                if len(size) == 2:
                    reply = self._reply(stream.read(*struct.unpack("!H", size)), truncated=False) or b""
                    stream.write(struct.pack("!H", len(reply)) + reply)

    def _reply(self, raw: bytes, *, truncated: bool) -> bytes | None:
        query = DNSRecord.parse(raw)
        name, kind = str(query.q.qname).rstrip("."), str(QTYPE[query.q.qtype])
        self.messages.append(raw)
        self.asked.append((name, kind))
        if self.silent:
            return None
        reply = query.reply()
        if truncated:
            reply.header.tc = 1
            return bytes(reply.pack())
        if name not in self.zone:
            reply.header.rcode = RCODE.NXDOMAIN
        for record in self._records(name, kind):
            reply.add_answer(record)
        return bytes(reply.pack())

    def _records(self, name: str, kind: str) -> Iterator[Any]:
        for each, text in self.zone.get(name, []):
            if each in (kind, "CNAME"):
                yield from RR.fromZone(f"{name}. 60 {each} {text}")
            if each == "CNAME" and kind != "CNAME":
                yield from self._records(text.rstrip("."), kind)
