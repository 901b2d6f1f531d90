"""One notification at a time, from Python: the readable reference, and the kit for a broker of your own.

```python
with Listener(fd, launcher=os.getpid()) as listener:
    notification = listener.receive()
    if notification is not None:
        notification.deny(errno.EACCES)   # or .perform(), .reply(value), .allow()
        notification.close()
```

`decode` pins what a call is about and says what it would do (`Call.events`); `Call.perform` does it on the pins. See
``examples/minimal_broker.py``.
"""

from rampart_seccomp.broker.pool import Pool
from rampart_seccomp.calls.call import Call, CallChanged, Refusal, Renaming, Setting
from rampart_seccomp.calls.decode import DECODERS, decode
from rampart_seccomp.calls.notification import AT_FDCWD, Listener, Notification
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.kernel.filter import load_filter
from rampart_seccomp.launch.locate import launcher_path

__all__ = [
    "AT_FDCWD",
    "DECODERS",
    "Call",
    "CallChanged",
    "Listener",
    "Notification",
    "Pin",
    "Pool",
    "Refusal",
    "Renaming",
    "Setting",
    "decode",
    "launcher_path",
    "load_filter",
]
