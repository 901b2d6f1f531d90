"""Rows 19, 21 and 22: destinations, however they are spelled, and unix sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    """A TCP server on loopback that nobody accepts from."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def udp() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two UDP receivers on loopback."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(2):
            receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            receiver.bind(("127.0.0.1", 0))
            receiver.setblocking(False)
            made.append(receiver)
        yield made[0], made[1]


def port(server: socket.socket) -> int:
    """The port a server is bound to."""
    number: int = server.getsockname()[1]
    return number


def arrived(server: socket.socket) -> bool:
    """Whether a connection or a datagram has come in."""
    try:
        if server.type == socket.SOCK_STREAM:
            server.accept()[0].close()
        else:
            server.recv(100)
    except BlockingIOError:
        return False
    return True


SPELLINGS = {
    "as it is": ["socket,tcp", "connect,127.0.0.1,{}"],
    "v4-mapped": ["socket,tcp6", "connect,::ffff:127.0.0.1,{}"],
    "the unspecified address": ["socket,tcp", "connect,0.0.0.0,{}"],
    "the unspecified address, v4-mapped": ["socket,tcp6", "connect,::ffff:0.0.0.0,{}"],
    "on a duplicate": ["socket,tcp", "dup", "connectdup,127.0.0.1,{}"],
    "after AF_UNSPEC": ["socket,tcp", "disconnect", "connect,127.0.0.1,{}"],
    "bound before": ["socket,tcp", "bind,127.0.0.1,0", "connect,127.0.0.1,{}"],
    "fast open": ["socket,tcp", "fastopen,127.0.0.1,{}"],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_destination_is_judged_as_it_is(
    spelling: str, project: Any, tcp: Any, deny_rule: Any, allow_all: Any, calls: Any
) -> None:
    """Row 21: every spelling of a denied destination is denied, and no packet leaves."""
    steps = [step.format(port(tcp)) for step in SPELLINGS[spelling]]

    done = calls(steps, deny_rule("connect", hosts=[f"127.0.0.1:{port(tcp)}"]))

    assert done.answers[-1] in {"ECONNREFUSED", "EOPNOTSUPP"}, done.stdout
    assert not arrived(tcp)
    assert project.denials("secret") or "fast" in spelling
    assert calls(steps, allow_all).answers[-1] in {"0", "4", "EOPNOTSUPP", "EINPROGRESS"}
    assert arrived(tcp) or "fast" in spelling


def test_range_of_addresses(project: Any, tcp: Any, deny_rule: Any, calls: Any) -> None:
    """Row 21: a rule about a network judges the v4-mapped form, too."""
    steps = ["socket,tcp6", f"connect,::ffff:127.0.0.1,{port(tcp)}"]

    assert calls(steps, deny_rule("connect", hosts=["127.0.0.0/8"])).answers[-1] == "ECONNREFUSED"
    assert not arrived(tcp)
    assert calls(steps, deny_rule("connect", hosts=["10.0.0.0/8"])).answers[-1] == "0"
    assert arrived(tcp)


@pytest.mark.parametrize("kind", ["tcp", "tcp6"])
def test_listening_without_a_name(
    kind: str, project: Any, deny_rule: Any, allow_all: Any, calls: Any
) -> None:
    """Row 21: a socket that was never bound listens at a port of the kernel's choice: that is judged, too."""
    steps = [f"socket,{kind}", "listen"]

    assert calls(steps, deny_rule("listen")).answers == ["ok", "EACCES"]
    assert len(project.denials("secret")) == 1
    assert calls(steps, allow_all).answers == ["ok", "0"]


@pytest.mark.parametrize("call", ["sendto", "sendmsg"])
def test_datagrams(call: str, project: Any, udp: Any, deny_rule: Any, calls: Any) -> None:
    """Row 19: a datagram with a destination is judged; on a connected socket its own destination counts."""
    good, bad = udp
    guarded = deny_rule("connect", hosts=[f"127.0.0.1:{port(bad)}"])
    to = f"{call},127.0.0.1,"

    done = calls(
        [
            "socket,udp",
            f"{to}{port(bad)}",
            f"{to}{port(good)}",
            f"connect,127.0.0.1,{port(good)}",
            f"{to}{port(bad)}",
            "write,leak",
        ],
        guarded,
    )

    assert done.answers == ["ok", "ECONNREFUSED", "4", "0", "ECONNREFUSED", "4"]
    assert not arrived(bad)
    assert arrived(good)
    assert arrived(good)
    assert len(project.denials("secret")) == 2


def test_vector_of_datagrams(project: Any, udp: Any, deny_rule: Any, allow_all: Any, calls: Any) -> None:
    """Row 19: of a vector, what comes before the denied one is sent and counted."""
    good, bad = (port(server) for server in udp)
    guarded = deny_rule("connect", hosts=[f"127.0.0.1:{bad}"])

    steps = [
        "socket,udp",
        f"sendmmsg,127.0.0.1,{good},127.0.0.1,{bad}",
        f"sendmmsg,127.0.0.1,{bad},127.0.0.1,{good}",
    ]
    done = calls(steps, guarded)

    assert done.answers == ["ok", "1", "ECONNREFUSED"]
    assert arrived(udp[0])
    assert not arrived(udp[0])
    assert not arrived(udp[1])
    assert calls(steps, allow_all).answers == ["ok", "2", "2"]


@pytest.mark.parametrize("name", ["service.sock", "@rampart-test-service"])
def test_unix_sockets_outside(name: str, project: Any, deny_rule: Any, calls: Any) -> None:
    """Row 22: a socket that was not bound in the tree is denied unless a rule names it."""
    import rampart_seccomp as rampart

    abstract = name.startswith("@")
    bound = f"\0{name[1:]}" if abstract else str(project.base / name)
    spelled = name if abstract else str(project.base / name)
    silent = rampart.Policy(
        rules=[rampart.allow(["read", "write", "exec", "listen"], name="files")], default={"connect": "allow"}
    )
    named = silent.with_rules(rampart.allow("connect", hosts=[f"unix:{spelled}"], name="service"))
    steps = ["socket,unix", f"connect,unix,{spelled}"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(bound)
        server.listen()
        server.setblocking(False)

        done = calls(steps, silent)
        assert done.answers == ["ok", "ECONNREFUSED"]
        assert not arrived(server)
        assert any(record["operation"] == "connect" for record in project.records())

        assert calls(steps, named).answers == ["ok", "0"]
        assert arrived(server)


def test_unix_socket_by_another_name(project: Any, deny_rule: Any, calls: Any) -> None:
    """Row 22: a link, dots or a relative name lead to the same socket."""
    path = project.base / "service.sock"
    (project.root / "innocent.sock").symlink_to(path)
    guarded = deny_rule("connect", hosts=[f"unix:{path}"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.setblocking(False)
        for name in (
            "innocent.sock",
            "../service.sock",
            "./../project/../service.sock",
            "/proc/self/cwd/innocent.sock",
        ):
            assert calls(["socket,unix", f"connect,unix,{name}"], guarded).answers[1] == "ECONNREFUSED"
            assert not arrived(server)
            assert calls(["socket,unix", f"connect,unix,{name}"], None).answers[1] == "0"
            assert arrived(server)


@pytest.mark.parametrize("name", ["own.sock", "@rampart-test-own"])
def test_unix_sockets_of_the_tree(name: str, project: Any, calls: Any) -> None:
    """Row 22, control: what the tree bound itself may be connected without any rule."""
    import rampart_seccomp as rampart

    silent = rampart.Policy(rules=[rampart.allow(["read", "write", "exec"], name="files")])

    done = calls(
        ["socket,unix", f"bind,unix,{name}", "listen", "socket,unix", f"connect,unix,{name}", "socket,tcp"],
        silent,
    )

    assert done.answers == ["ok", "0", "0", "ok", "0", "ok"]


def test_descriptors_passed_inside_the_tree(project: Any, allow_all: Any, deny_rule: Any) -> None:
    """Row 23: SCM_RIGHTS works between processes of the tree."""
    source = Path(__file__).with_name("src") / "pass_descriptor.py"
    project.write("f", "passed\n")
    guarded = deny_rule("read", paths=["./never"])

    bare = project.bare(["python3", source])
    assert bare.stdout == "passed\n", bare.stderr

    for policy in (allow_all, guarded):
        assert project.run(["python3", source], policy).stdout == "passed\n"


CHOOSING = """
import errno, socket, struct, sys
port = int(sys.argv[1])
index = max(number for number, _ in socket.if_nameindex()) + 100
for level, name, value in [(1, 25, b"lo"), (1, 62, struct.pack("=I", 1)), (0, 50, struct.pack("!I", 1)),
                           (41, 76, struct.pack("!I", 1)), (41, 50, struct.pack("=16xI", 1))]:
    with socket.socket(socket.AF_INET6 if level == 41 else socket.AF_INET, socket.SOCK_DGRAM) as end:
        try:
            end.setsockopt(level, name, value)
            print("set", end=" ")
        except OSError as error:
            print(errno.errorcode[error.errno], end=" ")
chosen = [(socket.IPPROTO_IP, 8, struct.pack("=iII", index, 0, 0))]
for connected in (True, False):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        if connected:
            end.connect(("127.0.0.1", port))
        try:
            end.sendmsg([b"data"], chosen, 0, *[] if connected else [("127.0.0.1", port)])
            print("sent", end=" ")
        except OSError as error:
            print("failed", end=" ")
"""


@pytest.mark.parametrize("engine", ["native", "python"])
def test_no_interface_is_chosen(
    engine: str, project: Any, udp: Any, allow_all: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 21: nothing leads what is for this machine out by an interface; what it is for, it reaches."""
    good, _ = udp
    argv = ["python3", "-c", CHOOSING, str(port(good))]

    assert project.bare(argv).stdout.split() == ["set"] * 5 + ["failed"] * 2
    assert not arrived(good)
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", engine)
    done = project.run(argv, allow_all)
    assert done.stdout.split() == ["EPERM"] * 5 + ["sent"] * 2, done.stderr
    assert arrived(good)
    assert arrived(good)


def test_socket_bound_to_an_interface(project: Any, allow_all: Any) -> None:
    """Row 21: a link-local address binds a socket to its interface; then no loopback address is reached."""
    found = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    link = next((fields for fields in found if fields[3] == "20" and fields[5] != "lo"), None)
    if link is None:
        pytest.skip("no interface with a link-local address")
    name = ":".join(link[0][at : at + 4] for at in range(0, 32, 4))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::1", 0))
        server.setblocking(False)
        script = f"""
import errno, socket
to = "::1", {port(server)}
for bound in (False, True):
    for send in ("connect", "sendto"):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as end:
            if bound:
                end.bind(("{name}", 0, 0, {int(link[1], 16)}))
            try:
                end.connect(to) if send == "connect" else end.sendto(b"x", to)
                print("ok", end=" ")
            except OSError as error:
                print(errno.errorcode[error.errno], end=" ")
"""
        done = project.run(["python3", "-c", script], allow_all)
        assert done.stdout.split() == ["ok", "ok", "ENETUNREACH", "ENETUNREACH"], done.stderr
        assert arrived(server)
        assert not arrived(server)
