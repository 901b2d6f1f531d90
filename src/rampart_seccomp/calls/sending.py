"""sendto(2), sendmsg(2), sendmmsg(2): the message is copied once, judged, and sent on a copy of the socket.

Also messages without a destination come through here: whether one is in it is behind a pointer, and so is
what the kernel would see if it looked again.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from rampart_seccomp.calls.call import Call, Setting
from rampart_seccomp.calls.notification import Notification, int32
from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.calls.sockets import Destination, destination, read_address, substituted
from rampart_seccomp.calls.substitutes import Irreplaceable
from rampart_seccomp.events import ConnectEvent, Event
from rampart_seccomp.verdicts import Redirect

__all__ = ["DECODERS", "sendmmsg", "sendmsg", "sendto"]

_MSGHDR = struct.Struct("=QIxxxxQQQQixxxx")
_MMSGHDR_SIZE = _MSGHDR.size + 8
_CMSGHDR = struct.Struct("=Qii")
_IOV_MAX = 1024
_CONTROL_MAX = 20480  # net.core.optmem_max as shipped
_CHUNK = 1 << 20
_DATAGRAM_MAX = 4 << 20
_MMSG_MAX = 1024
_MSG_FASTOPEN = 0x20000000
_SCM_CREDENTIALS = 2
_SCM_MAX_FD = 253
_UCRED = struct.Struct("=iII")
_ANCILLARY = frozenset(
    [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS),
        (socket.SOL_SOCKET, _SCM_CREDENTIALS),
        (socket.SOL_SOCKET, 36),  # SO_MARK
        (socket.SOL_SOCKET, 37),  # SO_TIMESTAMPING
        (socket.SOL_SOCKET, 61),  # SCM_TXTIME
        (socket.IPPROTO_IP, socket.IP_TOS),
        (socket.IPPROTO_IP, socket.IP_TTL),
        (socket.IPPROTO_IP, 8),  # IP_PKTINFO
        (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO),
        (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        (socket.IPPROTO_IPV6, 62),  # IPV6_DONTFRAG
        (socket.IPPROTO_UDP, 103),  # UDP_SEGMENT
    ]
)
"""Ancillary data that says nothing about where a packet goes; a routing header would."""
_INTERFACES = {(socket.IPPROTO_IP, 8): 0, (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO): 16}
"""Where the interface stands in ``struct in_pktinfo`` and ``struct in6_pktinfo``."""
_MSG_ZEROCOPY = 0x4000000


@attrs.define(eq=False)
class Message:
    """One message, copied from the target.

    Attributes:
        pieces: Addresses and sizes of its data in the target's memory.
        control: Ancillary data, as the target wrote it.
        where: Its destination; None if it has none.
    """

    pieces: list[tuple[int, int]]
    control: bytes
    where: Destination | None

    @property
    def size(self) -> int:
        """Bytes of data."""
        return sum(size for _, size in self.pieces)


@attrs.define(eq=False)
class SendCall(Call):
    """Messages for one copied socket."""

    copy: int = attrs.field(init=False)
    domain: int = attrs.field(init=False)
    stream: bool = attrs.field(init=False)
    flags: int = attrs.field(init=False)
    messages: list[Message] = attrs.field(init=False, factory=list)

    def redirect(
        self, redirect: Redirect, name: bytes | None, masked: Callable[[int], bytes]
    ) -> Event | None:
        """Leave it to connect(2): data with the first packet is not sent anyhow (`_send`)."""
        if not self.stream:
            raise Irreplaceable("only connections are redirected, and no datagram with an address of its own")
        where = next(each.where for each in self.messages if each.where is not None)
        return substituted(self, where, redirect, self.copy).event

    def perform(self) -> None:
        """Send one message and answer with the number of bytes."""
        _ = self.notification.identity
        sent = self.send(self.messages[0])
        self.close()
        self.notification.reply(sent)

    def send(self, message: Message) -> int:
        """Send as the target's own call would.

        Returns:
            Bytes sent.

        Raises:
            OSError: Nothing was sent.
        """
        address = message.where.raw if message.where else b""
        passed: list[int] = []
        try:
            control = _translate(self, message.control, passed, confined=_confined(message.where))
            return self._send(message, address, control)
        finally:
            for fd in passed:
                os.close(fd)

    def _send(self, message: Message, address: bytes, control: bytes) -> int:
        notification = self.notification
        # Data with the first packet: judged like a connection, and then left to the program, which connects.
        if self.flags & _MSG_FASTOPEN and self.domain != socket.AF_UNIX:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        total = 0
        size = message.size
        if not self.stream and size > _DATAGRAM_MAX:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        while True:
            data = self._gather(message, total, _CHUNK if self.stream else size)
            notification.ensure_valid()
            with self.setting.vigil.watching(notification), self._asking(message):
                result = lib.rs_send(
                    notification.identity,
                    self.copy,
                    ffi.from_buffer(address) if address else ffi.NULL,
                    len(address),
                    ffi.from_buffer(data),
                    len(data),
                    ffi.from_buffer(control) if control else ffi.NULL,
                    len(control),
                    self.flags,
                )
            if result < 0:
                if total and result != -errno.EPIPE:
                    return total
                return self._failed(result)
            total += result
            control = b""
            if not self.stream or total >= size or result < len(data):
                return total

    @contextmanager
    def _asking(self, message: Message) -> Iterator[None]:
        """While a question for the tree's own name service is sent: note who asks."""
        service = self.setting.dns
        if service is None or message.where is None or message.where.asks is None:
            yield
            return
        with service.sending():
            yield
            service.note(self.notification, self.copy, *message.where.asks)

    def _failed(self, result: int) -> int:
        notification = self.notification
        notification.ensure_valid()
        if result == -errno.EPIPE and self.stream and not self.flags & socket.MSG_NOSIGNAL:
            lib.rs_raise_sigpipe(notification.tgid, notification.tid)
        return checked(result, notification.syscall)

    def _gather(self, message: Message, offset: int, limit: int) -> bytes:
        parts = []
        for address, size in message.pieces:
            if offset >= size:
                offset -= size
                continue
            take = min(size - offset, limit)
            parts.append(self.notification.read(address + offset, take))
            offset = 0
            limit -= take
            if limit == 0:
                break
        return b"".join(parts)


