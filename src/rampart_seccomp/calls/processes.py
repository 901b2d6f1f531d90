"""Calls that act on other processes: limits, scheduling and signals stay within the tree.

Whom a call is about stands in registers, and whether that process is of the tree does not change while it
lives, so the kernel may run the call after the decision (``continued``). What is left is the reuse of a pid:
a process of the tree would have to end, be reaped and have its number taken by one outside in the
microseconds between. A pidfd is a number too, which a sibling thread can give another meaning: it is copied,
and the signal is sent through the copy.

A group is decided by its members of the moment. Numbers are those of the broker's pid namespace. A target in
another one names nobody, unless the tree made that: then all whom it can name are of the tree.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from rampart_seccomp.calls.call import Call, Refusal, Setting
from rampart_seccomp.calls.limits import limits_of
from rampart_seccomp.calls.notification import Notification, int32
from rampart_seccomp.calls.shim import lib

__all__ = ["DECODERS", "SIGNAL_DECODERS"]

_IDENTITY = (
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setfsuid", "setfsgid", "setgroups", "capset", "umask"),
)
"""Calls on the caller itself: nothing is judged; whoever remembers what a thread is has to hear of them."""

_OUTSIDE = Refusal("a process outside of the tree", errno.EPERM)
_CAP_KILL = 5
_PR_SET_CHILD_SUBREAPER = 36
_LIMITS = struct.Struct("=QQ")  # struct rlimit64; on 64 bits struct rlimit is the same

Decoder = Callable[[Notification, Setting], Call]


@attrs.define(eq=False)
class ProcessCall(Call):
    """A call on a process of the tree, which the kernel runs."""

    enforced = "continued"

    def perform(self) -> None:
        """Let the kernel run it."""
        self.notification.allow()


@attrs.define(eq=False)
class NoCores(Call):
    """A limit for core dumps that is 0 and is set to 0."""

    old: int = 0

    def perform(self) -> None:
        """Say what it was, if that is asked for."""
        if self.old:
            self.notification.write(self.old, _LIMITS.pack(0, 0))
        self.notification.reply(0)


@attrs.define(eq=False)
class PidfdSignal(Call):
    """A signal sent through a copy of the target's pidfd."""

    pidfd: int = -1
    signo: int = 0

    def perform(self) -> None:
        """Send it, if the target might."""
        _ = self.notification.identity
        self.notification.ensure_valid()
        signal.pidfd_send_signal(self.pidfd, self.signo)
        self.close()
        self.notification.reply(0)


