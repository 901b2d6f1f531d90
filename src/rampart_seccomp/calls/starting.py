"""execve(2), execveat(2): decided on the program that is found, its interpreters and the whole argv.

The kernel carries the call out after the decision, and reads path, arguments and variables again. So the call
goes on only under the eyes of the launcher: what has become of the process is compared with what was decided,
before its first instruction (`Expected`, `Verifier`).
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import glob
import os
import stat
from collections.abc import Callable
from typing import Protocol

import attrs

from rampart_seccomp.calls.call import Call, Refusal, Setting
from rampart_seccomp.calls.images import HEAD_SIZE, elf_interpreter, loaded_program, parse_script
from rampart_seccomp.calls.notification import AT_FDCWD, Notification, int32
from rampart_seccomp.calls.pins import Pin, real_name
from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.events import ExecEvent

__all__ = [
    "DECODERS",
    "ExecCall",
    "Expected",
    "Verifier",
    "execve",
    "execveat",
    "read_vector",
    "system_loaders",
]

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_AT_EXECVE_CHECK = 0x10000
_INTERPRETERS_MAX = 5  # fs/exec.c: exec_binprm
_VECTOR_SMALL = 64 * 1024
_VECTOR_MAX = 6 << 20  # the kernel's upper bound: 3/4 of _STK_LIM
_LOADER_NAMES = ("ld-*.so*", "ld.so*", "ld64.so*", "libc.musl-*.so*")
_LOADER_STARTS = ("ld", "libc.musl-")
_LOADER_PLACES = ("/lib*", "/lib*/*-linux-*", "/usr/lib*", "/usr/lib*/*-linux-*")


@attrs.frozen(repr=False)
class Expected:
    """What a process must be once its exec has committed.

    Attributes:
        image: Device and inode of the program, of a script its last interpreter.
        interpreter: Those of its PT_INTERP; zeros without.
        command_line: All arguments, each with its NUL, as proc_pid_cmdline(5) shows them.
        environment: All variables, each with its NUL.
    """

    image: tuple[int, int]
    interpreter: tuple[int, int]
    command_line: bytes
    environment: bytes


class Verifier(Protocol):
    """Lets execs go on, and sees to it that they become what was decided."""

    def let_go(self, call: ExecCall) -> None:
        """Answer the call, so that it is verified. Sets ``call.enforced``.

        Raises:
            OSError: It cannot be verified; it is not answered.
            TargetGone: Nobody waits for the answer any more.
        """


def execve(notification: Notification, setting: Setting) -> Call:
    """Decode execve(path, argv, envp)."""
    _, argv, variables = notification.args[:3]
    return _decode(notification, setting, AT_FDCWD, notification.read_path(0), argv, variables, 0)


def execveat(notification: Notification, setting: Setting) -> Call:
    """Decode execveat(dirfd, path, argv, envp, flags)."""
    dirfd, _, argv, variables, flags = notification.args[:5]
    path = notification.read_path(1)
    return _decode(notification, setting, int32(dirfd), path, argv, variables, int32(flags))


@attrs.define(eq=False)
class ExecCall(Call):
    """Start another program in the target's place.

    Attributes:
        expected: What must come of it.
        program: Real path of the image that will run, of a script its last interpreter, and its arguments.
        loads: True if the image is a dynamic loader that is told a program, or names one of its own: what
            really runs is not what the image and its arguments say.
        linked: False if no name leads to the image (a memfd, a deleted file): then it is nobody.
        only_checks: Nothing is started (AT_EXECVE_CHECK, a register): the answer is all there is.
        enforced: ``verified`` at its commit, or ``unverified``.
    """

    expected: Expected = attrs.field(init=False)
    program: tuple[bytes, tuple[bytes, ...]] = attrs.field(init=False)
    loads: bool = attrs.field(init=False, default=False)
    linked: bool = attrs.field(init=False, default=True)
    only_checks: bool = attrs.field(kw_only=True)
    enforced: str = attrs.field(init=False, default="unverified")

    @property
    def execs(self) -> tuple[ExecEvent, ...]:
        """Its events, which are execs all."""
        return tuple(event for event in self.events if isinstance(event, ExecEvent))

    def perform(self) -> None:
        """Let the kernel start it, and have that verified."""
        if self.only_checks or self.setting.verifier is None:
            self.notification.allow()
        else:
            self.setting.verifier.let_go(self)


def _decode(
    notification: Notification,
    setting: Setting,
    dirfd: int,
    path: bytes,
    argv: int,
    variables: int,
    flags: int,
) -> Call:
    if flags & ~(_AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH | _AT_EXECVE_CHECK):
        raise OSError(errno.EINVAL, "unknown flags")
    call = ExecCall(notification, setting, only_checks=bool(flags & _AT_EXECVE_CHECK))
    with call.decoding():
        if not path and flags & _AT_EMPTY_PATH:
            pin = call.hold(notification.pin_fd(dirfd))
        else:
            follow = not flags & _AT_SYMLINK_NOFOLLOW
            pin = call.hold(notification.pin(path, dirfd=dirfd, follow=follow))
        arguments = read_vector(notification, argv) or (b"",)  # an empty vector gets one empty string
        environment = read_vector(notification, variables)
        named = _named(notification, path, dirfd, pin) if path else None
        _follow(call, pin, _file_name(dirfd, path), arguments, environment, named)
    return call


def _file_name(dirfd: int, path: bytes) -> bytes:
    """The name that the kernel gives to a file and tells a script's interpreter (fs/exec.c: alloc_bprm)."""
    if dirfd == AT_FDCWD or path.startswith(b"/"):
        return path
    return b"/dev/fd/%d/%s" % (dirfd, path) if path else b"/dev/fd/%d" % dirfd


