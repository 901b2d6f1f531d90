"""Calls that make, remove and change names: performed below pinned directories."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import attrs

from rampart_seccomp.calls import machine
from rampart_seccomp.calls.call import Call, CallChanged, Linking, Refusal, Renaming, Setting
from rampart_seccomp.calls.notification import AT_FDCWD, Notification, int32
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import checked, lib
from rampart_seccomp.errors import TargetGone
from rampart_seccomp.events import FileEvent, Operation

__all__ = ["DECODERS"]

_AT_REMOVEDIR = 0x200
_AT_SYMLINK_FOLLOW = 0x400
_AT_EMPTY_PATH = 0x1000
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2

Decoder = Callable[[Notification, Setting], Call]


@attrs.define(eq=False)
class NameCall(Call):
    """A change of names. ``act`` is called with the names held still, and answers with 0."""

    act: Callable[[], int] = attrs.field(init=False)

    def perform(self) -> None:
        """Change the names, while no other call of the broker's trees changes any."""
        notification = self.notification
        _ = notification.identity
        with self.setting.names:
            notification.ensure_valid()
            self.ensure_named_as_judged()
            for guard in self.guards:
                guard()
            checked(self.act(), notification.syscall)
        self.close()
        notification.reply(0)


def _event(notification: Notification, operation: Operation, path: bytes) -> FileEvent:
    return FileEvent(operation=operation, path=path, syscall=notification.syscall)


def _directory(args: tuple[int, ...], at: int | None) -> int:
    """The descriptor that a path counts from, for calls that take one."""
    return AT_FDCWD if at is None else int32(args[at])


def _entry(call: Call, path: bytes, dirfd: int) -> Pin:
    """Pin an entry of a directory: the last component is not followed."""
    pin = call.hold(call.notification.pin(path, dirfd=dirfd, follow=False))
    call.refusal = call.refusal or machine.change_refusal(call.notification, pin)
    return pin


def _new_entry(call: Call, path: bytes, dirfd: int) -> Pin:
    """Pin the place of a new entry; EEXIST if there is one, whatever the policy: nothing would happen."""
    pin = _entry(call, path, dirfd)
    if not pin.missing:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    return pin


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _is_read_only(directory: int) -> bool:
    return bool(os.fstatvfs(directory).f_flag & os.ST_RDONLY)


