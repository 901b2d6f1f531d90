"""Rows 19 and 20: vectors of datagrams, counted right, and protocols that are not judged and so not there."""

from __future__ import annotations

import contextlib
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core

SOURCE = Path(__file__).with_name("src") / "vectors.py"


class Receivers:
    """Two datagram sockets of one family outside: one to be allowed, one to be denied."""

    def __init__(self, family: str, base: Path) -> None:
        self.family = family
        kind = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}[family]
        self.sockets = [socket.socket(kind, socket.SOCK_DGRAM) for _ in range(2)]
        for index, each in enumerate(self.sockets):
            local = {"inet": ("127.0.0.1", 0), "inet6": ("::1", 0), "unix": str(base / f"d{index}")}[family]
            each.bind(local)
            each.setblocking(False)
        self.good, self.bad = (self._word(each) for each in self.sockets)
        self.rules = [self._rule(each) for each in self.sockets]

    def _word(self, each: socket.socket) -> str:
        name = each.getsockname()
        return name if self.family == "unix" else f"{name[0]}@{name[1]}"

    def _rule(self, each: socket.socket) -> str:
        name = each.getsockname()
        return {"unix": f"unix:{name}", "inet": f"{name[0]}:{name[1]}", "inet6": f"[{name[0]}]:{name[1]}"}[
            self.family
        ]

    def heard(self) -> tuple[list[str], list[str]]:
        """What has come in at each of the two."""
        found: list[list[str]] = []
        for each in self.sockets:
            found.append([])
            with contextlib.suppress(BlockingIOError):
                while True:
                    found[-1].append(each.recv(100).decode())
        return found[0], found[1]


@pytest.fixture(params=["inet", "inet6", "unix"])
def receivers(request: pytest.FixtureRequest, project: Any) -> Iterator[Receivers]:
    try:
        made = Receivers(request.param, project.base)
    except OSError as error:
        pytest.skip(f"no {request.param} here: {error}")
    yield made
    for each in made.sockets:
        each.close()


