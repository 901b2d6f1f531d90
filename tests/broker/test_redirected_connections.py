"""A connection to a substitute: what a program reaches and sees, and that it reaches nothing else."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from naming import on_one_port

pytestmark = pytest.mark.core

SITE = "127.200.0.1"  # stands for an address of the internet: tests/naming.py
PROXY = "127.200.0.9"

ATTEMPT = """
import errno, json, os, select, socket, struct, sys
V4, V6, UDP, TCP = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM, socket.SOCK_STREAM
def tried(function):
    try:
        return function()
    except OSError as error:
        return errno.errorcode[error.errno]
def said_by(end):
    end.settimeout(10)
    return end.recv(100).decode()
def reach(host, port, family=None, kind=TCP):
    with socket.socket(family or (V6 if ":" in host else V4), kind) as end:
        end.connect((host, port))
        return said_by(end)
def later(host, port):
    end = socket.socket(V4, TCP)
    end.setblocking(False)
    first = end.connect_ex((host, port))
    ready = select.select([], [end], [], 10)[1]
    return end, first, len(ready)
said = {}
"""


class Server:
    """Says its name to whoever connects, and keeps what arrives at its port as datagrams."""

    def __init__(self, host: str, name: str) -> None:
        self.stream, self.datagrams = on_one_port(host)
        self.port: int = self.stream.getsockname()[1]
        self.datagrams.setblocking(False)
        self.met = 0
        self._name = name.encode()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                end, _ = self.stream.accept()
            except OSError:
                return
            self.met += 1
            with end:
                end.sendall(self._name)

    @property
    def received(self) -> bytes:
        """The next datagram; nothing if there is none."""
        try:
            return self.datagrams.recv(100)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)
        self.stream.close()
        self.datagrams.close()


@pytest.fixture
def serve() -> Iterator[Callable[[str, str], Server]]:
    with contextlib.ExitStack() as closing:

        def make(host: str, name: str) -> Server:
            server = Server(host, name)
            closing.callback(server.close)
            return server

        yield make


@pytest.fixture
def real(serve: Any) -> Server:
    server: Server = serve(SITE, "real")
    return server


@pytest.fixture
def proxy(serve: Any) -> Server:
    server: Server = serve(PROXY, "proxy")
    return server


@pytest.fixture(params=["native", "python"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", request.param)
    return str(request.param)


def policy(hosts: str, to: str, *more: Any, allowed: str | None = None) -> rampart.Policy:
    """Everything but connections; those to some hosts go elsewhere."""
    files = rampart.allow(["read", "write", "exec", "listen"], name="files")
    rule = rampart.allow("connect", hosts=[hosts], name="recorded", redirect=rampart.Redirect(to=to))
    substitute = rampart.allow("connect", hosts=[to if allowed is None else allowed], name="substitute")
    return rampart.Policy(rules=[files, rule, substitute, *more])


@pytest.fixture
def attempt(by_name: Any) -> Callable[..., Any]:
    """Run lines of Python in the tree; gives what they put into ``said``, and the finished command."""

    def run(lines: str, given: Any, **options: Any) -> Any:
        code = f"{ATTEMPT}{lines}\nprint(json.dumps(said))"
        done = by_name.run(["/usr/bin/env", "python3", "-I", "-S", "-c", code], given, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done

    return run


def test_by_a_rule(attempt: Any, real: Server, proxy: Server, project: Any, engine: str) -> None:
    """The substitute answers, and the record has both; without the redirect the site itself does."""
    steps = f"said['by'] = reach('{SITE}', {real.port})"
    place = f"{SITE}:{real.port}"
    said, done = attempt(steps, policy(place, f"{PROXY}:{proxy.port}"))
    assert (said["by"], proxy.met, real.met) == ("proxy", 1, 0)
    (seen,) = [each for each in done.events if each.redirect is not None]
    assert (seen.verdict, seen.rule, seen.event.object) == ("allow", "recorded", place)
    (record,) = [each for each in project.records() if "redirect" in each]
    assert (record["object"], record["redirect"]) == (place, f"to {PROXY}:{proxy.port}")
    said, _ = attempt(steps, policy("10.0.0.1:1", place))
    assert (said["by"], real.met) == ("real", 1)


@pytest.mark.usefixtures("engine")
class TestReached:
    def test_by_name(self, attempt: Any, by_name: Any, real: Server, proxy: Server, project: Any) -> None:
        """A rule about names leads what the name has elsewhere, and the record names it."""
        by_name.server.zone["site.example"] = [("A", SITE)]
        given = policy(f"*.example:{real.port}", f"{PROXY}:{proxy.port}")
        said, _ = attempt(f"said['by'] = reach('site.example', {real.port})", given)
        assert (said["by"], real.met) == ("proxy", 0)
        (record,) = [each for each in project.records() if "redirect" in each]
        assert (record["names"], record["address"], record["port"]) == (["site.example"], SITE, real.port)

    @pytest.mark.parametrize("by", ["decide", "on_ask"])
    def test_by_an_answer(self, by: str, attempt: Any, real: Server, proxy: Server) -> None:
        """A callable, and whoever is asked, can answer a connection with a redirect."""
        asked = []

        def answer(event: Any) -> rampart.Redirect:
            asked.append(event.object)
            return rampart.Redirect(to=f"{PROXY}:{proxy.port}")

        answers = {by: answer}
        question = rampart.ask("connect", hosts=[SITE], name="q", decide=answers.get("decide"))
        given = policy("10.0.0.1:1", f"{PROXY}:{proxy.port}", question)
        said, done = attempt(
            f"said['by'] = reach('{SITE}', {real.port})", given, on_ask=answers.get("on_ask")
        )
        assert (said["by"], real.met, asked) == ("proxy", 0, [f"{SITE}:{real.port}"])
        (seen,) = [each for each in done.events if each.redirect is not None]
        assert (seen.asked, seen.rule) == (True, "q")

    @pytest.mark.parametrize("redirect", [rampart.Redirect(mask="values"), rampart.Redirect(to="/dev/null")])
    def test_an_answer_for_files(self, redirect: Any, attempt: Any, real: Server) -> None:
        """An answer that shows a file is none for a connection: denied, and the record says so."""
        question = rampart.ask("connect", hosts=[SITE], name="q", decide=lambda event: redirect)
        given = policy("10.0.0.1:1", f"{SITE}:{real.port}", question)
        said, done = attempt(f"said['by'] = tried(lambda: reach('{SITE}', {real.port}))", given)
        assert (said["by"], real.met) == ("ECONNREFUSED", 0)
        assert done.denials[0].message == "the approver redirects a connect as only a read can be"

    def test_a_look_up_is_no_connection(self, attempt: Any, by_name: Any) -> None:
        """A redirect in answer to a look-up is a denial; nobody outside hears of the name."""
        by_name.server.zone["site.example"] = [("A", SITE)]
        given = policy("other.example:1", "10.0.0.1:1", rampart.ask("connect", hosts=["*"], name="q"))
        steps = "try:\n    socket.getaddrinfo('site.example', 80)\nexcept socket.gaierror: said['none'] = 1"
        said, done = attempt(steps, given, on_ask=lambda event: rampart.Redirect(to="10.0.0.1:1"))
        assert (said, by_name.server.asked) == ({"none": 1}, [])
        assert "the name is only looked up" in done.denials[0].message

    def test_no_answer_lifts_it(self, attempt: Any, real: Server, proxy: Server) -> None:
        """Neither a yes, nor another redirect, nor a grant changes where the policy leads a connection."""
        place = f"{SITE}:{real.port}"
        steps = f"said['by'] = reach('{SITE}', {real.port})"
        asking = policy(place, f"{PROXY}:{proxy.port}", rampart.ask("connect", hosts=[place], name="q"))
        for answer in (rampart.Allow(), rampart.Redirect(to=place)):
            said, _ = attempt(steps, asking, on_ask=lambda event, answer=answer: answer)
            assert (said["by"], real.met) == ("proxy", 0)
        granted = asking.with_grants(rampart.Grant(operation="connect", host=place))
        said, _ = attempt(steps, granted)
        assert (said["by"], real.met) == ("proxy", 0)

    def test_everything(self, attempt: Any, real: Server, proxy: Server) -> None:
        """Of a rule for all addresses the substitute is led to itself, and needs no rule of its own."""
        to = f"{PROXY}:{proxy.port}"
        given = policy("0.0.0.0/0", to, allowed="10.0.0.1:1")
        steps = f"said['by'] = [reach('{SITE}', {real.port}), reach('{PROXY}', {proxy.port})]"
        said, done = attempt(steps, given)
        assert (said["by"], done.denials) == (["proxy", "proxy"], [])

    @pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
    def test_curl(self, by_name: Any) -> None:
        """A real client, by name, meets the fake; its request is the one for the site."""
        by_name.server.zone["site.example"] = [("A", SITE)]
        fake = by_name.site(PROXY)
        done = by_name.run(
            ["curl", "-sS", "http://site.example/x"], policy("site.example:80", f"{PROXY}:{fake}")
        )
        assert (done.stdout, done.stderr) == ("hello\n", "")
        assert by_name.requests == ["/x"]


@pytest.mark.usefixtures("engine")
class TestSocket:
    def test_as_bare(self, attempt: Any, real: Server, proxy: Server) -> None:
        """Non-blocking: EINPROGRESS, poll, SO_ERROR, a second connect; the peer is the proxy."""
        steps = f"""
