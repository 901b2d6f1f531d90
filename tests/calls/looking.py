"""A process that does nothing, looked at from outside as the broker looks at its targets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import ffi, lib


class Target:
    """A process that is looked at from outside, as the broker looks at one."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=directory, start_new_session=True
        )
        self.pid = self.process.pid
        self.fd = lib.rs_target_open(self.pid)
        self.identity = ffi.new("struct rs_identity *")
        assert lib.rs_target_identity(self.fd, self.identity) == 0

    def pin(self, path: bytes, *, follow: bool = True, resolve: int = 0) -> Pin:
        base = lib.rs_target_base(self.fd, -100)
        raw = ffi.new("struct rs_pin *")
        result = lib.rs_resolve(
            self.fd,
            self.pid,
            os.getpid(),
            self.identity,
            base,
            path,
            lib.RS_FOLLOW if follow else 0,
            resolve,
            raw,
        )
        os.close(base)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return Pin.adopt(raw)

    def close(self) -> None:
        os.close(self.fd)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