def _closed_on_exec(notification: Notification, file_name: bytes) -> bool:
    """Tell whether the descriptor in a name of `_file_name` is gone once the exec has committed."""
    number = os.fsdecode(file_name.split(b"/")[3])
    try:
        fd = os.open(f"fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=notification.target)
    except OSError:
        return False
    with open(fd) as file:
        flags = dict(line.split(":", 1) for line in file).get("flags", "0")
    return bool(int(flags, 8) & os.O_CLOEXEC)


def _follow(
    call: ExecCall,
    pin: Pin,
    file_name: bytes,
    argv: tuple[bytes, ...],
    environment: tuple[bytes, ...],
    named: bytes | None,
) -> None:
    """Turn the program, and whatever is started in its place, into events; say what must come of it."""
    events = []
    for depth in range(_INTERPRETERS_MAX + 1):
        _ensure_program(pin)
        events.append(_event(call, pin, argv, named))
        if call.only_checks:
            break  # the kernel, too, looks at nothing but the file
        head = _head(call, pin)
        script = None if head is None else parse_script(head)
        if script is None:
            break
        if depth == _INTERPRETERS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if file_name.startswith(b"/dev/fd/") and _closed_on_exec(call.notification, file_name):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))  # the interpreter could not open it
        if not script.interpreter:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))  # to the kernel: the working directory
        optional = () if script.argument is None else (script.argument,)
        argv = (script.interpreter, *optional, file_name, *argv[1:])
        file_name = script.interpreter
        pin = call.hold(call.notification.pin(script.interpreter))
        named = _named(call.notification, script.interpreter, AT_FDCWD, pin)
    interpreter = (0, 0) if call.only_checks else _interpreter(call, pin, argv, events)
    if _is_loader(pin, named):
        _load(call, argv, events)
    call.events = tuple(events)
    call.program = (_name(pin), argv)
    call.linked = _linked(pin)
    call.expected = Expected((pin.dev, pin.ino), interpreter, _joined(argv), _joined(environment))


def _joined(strings: tuple[bytes, ...]) -> bytes:
    return b"".join(text + b"\0" for text in strings)


def _event(call: Call, pin: Pin, argv: tuple[bytes, ...], named: bytes | None) -> ExecEvent:
    linked = _linked(pin)
    if not linked and pin.deleted:
        named = pin.path
    return ExecEvent(
        path=_name(pin), argv=argv, named=named, linked=linked, syscall=call.notification.syscall
    )


def _linked(pin: Pin) -> bool:
    """Tell whether a name leads to the image: not to a memfd, nor to a file that was deleted."""
    return not (pin.nameless or pin.deleted)


def _name(pin: Pin) -> bytes:
    """The image's real name, or what the kernel calls one that has none (``/memfd:NAME (deleted)``).

    Whoever makes a memfd chooses NAME, slashes included. They become colons, so that it is one component of a
    path beneath the root and no pattern for other places matches.
    """
    if _linked(pin):
        return pin.path
    name = pin.path if pin.nameless else pin.path + b" (deleted)"
    if pin.nameless or name.startswith(b"/memfd:"):
        return b"/" + name.removeprefix(b"/").replace(b"/", b":")
    return name


def _ensure_program(pin: Pin) -> None:
    if pin.missing:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if pin.is_link:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(pin.mode):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _open(call: Call, pin: Pin) -> int | None:
    """Open an image for reading; None (and a refusal) if the broker cannot read it."""
    fd = lib.rs_open(call.notification.identity, pin.object, os.O_RDONLY | os.O_NONBLOCK)
    if fd == -errno.EACCES:
        if not pin.mode & 0o111:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        call.refusal = Refusal("an image that cannot be read cannot be judged")
        return None
    return checked(fd, "open", pin.path)


