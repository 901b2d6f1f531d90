"""connect(2), bind(2), listen(2): decided and performed on a copy of the target's socket."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Callable

import attrs

from rampart_seccomp.calls.addresses import IPAddress, NetlinkAddress, UnixAddress, Unspecified, parse
from rampart_seccomp.calls.call import Call, Departed, NameService, Refusal, Setting
from rampart_seccomp.calls.notification import AT_FDCWD, Notification, int32
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import checked, lib
from rampart_seccomp.calls.substitutes import Irreplaceable
from rampart_seccomp.events import (
    DNS_PORT,
    Address,
    ConnectEvent,
    Event,
    FileEvent,
    ListenEvent,
    Operation,
)
from rampart_seccomp.verdicts import Redirect

__all__ = [
    "DECODERS",
    "Destination",
    "bind",
    "connect",
    "destination",
    "listen",
    "read_address",
    "substituted",
]

OTHER_NAME_SERVICE = "a name service beside the broker's"
STANDS_FOR_NOTHING = "a synthetic address that stands for no name"

NAMES_ELSEWHERE = "the names of another network namespace"
_SO_BINDTOIFINDEX = 62
_SO_NETNS_COOKIE = 71
_UNIX_MAX = 110  # sizeof(struct sockaddr_un)
_NAME_SERVICES = (
    *(b"/run/nscd/", b"/run/systemd/resolve/", b"/run/avahi-daemon/", b"/run/nslcd/", b"/var/run/nscd/"),
    *(b"/var/lib/sss/pipes/", b"/var/run/avahi-daemon/", b"/var/run/nslcd/", b"/var/cache/nscd/"),
)
_ADDRESS_MAX = 128  # sizeof(struct sockaddr_storage)


@attrs.frozen
class Destination:
    """Where a connection or a datagram goes, ready to be judged and used.

    Attributes:
        raw: The address to hand to the kernel; a unix path is replaced by that of its pin.
        event: What is judged; None if nothing leaves (AF_UNSPEC, the kernel's own netlink port).
        refusal: A built-in denial.
        asks: ``udp`` or ``tcp`` and version of IP if it leads to the tree's own name service.
    """

    raw: bytes
    event: Event | None = None
    refusal: Refusal | None = None
    asks: tuple[str, int] | None = None


def read_address(notification: Notification, address: int, size: int) -> bytes:
    """Copy a ``struct sockaddr`` of ``size`` bytes, once. EINVAL if it is impossibly long."""
    if not 0 <= size <= _ADDRESS_MAX:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return notification.read(address, size)


def destination(call: Call, raw: bytes, copy: int) -> Destination:
    """Say where an address really leads, for the socket that ``copy`` is.

    Raises:
        OSError: As connect(2) has it: EINVAL, EAFNOSUPPORT, and for unix paths what resolving them gives.
    """
    domain, kind = _kind(copy)
    address = parse(raw)
    if isinstance(address, Unspecified):
        return Destination(raw)
    if isinstance(address, NetlinkAddress):
        _expect(domain, socket.AF_NETLINK)
        outside = address.port != 0 or address.groups != 0
        return Destination(raw, refusal=Refusal("netlink to other programs") if outside else None)
    if isinstance(address, IPAddress):
        _expect(domain, socket.AF_INET, socket.AF_INET6)
        if address.port == DNS_PORT and call.setting.dns is not None:
            if _is_elsewhere(copy):
                return Destination(raw, refusal=Refusal(NAMES_ELSEWHERE, errno.ECONNREFUSED))
            _ensure_at_large(copy)
            return _name_service(call.setting.dns, raw, address, kind)
        return _ip_destination(call, raw, address, kind, copy)
    _expect(domain, socket.AF_UNIX)
    return _unix_destination(call, raw, address)


def _is_elsewhere(copy: int) -> bool:
    """Tell whether a socket is of another network namespace, where the broker's name service is not.

    Its port is another's here: whoever asks from that must not be taken for the socket's owner. True, too, if
    the kernel does not say (before Linux 5.14).
    """
    with socket.socket(fileno=os.dup(copy)) as theirs, socket.socket(socket.AF_UNIX) as ours:
        try:
            cookies = [each.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) for each in (theirs, ours)]
        except OSError:
            return True
    return cookies[0] != cookies[1]


def _ip_destination(call: Call, raw: bytes, address: IPAddress, kind: str, copy: int) -> Destination:
    """Say where an IP address leads: one that stands for a name and its real address leads to that."""
    synthetic = call.setting.synthetic
    meant = None if synthetic is None else synthetic.meant(address.host)
    if meant is not None:
        host, names = meant.address, frozenset({meant.name})
        raw = address.directed(raw, host, address.port)
    else:
        host, names = address.destination, frozenset[str]()
        raw = address.rewritten(raw)
    if host.is_loopback:
        _ensure_at_large(copy)
    event = ConnectEvent(
        protocol=kind, address=host, port=address.port, names=names, syscall=call.notification.syscall
    )
    refusal = None
    if meant is None and synthetic is not None and synthetic.reserved(address.host):
        refusal = Refusal(STANDS_FOR_NOTHING, errno.ECONNREFUSED)
    return Destination(raw, event, refusal)


def substituted(call: Call, where: Destination, redirect: Redirect, copy: int) -> Destination:
    """Give what a connection is made to instead, for the socket that ``copy`` is.

    An IPv6 socket reaches an IPv4 substitute by its v4-mapped address, unless it is for IPv6 alone (ipv6(7)).

    Raises:
        Irreplaceable: There is no way from this socket to the substitute.
    """
    if redirect.destination is None:
        raise Irreplaceable("a connection is only redirected to an address")
    host, port = redirect.destination
    address = parse(where.raw)
    if not isinstance(address, IPAddress):
        raise Irreplaceable(f"a unix socket cannot be connected {redirect}")
    if port == DNS_PORT and call.setting.dns is not None:
        raise Irreplaceable("what goes to port 53 ends at the broker")
    domain, kind = _kind(copy)
    if host.version == 6 and int.from_bytes(where.raw[:2], sys.byteorder) == socket.AF_INET:
        raise Irreplaceable(f"an IPv4 socket cannot be connected {redirect}")
    if host.version == 4 and domain == socket.AF_INET6:
        with socket.socket(fileno=os.dup(copy)) as probe:
            if probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                raise Irreplaceable(f"a socket for IPv6 alone cannot be connected {redirect}")
    if host.is_loopback:
        try:
            _ensure_at_large(copy)
        except OSError:
            raise Irreplaceable("a socket that is bound to an interface is not redirected here") from None
    event = ConnectEvent(protocol=kind, address=host, port=port, syscall=call.notification.syscall)
    return Destination(address.directed(where.raw, host, port), event)


def _ensure_at_large(copy: int) -> None:
    """Raise ENETUNREACH for a socket that is bound to an interface, as by a link-local address (ipv6(7)).

    What it sends to an address of this machine would leave by that interface.
    """
    with socket.socket(fileno=os.dup(copy)) as probe:
        if probe.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX):
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def _name_service(service: NameService, raw: bytes, address: IPAddress, kind: str) -> Destination:
    """Lead DNS to the tree's own name service, which judges what is asked and not whom."""
    version = address.host.version
    host, port = service.endpoint(kind, version)
    return Destination(address.directed(raw, ipaddress.ip_address(host), port), asks=(kind, version))


def _unix_destination(call: Call, raw: bytes, address: UnixAddress) -> Destination:
    notification = call.notification
    sockets = call.setting.sockets
    if address.abstract is not None:
        event = ConnectEvent(
            protocol="unix",
            socket=b"@" + address.abstract,
            in_tree=sockets.has_abstract(address.abstract),
            syscall=notification.syscall,
        )
        return Destination(raw, event)
    if address.path is None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    pin = call.hold(notification.pin(address.path))
    if pin.missing:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not stat.S_ISSOCK(pin.mode):
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    event = ConnectEvent(
        protocol="unix", socket=pin.path, in_tree=sockets.has_path(pin), syscall=notification.syscall
    )
    refusal = None
    if call.setting.dns is not None and not event.in_tree and pin.path.startswith(_NAME_SERVICES):
        # Their answers are not ours, and libraries go on with DNS when nobody is there (nsswitch.conf(5)).
        refusal = Refusal(OTHER_NAME_SERVICE, errno.ECONNREFUSED)
    return Destination(raw[:2] + b"/proc/self/fd/%d\0" % pin.object, event, refusal)


def _expect(domain: int, *allowed: int) -> None:
    """Refuse an address of another family than the socket's, as the kernel would."""
    if domain not in allowed:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))