@attrs.define(eq=False)
class SendManyCall(SendCall):
    """sendmmsg(2): as many as go; the results are written behind each header."""

    headers: int = attrs.field(init=False)

    def cut_before(self, event: Event) -> bool:
        """Keep the messages before the first that goes where the event says."""
        for index, message in enumerate(self.messages):
            if message.where is not None and _same(message.where.event, event):
                self.messages = self.messages[:index]
                _judge(self)
                return index > 0
        return False

    def perform(self) -> None:
        """Send the messages in turn; an error counts only if it befalls the first."""
        notification = self.notification
        _ = notification.identity
        done = 0
        for message in self.messages:
            try:
                sent = self.send(message)
            except OSError:
                if done == 0:
                    raise
                break
            notification.write(self.headers + done * _MMSGHDR_SIZE + _MSGHDR.size, struct.pack("=I", sent))
            done += 1
        self.close()
        notification.reply(done)


def sendto(notification: Notification, setting: Setting) -> Call:
    """Decode sendto(fd, data, size, flags, address, address size)."""
    call = SendCall(notification, setting)
    with call.decoding():
        _, data, size, flags, address, address_size = notification.args
        _prepare(call, int32(flags))
        where = None
        if address and int32(address_size):
            raw = read_address(notification, address, int32(address_size))
            where = _where(call, raw)
        call.messages.append(Message([(data, size)], b"", where))
        _judge(call)
    return call


def sendmsg(notification: Notification, setting: Setting) -> Call:
    """Decode sendmsg(fd, message, flags)."""
    call = SendCall(notification, setting)
    with call.decoding():
        _, header, flags = notification.args[:3]
        _prepare(call, int32(flags))
        call.messages.append(_message(call, notification.read(header, _MSGHDR.size)))
        _judge(call)
    return call


def sendmmsg(notification: Notification, setting: Setting) -> Call:
    """Decode sendmmsg(fd, messages, count, flags)."""
    call = SendManyCall(notification, setting)
    with call.decoding():
        _, call.headers, count, flags = notification.args[:4]
        _prepare(call, int32(flags))
        for index in range(min(count & 0xFFFFFFFF, _MMSG_MAX)):
            try:
                raw = notification.read(call.headers + index * _MMSGHDR_SIZE, _MSGHDR.size)
                call.messages.append(_message(call, raw))
            except OSError:
                if index == 0:
                    raise
                break
        _judge(call)
    return call


def _prepare(call: SendCall, flags: int) -> None:
    call.copy = call.hold_fd(call.notification.copy_fd(int32(call.notification.args[0])))
    with socket.socket(fileno=os.dup(call.copy)) as probe:
        call.stream = probe.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        call.domain = probe.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    # The pages would be ours, not the program's: say what the kernel says when it has no room to pin them.
    if flags & _MSG_ZEROCOPY:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    call.flags = flags


