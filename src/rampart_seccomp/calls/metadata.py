"""Calls that change what is said about a file, by path and by descriptor; and truncate(2)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

import attrs

from rampart_seccomp.calls import machine
from rampart_seccomp.calls.call import Call, Refusal, Setting
from rampart_seccomp.calls.notification import AT_FDCWD, Notification, int32
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.calls.spaces import meant_id
from rampart_seccomp.events import FileEvent, Operation

__all__ = ["DECODERS", "attribute_name", "descriptor"]

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_XATTR_NAME_MAX = 255
_XATTR_SIZE_MAX = 65536
_UTIME_OMIT = (1 << 30) - 2

Decoder = Callable[[Notification, Setting], Call]
Action = Callable[[Notification, Pin], int]
Prepare = Callable[[Notification], Action]


@attrs.define(eq=False)
class MetadataCall(Call):
    """A change to one pinned object."""

    pin: Pin = attrs.field(init=False)
    act: Action = attrs.field(init=False)

    def perform(self) -> None:
        """Change the pinned object."""
        _ = self.notification.identity
        self.notification.ensure_valid()
        checked(self.act(self.notification, self.pin), self.notification.syscall)
        self.close()
        self.notification.reply(0)


def _finish(call: MetadataCall, pin: Pin, operation: Operation) -> MetadataCall:
    if pin.missing:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    call.pin = pin
    if not pin.nameless:
        event = FileEvent(operation=operation, path=pin.path, syscall=call.notification.syscall)
        call.events = (event,)
    if pin.outside:
        call.refusal = Refusal("a process outside of the tree")
    else:
        call.refusal = machine.change_refusal(call.notification, pin)
    return call


def _by_path(
    prepare: Prepare,
    *,
    path_at: int,
    dirfd_at: int | None = None,
    flags_at: int | None = None,
    follow: bool = True,
    operation: Operation = Operation.METADATA,
) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        args = notification.args
        dirfd = AT_FDCWD if dirfd_at is None else int32(args[dirfd_at])
        flags = 0 if flags_at is None else int32(args[flags_at])
        if flags & ~(_AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH):
            raise OSError(errno.EINVAL, "unknown flags")
        call = MetadataCall(notification, setting)
        with call.decoding():
            call.act = prepare(notification)
            if args[path_at] == 0 and notification.syscall in ("utimensat", "futimesat"):
                return _finish(call, call.hold(descriptor(notification, dirfd)), operation)
            path = notification.read_path(path_at)
            if not path and flags & _AT_EMPTY_PATH:
                pin = notification.pin_fd(dirfd)
            else:
                last = (follow and not flags & _AT_SYMLINK_NOFOLLOW) or path.endswith(b"/")
                pin = notification.pin(path, dirfd=dirfd, follow=last)
            return _finish(call, call.hold(pin), operation)

    return decode


def _by_fd(prepare: Prepare) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        call = MetadataCall(notification, setting)
        with call.decoding():
            call.act = prepare(notification)
            pin = call.hold(descriptor(notification, int32(notification.args[0])))
            return _finish(call, pin, Operation.METADATA)

    return decode


def descriptor(notification: Notification, fd: int) -> Pin:
    """Pin what an open descriptor refers to; EBADF for a bad one and for O_PATH, as bare."""
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    try:
        with open(f"/proc/{notification.tid}/fdinfo/{fd}", "rb") as file:
            flags = next(int(line.split()[1], 8) for line in file if line.startswith(b"flags:"))
    except FileNotFoundError:
        notification.ensure_valid()
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
    notification.ensure_valid()
    if flags & os.O_PATH:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return notification.pin_fd(fd)


def _mode(mode_at: int) -> Prepare:
    def prepare(notification: Notification) -> Action:
        mode = notification.args[mode_at] & 0o7777
        return lambda held, pin: lib.rs_chmod(held.identity, pin.object, mode)

    return prepare


def _owner(uid_at: int) -> Prepare:
    def prepare(notification: Notification) -> Action:
        uid = meant_id(notification, "uid_map", notification.args[uid_at] & 0xFFFFFFFF)
        gid = meant_id(notification, "gid_map", notification.args[uid_at + 1] & 0xFFFFFFFF)
        return lambda held, pin: lib.rs_chown(held.identity, pin.object, uid, gid)

    return prepare


def _times(times_at: int, layout: str, scale: int) -> Prepare:
    """Times behind a pointer: ``scale`` nanoseconds a unit of the second field; 0 for whole seconds only."""

    def prepare(notification: Notification) -> Action:
        address = notification.args[times_at]
        if address == 0:
            return lambda held, pin: lib.rs_utimens(held.identity, pin.object, ffi.NULL)
        values = list(struct.unpack(layout, notification.read(address, struct.calcsize(layout))))
        if scale == 0:
            values = [values[0], 0, values[1], 0]
        elif scale != 1:
            if not all(0 <= part < 1_000_000 for part in values[1::2]):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            values[1::2] = [part * scale for part in values[1::2]]
        elif values[1] == values[3] == _UTIME_OMIT:
            return lambda held, pin: 0
        times = ffi.new("int64_t[4]", values)
        return lambda held, pin: lib.rs_utimens(held.identity, pin.object, times)

    return prepare


def attribute_name(notification: Notification) -> bytes:
    """Copy the name that the second argument points to; ERANGE for an empty or too long one (xattr(7))."""
    try:
        name = notification.read_string(notification.args[1], _XATTR_NAME_MAX + 1)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE)) from None
        raise
    if not name:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return name


def _set_attribute(notification: Notification) -> Action:
    name = attribute_name(notification)
    _, _, address, size, flags = notification.args[:5]
    if size > _XATTR_SIZE_MAX:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    value = notification.read(address, size)
    return lambda held, pin: lib.rs_setxattr(
        held.identity, pin.object, name, ffi.from_buffer(value), len(value), int32(flags)
    )


def _remove_attribute(notification: Notification) -> Action:
    name = attribute_name(notification)
    return lambda held, pin: lib.rs_removexattr(held.identity, pin.object, name)


def _length(notification: Notification) -> Action:
    length = notification.args[1]
    signed = length - (1 << 64) if length >> 63 else length
    return lambda held, pin: lib.rs_truncate(held.identity, pin.object, signed)


DECODERS: dict[str, Decoder] = {
    "truncate": _by_path(_length, path_at=0, operation=Operation.MODIFY),
    "chmod": _by_path(_mode(1), path_at=0),
    "fchmodat": _by_path(_mode(2), path_at=1, dirfd_at=0),
    "fchmodat2": _by_path(_mode(2), path_at=1, dirfd_at=0, flags_at=3),
    "fchmod": _by_fd(_mode(1)),
    "chown": _by_path(_owner(1), path_at=0),
    "lchown": _by_path(_owner(1), path_at=0, follow=False),
    "fchownat": _by_path(_owner(2), path_at=1, dirfd_at=0, flags_at=4),
    "fchown": _by_fd(_owner(1)),
    "utime": _by_path(_times(1, "=qq", 0), path_at=0),
    "utimes": _by_path(_times(1, "=qqqq", 1000), path_at=0),
    "futimesat": _by_path(_times(2, "=qqqq", 1000), path_at=1, dirfd_at=0),
    "utimensat": _by_path(_times(2, "=qqqq", 1), path_at=1, dirfd_at=0, flags_at=3),
    "setxattr": _by_path(_set_attribute, path_at=0),
    "lsetxattr": _by_path(_set_attribute, path_at=0, follow=False),
    "fsetxattr": _by_fd(_set_attribute),
    "removexattr": _by_path(_remove_attribute, path_at=0),
    "lremovexattr": _by_path(_remove_attribute, path_at=0, follow=False),
    "fremovexattr": _by_fd(_remove_attribute),
}
