"""From a held call to a `Call`: one decoder for every system call that the table says is mediated."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from types import MappingProxyType

from rampart_seccomp.calls import (
    attributes,
    metadata,
    naming,
    netlink,
    opening,
    processes,
    sending,
    sockets,
    starting,
)
from rampart_seccomp.calls.call import Call, Refusal, Setting
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.kernel.syscalls import Disposition, classify, feature_of
from rampart_seccomp.kernel.traps import Traps

__all__ = ["DECODERS", "decode"]

DECODERS: Mapping[str, Callable[[Notification, Setting], Call]] = MappingProxyType(
    {
        "open": opening.open_,
        "openat": opening.openat,
        "openat2": opening.openat2,
        "creat": opening.creat,
        **naming.DECODERS,
        **metadata.DECODERS,
        **attributes.DECODERS,
        **processes.DECODERS,
        "execve": starting.execve,
        "execveat": starting.execveat,
        "socket": netlink.socket,
        "connect": sockets.connect,
        "bind": sockets.bind,
        "listen": sockets.listen,
        "sendto": sending.sendto,
        "sendmsg": sending.sendmsg,
        "sendmmsg": sending.sendmmsg,
    }
)


_ALL = Traps(scoped=False)
"""What the strictest of all filters holds."""


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
    classified = classify(notification.number, notification.args, _ALL)
    decoder = DECODERS.get(notification.syscall)
    if decoder is not None and classified.disposition is not Disposition.REFUSED:
        return decoder(notification, shared)
    feature = feature_of(notification.syscall)
    if feature is not None and feature in shared.features:
        return FeaturedCall(notification, shared)
    # Only refused calls come here otherwise; should another ever do, it is refused as well.
    refused = classified.disposition is Disposition.REFUSED and classified.errno
    reason = f"{notification.syscall} is not available in here"
    if feature is not None:
        reason = f"{notification.syscall} needs `features: [{feature}]`"
    return RefusedCall(notification, shared, refusal=Refusal(reason, refused or errno.ENOSYS))
