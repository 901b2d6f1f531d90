"""`hosts:` and `ports:`."""

from __future__ import annotations

import ipaddress

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ConnectEvent, ListenEvent
from rampart_seccomp.policy import Policy, allow, deny
from rampart_seccomp.policy.hosts import parse_host, parse_local


def connect(host: str, port: int, *names: str) -> ConnectEvent:
    return ConnectEvent(protocol="tcp", address=ipaddress.ip_address(host), port=port, names=frozenset(names))


def listen(host: str, port: int) -> ListenEvent:
    return ListenEvent(protocol="tcp", address=ipaddress.ip_address(host), port=port)


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ("example.com:443", connect("1.2.3.4", 443, "example.com"), True),
        ("Example.COM.:443", connect("1.2.3.4", 443, "example.com"), True),
        ("example.com:443", connect("1.2.3.4", 80, "example.com"), False),
        ("example.com", connect("1.2.3.4", 80, "example.com"), True),
        ("example.com:443", connect("1.2.3.4", 443), False),
        ("example.com:443", connect("1.2.3.4", 443, "www.example.com"), False),
        ("example.com:80,443,8000-9000", connect("1.2.3.4", 8500, "example.com"), True),
        ("example.com:80,443,8000-9000", connect("1.2.3.4", 9001, "example.com"), False),
        ("bücher.example", connect("1.2.3.4", 1, "xn--bcher-kva.example"), True),
        ("localhost:80", connect("127.0.0.1", 80, "localhost"), True),
        ("*.Example.com.:443", connect("1.2.3.4", 443, "www.example.com"), True),
        ("*.example.com:443", connect("1.2.3.4", 443, "a.b.example.com"), True),
        ("*.example.com:443", connect("1.2.3.4", 443, "example.com"), False),
        ("*.example.com:443", connect("1.2.3.4", 443, "wexample.com"), False),
        ("*.example.com:443", connect("1.2.3.4", 80, "www.example.com"), False),
        ("*.example.com", connect("1.2.3.4", 80, "a.test", "b.example.com"), True),
        ("*.bücher.example", connect("1.2.3.4", 1, "www.xn--bcher-kva.example"), True),
        ("*:443", connect("1.2.3.4", 443, "any.example"), True),
        ("*:443", connect("1.2.3.4", 443), False),
        ("*", connect("::1", 1, "localhost"), True),
        ("1.2.3.4", connect("1.2.3.4", 5), True),
        ("1.2.3.4:5", connect("1.2.3.4", 6), False),
        ("10.0.0.0/8:5432", connect("10.9.8.7", 5432), True),
        ("10.0.0.0/8:5432", connect("11.9.8.7", 5432), False),
        ("::1", connect("::1", 5), True),
        ("[::1]:443", connect("::1", 443), True),
        ("[::1]:443", connect("::1", 80), False),
        ("[::1]", connect("::1", 80), True),
        ("fd00::/8", connect("fd12::1", 80), True),
        ("[fd00::/8]:80", connect("fd12::1", 80), True),
        ("[fd00::/8]:80", connect("fe12::1", 80), False),
        ("::ffff:10.0.0.1", connect("10.0.0.1", 80), True),
        ("::/0", connect("1.2.3.4", 80), False),
        ("0.0.0.0/0", connect("::1", 80), False),
        ("127.0.0.1:80", connect("0.0.0.0", 80), True),
        ("::1", connect("::", 80), True),
        ("fe80::/10", connect("fe80::1%2", 80), True),
    ],
)
def test_hosts(pattern: str, event: ConnectEvent, expected: bool) -> None:
    """Names, addresses, networks and ports match what they say, and nothing else."""
    assert expected == parse_host(pattern).matches(event)


def test_a_deny_by_address_judges_names_too() -> None:
    """A name that resolves into a denied network is denied, though the name is allowed."""
    policy = Policy(
        rules=[
            allow("connect", hosts=["example.com:443"], name="site"),
            deny("connect", hosts=["169.254.0.0/16", "10.0.0.0/8"], name="inside"),
        ]
    )
    matcher = policy.matcher(home=b"/h", directory=b"/h/p")
    assert matcher.decide(connect("1.2.3.4", 443, "example.com")).verdict == "allow"
    assert matcher.decide(connect("169.254.169.254", 443, "example.com")).where == "inside"


@pytest.mark.parametrize(
    ("pattern", "event", "strict", "expected"),
    [
        ("8000", listen("127.0.0.1", 8000), False, True),
        ("8000", listen("0.0.0.0", 8000), False, True),
        ("8000", listen("::", 8001), False, False),
        ("8000-9000,80", listen("::", 8001), False, True),
        ("8000-9000,80", listen("::", 80), False, True),
        ("127.0.0.1:8000-9000", listen("127.0.0.1", 8500), False, True),
        ("127.0.0.1:8000", listen("0.0.0.0", 8000), False, False),
        ("127.0.0.1:8000", listen("0.0.0.0", 8000), True, True),
        ("127.0.0.1:8000", listen("::", 8000), True, True),
        ("[::1]:8000", listen("0.0.0.0", 8000), True, False),
        ("[::1]:8080", listen("::1", 8080), False, True),
        ("127.0.0.0/8", listen("127.3.2.1", 0), False, True),
        ("127.0.0.1", listen("::1", 1), False, False),
        ("8000", listen("::", 0), True, False),
        ("40000-50000", listen("::", 0), True, True),
        ("40000-50000", listen("::", 0), False, False),
        ("0", listen("::", 0), False, True),
    ],
)
def test_ports(pattern: str, event: ListenEvent, strict: bool, expected: bool) -> None:
    """A pattern that allows matches no more than is asked for; one that restricts, all that is included."""
    assert expected == parse_local(pattern).matches(event, strict=strict)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", "not a host"),
        ("www.*.example.com:443", "middle of a name"),
        ("**.example.com", "middle of a name"),
        ("*example.com", "middle of a name"),
        ("*.", "is not a host"),
        ("straße.example", "two ASCII forms"),
        ("https://example.com", "is a URL"),
        ("example.com:", "no port behind"),
        ("example.com:http", "is not a port"),
        ("example.com:70000", "above 65535"),
        ("example.com:90-80", "out of order"),
        ("example.com/path", "is not an address"),
        ("exa mple.com", "is not a host"),
        ("-x.com", "is not a host"),
        ("a..b", "is not a host"),
        ("a" * 64 + ".com", "is not a host"),
        ("10.0.0.1/8", "write '10.0.0.0/8'"),
        ("10.1", "is not an address"),
        ("0x7f.1:80", "is not an address"),
        ("256.1.1.1", "is not an address"),
        ("[::1", "is not an address"),
        ("[::1]443", "is not an address"),
        ("[name]:443", "is not an address"),
        ("::1:443:xyz", "is not an address"),
        ("fe80::1%eth0", "has a scope"),
        ("unix:", "empty"),
        ("unix:run/x.sock", "starts nowhere"),
        ("unix:@", "abstract"),
    ],
)
def test_bad_hosts(pattern: str, expected: str) -> None:
    """What names no destination is an error that says so."""
    with pytest.raises(PolicyError) as caught:
        parse_host(pattern)
    assert expected in str(caught.value)


@pytest.mark.parametrize("pattern", ["", "http", "80-", "-1", "127.0.0.1:x", "name:80", "1:2:3:zz", "99999"])
def test_bad_ports(pattern: str) -> None:
    """What names no local port is an error."""
    with pytest.raises(PolicyError):
        parse_local(pattern)