end, first, ready = later("{SITE}", {real.port})
said["first"] = errno.errorcode.get(first, first)
said["ready"], said["error"] = ready, end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
said["second"] = [errno.errorcode.get(n, n) for n in (end.connect_ex(("{SITE}", {real.port})) for _ in "ab")]
said["flags"] = end.getblocking()
end.setblocking(True)
said["peer"], said["by"] = end.getpeername()[0], said_by(end)
"""
        said, _ = attempt(steps, policy(f"{SITE}:{real.port}", f"{PROXY}:{proxy.port}"))
        bare, _ = attempt(steps, policy("10.0.0.1:1", f"{SITE}:{real.port}"))
        assert (said.pop("peer"), said.pop("by")) == (PROXY, "proxy")
        assert (bare.pop("peer"), bare.pop("by")) == (SITE, "real")
        assert said == bare
        assert said["first"] in (0, "EINPROGRESS")

    def test_nobody_there(self, attempt: Any, real: Server) -> None:
        """A substitute that does not listen refuses, now or later; that is no denial."""
        with socket.socket() as closed:
            closed.bind((PROXY, 0))
            port = closed.getsockname()[1]
            steps = f"""
said["now"] = tried(lambda: reach("{SITE}", {real.port}))
end, first, ready = later("{SITE}", {real.port})
said["later"] = errno.errorcode[first if first != errno.EINPROGRESS else end.getsockopt(1, socket.SO_ERROR)]
"""
            said, done = attempt(steps, policy(f"{SITE}:{real.port}", f"{PROXY}:{port}"))
        assert said == {"now": "ECONNREFUSED", "later": "ECONNREFUSED"}
        assert (done.denials, real.met) == ([], 0)

    def test_versions_of_ip(self, attempt: Any, serve: Any, real: Server, proxy: Server) -> None:
        """IPv6 sockets reach an IPv4 substitute as v4-mapped, unless they are for IPv6 alone; and so on."""
        six = serve("::1", "six")
        steps = f"""
