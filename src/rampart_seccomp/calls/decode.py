"""From a held call to a `Call`: one decoder for every system call that the table says is mediated."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module

from rampart_seccomp.calls.call import Call, Refusal, Setting
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.kernel.syscalls import FEATURES, Disposition, classify, feature_of
from rampart_seccomp.kernel.traps import Traps

__all__ = ["DECODERS", "decode"]

Decoder = Callable[[Notification, Setting], Call]

_MODULES = {
    "attributes": "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr",
    "metadata": """truncate chmod fchmodat fchmodat2 fchmod chown lchown fchownat fchown utime utimes
        futimesat utimensat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr""",
    "naming": """unlink unlinkat rmdir rename renameat renameat2 link linkat symlink symlinkat mkdir mkdirat
        mknod mknodat""",
    "netlink": "socket",
    "opening": "open openat openat2 creat",
    "processes": """prlimit64 setrlimit sched_setaffinity sched_setscheduler sched_setparam sched_setattr
        prctl setpriority ioprio_set capset setfsgid setfsuid setgid setgroups setregid setresgid
        setresuid setreuid setuid umask kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo
        pidfd_send_signal fcntl""",
    "sending": "sendto sendmsg sendmmsg",
    "sockets": "connect bind listen",
    "spaces": "clone unshare",
    "starting": "execve execveat",
}
"""The calls that each module decodes, in its `DECODERS`."""


class _Decoders(Mapping[str, Decoder]):
    """Decoders by name of the call; a module is imported when one of its calls first comes.

    The engine answers most calls itself, so most trees need few of these, and no start needs them all.
    """

    def __init__(self) -> None:
        self._modules = {call: module for module, calls in _MODULES.items() for call in calls.split()}
        self._known: dict[str, Decoder] = {}

    def __getitem__(self, call: str) -> Decoder:
        decoder = self._known.get(call)
        if decoder is None:
            module = import_module(f"rampart_seccomp.calls.{self._modules[call]}")
            decoder = self._known[call] = module.DECODERS[call]
        return decoder

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


DECODERS: Mapping[str, Decoder] = _Decoders()


@functools.cache
def _all(features: frozenset[str]) -> Traps:
    """Say what the strictest of all filters holds, but for what a policy opens."""
    return Traps(scoped=False, features=features & FEATURES.keys())


class RefusedCall(Call):
    """A call that the syscall table refuses, whatever its arguments point to."""


class FeaturedCall(Call):
    """A call that the tree's filter refuses, and that the policy, which has changed since, opens."""

    enforced = "continued"

    def perform(self) -> None:
        """Let the kernel run it: its number alone decides, so it does not matter what its memory becomes."""
        self.notification.allow()


def decode(notification: Notification, setting: Setting | None = None) -> Call:
    """Pin what a held call is about. The caller closes the result.

    Args:
        notification: The held call.
        setting: What the calls of its tree share; one of its own if omitted.

    Returns:
        The call, not yet judged and not yet answered.

    Raises:
        OSError: The call fails with this errno, whatever the policy.
        TargetGone: Nobody waits for the answer any more.
    """
    shared = setting if setting is not None else Setting()
    classified = classify(notification.number, notification.args, _all(shared.features))
    decoder = DECODERS.get(notification.syscall)
    if decoder is not None and classified.disposition is not Disposition.REFUSED:
        return decoder(notification, shared)
    feature = feature_of(notification.syscall)
    opened = feature is not None and feature in shared.features
    if opened and classified.disposition is Disposition.FREE:
        return FeaturedCall(notification, shared)
    # Only refused calls come here otherwise; should another ever do, it is refused as well.
    refused = classified.disposition is Disposition.REFUSED and classified.errno
    reason = f"{notification.syscall} is not available in here"
    if feature is not None and not opened:
        reason = f"{notification.syscall} needs `features: [{feature}]`"
    return RefusedCall(notification, shared, refusal=Refusal(reason, refused or errno.ENOSYS))
