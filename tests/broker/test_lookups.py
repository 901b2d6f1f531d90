"""Names of a running tree: questions about them, policies that change, what goes on record, what may fail."""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import rampart_seccomp as rampart
from rampart_seccomp.events import Event
from rampart_seccomp.network import responder

SITE = "127.200.0.1"  # stands for an address of the internet: tests/naming.py
ASKER = """
import errno, socket, sys
for line in sys.stdin:
    words = line.split()
    try:
        if len(words) == 1:
            print(socket.getaddrinfo(words[0], 80, type=socket.SOCK_STREAM)[0][4][0], flush=True)
        else:
            socket.create_connection((words[0], int(words[1])), 10).close()
            print("ok", flush=True)
    except socket.gaierror:
        print("none", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


class Tree:
    """A command that looks names up and connects when it is told to."""

    def __init__(self, broker: Any, project: Any) -> None:
        self.process = rampart.Popen(
            ["python3", "-c", ASKER],
            broker=broker,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=project.environment,
        )

    def __call__(self, *words: object) -> str:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return str(self.process.stdout.readline().strip())


@pytest.fixture
def trees(by_name: Any, project: Any) -> Iterator[Any]:
    """Make a tree under a policy; gives it with its broker."""
    made: list[tuple[Tree, Any]] = []

    def make(policy: Any, **options: Any) -> tuple[Tree, Any]:
        broker = by_name.broker(policy, audit=None if made else project.audit, **options)
        made.append((Tree(broker, project), broker))
        return made[-1]

    yield make
    for tree, broker in made:
        tree.process.communicate()
        broker.close()


def asking(policy: Any) -> Any:
    """The same policy, which asks about every other connection."""
    return attrs.evolve(policy, default={**policy.default, "connect": "ask"})


def test_a_name_that_nobody_named_is_asked_about_first(by_name: Any, trees: Any, project: Any) -> None:
    """By default asked about: before anybody outside hears of the name, once; a no is a name that is none."""
    by_name.server.zone |= {name: [("A", SITE)] for name in ("yes.example", "no.example", "site.example")}
    port = by_name.site(SITE)
    asked: list[str] = []

    def on_ask(event: Event) -> Any:
        asked.append(event.object)
        assert ("yes.example", "A") not in by_name.server.asked or len(asked) > 1
        return rampart.Deny(message="not there") if "no.example" in event.object else rampart.Allow()

    tree, _ = trees(asking(by_name.policy(f"site.example:{port}")), on_ask=on_ask)
    assert [tree("site.example"), tree("site.example", port)] == [SITE, "ok"]
    assert asked == []
    assert [tree("yes.example"), tree("no.example"), tree("no.example"), tree("yes.example")] == [
        SITE,
        "none",
        "none",
        SITE,
    ]
    assert sorted({text.partition(" ")[0] for text in asked}) == ["no.example", "yes.example"]
    assert len(asked) == 2
    assert tree("yes.example", port + 1) == "ECONNREFUSED"
    assert asked[2:] == [f"{SITE}:{port + 1} (site.example, yes.example)"]
    assert "no.example" not in {name for name, _ in by_name.server.asked}
    denied = [record for record in project.records() if record["verdict"] == "deny"]
    assert {(record["names"][0], record["message"], record["asked"]) for record in denied} == {
        ("no.example", "not there", True)
    }


def test_while_a_name_is_asked_about(by_name: Any, trees: Any) -> None:
    """Who looks up the same name meanwhile, for the other kind of address, waits for the same answer."""
    by_name.server.zone["slow.example"] = [("A", SITE)]
    asked: list[str] = []

    def on_ask(event: Event) -> Any:
        asked.append(event.object)
        time.sleep(1)
        return rampart.Allow()

    tree, _ = trees(asking(by_name.policy("site.example")), on_ask=on_ask)
    assert tree("slow.example") == SITE
    assert len(asked) == 1
    assert {kind for _, kind in by_name.server.asked} == {"A", "AAAA"}


def test_a_rule_that_asks_by_name_asks_about_the_connection(by_name: Any, trees: Any) -> None:
    """What a rule asks about by its name is looked up, so that the question says where it leads."""
    by_name.server.zone["who.example"] = [("A", SITE)]
    port = by_name.site(SITE)
    asked: list[str] = []

    def on_ask(event: Event) -> Any:
        asked.append(event.object)
        return rampart.Allow()

    policy = by_name.policy("site.example").with_rules(
        rampart.ask("connect", hosts=["who.example"], name="who")
    )
    tree, _ = trees(policy, on_ask=on_ask)
    assert [tree("who.example"), tree("who.example", port)] == [SITE, "ok"]
    assert asked == [f"{SITE}:{port} (who.example)"]


def test_names_that_come_with_an_update(by_name: Any, trees: Any) -> None:
    """A tree that was started without host names is answered as soon as the policy has some."""
    by_name.server.zone |= {"a.example": [("A", SITE)], "b.example": [("A", SITE)]}
    port = by_name.site(SITE)
    tree, broker = trees(by_name.policy("10.0.0.1:1"))
    assert tree("a.example") == "none"
    assert by_name.server.asked == []
    broker.update(by_name.policy(f"a.example:{port}"))
    assert [tree("a.example"), tree("b.example"), tree("a.example", port)] == [SITE, "none", "ok"]
    broker.update(by_name.policy(f"b.example:{port}"))
    assert [tree("a.example"), tree("b.example")] == ["none", SITE]
    with broker.grant(connect=f"a.example:{port}"):
        assert tree("a.example") == SITE
    assert tree("a.example") == "none"


@pytest.mark.parametrize("number", ["ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT", "EACCES"])
def test_errors_of_rules(number: str, by_name: Any, trees: Any) -> None:
    """A connection that a rule denies fails as the rule says."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    policy = by_name.policy("site.example:80-100").with_rules(
        rampart.deny("connect", hosts=["site.example:90"], name="not", errno=number)
    )
    tree, _ = trees(policy)
    assert [tree("site.example"), tree(SITE, 90), tree(SITE, 101)] == [SITE, number, "ECONNREFUSED"]