def alone():
    with socket.socket(V6, TCP) as end:
        end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        end.connect(("2001:db8::1", 80))
        return said_by(end)
def mapped(host, port):
    with socket.socket(V6, TCP) as end:
        end.connect((host, port))
        return end.getpeername()[0], said_by(end)
said["four"] = tried(lambda: reach("{SITE}", {real.port}))
said["mapped"] = tried(lambda: mapped("::ffff:{SITE}", {real.port}))
said["six"] = tried(lambda: mapped("2001:db8::1", 80))
said["alone"] = tried(alone)
"""
        hosts = [f"{SITE}:{real.port}", "[2001:db8::1]:80"]

        def leading(to: str) -> rampart.Policy:
            rule = rampart.allow("connect", hosts=hosts, name="all", redirect=rampart.Redirect(to=to))
            return policy("10.0.0.1:1", to).with_rules(rule)

        said, done = attempt(steps, leading(f"{PROXY}:{proxy.port}"))
        assert said == {
            "four": "proxy",
            "mapped": [f"::ffff:{PROXY}", "proxy"],
            "six": [f"::ffff:{PROXY}", "proxy"],
            "alone": "ECONNREFUSED",
        }
        (denial,) = done.denials
        assert (denial.rule, denial.object) == ("all", "[2001:db8::1]:80")
        assert "for IPv6 alone" in denial.message
        said, done = attempt(steps, leading(f"[::1]:{six.port}"))
        assert said == {
            "four": "ECONNREFUSED",
            "mapped": ["::1", "six"],
            "six": ["::1", "six"],
            "alone": "six",
        }
        (denial,) = done.denials
        assert "an IPv4 socket cannot be connected" in denial.message
        assert real.met == 0

    def test_addresses_of_another_family(self, attempt: Any, serve: Any, real: Server, proxy: Server) -> None:
        """What the socket could not be connected to bare, as too short an address, gives the same error."""
        steps = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
four = struct.pack("=H", V4) + struct.pack("!H", {real.port}) + socket.inet_aton("{SITE}") + bytes(8)
mapped = socket.inet_pton(V6, "::ffff:{SITE}")
six = struct.pack("=H", V6) + struct.pack("!HI", {real.port}, 0) + mapped + bytes(4)
def tries(family, raw, kind=TCP):
    end = socket.socket(family, kind)
    if libc.connect(end.fileno(), raw, len(raw)):
        return errno.errorcode[ctypes.get_errno()]
    return end.getpeername()[0]
said["all"] = [tries(V4, six), tries(V6, four), tries(V4, four[:15]), tries(V6, six[:23])]
said["all"] += [tries(V6, six[:24]), tries(V6, four, UDP), tries(V4, four), tries(V6, six)]
"""
        said, done = attempt(steps, policy(f"{SITE}:{real.port}", f"{PROXY}:{proxy.port}"))
        bare, _ = attempt(steps, policy("10.0.0.1:1", f"{SITE}:{real.port}"))
        assert said["all"] == [each.replace(SITE, PROXY) for each in bare["all"]]
        assert said["all"][-2:] == [PROXY, f"::ffff:{PROXY}"]
        assert done.denials == []

    def test_datagrams(self, attempt: Any, real: Server, proxy: Server, project: Any) -> None:
        """A connected datagram socket is led there; a datagram with an address of its own is denied."""
        steps = f"""
end = socket.socket(V4, UDP)
said["sendto"] = tried(lambda: end.sendto(b"to", ("{SITE}", {real.port})))
said["sendmsg"] = tried(lambda: end.sendmsg([b"msg"], [], 0, ("{SITE}", {real.port})))
end.connect(("{SITE}", {real.port}))
said["sent"], said["peer"] = end.send(b"connected"), end.getpeername()[0]
said["again"] = tried(lambda: end.sendto(b"to", ("{SITE}", {real.port})))
"""
        said, done = attempt(steps, policy(f"{SITE}:{real.port}", f"{PROXY}:{proxy.port}"))
        assert (said["sendto"], said["sendmsg"], said["again"]) == ("ECONNREFUSED",) * 3
        assert (said["sent"], said["peer"]) == (9, PROXY)
        assert (proxy.received, proxy.received, real.received) == (b"connected", b"", b"")
        assert {denial.message for denial in done.denials} == {
            "only connections are redirected, and no datagram with an address of its own"
        }
        bare, _ = attempt(steps, policy("10.0.0.1:1", f"{SITE}:{real.port}"))
        assert (bare["sendto"], real.received) == (2, b"to")

    def test_first_packet(self, attempt: Any, real: Server, proxy: Server) -> None:
        """Data with the first packet is refused as ever, and the program connects; nothing was sent."""
        steps = f"""
with socket.socket(V4, TCP) as end:
    said["fast"] = tried(lambda: end.sendto(b"early", 0x20000000, ("{SITE}", {real.port})))
    end.connect(("{SITE}", {real.port}))
    said["by"] = said_by(end)
"""
        said, done = attempt(steps, policy(f"{SITE}:{real.port}", f"{PROXY}:{proxy.port}"))
        assert (said, real.met, proxy.met) == ({"fast": "ENOTSUP", "by": "proxy"}, 0, 1)
        assert done.denials == []

    def test_own_unix_sockets(self, attempt: Any) -> None:
        """Unix sockets of the tree have nothing to do with it."""
        steps = """
server = socket.socket(socket.AF_UNIX)
server.bind("s"); server.listen()
client = socket.socket(socket.AF_UNIX)
client.connect("s")
client.sendall(b"unix")
said["by"] = said_by(server.accept()[0])
"""
        assert attempt(steps, policy("0.0.0.0/0", "10.0.0.1:1"))[0] == {"by": "unix"}

    def test_a_unix_socket_in_answer_to_a_question(self, attempt: Any, project: Any) -> None:
        """A unix socket is connected to no address, whoever says so."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(project.base / "s"))
            server.listen()
            question = rampart.ask("connect", hosts=[f"unix:{project.base}/s"], name="q")
            steps = f"said['by'] = tried(lambda: socket.socket(socket.AF_UNIX).connect('{project.base}/s'))"
            said, done = attempt(
                steps,
                policy("10.0.0.1:1", "10.0.0.1:2", question),
                on_ask=lambda event: rampart.Redirect(to="10.0.0.1:2"),
            )
        assert said["by"] == "ECONNREFUSED"
        assert "a unix socket cannot be connected" in done.denials[0].message


@pytest.mark.usefixtures("engine")
class TestSubstitute:
    """The substitute is judged, too: no redirect reaches what the policy does not let be reached."""

    def reach(self, real: Server) -> str:
        return f"said['by'] = tried(lambda: reach('{SITE}', {real.port}))"

    def test_denied(self, attempt: Any, real: Server, proxy: Server) -> None:
        """Not allowed, denied, or led further: then the connection is denied, by the rule that redirects."""
        place, to = f"{SITE}:{real.port}", f"{PROXY}:{proxy.port}"
        further = rampart.allow(
            "connect", hosts=[to], name="further", redirect=rampart.Redirect(to="10.0.0.1:1")
        )
        for more, allowed, why in (
            ([], "10.0.0.1:1", "default connect: deny"),
            ([rampart.deny("connect", hosts=[to], name="never")], to, "never"),
            ([rampart.ask("connect", hosts=[to], name="q")], to, "q"),
            ([further], to, "further"),
        ):
            said, done = attempt(
                self.reach(real),
                policy(place, to, *more, allowed=allowed),
                on_ask=lambda event: rampart.Allow(),
            )
            assert (said["by"], proxy.met, real.met) == ("ECONNREFUSED", 0, 0)
            (denial,) = done.denials
            assert (denial.rule, denial.object) == ("recorded", place)
            assert denial.message == f"what is reached instead may not be reached itself: {to}, by {why}"

    def test_of_a_stack(self, attempt: Any, serve: Any, real: Server, proxy: Server) -> None:
        """A layer judges the original and the substitute; of two redirects the first layer's holds."""
        other = serve("127.200.0.8", "other")
        place, to = f"{SITE}:{real.port}", f"{PROXY}:{proxy.port}"
        project = policy(place, to)
        both = f"{other.stream.getsockname()[0]}:{other.port}"
        files = rampart.allow(["read", "write", "exec", "listen"], name="files")

        def org(*hosts: str, **more: Any) -> rampart.Policy:
            return rampart.Policy(rules=[files, rampart.allow("connect", hosts=hosts, name="org", **more)])

        redirecting = policy(place, both).with_rules(rampart.allow("connect", hosts=[to], name="more"))
        widened = project.with_rules(rampart.allow("connect", hosts=[both], name="more"))
        for layers, expected in (
            ((org(place, to), project), "proxy"),
            ((project, org(place, to)), "proxy"),
            ((org(place), project), "ECONNREFUSED"),
            ((org(to), project), "ECONNREFUSED"),
            ((redirecting, widened), "other"),
            ((widened, redirecting), "proxy"),
        ):
            said, _ = attempt(self.reach(real), rampart.Policy.stack(*layers))
            assert said["by"] == expected
        assert real.met == 0

    def test_bound_to_an_interface(self, attempt: Any, serve: Any) -> None:
        """A socket that would send what is for this machine out of it is not led to this machine."""
        found = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
        local = [(each[0], int(each[1], 16)) for each in found if each[0].startswith("fe80")]
        if not local:
            pytest.skip("no interface with a link-local address")
        host, interface = local[0]
        address = str(ipaddress.IPv6Address(int(host, 16)))
        six = serve("::1", "six")
        steps = f"""
with socket.socket(V6, TCP) as end:
    end.bind(("{address}", 0, 0, {interface}))
    said["by"] = tried(lambda: end.connect(("2001:db8::1", 80)))
"""
        said, done = attempt(steps, policy("[2001:db8::1]:80", f"[::1]:{six.port}"))
        assert (said["by"], six.met) == ("ECONNREFUSED", 0)
        assert "bound to an interface" in done.denials[0].message

    def test_port_53(self, attempt: Any, by_name: Any, real: Server) -> None:
        """DNS ends at the broker: no redirect leads to a name server where host names are judged."""
        by_name.server.zone["site.example"] = [("A", SITE)]
        given = policy("site.example", "127.0.0.1:53", allowed="127.0.0.1")
        said, done = attempt("said['by'] = tried(lambda: reach('site.example', 80))", given)
        assert said["by"] == "ECONNREFUSED"
        assert done.denials[-1].message == "what goes to port 53 ends at the broker"


def test_update(by_name: Any, project: Any, real: Server, proxy: Server) -> None:
    """A policy that redirects takes effect at the next connection of what runs."""
    code = f"{ATTEMPT}\nfor line in sys.stdin: print(reach('{SITE}', {real.port}), flush=True)"
    with by_name.broker(policy("10.0.0.1:1", f"{SITE}:{real.port}")) as broker:
        process = rampart.Popen(
            ["python3", "-I", "-S", "-c", code],
            broker=broker,
            cwd=project.root,
            stdin=-1,
            stdout=-1,
            text=True,
        )
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "real\n"
        broker.update(policy(f"{SITE}:{real.port}", f"{PROXY}:{proxy.port}"))
        assert process.communicate("\n")[0] == "proxy\n"
        assert real.met == 1