def _mount(fd: int) -> bytes:
    """Give the id of the mount that a descriptor is on (proc_pid_fdinfo(5)): names are not moved across."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))


def _no_removal(pin: Pin) -> OSError:
    """Give the error of removing a name that is not there: the kernel looks for it last of all."""
    return _error(errno.EROFS if _is_read_only(pin.parent) else errno.ENOENT)


def _no_rename(old: Pin, new: Pin) -> OSError:
    """The same of a rename."""
    if old.parent < 0 or new.parent < 0:
        return _error(errno.EBUSY)
    return _error(errno.EXDEV) if _mount(old.parent) != _mount(new.parent) else _no_removal(old)


def _no_link(old: Pin, new: Pin) -> OSError:
    """The same of a link to what gets none: a directory, or what never had a name."""
    if _is_read_only(new.parent):
        return _error(errno.EROFS)
    return _error(errno.EXDEV if _mount(old.object) != _mount(new.parent) else errno.EPERM)


def _needs_entry(pin: Pin, error: int) -> None:
    """The root directory has no name of its own in any directory."""
    if pin.parent < 0:
        raise OSError(error, os.strerror(error))


def _moved(pin: Pin) -> int | None:
    return pin.object if pin.is_directory else None


def _moved_link(call: Call, old: Pin, new: Pin) -> tuple[Linking, ...]:
    """What a symbolic link that gets another place will lead to from there."""
    if not old.is_link:
        return ()
    return _leading(call, os.readlink(b"", dir_fd=old.object), new)


def _leading(call: Call, text: bytes, place: Pin) -> tuple[Linking, ...]:
    """Say where a link with this text would lead from its place; nowhere if that cannot be resolved."""
    path = text if text.startswith(b"/") else place.path.rpartition(b"/")[0] + b"/" + text
    try:
        target = call.notification.pin(path)
    except OSError as error:
        if isinstance(error, TargetGone):
            raise
        # Directories on the way are missing, or it is a loop: judge the name as it is written.
        return (Linking(place.path, os.path.normpath(path)),)
    try:
        return (Linking(place.path, target.path),)
    finally:
        target.close()


def _removal(path_at: int, dirfd_at: int | None, flags_at: int | None, fixed_flags: int = 0) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        dirfd = _directory(notification.args, dirfd_at)
        flags = fixed_flags if flags_at is None else int32(notification.args[flags_at])
        if flags & ~_AT_REMOVEDIR:
            raise OSError(errno.EINVAL, "unlinkat flags")
        call = NameCall(notification, setting)
        with call.decoding():
            pin = _entry(call, notification.read_path(path_at), dirfd)
            if pin.missing:
                raise _no_removal(pin)
            _needs_entry(pin, errno.EBUSY if flags & _AT_REMOVEDIR else errno.EISDIR)
            call.events = (_event(notification, Operation.DELETE, pin.path),)
            call.act = lambda: lib.rs_unlink(notification.identity, pin.parent, pin.name, flags)
        return call

    return decode


def _rename(
    old_dirfd: int | None, old_at: int, new_dirfd: int | None, new_at: int, flags_at: int | None
) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        args = notification.args
        flags = 0 if flags_at is None else args[flags_at] & 0xFFFFFFFF
        if flags & ~(_RENAME_NOREPLACE | _RENAME_EXCHANGE) or flags == _RENAME_NOREPLACE | _RENAME_EXCHANGE:
            raise OSError(errno.EINVAL, "renameat2 flags")
        call = NameCall(notification, setting)
        with call.decoding():
            old = _entry(
                call,
                notification.read_path(old_at),
                _directory(args, old_dirfd),
            )
            new_path = notification.read_path(new_at)
            try:
                new = _entry(call, new_path, _directory(args, new_dirfd))
            except OSError as error:
                if old.missing and error.errno == errno.ENAMETOOLONG:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
                raise
            if old.missing or (flags & _RENAME_EXCHANGE and new.missing):
                raise _no_rename(old, new)
            _needs_entry(old, errno.EBUSY)
            _needs_entry(new, errno.EBUSY)
            if flags & _RENAME_NOREPLACE and not new.missing:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            effects = [(Operation.DELETE, old), (Operation.CREATE, new)]
            if not new.missing:
                effects.append((Operation.DELETE, new))
            call.renamings = (Renaming(old.path, new.path, _moved(old)),)
            if flags & _RENAME_EXCHANGE:
                effects.append((Operation.CREATE, old))
                call.renamings += (Renaming(new.path, old.path, _moved(new)),)
            call.events = tuple(_event(notification, operation, pin.path) for operation, pin in effects)
            call.linkings = _moved_link(call, old, new)
            if flags & _RENAME_EXCHANGE:
                call.linkings += _moved_link(call, new, old)

            def act() -> int:
                # Decided on these very objects: a directory put in a file's place would carry more along.
                if not old.still_there() or not new.still_there():
                    raise CallChanged
                return lib.rs_rename(notification.identity, old.parent, old.name, new.parent, new.name, flags)

            call.act = act
        return call

    return decode


def _link(
    old_dirfd: int | None, old_at: int, new_dirfd: int | None, new_at: int, flags_at: int | None
) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        args = notification.args
        flags = 0 if flags_at is None else int32(args[flags_at])
        if flags & ~(_AT_SYMLINK_FOLLOW | _AT_EMPTY_PATH):
            raise OSError(errno.EINVAL, "linkat flags")
        call = NameCall(notification, setting)
        with call.decoding():
            path = notification.read_path(old_at)
            dirfd = _directory(args, old_dirfd)
            if not path and flags & _AT_EMPTY_PATH:
                old = call.hold(notification.pin_fd(dirfd))
            else:
                follow = bool(flags & _AT_SYMLINK_FOLLOW) or path.endswith(b"/")
                old = call.hold(notification.pin(path, dirfd=dirfd, follow=follow))
            if old.missing:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            new = _new_entry(
                call,
                notification.read_path(new_at),
                _directory(args, new_dirfd),
            )
            if old.is_directory or old.nameless:
                raise _no_link(old, new)
            call.events = (_event(notification, Operation.CREATE, new.path),)
            call.renamings = (Renaming(old.path, new.path),)
            call.linkings = _moved_link(call, old, new)

            def act() -> int:
                if not old.is_link:
                    return lib.rs_link(notification.identity, old.object, new.parent, new.name)
                if old.parent < 0 or not old.still_there():
                    raise CallChanged
                return lib.rs_link_name(notification.identity, old.parent, old.name, new.parent, new.name)

            call.act = act
        return call

    return decode


def _symlink(text_at: int, dirfd_at: int | None, path_at: int) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        dirfd = _directory(notification.args, dirfd_at)
        text = notification.read_path(text_at)
        if not text:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        call = NameCall(notification, setting)
        with call.decoding():
            pin = _new_entry(call, notification.read_path(path_at), dirfd)
            call.events = (_event(notification, Operation.CREATE, pin.path),)
            call.linkings = _leading(call, text, pin)
            call.act = lambda: lib.rs_symlink(notification.identity, text, pin.parent, pin.name)
        return call

    return decode


def _mkdir(dirfd_at: int | None, path_at: int, mode_at: int) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        dirfd = _directory(notification.args, dirfd_at)
        mode = notification.args[mode_at] & 0o7777
        call = NameCall(notification, setting)
        with call.decoding():
            pin = _new_entry(call, notification.read_path(path_at), dirfd)
            call.events = (_event(notification, Operation.CREATE, pin.path),)
            call.act = lambda: lib.rs_mkdir(notification.identity, pin.parent, pin.name, mode)
        return call

    return decode


def _mknod(dirfd_at: int | None, path_at: int, mode_at: int, device_at: int) -> Decoder:
    def decode(notification: Notification, setting: Setting) -> Call:
        dirfd = _directory(notification.args, dirfd_at)
        mode = notification.args[mode_at] & 0o177777
        call = NameCall(notification, setting)
        with call.decoding():
            pin = _new_entry(call, notification.read_path(path_at), dirfd)
            call.events = (_event(notification, Operation.CREATE, pin.path),)
            if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK):
                call.refusal = Refusal("device nodes are not made in here", errno.EPERM)
            device = notification.args[device_at] & 0xFFFFFFFF
            call.act = lambda: lib.rs_mknod(notification.identity, pin.parent, pin.name, mode, device)
        return call

    return decode


DECODERS: dict[str, Decoder] = {
    "unlink": _removal(0, None, None),
    "unlinkat": _removal(1, 0, 2),
    "rmdir": _removal(0, None, None, _AT_REMOVEDIR),
    "rename": _rename(None, 0, None, 1, None),
    "renameat": _rename(0, 1, 2, 3, None),
    "renameat2": _rename(0, 1, 2, 3, 4),
    "link": _link(None, 0, None, 1, None),
    "linkat": _link(0, 1, 2, 3, 4),
    "symlink": _symlink(0, None, 1),
    "symlinkat": _symlink(0, 1, 2),
    "mkdir": _mkdir(None, 0, 1),
    "mkdirat": _mkdir(0, 1, 2),
    "mknod": _mknod(None, 0, 1, 2),
    "mknodat": _mknod(0, 1, 2, 3),
}
