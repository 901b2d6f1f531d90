"""One held system call, and the listener it comes from (seccomp_unotify(2))."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import attrs

from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import checked, ffi, lib
from rampart_seccomp.errors import TargetGone
from rampart_seccomp.kernel.syscalls import name_of

__all__ = ["AT_FDCWD", "PATH_MAX", "Listener", "Notification", "int32"]

AT_FDCWD = -100
PATH_MAX = 4096


def int32(register: int) -> int:
    """Read a register as the C ``int`` that the kernel takes from it; the upper half is ignored."""
    value = register & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


@attrs.define(eq=False)
class Notification:
    """A call that waits for an answer. Exactly one of the answers is given, then `close` frees what it held.

    Whatever is read from the target counts only while the notification is valid: each reader here asks the
    kernel after it has read, and raises `TargetGone` if the target has died or the call was interrupted.

    Attributes:
        listener: fd of the listener.
        launcher: Pid of the tree's launcher; processes that do not descend from it are outside.
        id: The kernel's cookie of this notification.
        tid: Thread that made the call, in the broker's pid namespace.
        number: Number of the system call.
        args: The six argument registers, unsigned.
        syscall: Name of the system call.
        arrived: What came of a connection that was waited for elsewhere: an error, or 0. None for all others.
        before_answer: Called before an answer is given, or a descriptor that other threads can use, too.
    """

    listener: int
    launcher: int
    id: int
    tid: int
    number: int
    args: tuple[int, ...]
    syscall: str
    arrived: int | None = None
    before_answer: Callable[[], object] = bool
    _target: int = -1
    _identity: Any = None
    _answered: bool = False

    # The target

    @property
    def target(self) -> int:
        """O_PATH fd of /proc/<tid>, bound to this very task."""
        if self._target < 0:
            fd = lib.rs_target_open(self.tid)
            if fd in (-errno.ENOENT, -errno.ESRCH):
                self.ensure_valid()
            checked(fd, "open /proc/<tid>")
            self._target = fd
            self.ensure_valid()
        return self._target

    @property
    def identity(self) -> Any:
        """The target's ids, groups, capabilities and umask (``struct rs_identity``), as they are now."""
        if self._identity is None:
            identity = ffi.new("struct rs_identity *")
            checked(lib.rs_target_identity(self.target, identity), "read /proc/<tid>/status")
            self._identity = identity
        return self._identity

    @property
    def tgid(self) -> int:
        """Thread group (process) id of the target."""
        return int(self.identity.tgid)

    def valid(self) -> bool:
        """Tell whether the target still waits for this answer."""
        return lib.rs_notif_valid(self.listener, self.id) == 0

    def ensure_valid(self) -> None:
        """Raise `TargetGone` unless the target still waits for this answer."""
        if not self.valid():
            raise TargetGone(errno.ENOENT, f"{self.syscall}: the call is no longer waiting")

    def read(self, address: int, size: int) -> bytes:
        """Copy ``size`` bytes of the target's memory, once.

        Raises:
            OSError: EFAULT if any of it is unreadable.
            TargetGone: The call is no longer waiting.
        """
        if size == 0:
            return b""
        buffer = ffi.new("char[]", size)
        got = checked(lib.rs_target_read(self.target, self.tid, address, buffer, size), "process_vm_readv")
        self.ensure_valid()
        if got < size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return ffi.buffer(buffer, size)[:]

    def read_string(self, address: int, limit: int) -> bytes:
        """Copy a NUL-terminated string, once, without its NUL.

        Raises:
            OSError: EFAULT if it is unreadable, ENAMETOOLONG if it has no NUL within ``limit`` bytes.
            TargetGone: The call is no longer waiting.
        """
        size = min(limit, PATH_MAX)
        buffer = ffi.new("char[]", size)
        length = lib.rs_target_read_string(self.target, self.tid, address, buffer, size)
        if length == -errno.ENAMETOOLONG and size < limit:
            buffer = ffi.new("char[]", limit)
            length = lib.rs_target_read_string(self.target, self.tid, address, buffer, limit)
        self.ensure_valid()
        return ffi.buffer(buffer, checked(length, "process_vm_readv"))[:]

    def read_path(self, arg: int) -> bytes:
        """Copy the path that argument number ``arg`` (from 0) points to. Errors as `read_string`."""
        return self.read_string(self.args[arg], PATH_MAX)

    def write(self, address: int, data: bytes) -> None:
        """Write into the target's memory, where the call itself would. EFAULT if that is unwritable."""
        memory = checked(lib.rs_target_memory(self.target), "open /proc/<tid>/mem")
        try:
            self.ensure_valid()
            put = checked(lib.rs_memory_write(memory, address, ffi.from_buffer(data), len(data)), "pwrite")
        finally:
            os.close(memory)
        if put < len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def pin(self, path: bytes, *, dirfd: int = AT_FDCWD, follow: bool = True, resolve: int = 0) -> Pin:
        """Resolve a path as the target would, and hold what it means.

        Args:
            path: As the target passed it.
            dirfd: The target's descriptor that a relative path counts from.
            follow: Follow the last component if it is a symbolic link.
            resolve: Flags of openat2(2).

        Raises:
            OSError: As path_resolution(7) has it; EBADF for a bad ``dirfd``.
        """
        base = -1
        if not path.startswith(b"/") or resolve:
            base = checked(lib.rs_target_base(self.target, dirfd), self.syscall)
        try:
            raw = ffi.new("struct rs_pin *")
            checked(
                lib.rs_resolve(
                    self.target,
                    self.tid,
                    self.launcher,
                    self.identity,
                    base,
                    path,
                    lib.RS_FOLLOW if follow else 0,
                    resolve,
                    raw,
                ),
                self.syscall,
                path,
            )
        finally:
            if base >= 0:
                os.close(base)
        return Pin.adopt(raw)

    def pin_fd(self, fd: int) -> Pin:
        """Hold what the target's descriptor ``fd`` refers to. EBADF if it has none."""
        raw = ffi.new("struct rs_pin *")
        checked(lib.rs_pin_fd(self.target, self.launcher, fd, raw), self.syscall)
        return Pin.adopt(raw)

    def copy_fd(self, fd: int) -> int:
        """Take a copy of the target's open file ``fd`` (pidfd_getfd(2)); the caller closes it.

        Raises:
            OSError: EBADF; EPERM where ptrace access is refused; ENOSYS where the call is.
        """
        copy = checked(lib.rs_target_copy_fd(self.target, self.tid, fd), "pidfd_getfd")
        try:
            self.ensure_valid()
        except TargetGone:
            os.close(copy)
            raise
        return copy

    # The answers

    def deny(self, error: int = errno.EACCES) -> None:
        """Answer with an error; the call does not take place."""
        self.before_answer()
        self._answer(lib.rs_notif_reply(self.listener, self.id, 0, error))

    def reply(self, value: int = 0) -> None:
        """Answer with a result; the call itself does not take place in the kernel."""
        self.before_answer()
        self._answer(lib.rs_notif_reply(self.listener, self.id, value, 0))

    def allow(self) -> None:
        """Let the kernel run the call as it stands *now* (SECCOMP_USER_NOTIF_FLAG_CONTINUE).

        The kernel reads the arguments' memory again, which another thread can have changed: never do this
        after a decision on anything but registers.
        """
        self.before_answer()
        self._answer(lib.rs_notif_continue(self.listener, self.id))

    def reply_fd(self, fd: int, *, cloexec: bool) -> None:
        """Give the target ``fd``, which this closes, and answer with its number there.

        In this order, so that nothing of it is left here when the target goes on: a writer that lingers makes
        execve(2) fail with ETXTBSY, a reader keeps a FIFO from ending.

        Raises:
            OSError: EMFILE if the target has no free descriptor; the call is then still unanswered.
        """
        try:
            self.before_answer()
            number = lib.rs_notif_add_fd(self.listener, self.id, fd, int(cloexec), 0)
        finally:
            os.close(fd)
        if number == -errno.EMFILE:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if number < 0:
            self._answer(number)
        self.reply(number)

    def perform(self) -> None:
        """Carry out the call on pinned objects, as the target asked for it, and answer with what came of it.

        The reference for what a broker does after *allow*: no policy is asked here.
        """
        from rampart_seccomp.calls.decode import decode

        try:
            with decode(self) as call:
                call.perform()
        except TargetGone:
            raise
        except OSError as error:
            self.deny(error.errno or errno.EACCES)

    @property
    def answered(self) -> bool:
        """True once an answer has been given."""
        return self._answered

    def _answer(self, result: int) -> None:
        self._answered = True
        if result in (-errno.ENOENT, -errno.EINPROGRESS):
            raise TargetGone(-result, f"{self.syscall}: the call is no longer waiting")
        checked(result, "SECCOMP_IOCTL_NOTIF_SEND")

    def close(self) -> None:
        """Free what reading held. An unanswered notification stays unanswered."""
        if self._target >= 0:
            os.close(self._target)
            self._target = -1