VECTORS = {
    "denied in the middle": (False, "good good bad good", "2 1 2 99 99", ["0", "11"]),
    "denied first": (False, "bad good", "ECONNREFUSED 99 99", []),
    "denied last": (False, "good good good bad", "3 1 2 3 99", ["0", "11", "222"]),
    "none denied": (False, "good good", "2 1 2", ["0", "11"]),
    "connected, others named": (True, "- good bad -", "2 1 2 99 99", ["0", "11"]),
    "connected, denied named first": (True, "bad -", "ECONNREFUSED 99 99", []),
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors_are_counted(case: str, receivers: Receivers, project: Any, allow_all: Any) -> None:
    """Row 19: what stands before the denied message is sent, counted and measured, and nothing behind it."""
    import rampart_seccomp as rampart

    connected, words, outcome, arrived = VECTORS[case]
    addresses = [{"good": receivers.good, "bad": receivers.bad}.get(word, "-") for word in words.split()]
    argv = ["python3", SOURCE, receivers.family, receivers.good if connected else "-", *addresses]
    rules = [
        rampart.allow(["read", "write", "exec", "listen"], name="everything"),
        rampart.allow("connect", hosts=[receivers.rules[0]], name="good"),
        rampart.deny("connect", hosts=[receivers.rules[1]], name="secret"),
    ]

    done = project.run(argv, rampart.Policy(rules=rules))

    assert done.stdout == f"{outcome}\n", done.stderr
    assert receivers.heard() == (arrived, [])
    assert len(project.denials("secret")) == ("bad" in words)
    bare = project.bare(argv)
    assert bare.stdout.split()[0] == str(len(addresses))
    assert len(receivers.heard()[1]) == words.split().count("bad")


STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
ROUTE_ONLY = {f"netlink {number}": (16, RAW, number) for number in range(1, 23)}
PROTOCOLS = {
    "MPTCP": (2, STREAM, 262),
    "MPTCP over IPv6": (10, STREAM, 262),
    "SCTP": (2, STREAM, 132),
    "SCTP, one to many": (2, SEQPACKET, 132),
    "SMC as a protocol": (2, STREAM, 256),
    "SMC": (43, STREAM, 0),
    "DCCP": (2, 6, 33),
    "UDP-Lite": (2, DGRAM, 136),
    "UDP-Lite over IPv6": (10, DGRAM, 136),
    "ping": (2, DGRAM, 1),
    "ping over IPv6": (10, DGRAM, 58),
    "raw": (2, RAW, 255),
    "raw ICMP": (2, RAW, 1),
    "raw over IPv6": (10, RAW, 58),
    "packet": (17, RAW, 0x300),
    "packet, cooked": (17, DGRAM, 0x300),
    "SOCK_PACKET": (2, 10, 0x300),
    "vsock": (40, STREAM, 0),
    "vsock datagrams": (40, DGRAM, 0),
    "AF_ALG": (38, SEQPACKET, 0),
    "AF_KEY": (15, RAW, 2),
    "AF_XDP": (44, RAW, 0),
    "TIPC": (30, SEQPACKET, 0),
    "RDS": (21, SEQPACKET, 0),
    "CAN": (29, RAW, 1),
    "Bluetooth": (31, SEQPACKET, 0),
    **ROUTE_ONLY,
}
NONE = {"EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
def test_protocols_that_are_not_there(project: Any, allow_all: Any, calls: Any) -> None:
    """Row 20: each is refused as if the kernel lacked it, also with flags and garbage, and on record.

    Control: bare, some of them exist; TCP and UDP do in both.
    """
    spelled = [
        (f"raw,41,{f},{t},{p}", f"raw,41,{f},{t | 0x80800},{p + (0xDEAD << 32)}")
        for f, t, p in PROTOCOLS.values()
    ]
    steps = [step for pair in spelled for step in pair]

    bare = calls([*steps, "socket,tcp", "socket,udp"], None)
    done = calls([*steps, "socket,tcp", "socket,udp"], allow_all)

    assert set(done.answers[:-2]) <= NONE
    assert done.answers[-2:] == bare.answers[-2:] == ["ok", "ok"]
    assert any(answer.isdigit() for answer in bare.answers[:-2])
    assert len([record for record in project.records() if record["verdict"] == "deny"]) == len(steps)


FAST = """
import errno, socket, sys
port, way = int(sys.argv[1]), sys.argv[2]
with socket.socket() as stream:
    try:
        if way == "TCP_FASTOPEN_CONNECT":
            stream.setsockopt(socket.IPPROTO_TCP, 30, 1)
            try:
                stream.connect(("127.0.0.1", port))
            finally:
                stream.send(b"leak", socket.MSG_NOSIGNAL)
        elif way == "sendto":
            stream.sendto(b"leak", 0x20000000, ("127.0.0.1", port))
        else:
            stream.sendmsg([b"leak"], [], 0x20000000, ("127.0.0.1", port))
        print("ok")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("way", ["TCP_FASTOPEN_CONNECT", "sendto", "sendmsg"])
def test_fast_open(way: str, project: Any, allow_all: Any, deny_rule: Any) -> None:
    """Row 20: data with the first packet goes nowhere that a connection may not go; the try is on record."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        number = server.getsockname()[1]
        argv = ["python3", "-c", FAST, str(number), way]

        denied = project.run(argv, deny_rule("connect", hosts=[f"127.0.0.1:{number}"]))
        assert denied.stdout in {"ECONNREFUSED\n", "EPIPE\n"}
        assert len(project.denials("secret")) == 1
        with pytest.raises(BlockingIOError):
            server.accept()

        allowed = project.run(argv, allow_all)
        assert allowed.stdout == ("ok\n" if way == "TCP_FASTOPEN_CONNECT" else "ENOTSUP\n")
        if way == "TCP_FASTOPEN_CONNECT":
            server.accept()[0].close()
        else:
            with pytest.raises(BlockingIOError):
                server.accept()
            assert project.bare(argv).stdout == "ok\n"
            server.accept()[0].close()