def _status(pid: int) -> dict[str, str] | None:
    """Read /proc/<pid>/status of a process or thread; None if there is none."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _process(notification: Notification, tid: int) -> bool:
    """Tell whether a process or thread is of the tree.

    Raises:
        OSError: ESRCH if there is none of this number.
    """
    if not _same_numbers(notification):
        return _own_numbers(notification)
    if tid in (notification.tid, notification.tgid):
        return True
    status = _status(tid)
    if status is None:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    return bool(lib.rs_in_tree(int(status["Tgid"]), notification.launcher))


def _group(notification: Notification, group: int) -> bool:
    """Tell whether all members of a process group are of the tree; 0 is the target's own.

    Raises:
        OSError: ESRCH if it has no member.
    """
    if group and not _same_numbers(notification):
        return _own_numbers(notification)
    wanted = group or os.getpgid(notification.tgid)  # which may go beyond the target's pid namespace
    members = [int(name) for name in os.listdir("/proc") if name.isdigit() and _group_of(int(name)) == wanted]
    if not members:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    return all(lib.rs_in_tree(member, notification.launcher) for member in members)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _same_numbers(notification: Notification) -> bool:
    """Tell whether pids mean the same to the target and to the broker."""
    theirs = os.stat("ns/pid", dir_fd=notification.target)
    return theirs.st_ino == os.stat("/proc/self/ns/pid").st_ino


def _own_numbers(notification: Notification) -> bool:
    """Tell whether the target is in a pid namespace that the tree made: nobody else's numbers are in it.

    The launcher's is the one that the tree began in, and nothing of the tree can enter a namespace (setns).
    """
    theirs = os.stat("ns/pid", dir_fd=notification.target)
    return theirs.st_ino != os.stat(f"/proc/{notification.launcher}/ns/pid").st_ino


def _call(
    notification: Notification, setting: Setting, allowed: Callable[[Notification], bool]
) -> ProcessCall:
    return ProcessCall(notification, setting, refusal=None if allowed(notification) else _OUTSIDE)


def _on_process(pid_at: int) -> Decoder:
    """Decode a call whose argument ``pid_at`` is a process or thread, 0 the caller; negative: EINVAL."""

    def decode(notification: Notification, setting: Setting) -> Call:
        pid = int32(notification.args[pid_at])
        return _call(notification, setting, lambda held: pid <= 0 or _process(held, pid))

    return decode


def prlimit64(notification: Notification, setting: Setting) -> Call:
    """Decode prlimit(2). Reading the limits of others is no effect."""
    pid, what, new, old = int32(notification.args[0]), *notification.args[1:4]
    call = _call(notification, setting, lambda held: new == 0 or pid <= 0 or _process(held, pid))
    if new == 0 or call.refusal is not None or what & 0xFFFFFFFF != resource.RLIMIT_CORE:
        return call
    if pid > 0 and not _same_numbers(notification):
        call.refusal = Refusal("the core dumps of a number of another pid namespace", errno.EPERM)
        return call
    return _core_limit(call, pid, new, old)


def setrlimit(notification: Notification, setting: Setting) -> Call:
    """Decode setrlimit(2) of the limit for core dumps."""
    return _core_limit(ProcessCall(notification, setting), 0, notification.args[1], 0)


def _core_limit(call: ProcessCall, pid: int, new: int, old: int) -> Call:
    """Keep a hard limit of 0, which the launcher has set or found, from those who might raise it: root.

    Above 0 there is nothing to keep, and the kernel may read the limits again: whatever they are by then, a
    hard limit of 0 is none that this call could raise.
    """
    notification = call.notification
    _, hard = limits_of(pid if pid > 0 else notification.tid, resource.RLIMIT_CORE)
    notification.ensure_valid()
    if hard != 0:
        return call
    soft, wanted = _LIMITS.unpack(notification.read(new, _LIMITS.size))
    if soft > wanted:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if wanted:
        call.refusal = Refusal("core dumps are switched off for the tree", errno.EPERM)
        return call
    return NoCores(notification, call.setting, old=old)


def _priority(first: int) -> Decoder:
    """Decode setpriority(2) and ioprio_set(2): ``which`` is first (process), + 1 (group) or + 2 (user)."""

    def decode(notification: Notification, setting: Setting) -> Call:
        which, who = int32(notification.args[0]) - first, int32(notification.args[1])

        def allowed(held: Notification) -> bool:
            if which == 1:
                return _group(held, who)
            return which != 0 or who <= 0 or _process(held, who)

        return _call(notification, setting, allowed)

    return decode


def _receivers(notification: Notification, pid: int) -> bool:
    """Tell whether all whom kill(2) would send to are of the tree."""
    if pid > 0:
        return _process(notification, pid)
    return pid != -1 and _group(notification, -pid)


def kill(notification: Notification, setting: Setting) -> Call:
    """Decode kill(2). Signal 0 is no effect; -1, everybody, would leave the tree."""
    pid, signo = int32(notification.args[0]), int32(notification.args[1])
    return _call(notification, setting, lambda held: signo == 0 or _receivers(held, pid))


def _on_thread(tid_at: int, signo_at: int) -> Decoder:
    """Decode a signal to one process or thread."""

    def decode(notification: Notification, setting: Setting) -> Call:
        tid, signo = int32(notification.args[tid_at]), int32(notification.args[signo_at])
        return _call(notification, setting, lambda held: signo == 0 or tid <= 0 or _process(held, tid))

    return decode


def fcntl(notification: Notification, setting: Setting) -> Call:
    """Decode fcntl(F_SETOWN): who gets SIGIO and SIGURG. 0 is nobody, a negative number a group."""
    owner = int32(notification.args[2])
    return _call(notification, setting, lambda held: owner == 0 or _receivers(held, owner))


def prctl(notification: Notification, setting: Setting) -> Call:
    """Decode prctl: PR_SET_CHILD_SUBREAPER makes orphans children of whoever did not start them."""
    if int32(notification.args[0]) == _PR_SET_CHILD_SUBREAPER:
        setting.adopters.add(notification.tgid)
    return ProcessCall(notification, setting)


def pidfd_send_signal(notification: Notification, setting: Setting) -> Call:
    """Decode pidfd_send_signal(2), without flags and with the kernel's own siginfo only.

    Raises:
        OSError: EBADF for what is no pidfd, ESRCH if its process has ended, EPERM if the target may not
            signal it.
    """
    fd, signo, info, flags = (notification.args[index] for index in range(4))
    if flags & 0xFFFFFFFF:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if info:
        refusal = Refusal("a signal with information of the sender's own through a pidfd", errno.EPERM)
        return Call(notification, setting, refusal=refusal)
    call = PidfdSignal(notification, setting, signo=int32(signo))
    with call.decoding():
        call.pidfd = call.hold_fd(notification.copy_fd(int32(fd)))
        pid = _pid_of(call.pidfd)
        inside = pid == notification.tgid or bool(lib.rs_in_tree(pid, notification.launcher))
        permitted = inside and _may_signal(notification, pid)
        if _pid_of(call.pidfd) != pid:  # dead by now: the number can have been another's
            raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
        if not inside:
            call.refusal = _OUTSIDE
        elif not permitted:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return call


def _pid_of(pidfd: int) -> int:
    """Read the process of a pidfd (proc_pid_fdinfo(5)). EBADF if it is none, ESRCH if the process ended."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        fields = dict(line.split(":", 1) for line in file)
    if "Pid" not in fields:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    pid = int(fields["Pid"])
    if pid <= 0:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    return pid


def _may_signal(notification: Notification, pid: int) -> bool:
    """Tell whether the target's ids let it signal a process, as kill(2) has it."""
    identity = notification.identity
    if identity.cap_effective >> _CAP_KILL & 1 or pid == notification.tgid:
        return True
    status = _status(pid)
    if status is None:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    real, _, saved, _ = (int(uid) for uid in status["Uid"].split())
    return not {identity.ruid, identity.euid}.isdisjoint((real, saved))


SIGNAL_DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {
        "kill": kill,
        "tkill": _on_thread(0, 1),
        "tgkill": _on_thread(1, 2),
        "rt_sigqueueinfo": _on_thread(0, 1),
        "rt_tgsigqueueinfo": _on_thread(1, 2),
        "pidfd_send_signal": pidfd_send_signal,
        "fcntl": fcntl,
    }
)
"""Those of the calls that are mediated only where the kernel does not confine signals."""

DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {
        "prlimit64": prlimit64,
        "setrlimit": setrlimit,
        **dict.fromkeys(
            ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"), _on_process(0)
        ),
        "prctl": prctl,
        "setpriority": _priority(0),
        "ioprio_set": _priority(1),
        **dict.fromkeys(_IDENTITY, ProcessCall),
        **SIGNAL_DECODERS,
    }
)
