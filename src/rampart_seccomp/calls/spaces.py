"""clone(2) and unshare(2) with namespaces, where the policy opens them; and what ids mean in another one.

Everything about such a call stands in registers, so the kernel runs it. It is held because it changes what
the broker knows: a task in another user namespace has capabilities that count there alone
(``csrc/spaces.c``), and the first process of a pid namespace adopts orphans that are not its own
(`adopters`). Mount namespaces are refused by the table: there, an object could have another name than the one
that rules are about.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from rampart_seccomp.calls.call import Call, Setting
from rampart_seccomp.calls.notification import Notification

__all__ = ["DECODERS", "meant_id"]

_CLONE_NEWPID = 0x20000000
_UNCHANGED = 0xFFFFFFFF


@attrs.define(eq=False)
class NamespaceCall(Call):
    """A call that makes namespaces, which the kernel runs."""

    enforced = "continued"

    def perform(self) -> None:
        """Let the kernel run it."""
        self.notification.allow()


def _decode(notification: Notification, setting: Setting) -> Call:
    if notification.args[0] & _CLONE_NEWPID:
        setting.adopters.namespaces = True
    return NamespaceCall(notification, setting)


def meant_id(notification: Notification, table: str, number: int) -> int:
    """Translate a user or group id of the target's user namespace into one of the broker's.

    Args:
        notification: The held call.
        table: ``uid_map`` or ``gid_map`` (user_namespaces(7)): the ids of the target's, and those of whoever
            reads it.
        number: The id; -1, unsigned, stands for no change.

    Raises:
        OSError: EINVAL if the id is not mapped there, as chown(2) has it.
        TargetGone: The call is no longer waiting.
    """
    if number == _UNCHANGED or not notification.identity.elsewhere:
        return number
    with open(os.open(table, os.O_RDONLY | os.O_CLOEXEC, dir_fd=notification.target), "rb") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    notification.ensure_valid()
    for first, outside, count in ranges:
        if first <= number < first + count:
            return outside + number - first
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


DECODERS: Mapping[str, Callable[[Notification, Setting], Call]] = MappingProxyType(
    {"clone": _decode, "unshare": _decode}
)
