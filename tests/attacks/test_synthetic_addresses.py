"""Addresses that stand for a name and an address of it: decided by exactly that name, and by no other way."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
from resolving import RESOLVING

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

SITE = "127.200.0.1"  # stands for an address of the internet: tests/naming.py
RANGE = "198.18.0.0/15"


@pytest.fixture(params=["native", "python"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", request.param)
    return str(request.param)


def synthetic(policy: rampart.Policy, names: Any = "synthetic") -> rampart.Policy:
    return attrs.evolve(policy, names=names)


def test_names_that_share_an_address(by_name: Any, ask: Any, project: Any) -> None:
    """Of two sites at one address each is decided by its own name; without this nobody can tell them."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "other.example": [("A", SITE)]}
    port, closed = by_name.site(SITE), by_name.site(SITE)
    policy = by_name.policy(f"site.example:{port}", f"other.example:{closed}")
    steps = f"""
one, other = lookup("site.example")[0], lookup("other.example")[0]
print(one, other)
print(reach(one, {port}), reach(other, {port}), reach("{SITE}", {port}))
"""
    done = ask(steps, synthetic(policy))
    assert done.lines == ["198.18.0.1 198.18.0.2", "hello ECONNREFUSED ECONNREFUSED"]
    connected = [record for record in project.records() if record.get("protocol") == "tcp"]
    assert [(each["verdict"], each["address"], each["names"]) for each in connected] == [
        ("allow", SITE, ["site.example"]),
        ("deny", SITE, ["other.example"]),
        ("deny", SITE, []),
    ]
    assert ask(steps, policy).lines == [f"{SITE} {SITE}", "hello hello hello"]


def refused(project: Any, why: str = "stands for no name") -> list[str]:
    """The objects of what was refused for a built-in reason."""
    return [record["object"] for record in project.records() if why in record["where"]]


def test_real_clients(by_name: Any, project: Any) -> None:
    """A client by name reaches the site with its name; a denied name does not exist."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    port = by_name.site(SITE)
    policy = synthetic(by_name.policy(f"*.example:{port}"))
    code = (
        f"import urllib.request as u; print(u.urlopen('http://site.example:{port}/python').read().decode())"
    )
    script = f'curl -sS http://site.example:{port}/curl; python3 -c "{code}"; getent hosts evil.test; echo $?'
    done = by_name.run(["sh", "-c", script], policy)
    assert (done.stdout.split(), done.stderr) == (["hello", "hello", "2"], "")
    assert by_name.requests == ["/curl", "/python"]
    assert {name for name, _ in by_name.server.asked} == {"site.example"}


@pytest.mark.parametrize("way", ["rule", "default"])
def test_where_all_addresses_are_allowed(way: str, by_name: Any, ask: Any, project: Any) -> None:
    """A made-up address leads to the real one also where the policy allows every address; others nowhere."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    port = by_name.site(SITE)
    policy = by_name.policy(f"site.example:{port}", *(["0.0.0.0/0", RANGE] if way == "rule" else []))
    if way == "default":
        policy = attrs.evolve(policy, default={"connect": "allow"})
    steps = f"""
made = lookup("site.example")[0]
print(reach(made, {port}), reach("{SITE}", {port}), reach("198.18.0.2", {port}), reach("198.19.255.255", 9))
end = socket.socket(V4, UDP)
try:
    end.sendto(b"x", ("198.18.77.7", 9))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    done = ask(steps, synthetic(policy))
    assert done.lines == ["hello hello ECONNREFUSED ECONNREFUSED", "ECONNREFUSED"]
    assert refused(project) == [f"198.18.0.2:{port}", "198.19.255.255:9", "198.18.77.7:9"]


def test_forms_of_the_address(by_name: Any, ask: Any, project: Any) -> None:
    """v4-mapped, IPv6 with a scope, dissolved and connected again: the same name and the same place."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "six.example": [("AAAA", "::1")]}
    port, six = by_name.site(SITE), by_name.site("::1")
    policy = by_name.policy(f"site.example:{port}", f"six.example:{six}", f"[::1]:{six}")
    steps = f"""
made, made6 = lookup("site.example")[0], lookup("six.example")[0]
print(made6)
print(reach("::ffff:" + made, {port}), reach(made6, {six}), reach("::1", {six}), reach(made6, {port}))
def scoped():
    with socket.socket(V6, TCP) as end:
        end.connect((made6, {six}, 77, 1))
        return end.getpeername()
print(scoped())
end = socket.socket(V4, TCP)
end.connect((made, {port}))
print(end.getpeername()[0])
end = socket.socket(V4, UDP)
for place in ((made, {port}), (made, {port}), ("{SITE}", {port})):
    try:
        end.connect(place)
        print(end.getpeername()[0])
        import ctypes
        ctypes.CDLL(None).connect(end.fileno(), bytes(16), 16)
    except OSError as error:
        print(errno.errorcode[error.errno])
try:
    socket.socket(V4, TCP).bind((made, 0))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    done = ask(steps, synthetic(policy))
    assert done.lines == [
        "fd72:616d:7061::1",
        "hello hello hello ECONNREFUSED",
        str(("::1", six, 0, 0)),
        SITE,
        *(SITE, SITE, "ECONNREFUSED"),
        "EADDRNOTAVAIL",
    ]


def test_datagrams(by_name: Any, ask: Any, calls: Any) -> None:
    """A datagram goes to the real address, alone or in a vector, and the answer comes from there."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "other.example": [("A", SITE)]}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SITE, 0))
        server.setblocking(False)
        port = server.getsockname()[1]
        steps = f"""
made, other = lookup("site.example")[0], lookup("other.example")[0]
end = socket.socket(V4, UDP)
print(end.sendto(b"one", (made, {port})), end.sendmsg([b"tw", b"o"], [], 0, (made, {port})))
for place in ((other, {port}), ("{SITE}", {port})):
    try:
        print(end.sendto(b"never", place))
    except OSError as error:
        print(errno.errorcode[error.errno])
fast = socket.socket(V4, TCP)
try:
    print(fast.sendto(b"early", 0x20000000, (made, {port})))
except OSError as error:
    print(errno.errorcode[error.errno])
end.connect((made, {port}))
print(end.send(b"three"), end.getpeername()[0])
"""
        policy = synthetic(by_name.policy(f"site.example:{port}", "other.example:1"))
        assert ask(steps, policy).lines == ["3 3", "ECONNREFUSED", "ECONNREFUSED", "ENOTSUP", f"5 {SITE}"]
        assert [server.recv(9) for _ in "abc"] == [b"one", b"two", b"three"]
        with pytest.raises(BlockingIOError):
            server.recv(9)


