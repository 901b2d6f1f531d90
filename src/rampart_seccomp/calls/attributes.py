"""Calls that read extended attributes: read of the file, performed on the pin. getxattr(2), listxattr(2)."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable

import attrs

from rampart_seccomp.calls.call import Call, Setting
from rampart_seccomp.calls.metadata import attribute_name, descriptor
from rampart_seccomp.calls.notification import Notification, int32
from rampart_seccomp.calls.pins import Pin, real_name
from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.events import FileEvent, Operation

__all__ = ["DECODERS"]

_SIZE_MAX = 65536  # XATTR_SIZE_MAX and XATTR_LIST_MAX

_ACCESS = frozenset(
    [b"system.posix_acl_access", b"system.posix_acl_default", b"security.selinux", b"security.capability"]
)
"""Who may do what with a file, not what is in it: as free as its mode, which stat(2) shows. ls -l asks."""

Decoder = Callable[[Notification, Setting], Call]


@attrs.define(eq=False)
class AttributeCall(Call):
    """Read one attribute of an object, or the names of all of them.

    Attributes:
        object: Descriptor of ours for the object, held by the call.
        name: The attribute; None for the names.
        address: Where the target wants the answer.
        size: Room there, in bytes; 0 asks for the length alone.
    """

    object: int = attrs.field(init=False)
    name: bytes | None = attrs.field(init=False, default=None)
    address: int = attrs.field(init=False)
    size: int = attrs.field(init=False)

    def perform(self) -> None:
        """Read from the pin, and put the answer into the target's memory while it still waits."""
        notification = self.notification
        _ = notification.identity
        notification.ensure_valid()
        room = min(self.size, _SIZE_MAX)
        buffer = ffi.new("char[]", room) if room else ffi.NULL
        if self.name is None:
            length = lib.rs_listxattr(notification.identity, self.object, buffer, room)
        else:
            length = lib.rs_getxattr(notification.identity, self.object, self.name, buffer, room)
        if length == -errno.ERANGE and self.size >= _SIZE_MAX:
            length = -errno.E2BIG  # no room would be enough
        checked(length, notification.syscall)
        self.close()
        if room and length:
            notification.write(self.address, ffi.buffer(buffer, length)[:])
        notification.reply(length)


def _made(notification: Notification, setting: Setting, *, named: bool) -> AttributeCall:
    call = AttributeCall(notification, setting)
    if named:
        call.name = attribute_name(notification)
    call.address, call.size = notification.args[2:4] if named else notification.args[1:3]
    return call


def _read_of(call: AttributeCall, path: bytes) -> tuple[FileEvent, ...]:
    if call.name in _ACCESS:
        return ()
    return (FileEvent(operation=Operation.READ, path=path, syscall=call.notification.syscall),)


def _pinned(call: AttributeCall, pin: Pin) -> AttributeCall:
    if pin.missing:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    call.object = pin.object
    if not pin.nameless:
        call.events = _read_of(call, pin.path)
    return call


def _by_path(*, named: bool, follow: bool) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        call = _made(notification, setting, named=named)
        with call.decoding():
            path = notification.read_path(0)
            return _pinned(call, call.hold(notification.pin(path, follow=follow or path.endswith(b"/"))))

    return decode


def _by_fd(*, named: bool) -> Decoder:
    """Decode a call on an open file. One that is open for reading was decided when it was opened."""

    def decode(notification: Notification, setting: Setting) -> Call:
        call = _made(notification, setting, named=named)
        with call.decoding():
            fd = int32(notification.args[0])
            if fd < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            try:
                # A copy: another thread may put another file under the number at any time.
                call.object = call.hold_fd(notification.copy_fd(fd))
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOSYS):
                    raise
                return _pinned(call, call.hold(descriptor(notification, fd)))
            flags = fcntl.fcntl(call.object, fcntl.F_GETFL)
            if flags & os.O_PATH:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            if flags & os.O_ACCMODE not in (os.O_RDONLY, os.O_RDWR):
                path, about = real_name(call.object)
                if not about & lib.RS_PIN_NAMELESS:
                    call.events = _read_of(call, path)
            return call

    return decode


DECODERS: dict[str, Decoder] = {
    "getxattr": _by_path(named=True, follow=True),
    "lgetxattr": _by_path(named=True, follow=False),
    "fgetxattr": _by_fd(named=True),
    "listxattr": _by_path(named=False, follow=True),
    "llistxattr": _by_path(named=False, follow=False),
    "flistxattr": _by_fd(named=False),
}
