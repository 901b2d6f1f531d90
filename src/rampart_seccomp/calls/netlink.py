"""Route netlink sockets, made without the right to configure the network.

What is written to one stands in memory, and write(2) is free, so it is the socket that must not be able to
change routes and addresses: the kernel asks whether whoever made it had CAP_NET_ADMIN (netlink(7);
netlink_ns_capable in net/netlink/af_netlink.c), whatever the writer may do. A target without the capability
makes its own; for one that has it, the broker makes it without.
"""

from __future__ import annotations

import ctypes
import os
import socket as sockets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EPERM

import attrs

from rampart_seccomp.calls.call import Call, Refusal, Setting
from rampart_seccomp.calls.notification import Notification, int32

__all__ = ["DECODERS", "socket"]

_CAP_NET_ADMIN = 12
_CAPABILITIES = struct.Struct("=6I")  # struct __user_cap_data_struct[2]: effective, permitted, inheritable
_HEADER = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, the calling thread


@attrs.define(eq=False)
class OwnSocket(Call):
    """A socket of a target that may not configure anything."""

    enforced = "continued"

    def perform(self) -> None:
        """Let the kernel make it: all arguments are registers."""
        self.notification.allow()


@attrs.define(eq=False)
class ReadingSocket(Call):
    """A socket that the broker makes without the right to configure."""

    def perform(self) -> None:
        """Make the socket and hand it over."""
        _, kind, protocol = map(int32, self.notification.args[:3])
        with _without_net_admin():
            made = sockets.socket(sockets.AF_NETLINK, kind | sockets.SOCK_CLOEXEC, protocol)
        with made:
            made.setblocking(not kind & sockets.SOCK_NONBLOCK)
            fd = made.detach()
        self.notification.reply_fd(fd, cloexec=bool(kind & sockets.SOCK_CLOEXEC))


def socket(notification: Notification, setting: Setting) -> Call:
    """Decode socket(AF_NETLINK, ..., NETLINK_ROUTE)."""
    if not notification.identity.cap_effective >> _CAP_NET_ADMIN & 1:
        return OwnSocket(notification, setting)
    call = ReadingSocket(notification, setting)
    theirs = os.stat("ns/net", dir_fd=notification.target)
    if theirs.st_ino != os.stat("/proc/thread-self/ns/net").st_ino:
        call.refusal = Refusal("the right to configure another network namespace", EPERM)
    return call


@contextmanager
def _without_net_admin() -> Iterator[None]:
    """While inside, this thread has not got CAP_NET_ADMIN in effect (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    kept = ctypes.create_string_buffer(_CAPABILITIES.size)
    _check(libc.capget(_HEADER, kept))
    low, *rest = _CAPABILITIES.unpack(kept.raw)
    _check(libc.capset(_HEADER, _CAPABILITIES.pack(low & ~(1 << _CAP_NET_ADMIN), *rest)))
    try:
        yield
    finally:
        _check(libc.capset(_HEADER, kept))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


DECODERS: dict[str, Callable[[Notification, Setting], Call]] = {
    "socket": socket,
}