def test_vector_of_datagrams(by_name: Any, ask: Any) -> None:
    """Of a vector what comes before a denied one is sent, though all lead to one real address."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "other.example": [("A", SITE)]}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SITE, 0))
        server.setblocking(False)
        port = server.getsockname()[1]
        steps = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("length", ctypes.c_uint32), ("vector", ctypes.POINTER(Vector)),
        ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_long), ("sent", ctypes.c_uint32)]
def message(host, data):
    to = struct.pack("=H", V4) + struct.pack("!H", {port}) + socket.inet_aton(host) + bytes(8)
    return Message(to, 16, ctypes.pointer(Vector(data, len(data))), 1)
made, other = lookup("site.example")[0], lookup("other.example")[0]
end = socket.socket(V4, UDP)
for place in (other, "198.18.4.4"):
    vector = (Message * 3)(message(made, b"one"), message(place, b"never"), message(made, b"late"))
    print(libc.sendmmsg(end.fileno(), vector, 3, 0))
"""
        done = ask(steps, synthetic(by_name.policy(f"site.example:{port}", "other.example:1")))
        assert done.lines == ["1", "1"]
        assert [server.recv(9), server.recv(9)] == [b"one", b"one"]
        with pytest.raises(BlockingIOError):
            server.recv(9)
        denied = [f"{SITE}:{port} (other.example)", f"198.18.4.4:{port}"]
        assert [denial.object for denial in done.denials] == denied


def test_an_interface_of_choice(by_name: Any, ask: Any) -> None:
    """Row 21: what is really for this machine is sent out by no interface, whatever address stands for it."""
    by_name.server.zone["site.example"] = [("A", "127.0.0.1")]
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not others:
        pytest.skip("there is no other interface")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        port = server.getsockname()[1]
        steps = f"""
made = lookup("site.example")[0]
end = socket.socket(V4, UDP)
chosen = struct.pack("=i4s4s", socket.if_nametoindex({others[0]!r}), bytes(4), bytes(4))
print(end.sendmsg([b"here"], [(socket.IPPROTO_IP, 8, chosen)], 0, (made, {port})))
"""
        done = ask(steps, synthetic(by_name.policy(f"site.example:{port}", f"127.0.0.1:{port}")))
        assert (done.lines, server.recv(9)) == (["4"], b"here")