def _head(call: Call, pin: Pin) -> bytes | None:
    fd = _open(call, pin)
    if fd is None:
        return None
    try:
        return os.pread(fd, HEAD_SIZE, 0)
    finally:
        os.close(fd)


def _interpreter(
    call: ExecCall, pin: Pin, argv: tuple[bytes, ...], events: list[ExecEvent]
) -> tuple[int, int]:
    """Pin the image's PT_INTERP; one that is not the system's own loader is judged as a program.

    Returns:
        Its device and inode; zeros without.
    """
    fd = _open(call, pin)
    if fd is None:
        return 0, 0
    try:
        name = elf_interpreter(fd)
    finally:
        os.close(fd)
    if name is None:
        return 0, 0
    loader = call.hold(call.notification.pin(name))
    _ensure_program(loader)
    if (loader.dev, loader.ino) not in system_loaders():
        events.append(_event(call, loader, argv, None))
        call.loads = True
    return loader.dev, loader.ino


@functools.cache
def system_loaders() -> frozenset[tuple[int, int]]:
    """The dynamic loaders in the places of the system, by device and inode."""
    places = {os.path.realpath(place) for pattern in _LOADER_PLACES for place in glob.glob(pattern)}
    found = set()
    for place in places:
        try:
            names = os.listdir(place)
        except OSError:
            continue  # no directory
        for name in filter(_is_loader_name, names):
            with contextlib.suppress(OSError):  # a link that leads nowhere
                about = os.stat(os.path.join(place, name))
                found.add((about.st_dev, about.st_ino))
    return frozenset(found)


def _is_loader_name(name: str) -> bool:
    # The start first: the directories of libraries are long, and every pattern takes its time.
    starts = name.startswith(_LOADER_STARTS)
    return starts and any(fnmatch.fnmatchcase(name, pattern) for pattern in _LOADER_NAMES)


def _is_loader(pin: Pin, named: bytes | None) -> bool:
    """Tell whether a program is a dynamic loader, which runs the program among its arguments."""
    if (pin.dev, pin.ino) in system_loaders():
        return True
    names = {os.path.basename(path) for path in (pin.path, named) if path is not None}
    return any(_is_loader_name(os.fsdecode(name)) for name in names)


def _load(call: ExecCall, argv: tuple[bytes, ...], events: list[ExecEvent]) -> None:
    """Judge what a dynamic loader is told to run as if it were executed (``ld.so PROGRAM``)."""
    at = loaded_program(argv)
    if at is None:
        return
    call.loads = True
    if b"/" not in argv[at]:
        call.refusal = Refusal("a program that the dynamic loader would search for", errno.EACCES)
        return
    pin = call.hold(call.notification.pin(argv[at]))
    if pin.missing:
        return  # the loader will say so; should it be there by then, it is a file that is read
    _ensure_program(pin)
    events.append(_event(call, pin, argv[at:], _named(call.notification, argv[at], AT_FDCWD, pin)))


def _named(notification: Notification, path: bytes, dirfd: int, pin: Pin) -> bytes | None:
    """The absolute name before the last symbolic link: the directory's real name and the last component.

    None unless it leads to the pinned program: the directory is found anew, and may be another by now.
    """
    directory, _, name = path.rstrip(b"/").rpartition(b"/")
    if not name:
        return None
    if not directory:
        directory = b"/" if path.startswith(b"/") else b"."
    place = notification.pin(directory, dirfd=dirfd)
    try:
        if place.missing or not place.is_directory:
            return None
        about = os.stat(name, dir_fd=place.object)
        if (about.st_dev, about.st_ino) != (pin.dev, pin.ino):
            return None
        return real_name(place.object)[0].rstrip(b"/") + b"/" + name
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None
    finally:
        place.close()


def read_vector(notification: Notification, address: int) -> tuple[bytes, ...]:
    """Copy a NULL-terminated vector of strings, once. NULL itself counts as an empty vector.

    Raises:
        OSError: EFAULT; E2BIG beyond what execve(2) takes.
    """
    if address == 0:
        return ()
    for size in (_VECTOR_SMALL, _VECTOR_MAX):
        buffer = ffi.new("char[]", size)
        length = lib.rs_target_read_vector(notification.target, notification.tid, address, buffer, size)
        notification.ensure_valid()
        if length != -errno.E2BIG:
            break
    return tuple(ffi.buffer(buffer, checked(length, "process_vm_readv"))[:].split(b"\0")[:-1])


DECODERS: dict[str, Callable[[Notification, Setting], Call]] = {
    "execve": execve,
    "execveat": execveat,
}
