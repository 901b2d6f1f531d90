"""Whether threads are threads: libraries for cooperative tasks put those in their place."""

from __future__ import annotations

import _thread
import threading
from types import BuiltinFunctionType

from rampart_seccomp.calls.shim import lib
from rampart_seccomp.errors import ThreadsPatched

__all__ = ["ensure_real"]


def ensure_real() -> None:
    """Raise `ThreadsPatched` if threading.Thread starts something that shares our thread of the system."""
    # Debuggers replace it, too, and their threads are real: so it is tried out.
    if isinstance(_thread.start_new_thread, BuiltinFunctionType):
        return
    found: list[int] = []
    probe = threading.Thread(target=lambda: found.append(lib.rs_gettid()), name="rampart-probe", daemon=True)
    probe.start()
    probe.join()
    if found == [lib.rs_gettid()]:
        raise ThreadsPatched
