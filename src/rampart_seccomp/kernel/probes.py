"""What the running kernel offers, asked one by one, without privilege and without a lasting effect.

Each question is asked by behaviour where that is possible, so that a container's filter or a distribution's
backport gives the answer that counts. `Features` is a plain value: tests mask a feature with `attrs.evolve`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import threading
from typing import Literal

import attrs

from rampart_seccomp.errors import KernelSupportError, LibraryMissing
from rampart_seccomp.kernel import libseccomp
from rampart_seccomp.kernel.landlock import SCOPE_ABI, landlock_abi, signal_scope

__all__ = ["SCOPE_ABI", "Features", "Finding", "probe", "signal_scope"]

State = Literal["ok", "degraded", "missing"]

# Numbers that are the same on every architecture, and those that are not.
_PIDFD_OPEN, _OPENAT2, _PIDFD_GETFD = 434, 437, 438
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_PTRACE = {"x86_64": 101, "aarch64": 117}
_UNSHARE = {"x86_64": 272, "aarch64": 97}

_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_NOTIF_SIZES = 1, 3
_NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 3, 1 << 5
_PIDFD_THREAD = os.O_EXCL
_SEIZE, _CLONE_FS, _CAP_SYS_PTRACE = 0x4206, 0x200, 19
_LIBRARY_FLOOR = (2, 5)  # the first libseccomp with user notification


@attrs.frozen(eq=False, repr=False)
class Finding:
    """One line of ``doctor``.

    Attributes:
        name: What was looked for.
        state: ``ok``; ``degraded``: runs, with less; ``missing``: nothing can be started.
        detail: What was found.
        hint: What to do about it; empty if nothing has to be done.
    """

    name: str
    state: State
    detail: str
    hint: str = ""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Features:
    """What was found.

    Attributes:
        machine: Type of machine, as uname(2) has it.
        release: Kernel release.
        architecture: Whether the package has a filter for this type of machine.
        notification_sizes: Sizes of seccomp's notification, response and data; None without notifications.
        wait_killable: Whether a received call can be held against all but fatal signals (Linux 5.19).
        sync_wake_up: Whether the listener can hand its CPU over to the target (Linux 6.6).
        landlock_abi: Version of Landlock; 0 without it.
        openat2: Whether openat2(2) answers.
        pidfd_getfd: Whether fds of another process can be copied.
        pidfd_thread: Whether a pidfd can stand for a single thread (Linux 6.9).
        ptrace: Whether a child can be seized.
        yama_scope: Value of ``kernel.yama.ptrace_scope``; None without Yama.
        unshare_fs: Whether a thread can leave the process's umask and working directory.
        seccomp_mode: 2 if this process already lives behind a filter, else 0.
        libseccomp: Version of the library; None if it is not installed.
    """

    machine: str
    release: str
    architecture: bool
    notification_sizes: tuple[int, int, int] | None
    wait_killable: bool
    sync_wake_up: bool
    landlock_abi: int
    openat2: bool
    pidfd_getfd: bool
    pidfd_thread: bool
    ptrace: bool
    yama_scope: int | None
    unshare_fs: bool
    seccomp_mode: int
    libseccomp: str | None

    def findings(self) -> list[Finding]:
        """Judge what was found, the indispensable first."""
        return [
            self._machine(),
            self._library(),
            _needed(
                "user notification",
                self.notification_sizes is not None,
                "seccomp(2) hands calls to a broker",
                "the kernel lacks CONFIG_SECCOMP_FILTER, or a sandbox around this process forbids seccomp(2)",
            ),
            _needed(
                "WAIT_KILLABLE_RECV",
                self.wait_killable,
                "a held call is interrupted by fatal signals only",
                f"Linux 5.19 or newer is needed, this is {self.release}",
            ),
            _needed("openat2", self.openat2, "paths are resolved under control", "allow openat2(2)"),
            _wanted(
                "pidfd_getfd",
                self.pidfd_getfd,
                "sockets of the tree are copied and connected on the copy",
                "refused: connect, bind and sends with an address are denied",
                "let the container allow pidfd_getfd(2)",
            ),
            self._landlock(),
            self._trace(),
            _wanted(
                "unshare(CLONE_FS)",
                self.unshare_fs,
                "files are created under the target's umask",
                "refused: created closed first, the mode set afterwards",
                "let the container allow unshare(CLONE_FS)",
            ),
            _wanted(
                "SYNC_WAKE_UP",
                self.sync_wake_up,
                "round trips stay on one CPU",
                "each round trip costs some 15 µs more",
                "Linux 6.6 or newer",
            ),
            _wanted(
                "PIDFD_THREAD",
                self.pidfd_thread,
                "threads are watched by pidfd",
                "threads are watched through their process",
                "Linux 6.9 or newer",
            ),
            self._outer(),
        ]

    @property
    def usable(self) -> bool:
        """Whether a command can be started at all."""
        return all(finding.state != "missing" for finding in self.findings())

    def _machine(self) -> Finding:
        detail = f"Linux {self.release} on {self.machine}"
        if self.architecture:
            return Finding("machine", "ok", detail)
        return Finding("machine", "missing", detail, "there are filters for x86_64 and aarch64")

    def _library(self) -> Finding:
        if self.libseccomp is None:
            return Finding("libseccomp", "missing", "not installed", libseccomp.MISSING_HINT)
        if tuple(int(part) for part in self.libseccomp.split(".")[:2]) < _LIBRARY_FLOOR:
            return Finding("libseccomp", "missing", self.libseccomp, "version 2.5 or newer is needed")
        return Finding("libseccomp", "ok", self.libseccomp)

    def _landlock(self) -> Finding:
        if self.landlock_abi >= SCOPE_ABI:
            return Finding("Landlock", "ok", f"ABI {self.landlock_abi}, with signal scope: trees are guarded")
        lost = (
            "signals to processes outside of the tree are not confined, and processes of the tree that make "
            "no mediated call may outlive a killed launcher"
        )
        if self.landlock_abi:
            return Finding("Landlock", "degraded", f"ABI {self.landlock_abi}: {lost}", "Linux 6.12 or newer")
        hint = "add landlock to the lsm= boot parameter; Linux 6.12 or newer for the signal scope"
        return Finding("Landlock", "degraded", f"none: {lost}", hint)

    def _trace(self) -> Finding:
        scope = "no Yama" if self.yama_scope is None else f"Yama ptrace_scope {self.yama_scope}"
        if not self.ptrace:
            hint = "set kernel.yama.ptrace_scope to at most 2, or let the container allow ptrace(2)"
            return Finding("ptrace", "degraded", f"{scope}: a child cannot be traced", hint)
        return Finding("ptrace", "ok", f"{scope}: descendants can be read and traced")

    def _outer(self) -> Finding:
        if self.seccomp_mode == 0:
            return Finding("outer filter", "ok", "this process is not behind a filter")
        return Finding(
            "outer filter",
            "degraded",
            "this process is already behind a seccomp filter, which may refuse what the broker needs",
            "if a start fails with EBUSY, run Rampart outside of the other sandbox",
        )


def _needed(name: str, there: bool, detail: str, hint: str) -> Finding:
    return Finding(name, "ok", detail) if there else Finding(name, "missing", "not available", hint)


def _wanted(name: str, there: bool, detail: str, without: str, hint: str) -> Finding:
    return Finding(name, "ok", detail) if there else Finding(name, "degraded", without, hint)


def _call(number: int | None, *args: int | ctypes.Array[ctypes.c_char] | None) -> tuple[int, int]:
    """Make a system call: (result, errno). A number of None answers ENOSYS."""
    if number is None:
        return -1, errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    ctypes.set_errno(0)
    result: int = libc.syscall(
        ctypes.c_long(number), *(ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args)
    )
    return result, ctypes.get_errno()


def _opens(result: tuple[int, int]) -> bool:
    """Tell whether a call gave an fd, and close it."""
    if result[0] < 0:
        return False
    os.close(result[0])
    return True


def _notification_sizes() -> tuple[int, int, int] | None:
    sizes = ctypes.create_string_buffer(6)  # struct seccomp_notif_sizes
    number = _SECCOMP.get(os.uname().machine)
    if _call(number, _SECCOMP_GET_NOTIF_SIZES, 0, sizes)[0] < 0:
        return None
    raw = sizes.raw
    call, reply, data = (int.from_bytes(raw[at : at + 2], sys.byteorder) for at in (0, 2, 4))
    return call, reply, data


def _wait_killable() -> bool:
    """Ask for the flag with no program: EFAULT says that the flags are known, EINVAL that they are not."""
    flags = _NEW_LISTENER | _WAIT_KILLABLE_RECV
    return _call(_SECCOMP.get(os.uname().machine), _SECCOMP_SET_MODE_FILTER, flags, None)[1] == errno.EFAULT


def _release_at_least(release: str, major: int, minor: int) -> bool:
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (major, minor)


def _openat2() -> bool:
    """Ask with a struct that is too small: EINVAL comes from the call itself (openat2(2))."""
    return _call(_OPENAT2, -100, None, None, 0)[1] == errno.EINVAL


def _pidfd(*, thread: bool) -> bool:
    """Open a pidfd of the calling thread, or of this process, and copy an fd of our own through it."""
    if thread:
        return _opens(_call(_PIDFD_OPEN, threading.get_native_id(), _PIDFD_THREAD))
    pidfd, _ = _call(_PIDFD_OPEN, os.getpid(), 0)
    if pidfd < 0:
        return False
    try:
        return _opens(_call(_PIDFD_GETFD, pidfd, pidfd, 0))
    finally:
        os.close(pidfd)


def _unshare_fs() -> bool:
    """Leave the shared umask and directory in a thread that ends with that."""
    results: list[int] = []
    number = _UNSHARE.get(os.uname().machine)
    thread = threading.Thread(target=lambda: results.append(_call(number, _CLONE_FS)[0]))
    thread.start()
    thread.join()
    return results == [0]


def _yama_scope() -> int | None:
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _own_status() -> dict[str, str]:
    """Read this thread's status: proc(5), /proc/pid/status."""
    with open("/proc/thread-self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def _ptrace(yama_scope: int | None, status: dict[str, str]) -> bool:
    """Seize a process that does not exist: ESRCH comes from the call itself, anything else from a filter.

    What Yama (Documentation/admin-guide/LSM/Yama.rst) says about a descendant is added.
    """
    capable = bool(int(status["CapEff"], 16) >> _CAP_SYS_PTRACE & 1)
    allowed = yama_scope is None or yama_scope <= 1 or (yama_scope == 2 and capable)
    return allowed and _call(_PTRACE.get(os.uname().machine), _SEIZE, -1, None, 0)[1] == errno.ESRCH


def _library() -> str | None:
    try:
        return libseccomp.version()
    except LibraryMissing:
        return None


def _architecture() -> bool:
    try:
        libseccomp.architecture()
    except KernelSupportError:
        return False
    return True


def probe() -> Features:
    """Ask the running kernel for everything that Rampart can use.

    `Features.sync_wake_up` alone goes by the kernel's release, since it takes a listener to ask.
    """
    system = os.uname()
    yama_scope = _yama_scope()
    status = _own_status()
    return Features(
        machine=system.machine,
        release=system.release,
        architecture=_architecture(),
        notification_sizes=_notification_sizes(),
        wait_killable=_wait_killable(),
        sync_wake_up=_release_at_least(system.release, 6, 6),
        landlock_abi=landlock_abi(),
        openat2=_openat2(),
        pidfd_getfd=_pidfd(thread=False),
        pidfd_thread=_pidfd(thread=True),
        ptrace=_ptrace(yama_scope, status),
        yama_scope=yama_scope,
        unshare_fs=_unshare_fs(),
        seccomp_mode=int(status.get("Seccomp", "0")),
        libseccomp=_library(),
    )
