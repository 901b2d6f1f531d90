"""open(2), openat(2), openat2(2), creat(2): decided on the pin, opened from the pin, added to the target."""

from __future__ import annotations

import errno
import functools
import os
import resource
import stat
import struct
from collections.abc import Callable

import attrs

from rampart_seccomp.calls import machine
from rampart_seccomp.calls.call import Call, CallChanged, Refusal, Setting
from rampart_seccomp.calls.limits import limits_of
from rampart_seccomp.calls.notification import AT_FDCWD, Notification, int32
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import checked, lib
from rampart_seccomp.calls.substitutes import Irreplaceable, Substitute, sealed
from rampart_seccomp.errors import TargetGone
from rampart_seccomp.events import Event, FileEvent, Operation
from rampart_seccomp.verdicts import Redirect

__all__ = ["DECODERS", "creat", "open_", "openat", "openat2"]

_O_TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY
_DIRECTORIES = (b"", b".", b"..")
_TTY = os.makedev(5, 0)
_NULL = os.makedev(1, 3)

# Kernel flags of open_how.flags; anything else is EINVAL (openat2(2)).
_VALID = (
    os.O_ACCMODE
    | os.O_CREAT
    | os.O_EXCL
    | os.O_NOCTTY
    | os.O_TRUNC
    | os.O_APPEND
    | os.O_NONBLOCK
    | os.O_DSYNC
    | os.O_SYNC
    | os.O_ASYNC
    | os.O_DIRECT
    | 0o100000  # O_LARGEFILE as the kernel has it
    | os.O_DIRECTORY
    | os.O_NOFOLLOW
    | os.O_NOATIME
    | os.O_CLOEXEC
    | os.O_PATH
    | os.O_TMPFILE
)
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_CACHED = 0x20
_RESOLVE_ALL = 0x3F
_HOW = struct.Struct("=QQQ")

PROCESS_SECRETS = frozenset(
    [
        b"auxv", b"clear_refs", b"coredump_filter", b"cwd", b"environ", b"exe", b"fd", b"fdinfo", b"io",
        b"map_files", b"maps", b"mem", b"ns", b"numa_maps", b"oom_adj", b"oom_score_adj", b"pagemap",
        b"patch_state", b"personality", b"root", b"smaps", b"smaps_rollup", b"stack", b"syscall", b"timers",
        b"timerslack_ns", b"wchan", b"attr", b"gid_map", b"uid_map", b"projid_map", b"setgroups", b"sched",
        b"autogroup", b"comm", b"loginuid", b"seccomp_cache", b"ksm_stat", b"ksm_merging_pages",
    ]
)  # fmt: skip
"""Entries of /proc/<pid> that a process outside keeps to itself; stat, status, cmdline … are public."""

_ASKS_WHO_OPENED = frozenset([b"uid_map", b"gid_map", b"projid_map", b"setgroups"])
"""Entries of /proc/<pid> that take what is written by the user namespace of whoever opened them."""

_WRITABLE_ELSEWHERE = frozenset([b"comm", b"sched", b"autogroup"])


def open_(notification: Notification, setting: Setting) -> Call:
    """Decode open(path, flags, mode)."""
    _, flags, mode = notification.args[:3]
    return _decode(notification, setting, AT_FDCWD, 0, int32(flags), mode & 0o7777)


