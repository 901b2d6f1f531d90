"""Socket addresses mean what the kernel takes them for."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rampart_seccomp.calls.addresses import IPAddress, NetlinkAddress, UnixAddress, Unspecified, parse


def _in6(address: str, port: int) -> bytes:
    return (
        struct.pack("=H", socket.AF_INET6)
        + struct.pack("!HI", port, 0)
        + socket.inet_pton(socket.AF_INET6, address)
        + bytes(4)
    )


def test_ipv4() -> None:
    """An IPv4 address with its port, in network order."""
    raw = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 443) + bytes([192, 0, 2, 1]) + bytes(8)

    assert parse(raw) == IPAddress(ipaddress.ip_address("192.0.2.1"), 443)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::ffff:0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_destination_is_where_the_kernel_goes(text: str, destination: str) -> None:
    """v4-mapped addresses are IPv4, and the unspecified ones are loopback."""
    address = parse(_in6(text, 1))

    assert isinstance(address, IPAddress)
    assert address.destination == ipaddress.ip_address(destination)


def test_unix_forms() -> None:
    """A path ends at its NUL, an abstract name does not, and nothing at all is an autobind."""
    family = struct.pack("=H", socket.AF_UNIX)

    assert parse(family + b"/run/x\0junk") == UnixAddress(path=b"/run/x")
    assert parse(family + b"\0a\0b") == UnixAddress(abstract=b"a\0b")
    assert parse(family) == UnixAddress()


def test_other_families() -> None:
    """AF_UNSPEC and netlink are told apart; what the filter never lets through is EAFNOSUPPORT."""
    assert parse(struct.pack("=H", 0)) == Unspecified()
    assert parse(struct.pack("=HHII", socket.AF_NETLINK, 0, 7, 1)) == NetlinkAddress(7, 1)
    with pytest.raises(OSError, match="not supported") as caught:
        parse(struct.pack("=H", 40) + bytes(14))
    assert caught.value.errno == errno.EAFNOSUPPORT


@given(st.binary(max_size=130))
def test_any_bytes_are_an_address_or_an_errno(raw: bytes) -> None:
    """No input makes the reader fail otherwise than by an errno of connect(2)."""
    try:
        parse(raw)
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.EAFNOSUPPORT)
