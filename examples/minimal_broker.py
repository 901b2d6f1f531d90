"""A whole broker on top of `rampart_seccomp.lowlevel`: nothing below ~/.ssh is opened, removed or renamed.

python examples/minimal_broker.py bash
"""

import errno
import os
import sys

from rampart_seccomp.lowlevel import CallChanged, Listener, Notification, Setting, decode, launched

PRIVATE = os.fsencode(os.path.realpath(os.path.expanduser("~/.ssh")))


def answer(notification: Notification, setting: Setting) -> None:
    """Judge the objects that were pinned, never the strings that were passed, and act on those objects."""
    with decode(notification, setting) as call:
        for path in (getattr(event, "path", b"") for event in call.events):
            if path == PRIVATE or path.startswith(PRIVATE + b"/"):
                print(f"denied: {notification.syscall} {path!r}", file=sys.stderr)
                return notification.deny(errno.EACCES)
        if call.refusal is not None:
            return notification.deny(call.refusal.errno)
        return call.perform()


def serve(listener: Listener) -> None:
    """Answer until nobody is left to ask; one at a time: a real broker has threads for calls that block."""
    setting = Setting()
    for notification in listener:
        try:
            answer(notification, setting)
        except (CallChanged, OSError) as error:
            if not notification.answered and notification.valid():
                notification.deny(getattr(error, "errno", None) or errno.EAGAIN)
        finally:
            notification.close()


if __name__ == "__main__":
    with launched(sys.argv[1:]) as (listener, process):
        serve(listener)
    sys.exit(process.returncode)