def creat(notification: Notification, setting: Setting) -> Call:
    """Decode creat(path, mode)."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    return _decode(notification, setting, AT_FDCWD, 0, flags, notification.args[1] & 0o7777)


def openat(notification: Notification, setting: Setting) -> Call:
    """Decode openat(dirfd, path, flags, mode)."""
    dirfd, _, flags, mode = notification.args[:4]
    return _decode(notification, setting, int32(dirfd), 1, int32(flags), mode & 0o7777)


def openat2(notification: Notification, setting: Setting) -> Call:
    """Decode openat2(dirfd, path, how, size).

    O_PATH cannot be given to the target by a broker, nor left to the kernel after ``how`` was read: ENOSYS,
    as on a kernel without the call.
    """
    dirfd, _, how, size = notification.args[:4]
    if size < _HOW.size:
        raise OSError(errno.EINVAL, "open_how is too small")
    if size > 4096:
        raise OSError(errno.E2BIG, "open_how is too large")
    raw = notification.read(how, size)
    if any(raw[_HOW.size :]):
        raise OSError(errno.E2BIG, "open_how has fields that are not known here")
    flags, mode, resolve = _HOW.unpack(raw[: _HOW.size])
    if flags & ~_VALID or resolve & ~_RESOLVE_ALL or mode & ~0o7777:
        raise OSError(errno.EINVAL, "open_how has unknown flags")
    if resolve & _RESOLVE_BENEATH and resolve & _RESOLVE_IN_ROOT:
        raise OSError(errno.EINVAL, "two roots for one path")
    if mode and not flags & (os.O_CREAT | _O_TMPFILE):
        raise OSError(errno.EINVAL, "mode without O_CREAT")
    if flags & os.O_PATH:
        raise OSError(errno.ENOSYS, "openat2 with O_PATH")
    if resolve & _RESOLVE_CACHED:
        raise OSError(errno.EAGAIN, "RESOLVE_CACHED cannot be kept")
    return _decode(notification, setting, int32(dirfd), 1, flags, mode, resolve)


def _decode(
    notification: Notification,
    setting: Setting,
    dirfd: int,
    path_at: int,
    flags: int,
    mode: int,
    resolve: int = 0,
) -> Call:
    # In the kernel's order: flags, the text of the path, a free descriptor, and then what the path means.
    flags &= _VALID
    _ensure_consistent(flags)
    path = notification.read_path(path_at)
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    _ensure_descriptor(notification)
    slash = path.endswith(b"/")
    exclusive = flags & os.O_CREAT and flags & os.O_EXCL
    follow = not (flags & os.O_NOFOLLOW or exclusive) or slash
    place = path
    if flags & os.O_CREAT and slash:
        # That creates no directory, whatever has the name: only the way there is looked at.
        place, follow = path.rstrip(b"/") or b"/", False
    call = OpenCall(notification, setting, flags=flags, mode=mode)
    with call.decoding():
        call.pin = call.hold(notification.pin(place, dirfd=dirfd, follow=follow, resolve=resolve))
        call.events = tuple(
            FileEvent(operation=operation, path=name, syscall=notification.syscall)
            for operation, name in _effects(call.pin, path, flags)
        )
        call.refusal = _refusal(notification, call.pin, flags)
    return call


def _ensure_consistent(flags: int) -> None:
    """Raise EINVAL for flags that contradict each other, before the path is looked at, as open(2) does."""
    if flags & _O_TMPFILE:
        whole = flags & (os.O_TMPFILE | os.O_CREAT) == os.O_TMPFILE
        if not whole or flags & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    elif flags & os.O_CREAT and flags & os.O_DIRECTORY and _directories_are_not_created():
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@functools.cache
def _directories_are_not_created() -> bool:
    """Tell whether this kernel refuses O_CREAT | O_DIRECTORY as such (since Linux 6.4)."""
    try:
        os.close(os.open("/", os.O_CREAT | os.O_DIRECTORY | os.O_RDONLY))
    except OSError as error:
        return error.errno == errno.EINVAL
    return False


def _ensure_descriptor(notification: Notification) -> None:
    """Raise EMFILE if the target has no free descriptor below its limit (getrlimit(2)).

    open(2) finds that out first of all: before it looks at the path, creates or truncates.
    """
    directory = f"/proc/{notification.tid}/fd"
    try:
        soft, _ = limits_of(notification.tid, resource.RLIMIT_NOFILE)
        used = os.stat(directory).st_size  # number of open files since Linux 6.2
        if soft < 0 or 0 < used < soft:
            return
        taken = {int(name) for name in os.listdir(directory)}
    except OSError:
        notification.ensure_valid()
        raise
    if all(number in taken for number in range(soft)):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _effects(pin: Pin, path: bytes, flags: int) -> list[tuple[Operation, bytes]]:
    """Say what the open would do, or raise what it fails with whatever the policy."""
    if flags & os.O_CREAT and path.endswith(b"/") and os.path.basename(path.rstrip(b"/")) not in _DIRECTORIES:
        raise OSError(errno.EISDIR, "creating a directory by open")
    if pin.missing:
        if not flags & os.O_CREAT:
            raise OSError(errno.ENOENT, "no such file")
        return [(Operation.CREATE, pin.path)]
    if flags & os.O_CREAT and flags & os.O_EXCL:
        raise OSError(errno.EEXIST, "file exists")
    if pin.is_link:
        raise OSError(errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ELOOP, "symbolic link")
    access = flags & os.O_ACCMODE
    if flags & _O_TMPFILE:
        if not pin.is_directory:
            raise OSError(errno.ENOTDIR, "O_TMPFILE wants a directory")
        return [(Operation.CREATE, pin.path.rstrip(b"/") + b"/#tmpfile")]
    if flags & os.O_DIRECTORY and not pin.is_directory:
        raise OSError(errno.ENOTDIR, "not a directory")
    if pin.is_directory and (access != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC)):
        raise OSError(errno.EISDIR, "is a directory")
    if pin.nameless:
        return []
    operations = []
    if access != os.O_WRONLY:
        operations.append(Operation.READ)
    if access != os.O_RDONLY or flags & os.O_TRUNC:
        operations.append(Operation.MODIFY)
    return [(operation, pin.path) for operation in operations]


def _refusal(notification: Notification, pin: Pin, flags: int) -> Refusal | None:
    writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC) or pin.missing
    refusal = machine.open_refusal(notification, pin, writing=writing)
    if refusal is not None:
        return refusal
    if not pin.process or pin.missing:
        return None
    parts = pin.path.split(b"/")
    if pin.outside and not PROCESS_SECRETS.isdisjoint(parts):
        public = not writing and _WRITABLE_ELSEWHERE.intersection(parts)
        if not public:
            return Refusal("a process outside of the tree")
    if pin.process != notification.tgid and not PROCESS_SECRETS.isdisjoint(parts):
        target = notification.target
        if notification.identity.elsewhere and lib.rs_user_space_covers(target, pin.process) != 1:
            return Refusal("a process outside of the user namespace")
    if parts[-1] == b"mem" and pin.process != notification.tgid:
        return Refusal("the memory of another process")
    return None


@attrs.define(eq=False, repr=False)
class OpenCall(Call):
    """An open file for the target."""

    flags: int = attrs.field(kw_only=True)
    mode: int = attrs.field(kw_only=True)
    pin: Pin = attrs.field(init=False)
    substitute: Substitute | None = attrs.field(init=False, default=None)

    def perform(self) -> None:
        """Open from the pin, or create below the pinned parent, and hand the descriptor over."""
        notification, pin, flags = self.notification, self.pin, self.flags
        if flags & (os.O_CREAT | os.O_TRUNC):
            _ensure_descriptor(notification)  # an answer may have taken its time
        notification.ensure_valid()
        if pin.missing:
            with self.setting.names:
                self.ensure_named_as_judged()
                fd = lib.rs_create(notification.identity, pin.parent, pin.name, flags, self.mode)
            if fd == -errno.EEXIST:
                raise CallChanged
        elif flags & _O_TMPFILE:
            fd = lib.rs_tmpfile(notification.identity, pin.object, flags, self.mode)
        elif self._substituted:
            assert self.setting.dns is not None
            fd = self.setting.dns.substitute()
        else:
            self._respect_sticky()
            # What is only looked at by us need not suit O_DIRECT.
            fd = self._reopen(flags & ~os.O_DIRECT if self.substitute is not None else flags)
        checked(fd, notification.syscall)
        if self.substitute is not None:
            fd = self._replace(fd, self.substitute)
        self.close()
        notification.reply_fd(fd, cloexec=bool(flags & os.O_CLOEXEC))

    @property
    def _substituted(self) -> bool:
        """True for a file of which the tree reads another version; what it writes goes to the real one."""
        service = self.setting.dns
        reading = not self.flags & (os.O_ACCMODE | os.O_TRUNC)
        return service is not None and reading and self.pin.path in service.substitutes

    def redirect(
        self, redirect: Redirect, name: bytes | None, masked: Callable[[int], bytes]
    ) -> Event | None:
        """Open another file, or show other bytes; for a regular file that is opened for reading alone."""
        if [event.operation for event in self.events] != [Operation.READ]:
            raise Irreplaceable("only an open for reading alone can be redirected")
        if not stat.S_ISREG(self.pin.mode):
            raise Irreplaceable("only regular files are redirected")
        if name is not None:
            pin = self.hold(self._pinned_instead(name))
            self.substitute = Substitute(pin)
            return FileEvent(operation=Operation.READ, path=pin.path, syscall=self.notification.syscall)
        content = redirect.content
        self.substitute = Substitute(content=masked if content is None else lambda fd: content)
        return None

    def _pinned_instead(self, name: bytes) -> Pin:
        try:
            pin = self.notification.pin(name)
        except TargetGone:
            raise
        except OSError as error:
            raise Irreplaceable(f"what is shown instead cannot be opened: {error.strerror}") from None
        plain = stat.S_ISREG(pin.mode) or (stat.S_ISCHR(pin.mode) and pin.rdev == _NULL)
        if pin.missing or not plain or pin.nameless or pin.process:
            pin.close()
            raise Irreplaceable("what is shown instead is no regular file")
        return pin

    def _replace(self, fd: int, substitute: Substitute) -> int:
        """Give what is shown instead of an open file, which this closes."""
        try:
            if substitute.content is not None:
                content = substitute.content(fd)
                name = os.path.basename(self.pin.path)
                return sealed(content, name, os.fstat(fd), self.flags & ~os.O_TRUNC)
        finally:
            os.close(fd)
        assert substitute.pin is not None
        fd = lib.rs_open(self.notification.identity, substitute.pin.object, self.flags)
        return checked(fd, self.notification.syscall)

    def _reopen(self, flags: int) -> int:
        notification, pin = self.notification, self.pin
        if stat.S_ISCHR(pin.mode) and pin.rdev == _TTY:
            return _open_terminal(notification, flags)
        asks = pin.process and pin.path.rpartition(b"/")[2] in _ASKS_WHO_OPENED
        if asks and notification.identity.elsewhere:
            # By its directory, which stays this task's; -EBADF if it was reached past that.
            return lib.rs_open_within(notification.identity, notification.target, pin.parent, pin.name, flags)
        if stat.S_ISREG(pin.mode) or stat.S_ISDIR(pin.mode) or flags & os.O_NONBLOCK:
            return lib.rs_open(notification.identity, pin.object, flags)
        with self.setting.vigil.watching(notification):
            return lib.rs_open(notification.identity, pin.object, flags)

    def _respect_sticky(self) -> None:
        """Keep fs.protected_regular and fs.protected_fifos, which the kernel asks only for names."""
        pin = self.pin
        if not self.flags & os.O_CREAT or pin.parent < 0:
            return
        regular = stat.S_ISREG(pin.mode)
        if not regular and not stat.S_ISFIFO(pin.mode):
            return
        directory = os.fstat(pin.parent)
        if not directory.st_mode & stat.S_ISVTX or not directory.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            return
        owner = os.fstat(pin.object).st_uid
        if owner in (directory.st_uid, self.notification.identity.fsuid):
            return
        try:
            with open(f"/proc/sys/fs/protected_{'regular' if regular else 'fifos'}", "rb") as setting:
                level = int(setting.read())
        except (OSError, ValueError):
            level = 2
        if level >= 2 or (level == 1 and directory.st_mode & stat.S_IWOTH):
            raise OSError(errno.EACCES, "another user's file in a sticky directory")


def _open_terminal(notification: Notification, flags: int) -> int:
    """Open the target's controlling terminal, which /dev/tty means to it. ENXIO without one."""
    with open(f"/proc/{notification.tid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    notification.ensure_valid()
    number = int(fields[4]) & 0xFFFFFFFF
    if number == 0:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    major = (number >> 8) & 0xFFF
    minor = (number & 0xFF) | ((number >> 12) & 0xFFF00)
    pts = 136 <= major <= 143
    path = f"/dev/pts/{(major - 136) * 256 + minor}" if pts else f"/dev/tty{minor}"
    pin = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if os.fstat(pin).st_rdev != os.makedev(major, minor):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return lib.rs_open(notification.identity, pin, flags)
    finally:
        os.close(pin)


DECODERS: dict[str, Callable[[Notification, Setting], Call]] = {
    "open": open_,
    "openat": openat,
    "openat2": openat2,
    "creat": creat,
}