@attrs.define(eq=False)
class Listener:
    """The fd on which held calls arrive; a context manager that owns it.

    Args:
        fd: What seccomp(2) returned for SECCOMP_FILTER_FLAG_NEW_LISTENER.
        launcher: Pid of the process that started the tree.
    """

    fd: int
    launcher: int

    def fileno(self) -> int:
        """The fd, readable (poll(2)) while a call waits; POLLHUP once nobody is left."""
        return self.fd

    def receive(self) -> Notification | None:
        """Take the next held call; blocks if there is none.

        Returns:
            The notification, or None if its target died before it could be taken.

        Raises:
            InterruptedError: A signal came first.
        """
        raw = ffi.new("struct rs_notification *")
        result = lib.rs_notif_receive(self.fd, raw)
        if result == -errno.ENOENT:
            return None
        checked(result, "SECCOMP_IOCTL_NOTIF_RECV")
        return Notification(
            listener=self.fd,
            launcher=self.launcher,
            id=raw.id,
            tid=raw.pid,
            number=raw.nr,
            args=tuple(raw.args),
            syscall=name_of(raw.nr),
        )

    def __iter__(self) -> Iterator[Notification]:
        """Yield held calls until no process is left that could make one."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while any(happened & select.POLLIN for _, happened in poll.poll()):
            notification = self.receive()
            if notification is not None:
                yield notification

    def close(self) -> None:
        """Close the fd: calls that wait, and all later ones, fail with ENOSYS."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