def test_addresses_still_count(by_name: Any, ask: Any) -> None:
    """A rule about addresses judges the real one; names that lead inside get nothing; /etc/hosts counts."""
    by_name.server.zone |= {
        "site.example": [("A", SITE)],
        "in.example": [("A", "10.0.0.1")],
        "rule.example": [("A", "127.0.0.1")],
    }
    port, local = by_name.site(SITE), by_name.site("127.0.0.1")
    names = [f"*.example:{port},{local}", f"localhost:{local}"]
    deny = rampart.deny("connect", hosts=[f"{SITE}/32"], name="never")
    steps = f"""
print(lookup("in.example"), lookup("rule.example"), lookup("localhost"))
print(reach(lookup("site.example")[0], {port}), reach("127.0.0.1", {local}))
"""
    done = ask(steps, synthetic(by_name.policy(*names).with_rules(deny)))
    assert done.lines[0].startswith("none none ['127.0.0.1'")
    assert done.lines[1] == "ECONNREFUSED hello"
    opened = by_name.policy(*names, f"127.0.0.1:{local}")
    steps = f"print(reach(lookup('rule.example')[0], {local}), reach(lookup('rule.example')[0], {port}))"
    assert ask(steps, synthetic(opened)).lines == ["hello ECONNREFUSED"]


def test_looked_up_backwards(by_name: Any, ask: Any) -> None:
    """A made-up address has its one name; the real one, and one that stands for nothing, have none."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "other.example": [("A", SITE)]}
    steps = f"""
made = lookup("other.example")[0], lookup("site.example")[0]
for address in (*made, "{SITE}", "198.18.9.9"):
    try:
        print(socket.gethostbyaddr(address)[0])
    except OSError:
        print("none")
"""
    done = ask(steps, synthetic(by_name.policy("*.example:1")))
    assert done.lines == ["other.example", "site.example", "none", "none"]


def test_exhausted(by_name: Any, ask: Any, project: Any) -> None:
    """With no address left a name fails to resolve, and that is on record; those that are there go on."""
    by_name.server.zone |= {
        "a.example": [("A", SITE)],
        "b.example": [("A", SITE), ("A", "127.200.0.2")],
        "c.example": [("A", SITE)],
    }
    port = by_name.site(SITE)
    steps = f"""
print(lookup("a.example"), lookup("b.example"), lookup("c.example"), lookup("a.example"))
print(reach("198.18.0.1", {port}), reach("198.18.0.2", {port}), reach("198.18.0.3", {port}))
"""
    policy = synthetic(by_name.policy(f"*.example:{port}"), {"synthetic": "198.18.0.0/30"})
    done = ask(steps, policy)
    made = "['198.18.0.1'] none ['198.18.0.2'] ['198.18.0.1']"
    assert done.lines == [made, "hello hello ECONNREFUSED"]
    (name,) = set(refused(project, "no synthetic address is left"))
    assert name == "b.example (DNS A)"
    assert "no synthetic address is left" in done.denials[0].where


def test_an_address_that_changes(by_name: Any, ask: Any) -> None:
    """Another real address of a name has another made-up one; the first stays what it was."""
    by_name.server.zone["site.example"] = [("A", SITE), ("A", "127.200.0.2"), ("A", SITE)]
    steps = "print(lookup('site.example'), lookup('site.example'))"
    expected = "['198.18.0.1', '198.18.0.2'] ['198.18.0.1', '198.18.0.2']"
    assert ask(steps, synthetic(by_name.policy("site.example"))).lines == [expected]


def test_led_elsewhere(by_name: Any, ask: Any, project: Any) -> None:
    """A redirect is by exactly that name, too: of two at one address the other goes to the site."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "other.example": [("A", SITE)]}
    port = by_name.site(SITE)
    with socket.create_server(("127.200.0.9", 0)) as proxy:
        to = f"127.200.0.9:{proxy.getsockname()[1]}"
        rule = rampart.allow("connect", hosts=["site.example"], name="led", redirect=rampart.Redirect(to=to))
        policy = by_name.policy(f"other.example:{port}", to).with_rules(rule)
        steps = f"""
print(reach(lookup("other.example")[0], {port}))
end = socket.create_connection((lookup("site.example")[0], {port}))
print(end.getpeername()[0])
"""
        assert ask(steps, synthetic(policy)).lines == ["hello", "127.200.0.9"]
    (record,) = [each for each in project.records() if "redirect" in each]
    assert (record["names"], record["address"]) == (["site.example"], SITE)


