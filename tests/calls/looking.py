"""A process that does nothing, looked at from outside as the broker looks at its targets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import ffi, lib

# What is of the tree has a filter that its launcher has not: here one that allows everything (seccomp(2)).
FILTERED = """\
import ctypes
allow = ctypes.create_string_buffer(b"\\x06\\0\\0\\0\\0\\0\\xff\\x7f", 8)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.addressof(allow)))) == 0
print("ready", flush=True)
input()
"""


class Target:
    """A process that is looked at from outside, as the broker looks at one."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FILTERED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
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
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()
