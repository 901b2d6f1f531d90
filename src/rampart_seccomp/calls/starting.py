"""execve(2), execveat(2): decided on the program that is found, its interpreters and the whole argv.

The kernel carries the call out after the decision and reads path and arguments again: a thread that rewrites
them in between is not caught by this version (docs/threat-model.md).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

import attrs

from rampart_seccomp.calls.call import Call, Refusal, Setting
from rampart_seccomp.calls.notification import AT_FDCWD, Notification, int32
from rampart_seccomp.calls.pins import Pin, real_name
from rampart_seccomp.calls.shim import checked, lib
from rampart_seccomp.events import ExecEvent

__all__ = ["execve", "execveat"]

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_AT_EXECVE_CHECK = 0x10000
_INTERPRETERS_MAX = 4  # as deep as the kernel goes: execve(2)
_SCRIPT_HEAD = 256  # BINPRM_BUF_SIZE
_ARGUMENT_MAX = 128 * 1024  # MAX_ARG_STRLEN
_ARGUMENTS_TOTAL = 6 << 20  # the kernel's upper bound: 3/4 of _STK_LIM
_POINTERS = 512


def execve(notification: Notification, setting: Setting) -> Call:
    """Decode execve(path, argv, envp)."""
    return _decode(notification, setting, AT_FDCWD, notification.read_path(0), notification.args[1], 0)


def execveat(notification: Notification, setting: Setting) -> Call:
    """Decode execveat(dirfd, path, argv, envp, flags)."""
    dirfd, _, argv, _, flags = notification.args[:5]
    path = notification.read_path(1)
    return _decode(notification, setting, int32(dirfd), path, argv, int32(flags))


@attrs.define(eq=False)
class ExecCall(Call):
    """Start another program in the target's place."""

    enforced = "continued"

    def perform(self) -> None:
        """Let the kernel start it."""
        self.notification.allow()


def _decode(
    notification: Notification, setting: Setting, dirfd: int, path: bytes, argv: int, flags: int
) -> Call:
    if flags & ~(_AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH | _AT_EXECVE_CHECK):
        raise OSError(errno.EINVAL, "unknown flags")
    call = ExecCall(notification, setting)
    with call.decoding():
        if not path and flags & _AT_EMPTY_PATH:
            pin = call.hold(notification.pin_fd(dirfd))
        else:
            follow = not flags & _AT_SYMLINK_NOFOLLOW
            pin = call.hold(notification.pin(path, dirfd=dirfd, follow=follow))
        arguments = read_argv(notification, argv)
        named = _named(notification, path, dirfd) if path else None
        _judge_chain(call, pin, arguments, named)
    return call


def _judge_chain(call: ExecCall, pin: Pin, argv: tuple[bytes, ...], named: bytes | None) -> None:
    """Turn the program, and each interpreter that its ``#!`` line leads to, into an event."""
    events = []
    for depth in range(_INTERPRETERS_MAX + 2):
        if pin.missing:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if pin.is_link:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not stat.S_ISREG(pin.mode):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        if pin.nameless or pin.deleted:
            call.refusal = Refusal("a program without a name (memfd or deleted file)")
        events.append(ExecEvent(path=pin.path, argv=argv, named=named, syscall=call.notification.syscall))
        head = _head(call, pin)
        if head is None or not head.startswith(b"#!"):
            break
        if depth > _INTERPRETERS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        interpreter, optional = _interpreter(head)
        script = named if named is not None else pin.path
        argv = (interpreter, *optional, script, *argv[1:])
        pin = call.hold(call.notification.pin(interpreter))
        named = _named(call.notification, interpreter, AT_FDCWD)
    call.events = tuple(events)


def _head(call: ExecCall, pin: Pin) -> bytes | None:
    """Read the beginning of an image; None (and a refusal) if the broker cannot read it."""
    fd = lib.rs_open(call.notification.identity, pin.object, os.O_RDONLY | os.O_NONBLOCK)
    if fd == -errno.EACCES:
        if not pin.mode & 0o111:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        call.refusal = Refusal("an image that cannot be read cannot be judged")
        return None
    try:
        return os.pread(checked(fd, "open", pin.path), _SCRIPT_HEAD, 0)
    finally:
        if fd >= 0:
            os.close(fd)


def _interpreter(head: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Split a ``#!`` line as the kernel does: a path and at most one argument. ENOEXEC if it names none."""
    line, newline, _ = head[2:].partition(b"\n")
    words = line.strip(b" \t").split(b"\0")[0]
    interpreter, _, rest = words.replace(b"\t", b" ").partition(b" ")
    if not interpreter or (not newline and not rest and len(head) == _SCRIPT_HEAD):
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
    rest = rest.strip(b" \t")
    return interpreter, (rest,) if rest else ()


def _named(notification: Notification, path: bytes, dirfd: int) -> bytes | None:
    """The absolute name before the last symbolic link: the directory's real name and the last component."""
    directory, _, name = path.rstrip(b"/").rpartition(b"/")
    if not name:
        return None
    if not directory:
        directory = b"/" if path.startswith(b"/") else b"."
    pin = notification.pin(directory, dirfd=dirfd)
    try:
        if pin.missing:
            return None
        return real_name(pin.object)[0].rstrip(b"/") + b"/" + name
    finally:
        pin.close()


def read_argv(notification: Notification, address: int) -> tuple[bytes, ...]:
    """Copy a NULL-terminated vector of strings, once. NULL itself counts as an empty vector.

    Raises:
        OSError: EFAULT; E2BIG beyond what execve(2) takes.
    """
    if address == 0:
        return ()
    strings: list[bytes] = []
    total = 0
    while True:
        # Never past the page that holds the terminating NULL: what follows it may be unreadable.
        room = (4096 - (address & 4095)) // 8 or 1
        count = min(room, _POINTERS)
        for (pointer,) in struct.iter_unpack("=Q", notification.read(address, 8 * count)):
            if pointer == 0:
                return tuple(strings)
            try:
                strings.append(notification.read_string(pointer, _ARGUMENT_MAX))
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    raise OSError(errno.E2BIG, os.strerror(errno.E2BIG)) from None
                raise
            total += len(strings[-1]) + 9
            if total > _ARGUMENTS_TOTAL:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        address += 8 * count