def _where(call: SendCall, raw: bytes) -> Destination | None:
    """Judge a destination; a stream has none, whatever is named (sendto(2)): the kernel says so."""
    domain = call.domain
    if call.stream and domain in (socket.AF_INET, socket.AF_INET6):
        return destination(call, raw, call.copy) if call.flags & _MSG_FASTOPEN else None
    if call.stream:
        return Destination(raw)
    if domain == socket.AF_INET and raw[:2] == b"\0\0" and len(raw) >= 16:
        raw = b"\x02\x00" + raw[2:]  # udp(7): AF_UNSPEC counts as AF_INET when sending
    return destination(call, raw, call.copy)


def _message(call: SendCall, raw: bytes) -> Message:
    notification = call.notification
    name, name_size, vector, count, control, control_size, _ = _MSGHDR.unpack(raw)
    if count > _IOV_MAX:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    pieces = list(struct.iter_unpack("=QQ", notification.read(vector, 16 * count)))
    if sum(size for _, size in pieces) > 0x7FFFF000:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    where = None
    if name and name_size:
        where = _where(call, read_address(notification, name, min(int32(name_size), 128)))
    if control_size > _CONTROL_MAX:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    ancillary = notification.read(control, control_size) if control and control_size else b""
    return Message(pieces, ancillary, where)


def _confined(where: Destination | None) -> bool:
    """Tell whether a message may be for this machine itself: where it is connected to, or by its address."""
    event = None if where is None else where.event
    return not isinstance(event, ConnectEvent) or event.address is None or event.address.is_loopback


def _translate(call: SendCall, control: bytes, passed: list[int], *, confined: bool) -> bytes:
    """Put our copies in the place of the target's descriptors, and our pid in that of its own.

    Args:
        call: The call.
        control: Ancillary data of the target; kinds that could redirect a packet are refused.
        passed: Takes the copies; the caller closes them.
        confined: Let no interface be chosen (pktinfo, ip(7)): by another one the message would leave.
    """
    notification = call.notification
    out = bytearray(control)
    at = 0
    credentials = False
    while at + _CMSGHDR.size <= len(control):
        length, level, kind = _CMSGHDR.unpack_from(control, at)
        if length < _CMSGHDR.size or length > len(control) - at:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        start, end = at + _CMSGHDR.size, at + length
        if (level, kind) not in _ANCILLARY:
            raise OSError(errno.EINVAL, "ancillary data that is not known here")
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            if len(passed) + (end - start) // 4 > _SCM_MAX_FD:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            for place in range(start, end - 3, 4):
                (fd,) = struct.unpack_from("=i", control, place)
                passed.append(notification.copy_fd(fd))
                struct.pack_into("=i", out, place, passed[-1])
        elif (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS) and end - start >= _UCRED.size:
            _ensure_own(notification, *_UCRED.unpack_from(control, start))
            struct.pack_into("=i", out, start, os.getpid())
            credentials = True
        elif confined and (level, kind) in _INTERFACES and end - start >= _INTERFACES[level, kind] + 4:
            struct.pack_into("=i", out, start + _INTERFACES[level, kind], 0)
        at += (length + 7) & ~7
    identity = notification.identity
    if call.domain == socket.AF_UNIX and not credentials and identity.euid != os.geteuid():
        # Without these a receiver would be told our real ids (SO_PASSCRED, unix(7)).
        ours = _UCRED.pack(os.getpid(), identity.euid, identity.egid)
        header = _CMSGHDR.pack(_CMSGHDR.size + len(ours), socket.SOL_SOCKET, _SCM_CREDENTIALS)
        out[:0] = header + ours + bytes(4)
    return bytes(out)


def _ensure_own(notification: Notification, pid: int, uid: int, gid: int) -> None:
    """Raise EPERM for credentials that the target itself could not claim (unix(7), SCM_CREDENTIALS)."""
    identity = notification.identity
    own = (
        pid == notification.tgid
        and uid in (identity.ruid, identity.euid, identity.suid)
        and gid in (identity.rgid, identity.egid, identity.sgid)
    )
    if not own and (identity.euid != 0 or identity.elsewhere):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _same(known: Event | None, judged: Event) -> bool:
    """Compare destinations; judging may have added the names of an address that came without any."""
    if not isinstance(known, ConnectEvent) or not isinstance(judged, ConnectEvent):
        return False
    return known == (judged if known.names else attrs.evolve(judged, names=frozenset()))


def _judge(call: SendCall) -> None:
    named = [message.where for message in call.messages if message.where is not None]
    refused = next((where for where in named if where.refusal is not None), None)
    call.refusal = None if refused is None else refused.refusal
    # What is refused stands first: it is what goes on record, and what a vector is cut before.
    ordered = named if refused is None else [refused, *named]
    call.events = tuple(dict.fromkeys(where.event for where in ordered if where.event is not None))


DECODERS: dict[str, Callable[[Notification, Setting], Call]] = {
    "sendto": sendto,
    "sendmsg": sendmsg,
    "sendmmsg": sendmmsg,
}