def test_stacks(by_name: Any, ask: Any) -> None:
    """One layer that wants made-up addresses is enough, wherever it stands; the first one's range counts."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    port = by_name.site(SITE)
    plain = by_name.policy(f"site.example:{port}")
    other = synthetic(plain, {"synthetic": "10.77.0.0/24"})
    steps = f"made = lookup('site.example')[0]\nprint(made, reach(made, {port}))"
    for layers, made in (
        ((plain, plain), SITE),
        ((plain, synthetic(plain)), "198.18.0.1"),
        ((synthetic(plain), plain), "198.18.0.1"),
        ((other, synthetic(plain)), "10.77.0.1"),
    ):
        assert ask(steps, rampart.Policy.stack(*layers)).lines == [f"{made} hello"]


def test_trees_and_updates(by_name: Any, project: Any) -> None:
    """A made-up address is one tree's, means the same as long as that runs, and is judged anew each time."""
    by_name.server.zone |= {"a.example": [("A", SITE)], "b.example": [("A", SITE)]}
    port = by_name.site(SITE)
    look = f"{RESOLVING}\nfor line in sys.stdin:\n    word = line.strip()\n" + (
        f"    print(reach(word, {port}) if word[0] in '12' else lookup(word)[0], flush=True)"
    )
    open_ = rampart.allow("connect", hosts=["0.0.0.0/0"], name="open")

    def policy(*hosts: str, names: Any = "synthetic") -> rampart.Policy:
        return synthetic(by_name.policy(*(f"{host}:{port}" for host in hosts)).with_rules(), names)

    with by_name.broker(policy("a.example", "b.example")) as broker:
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

        def say(tree: int, *words: str) -> list[str]:
            trees[tree].stdin.write("".join(f"{word}\n" for word in words))
            trees[tree].stdin.flush()
            return [trees[tree].stdout.readline().strip() for _ in words]

        made, other = "198.18.0.1", "198.18.0.2"
        assert say(0, "a.example", made) == [made, "hello"]
        assert say(1, made, "b.example", made) == ["ECONNREFUSED", made, "hello"]
        broker.update(policy("b.example"))
        assert say(0, made, "b.example", other) == ["ECONNREFUSED", other, "hello"]
        assert say(1, made) == ["hello"]
        broker.update(policy("a.example", names={"synthetic": "198.18.0.0/24"}))
        assert say(0, made, other, "a.example") == ["hello", "ECONNREFUSED", made]
        assert say(1, made, "a.example", other) == ["ECONNREFUSED", other, "hello"]
        broker.update(policy("a.example", names={"synthetic": "10.77.0.0/24"}).with_rules(open_))
        assert say(0, made, other) == ["hello", "hello"]
        broker.update(policy("a.example", names="resolved").with_rules(open_))
        assert say(0, made, "a.example", SITE) == ["hello", SITE, "hello"]
        assert say(1, made, other) == ["hello", "hello"]
        broker.update(by_name.policy("10.0.0.1:1"))
        assert say(0, made, SITE) == ["ECONNREFUSED", "ECONNREFUSED"]
        broker.update(by_name.policy(f"{SITE}:{port}"))
        assert say(0, made, SITE) == ["hello", "hello"]
        for tree in trees:
            tree.communicate()


def test_a_socket_of_an_interface(by_name: Any, ask: Any) -> None:
    """Row 21: nor is a socket that is bound to an interface led to this machine by what stands for it."""
    found = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    link = next((fields for fields in found if fields[3] == "20" and fields[5] != "lo"), None)
    if link is None:
        pytest.skip("no interface with a link-local address")
    by_name.server.zone["six.example"] = [("AAAA", "::1")]
    port = by_name.site("::1")
    host = ipaddress.IPv6Address(bytes.fromhex(link[0]))
    steps = f"""
made = lookup("six.example")[0]
end = socket.socket(V6, TCP)
end.bind(("{host}", 0, 0, {int(link[1], 16)}))
try:
    end.connect((made, {port}))
except OSError as error:
    print(errno.errorcode[error.errno])
print(reach(made, {port}))
"""
    done = ask(steps, synthetic(by_name.policy(f"six.example:{port}", f"[::1]:{port}")))
    assert done.lines == ["ENETUNREACH", "hello"]
