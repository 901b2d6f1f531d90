"""The start of a tree, seen from the broker: offer a filter, take the listener, prove that it is usable."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterable

import attrs

from rampart_seccomp.calls.notification import Listener
from rampart_seccomp.calls.shim import ffi, lib
from rampart_seccomp.errors import (
    CommandDenied,
    KernelSupportError,
    ListenerBusy,
    SyscallError,
    TargetUnreadable,
)
from rampart_seccomp.launch import protocol
from rampart_seccomp.launch.locate import launcher_path

__all__ = ["HandOver", "Offer", "accept", "offer", "receive", "start_error"]

_WAIT_KILLABLE_RECV = 1 << 5  # SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19

_HINT = (
    "the broker must be an ancestor of the command where kernel.yama.ptrace_scope is 1, must run in the same "
    "pid namespace, and not in a Landlock domain beside it"
)


@attrs.frozen(eq=False, repr=False)
class Offer:
    """A command line that starts behind a filter, and our end of its control socket.

    Attributes:
        argv: What to start.
        control: Our end.
        theirs: The launcher's end, to be inherited; close it after the start.
    """

    argv: list[str | bytes]
    control: socket.socket
    theirs: socket.socket


@attrs.frozen(eq=False, repr=False)
class HandOver:
    """A child that waits, behind its filter, for the word to start.

    Attributes:
        listener: Where its calls arrive.
        command_pid: Its pid.
        scoped: True if the kernel confines signals of the tree to it, and the launcher has tried that out.
        landlock_abi: Version of Landlock that the launcher found; 0 without it.
    """

    listener: Listener
    command_pid: int
    scoped: bool
    landlock_abi: int


def offer(
    filter_program: bytes,
    argv: Iterable[str | bytes],
    program: bytes | None = None,
    *,
    cores: bool = True,
    linger: bool = False,
    limits: protocol.Limits | None = None,
    environment: Iterable[tuple[Iterable[str], Iterable[str]]] = (),
) -> Offer:
    """Prepare the start of a command.

    Args:
        filter_program: BPF as packed ``struct sock_filter``.
        argv: The command and its arguments.
        program: File to execute in place of ``argv[0]``; None: look it up through PATH.
        cores: Leave core dumps as they are: they are files that no file call makes.
        linger: What the command leaves running lives until the broker goes away.
        limits: What the tree may use up.
        environment: Layers of patterns of variables to drop, and of those to pass all the same.

    Raises:
        LauncherMissing: The package was installed without its launcher.
    """
    launcher = launcher_path()
    control, theirs = (
        _above_standard(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    )
    try:
        flags = protocol.StartFlag.SCOPE
        if not cores:
            flags |= protocol.StartFlag.NO_CORES
        if linger:
            flags |= protocol.StartFlag.LINGER
        start = protocol.Start(filter_program, flags, _WAIT_KILLABLE_RECV, limits or protocol.Limits())
        ourselves = os.pidfd_open(os.getpid())
        try:
            socket.send_fds(control, [protocol.encode(start)], [ourselves])
        finally:
            os.close(ourselves)
    except BaseException:
        control.close()
        theirs.close()
        raise
    options: list[str | bytes] = []
    for drop, pass_ in environment:
        options.append("-e")
        options += [part for name in drop for part in ("-d", name)]
        options += [part for name in pass_ for part in ("-p", name)]
    return Offer([launcher, str(theirs.fileno()), program or "", *options, "--", *argv], control, theirs)


def _above_standard(end: socket.socket) -> socket.socket:
    """Move a socket away from 0 to 2, which a spawner lays the standard streams of the command over."""
    with end:
        return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))


def accept(control: socket.socket, name: bytes) -> HandOver:
    """Take the listener, and prove that the broker can read the child. `Go` then starts the command.

    Args:
        control: Our end of the control socket.
        name: The command, for errors.

    Raises:
        OSError, ListenerBusy, KernelSupportError: As `start_error`.
        TargetUnreadable: The child's memory cannot be read, or another process has its number here.
        KernelSupportError: The child sees other names than the broker does.
    """
    packet, fds = receive(control)
    message = protocol.decode(packet) if packet else None
    if not isinstance(message, protocol.Listener) or len(fds) != 1:
        for fd in fds:
            os.close(fd)
        raise start_error(message, name)
    listener = Listener(fds[0], 0)
    try:
        _prove_readable(message)
        listener.launcher = _parent(message.child_pid)
    except BaseException:
        listener.close()
        raise
    return HandOver(listener, message.child_pid, message.scoped, message.landlock_abi)


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one packet of the launcher, with its descriptors; empty at its end."""
    for _ in range(2):
        try:
            packet, fds, _, _ = socket.recv_fds(control, protocol.MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            continue  # it ended with an order unread; what it said before is still queued behind this error
        return packet, fds
    return b"", []


def start_error(message: protocol.Message | None, name: bytes, denied_by: str | None = None) -> Exception:
    """Turn what the launcher said into what subprocess would raise.

    Args:
        message: The launcher's last word; None if it ended without one.
        name: The command.
        denied_by: What denied the command, if something did.
    """
    filename = os.fsdecode(name)
    if not isinstance(message, protocol.Failed):
        return SyscallError("rampart-seccomp-launch", errno.ECHILD, filename)
    number = message.errno
    if message.stage is protocol.Stage.FILTER:
        if number == errno.EBUSY:
            return ListenerBusy(number)
        return KernelSupportError(
            f"the filter cannot be installed: {os.strerror(number)}",
            syscall="seccomp",
            hint="Linux 5.19 or later with CONFIG_SECCOMP_FILTER is needed",
        )
    if message.stage in (protocol.Stage.SANDBOX, protocol.Stage.PROTOCOL):
        return SyscallError("rampart-seccomp-launch", number, filename)
    if message.stage is protocol.Stage.EXEC and denied_by is not None:
        text = f"{os.strerror(number)}: the policy denies this command: {denied_by}"
        return CommandDenied(number, text, filename)
    return OSError(number, os.strerror(number), filename)


def _prove_readable(message: protocol.Listener) -> None:
    """Read back what the launcher wrote into the child, before the command runs."""
    pid = message.child_pid
    target = lib.rs_target_open(pid)
    if target < 0:
        raise TargetUnreadable(-target, "the launched process cannot be found", _HINT)
    try:
        buffer = ffi.new("char[]", protocol.NONCE_SIZE)
        got = lib.rs_target_read(target, pid, message.nonce_address, buffer, protocol.NONCE_SIZE)
    finally:
        os.close(target)
    if got < 0:
        raise TargetUnreadable(-got, "the memory of the launched process cannot be read", _HINT)
    if ffi.buffer(buffer, got)[:] != message.nonce:
        raise TargetUnreadable(errno.ESRCH, "another process has this number here", _HINT)
    for name in ("ns/mnt", "root"):
        ours, theirs = os.stat(f"/proc/self/{name}"), os.stat(f"/proc/{pid}/{name}")
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            raise KernelSupportError(
                "the command sees another file system than the broker",
                hint="start the broker inside the same container, chroot or mount namespace",
            )


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/status", "rb") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(b"PPid:"))
