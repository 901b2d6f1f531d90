"""Rows 19 to 22 and 48 in one: every way out at the same collector, behind a policy that knows one name.

DNS as a way out, query names and TXT included, is in test_dns.py.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

pytestmark = pytest.mark.core

SITE = "127.200.0.1"  # stands for an address of the internet: tests/naming.py
# Each way sends its own name, so that what arrives tells which it was.
ATTACKER = """
import errno, os, socket, sys
port, base, wanted = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
V4, V6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
TCP, UDP, FASTOPEN, MPTCP = socket.SOCK_STREAM, socket.SOCK_DGRAM, 0x20000000, 262
def stream(host, family=V4, protocol=0):
    def go(data):
        with socket.socket(family, TCP, protocol) as end:
            end.settimeout(20)
            end.connect(host if family == UNIX else (host, port))
            end.sendall(data)
    return go
def datagram(host, family=V4, connected=False):
    def go(data):
        with socket.socket(family, UDP) as end:
            if connected:
                end.connect((host, port))
                end.send(data)
            else:
                end.sendto(data, (host, port))
    return go
def fast(send):
    def go(data):
        with socket.socket(V4, TCP) as end:  # with a time limit it would not wait for the connection
            send(end, data)
    return go
def named(name):
    def go(data):
        with socket.create_connection((name, port), timeout=20) as end:
            end.sendall(data)
    return go
WAYS = {
    "literal": stream("127.0.0.1"),
    "literal of the site": stream("127.200.0.1"),
    "IPv6": stream("::1", V6),
    "v4-mapped": stream("::ffff:127.0.0.1", V6),
    "v4-mapped site": stream("::ffff:127.200.0.1", V6),
    "0.0.0.0": stream("0.0.0.0"),
    "::": stream("::", V6),
    "mapped 0.0.0.0": stream("::ffff:0.0.0.0", V6),
    "MPTCP": stream("127.0.0.1", protocol=MPTCP),
    "fast sendto": fast(lambda end, data: end.sendto(data, FASTOPEN, ("127.0.0.1", port))),
    "fast sendmsg": fast(lambda end, data: end.sendmsg([data], [], FASTOPEN, ("127.0.0.1", port))),
    "datagram": datagram("127.0.0.1"),
    "connected datagram": datagram("127.0.0.1", connected=True),
    "IPv6 datagram": datagram("::1", V6),
    "mapped datagram": datagram("::ffff:127.0.0.1", V6),
    "0.0.0.0 datagram": datagram("0.0.0.0"),
    "relay": stream(base + "/relay.sock", UNIX),
    "abstract relay": stream("\\0rampart-test-relay", UNIX),
    "name of the inside": named("inner.example"),
    "name": named("site.example"),
}
for way in wanted or WAYS:
    try:
        WAYS[way](way.encode())
        print(way, "sent", sep=": ")
    except socket.gaierror:
        print(way, "no such name", sep=": ")
    except OSError as error:
        print(way, errno.errorcode[error.errno], sep=": ")
"""
RARE = {"MPTCP", "fast sendto", "fast sendmsg"}
"""Ways that a kernel may lack, or have switched off."""
BY_NAME = {"name", "name of the inside"}


@attrs.define
class Collector:
    """Takes whatever comes by TCP, UDP and unix socket.

    Attributes:
        port: Of TCP and UDP, on every address of this machine.
        connections: How many streams have come in.
        texts: What they and the datagrams brought.
    """

    port: int = 0
    connections: int = 0
    texts: set[str] = attrs.field(factory=set)

    def streams(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = server.accept()
                self.connections += 1
                with end:
                    end.settimeout(20)
                    self.texts.add(end.makefile("rb").read().decode())

    def datagrams(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(100):
                self.texts.add(data.decode())

    def waits_for(self, texts: set[str]) -> bool:
        """Whether that has come, and nothing else, within some seconds."""
        end = time.monotonic() + 10
        while self.texts != texts and time.monotonic() < end:
            time.sleep(0.01)
        return self.texts == texts


@pytest.fixture
def collector(project: Any) -> Iterator[Collector]:
    """A collector outside, with relays to it on a path and under an abstract name."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    made = Collector()
    tcp = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    made.port = tcp.getsockname()[1]
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", made.port))
    servers = [tcp]
    for name in (str(project.base / "relay.sock"), "\0rampart-test-relay"):
        relay = socket.socket(socket.AF_UNIX)
        relay.bind(name)
        relay.listen()
        servers.append(relay)
    threads = [threading.Thread(target=made.streams, args=(server,), daemon=True) for server in servers]
    threads.append(threading.Thread(target=made.datagrams, args=(udp,), daemon=True))
    for thread in threads:
        thread.start()
    yield made
    for server in (*servers, udp):
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def outcomes(text: str) -> dict[str, str]:
    """What the attacker says of each way."""
    return dict(line.split(": ") for line in text.splitlines())


def test_nothing_leaves_but_to_the_name(collector: Collector, by_name: Any, project: Any) -> None:
    """A tree that may reach one site by name reaches it, and nobody hears of it by any other way.

    Control: bare, each of the ways arrives.
    """
    by_name.server.zone |= {"site.example": [("A", SITE)], "inner.example": [("A", "127.0.0.1")]}
    argv: list[str | Path] = ["python3", "-c", ATTACKER, str(collector.port), project.base]
    hosts = [f"{name}:{collector.port}" for name in ("site.example", "inner.example")]

    done = by_name.run(argv, by_name.policy(*hosts))

    said = outcomes(done.stdout)
    assert said.pop("name") == "sent", done.stderr
    assert said.pop("name of the inside") == "no such name"
    assert said == dict.fromkeys(said, "ECONNREFUSED") | {"MPTCP": "EPROTONOSUPPORT"}
    assert collector.waits_for({"name"})
    assert collector.connections == 1
    assert len([record for record in project.records() if record["verdict"] == "deny"]) > len(said)

    collector.texts.clear()
    ways = [way for way in said if way not in BY_NAME]
    bare = outcomes(project.bare([*argv, *ways]).stdout)
    sent = {way for way, outcome in bare.items() if outcome == "sent"}
    assert sent >= set(ways) - RARE
    assert collector.waits_for(sent)

    collector.texts.clear()
    opened = by_name.policy(*hosts, f"127.0.0.1:{collector.port}")
    assert outcomes(by_name.run([*argv, *sorted(BY_NAME)], opened).stdout) == dict.fromkeys(BY_NAME, "sent")
    assert collector.waits_for(BY_NAME)