def test_denials_say_what_would_allow_them(by_name: Any, trees: Any) -> None:
    """A denied look-up and a name that leads inside each come with the rule that is missing."""
    by_name.server.zone["site.example"] = [("A", "10.1.2.3")]
    tree, _ = trees(by_name.policy("site.example:443"))
    assert [tree("other.example"), tree("site.example")] == ["none", "none"]
    found = {denial.object.partition(" ")[0]: denial for denial in tree.process.denials}
    assert "--allow-host other.example:443" in found["other.example"].suggestion
    assert "10.1.2.3" in found["site.example"].suggestion
    assert {denial.errno for denial in found.values()} == {errno.ENOENT}


@pytest.mark.parametrize("failing", ["sockets", "thread"])
def test_no_room_for_a_name_server(
    failing: str, by_name: Any, trees: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 35: without descriptors or threads there is no answer, and no way around; later there is one."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    tree, _ = trees(by_name.policy("site.example"))

    def fail(*given: Any, **options: Any) -> Any:
        if failing == "sockets":
            raise OSError(errno.EMFILE, "no descriptors")
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        if failing == "sockets":
            patched.setattr(responder._Sockets, "made", fail)
        else:
            patched.setattr(responder.Responder, "_serve", None)
            patched.setattr(responder.threading.Thread, "start", fail)
        assert tree("site.example") == "none"
    assert by_name.server.asked == []
    assert tree("site.example") == SITE


def test_a_broken_log_answers_nothing(by_name: Any, trees: Any) -> None:
    """Once the log cannot be written, no name is looked up any more."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    tree, broker = trees(by_name.policy("site.example"))
    assert tree("site.example") == SITE
    before = list(by_name.server.asked)
    broker._telling.broken = True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        dns = tree.process.session._deciding.dns
        end.connect(dns.endpoint("udp", 4))
        end.send(b"\x42\x42\1\0\0\1\0\0\0\0\0\0\4site\7example\0\0\1\0\1")
        assert end.recv(512)[3] & 15 == 3
    assert by_name.server.asked == before


def test_nothing_is_left(by_name: Any, trees: Any) -> None:
    """The end of a tree closes its name server; a tree that asked for no name never had one."""
    by_name.server.zone["site.example"] = [("A", SITE)]
    quiet, _ = trees(by_name.policy("site.example"))
    assert quiet(SITE, 1) == "ECONNREFUSED"
    assert quiet.process.session._deciding.dns._made is None
    tree, _ = trees(by_name.policy("site.example"))
    assert tree("site.example") == SITE
    dns = tree.process.session._deciding.dns
    host, port = dns.endpoint("tcp", 4)
    socket.create_connection((host, port), 10).close()
    tree.process.communicate()
    assert tree.process.session.wait_finished(10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), 10)
    with pytest.raises(ConnectionRefusedError):
        dns.endpoint("tcp", 4)
