"""Install a filter in this process, make calls, be one's own broker, and print what happened as JSON.

Usage: installed.py FILTER. Every attempt runs in a forked child, since some of them are killed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import select
import struct
import sys
from collections.abc import Callable

NATIVE = {
    "x86_64": {"seccomp": 317, "openat": 257, "mount": 165, "prctl": 157, "socket": 41},
    "aarch64": {"seccomp": 277, "openat": 56, "mount": 40, "prctl": 167, "socket": 198},
}[platform.machine()]
CLONE3 = 435
RECEIVE, SEND = 0xC0502100, 0xC0182101
libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *args: object) -> str:
    """Make a system call; the result, or the name of the errno."""
    ctypes.set_errno(0)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *args)
    return str(result) if result >= 0 else errno.errorcode[ctypes.get_errno()]


def install(program: bytes) -> int:
    """Install the filter; the listener's fd."""
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    fprog = Program(len(program) // 8, ctypes.addressof(code))
    listener = libc.syscall(ctypes.c_long(NATIVE["seccomp"]), 1, 1 << 3, ctypes.byref(fprog))
    if listener < 0:
        sys.exit(f"seccomp: {errno.errorcode[ctypes.get_errno()]}")
    return int(listener)


def attempt(listener: int, action: Callable[[], str], answer: int) -> dict[str, object]:
    """Run an action in a child; every call it is held in gets the errno given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, action().encode())
        os._exit(0)
    os.close(writing)
    held: list[int] = []
    said = b""
    while True:
        ready, _, _ = select.select([listener, reading], [], [])
        if listener in ready:
            notification = bytearray(80)
            fcntl.ioctl(listener, RECEIVE, notification)
            (identity,) = struct.unpack_from("=Q", notification)
            held.append(struct.unpack_from("=i", notification, 16)[0])
            fcntl.ioctl(listener, SEND, struct.pack("=QqiI", identity, 0, -answer, 0))
        else:
            part = os.read(reading, 4096)
            if not part:
                break
            said += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return {"said": said.decode(), "signal": signal, "held": held}


def dumpable() -> str:
    """Ask to be undumpable, then whether one is."""
    libc.syscall.restype = ctypes.c_long
    zero = ctypes.c_long(0)
    return f"{call(NATIVE['prctl'], 4, zero)} {call(NATIVE['prctl'], 3, zero)}"


def machine_code(code: bytes) -> Callable[[], str]:
    """Make a function of x86 machine code."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    start = ctypes.c_char.from_buffer(memory)  # keeps the mapping
    return lambda: str(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(start))())


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        program = file.read()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    actions: dict[str, Callable[[], str]] = {
        "getpid": lambda: "yes" if os.getpid() > 0 else "no",
        "unknown": lambda: call(1000),
        "clone3": lambda: call(CLONE3, None, ctypes.c_long(88)),
        "dumpable": dumpable,
        "openat": lambda: call(NATIVE["openat"], -100, b"/", ctypes.c_long(0), ctypes.c_long(0)),
        "mount": lambda: call(NATIVE["mount"], None, b"/", None, ctypes.c_long(0), None),
        "packet": lambda: call(NATIVE["socket"], 17, 3, 0),
        "tcp": lambda: "fd" if call(NATIVE["socket"], 2, 1, 0).isdigit() else "no",
        "openat O_PATH": lambda: (
            "fd" if call(NATIVE["openat"], -100, b"/", ctypes.c_long(0o10000000)).isdigit() else "no"
        ),
    }
    if platform.machine() == "x86_64":
        actions["i386"] = machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov $20, %eax; int $0x80; ret
        actions["x32"] = lambda: call(0x40000000 | 39)
    listener = install(program)
    done = {name: attempt(listener, action, errno.EDOM) for name, action in actions.items()}
    print(json.dumps(done), flush=True)
    os._exit(0)


main()
