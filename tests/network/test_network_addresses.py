"""Which addresses are no answer for a name of the internet."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from rampart_seccomp.network.addresses import is_inside

INSIDE = (
    *(
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
    ),
    *("169.254.169.254", "169.254.0.1", "100.100.100.200", "224.0.0.251", "255.255.255.255", "240.0.0.1"),
    *("::", "::1", "fe80::1", "fd00:ec2::254", "fd00::1", "ff02::fb", "::ffff:127.0.0.1", "::7f00:1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "2002:a00:1::", "fe80::1%1", "fec0::1"),
)
OUTSIDE = ("1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::1")


@pytest.mark.parametrize("text", INSIDE)
def test_inside(text: str) -> None:
    """This machine, its networks, cloud metadata, and IPv6 spellings that lead there."""
    assert is_inside(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", OUTSIDE)
def test_outside(text: str) -> None:
    """Public addresses, translated ones included."""
    assert not is_inside(ipaddress.ip_address(text))


def test_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public address that an interface of this machine has is this machine."""
    bound: list[tuple[str, int]] = []
    monkeypatch.setattr(socket.socket, "bind", lambda self, name: bound.append(name))
    assert is_inside(ipaddress.ip_address("1.1.1.1"))
    assert bound == [("1.1.1.1", 0)]