def _kind(copy: int) -> tuple[int, str]:
    """Address family, and ``tcp``, ``udp`` or ``unix``. ENOTSOCK if it is no socket."""
    with socket.socket(fileno=os.dup(copy)) as probe:
        domain = probe.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        kind = probe.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    if domain in (socket.AF_INET, socket.AF_INET6):
        return domain, "tcp" if kind == socket.SOCK_STREAM else "udp"
    return domain, "unix" if domain == socket.AF_UNIX else "netlink"


def _copy(call: Call) -> int:
    """Copy the socket that the first argument names. EBADF, ENOTSOCK."""
    copy = call.hold_fd(call.notification.copy_fd(int32(call.notification.args[0])))
    if not stat.S_ISSOCK(os.fstat(copy).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    return copy


@attrs.define(eq=False)
class SocketCall(Call):
    """An action on the copied socket."""

    act: Callable[[], int] = attrs.field(init=False)

    def perform(self) -> None:
        """Act, interruptibly, and answer with the result."""
        notification = self.notification
        _ = notification.identity
        notification.ensure_valid()
        with self.setting.vigil.watching(notification):
            result = self.act()
        if result == -errno.EINTR:
            notification.ensure_valid()
        self._answer(result)

    def _answer(self, result: int) -> None:
        checked(result, self.notification.syscall)
        self.close()
        self.notification.reply(result)


def connect(notification: Notification, setting: Setting) -> Call:
    """Decode connect(fd, address, size)."""
    call = ConnectCall(notification, setting)
    with call.decoding():
        _, address, size = notification.args[:3]
        call.copy = _copy(call)
        raw = read_address(notification, address, int32(size))
        call.where = where = destination(call, raw, call.copy)
        call.events = () if where.event is None else (where.event,)
        call.refusal = where.refusal
        call.act = call.connect
    return call


@attrs.define(eq=False)
class ConnectCall(SocketCall):
    """Connect the copied socket."""

    copy: int = attrs.field(init=False)
    where: Destination = attrs.field(init=False)

    def perform(self) -> None:
        """Connect; waiting, only if nobody else does."""
        result = self._briefly(self.depart) if self.depart is not None and self._waits() else None
        if result is None:
            super().perform()
        else:
            self._answer(result)

    def _waits(self) -> bool:
        """Tell whether it is a stream of IP that blocks."""
        event = self.where.event
        stream = isinstance(event, ConnectEvent) and event.protocol == "tcp"
        return stream and self.where.asks is None and os.get_blocking(self.copy)

    def _briefly(self, depart: Callable[[int, bytes], bool]) -> int | None:
        """Give the result if there is one at once; None: to be waited for here."""
        raw, notification = self.where.raw, self.notification
        identity = notification.identity
        notification.ensure_valid()
        result = int(lib.rs_connect_briefly(identity, self.copy, raw, len(raw)))
        if result == -errno.EINTR:
            notification.ensure_valid()
            if depart(self.copy, raw):
                raise Departed
        return None if result in (-errno.EINTR, -errno.ESTALE) else result

    def connect(self) -> int:
        """Connect it, and note who asks the tree's own name service."""
        where, notification, service = self.where, self.notification, self.setting.dns
        result = lib.rs_connect(notification.identity, self.copy, where.raw, len(where.raw))
        if where.asks is not None and service is not None:
            # Before the answer: until then nobody can ask anything on this socket.
            service.note(notification, self.copy, *where.asks)
        return result

    def redirect(
        self, redirect: Redirect, name: bytes | None, masked: Callable[[int], bytes]
    ) -> Event | None:
        """Connect it to another address."""
        self.where = substituted(self, self.where, redirect, self.copy)
        return self.where.event


def listen(notification: Notification, setting: Setting) -> Call:
    """Decode listen(fd, backlog): judged by the address that the socket has, or would be given."""
    call = SocketCall(notification, setting)
    with call.decoding():
        copy = _copy(call)
        domain, kind = _kind(copy)
        backlog = int32(notification.args[1])
        if domain in (socket.AF_INET, socket.AF_INET6):
            with socket.socket(fileno=os.dup(copy)) as probe:
                host, port = probe.getsockname()[:2]
            call.events = (_listening(notification, kind, _numeric(host), port),)
        call.act = lambda: lib.rs_listen(notification.identity, copy, backlog)
    return call


def _numeric(host: str) -> Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _listening(notification: Notification, kind: str, address: Address, port: int) -> ListenEvent:
    return ListenEvent(protocol=kind, address=address, port=port, syscall=notification.syscall)


def bind(notification: Notification, setting: Setting) -> Call:
    """Decode bind(fd, address, size).

    An IP port is judged as `listen`; port 0 of a stream socket is judged when it listens, and that of a
    datagram socket is what the kernel would give it anyway. A unix path is a file that is created.
    """
    call = BindCall(notification, setting)
    with call.decoding():
        _, address, size = notification.args[:3]
        call.copy = _copy(call)
        raw = call.raw = read_address(notification, address, int32(size))
        domain, kind = _kind(call.copy)
        if domain == socket.AF_INET and len(raw) >= 16 and raw[:2] == b"\0\0":
            raw = b"\x02\x00" + raw[2:]  # the kernel takes AF_UNSPEC with 0.0.0.0 for AF_INET: ip(7)
        where = parse(raw)
        if isinstance(where, IPAddress) and where.port:
            call.events = (_listening(notification, kind, where.host, where.port),)
            if where.port == DNS_PORT and setting.dns is not None:
                # The host's resolver may be looked for on this machine (resolv.conf(5)).
                call.refusal = Refusal(OTHER_NAME_SERVICE)
        elif isinstance(where, UnixAddress) and where.path is not None:
            call.place = call.hold(notification.pin(where.path, follow=False))
            call.path = where.path
            if not call.place.missing:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            call.events = (
                FileEvent(operation=Operation.CREATE, path=call.place.path, syscall=notification.syscall),
            )
        elif isinstance(where, UnixAddress):
            call.abstract = True
        if isinstance(where, UnixAddress) and b"\n" in (where.path or b"") + (where.abstract or b""):
            # /proc/net/unix shows names as they are: one with a line of its own could pass for another.
            call.refusal = Refusal("a socket name with a line break")
    return call


@attrs.define(eq=False)
class BindCall(Call):
    """Give the copied socket an address, and remember unix sockets as the tree's own."""

    copy: int = attrs.field(init=False)
    raw: bytes = attrs.field(init=False)
    path: bytes | None = attrs.field(init=False, default=None)
    place: Pin | None = attrs.field(init=False, default=None)
    abstract: bool = attrs.field(init=False, default=False)

    def perform(self) -> None:
        """Bind under the very name the target gave, so that getsockname(2) shows it.

        The kernel resolves that name again; while the names are held still it leads to the pinned place.
        """
        notification = self.notification
        identity = notification.identity
        notification.ensure_valid()
        if self.place is None or self.path is None:
            checked(lib.rs_bind(identity, -1, self.copy, self.raw, len(self.raw)), "bind")
            if self.abstract:
                self._remember_abstract()
        else:
            with self.setting.names:
                self._bind_path(self.path, self.place)
        self.close()
        notification.reply(0)

    def _bind_path(self, path: bytes, place: Pin) -> None:
        """Bind with the names held still: only a magic link can then lead elsewhere at a second look."""
        notification = self.notification
        self.ensure_named_as_judged()
        cwd = checked(lib.rs_target_base(notification.target, AT_FDCWD), "open /proc/<tid>/cwd")
        try:
            raw = self.raw
            if not _leads_to(cwd, path, place.parent):
                raw = self.raw[:2] + b"/proc/self/fd/%d/%s\0" % (place.parent, place.name)
                if len(raw) > _UNIX_MAX:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            checked(lib.rs_bind(notification.identity, cwd, self.copy, raw, len(raw)), "bind")
        finally:
            os.close(cwd)
        made = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.parent)
        self.setting.sockets.add_path(made)

    def _remember_abstract(self) -> None:
        with socket.socket(fileno=os.dup(self.copy)) as probe:
            name = probe.getsockname()
        if isinstance(name, bytes) and name[:1] == b"\0":
            self.setting.sockets.add_abstract(name[1:], os.fstat(self.copy).st_ino)


def _leads_to(cwd: int, path: bytes, parent: int) -> bool:
    """Tell whether the path, resolved as bind(2) in this process will, ends in the pinned directory."""
    directory, slash, _ = path.rpartition(b"/")
    seen = lib.rs_directory(cwd, (directory or b"/") if slash else b".")
    if seen < 0:
        return False
    try:
        return _inode(seen) == _inode(parent)
    finally:
        os.close(seen)


def _inode(fd: int) -> tuple[int, int]:
    about = os.fstat(fd)
    return about.st_dev, about.st_ino


DECODERS: dict[str, Callable[[Notification, Setting], Call]] = {
    "connect": connect,
    "bind": bind,
    "listen": listen,
}
