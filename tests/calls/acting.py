"""Act on other processes and on sockets, and print what came of it as JSON. Usage: acting.py OUTSIDE_PID.

Each step's answer is "ok", a value, or the name of the errno.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
OUTSIDE = int(sys.argv[1])
NOBODY = 2000000000  # a user without processes
IOPRIO_SET, SETSCHEDULER, TKILL = {"x86_64": (251, 144, 200), "aarch64": (30, 119, 130)}[os.uname().machine]
answers: dict[str, object] = {}


def step(name: str, action: Callable[[], object]) -> None:
    try:
        answers[name] = action() or "ok"
    except OSError as error:
        answers[name] = errno.errorcode[error.errno or 0]


def call(number: int, *args: object) -> None:
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(number), *args) < 0:
        raise OSError(ctypes.get_errno(), "syscall")


def waiting_child(lead: bool = False) -> int:
    """Fork a child that waits for its end, in a group of its own if wanted."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    if lead:
        os.setpgid(child, child)
    return child


def end(child: int) -> int:
    """Wait for a child that is dying; the signal."""
    return os.WTERMSIG(os.waitpid(child, 0)[1])


child = waiting_child(lead=True)
limits = resource.prlimit(child, resource.RLIMIT_NOFILE)
everywhere = os.sched_getaffinity(0)
stop = threading.Event()
thread = threading.Thread(target=stop.wait, daemon=True)
thread.start()
assert thread.native_id is not None
tid = thread.native_id

step("limit outside", lambda: resource.prlimit(OUTSIDE, resource.RLIMIT_NOFILE, limits))
step("read limit outside", lambda: resource.prlimit(OUTSIDE, resource.RLIMIT_NOFILE) and "ok")
step("limit child", lambda: resource.prlimit(child, resource.RLIMIT_NOFILE, limits) and "ok")
step("limit self", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
step("limit nobody", lambda: resource.prlimit(4194303, resource.RLIMIT_NOFILE, limits))
step("affinity outside", lambda: os.sched_setaffinity(OUTSIDE, everywhere))
step("affinity thread", lambda: os.sched_setaffinity(tid, everywhere))
step("affinity child", lambda: os.sched_setaffinity(child, everywhere))
step("affinity self", lambda: os.sched_setaffinity(0, everywhere))
step("scheduler outside", lambda: call(SETSCHEDULER, OUTSIDE, 0, struct.pack("i", 0)))
step("scheduler thread", lambda: call(SETSCHEDULER, tid, 0, struct.pack("i", 0)))
step("priority outside", lambda: os.setpriority(os.PRIO_PROCESS, OUTSIDE, 0))
step("priority child", lambda: os.setpriority(os.PRIO_PROCESS, child, 1))
step("priority thread", lambda: os.setpriority(os.PRIO_PROCESS, tid, 1))
step("priority self", lambda: os.setpriority(os.PRIO_PROCESS, 0, 0))
step("priority child's group", lambda: os.setpriority(os.PRIO_PGRP, child, 1))
step("priority outside's group", lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(OUTSIDE), 1))
step("priority user", lambda: os.setpriority(os.PRIO_USER, NOBODY, 1))
step("ioprio outside", lambda: call(IOPRIO_SET, 1, OUTSIDE, 2 << 13 | 4))
step("ioprio child", lambda: call(IOPRIO_SET, 1, child, 2 << 13 | 4))
step("ioprio user", lambda: call(IOPRIO_SET, 3, NOBODY, 2 << 13 | 4))

route = socket.inet_aton("127.0.0.9")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    source_route = bytes([131, 7, 4]) + route + b"\0"
    step("IP_OPTIONS", lambda: udp.setsockopt(socket.IPPROTO_IP, 4, source_route))
    step("SO_MARK", lambda: udp.setsockopt(socket.SOL_SOCKET, 36, 7))
    step("IP_TOS", lambda: udp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 16))
    step("SO_REUSEADDR", lambda: udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
    step("SIOCGIFNAME", lambda: bool(fcntl.ioctl(udp, 0x8910, struct.pack("16si20x", b"", 1))) and "ok")
    step("SIOCSIFMTU", lambda: bool(fcntl.ioctl(udp, 0x8922, struct.pack("16si20x", b"lo", 65536))))
    step("interfaces", lambda: len(socket.if_nameindex()) > 0 and "ok")
if socket.has_ipv6:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp6:
        step("IPV6_RTHDR", lambda: udp6.setsockopt(41, 57, bytes([0, 2, 4, 1]) + bytes(20)))
        step("IPV6_2292RTHDR", lambda: udp6.setsockopt(41, 5, 1))
        step("IPV6_FLOWLABEL_MGR", lambda: udp6.setsockopt(41, 32, bytes(32)))

with open(__file__, "rb") as file:
    flags = array.array("l", [0])
    step("FS_IOC_GETFLAGS", lambda: bool(fcntl.ioctl(file, 0x80086601, flags)))
    step("FS_IOC_SETFLAGS", lambda: bool(fcntl.ioctl(file, 0x40086602, flags)))
    step("FIFREEZE", lambda: bool(fcntl.ioctl(file, 0xC0045877, 0)))
    step("BTRFS_IOC_SUBVOL_CREATE", lambda: bool(fcntl.ioctl(file, 0x5000940E, bytes(16))))


def owner(pid: int) -> str:
    left, right = socket.socketpair()
    with left, right:
        fcntl.fcntl(left, fcntl.F_SETOWN, pid)
        return str(fcntl.fcntl(left, fcntl.F_GETOWN) == pid)


def through_pidfd(pid: int, signo: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signo)
    finally:
        os.close(fd)


caught: list[int] = []
signal.signal(signal.SIGUSR1, lambda signo, _: caught.append(signo))
step("signal 0 outside", lambda: os.kill(OUTSIDE, 0))
step("signal outside", lambda: os.kill(OUTSIDE, signal.SIGCONT))
step("signal outside's thread", lambda: call(TKILL, OUTSIDE, signal.SIGCONT))
step("signal outside by pidfd", lambda: through_pidfd(OUTSIDE, signal.SIGCONT))
step("signal outside's group", lambda: os.killpg(os.getpgid(OUTSIDE), signal.SIGCONT))
step("own outside", lambda: owner(OUTSIDE))
step("own self", lambda: owner(os.getpid()))
step("signal self", lambda: os.kill(os.getpid(), signal.SIGUSR1))
step("raise", lambda: signal.raise_signal(signal.SIGUSR1))
step("signal self by pidfd", lambda: through_pidfd(os.getpid(), signal.SIGUSR1))
answers["caught"] = len(caught)
step("signal child's group", lambda: os.killpg(child, signal.SIGTERM))
answers["ended"] = end(child)
second = waiting_child()
step("signal child by pidfd", lambda: through_pidfd(second, signal.SIGUSR2) or end(second))
third = waiting_child()
step("signal child", lambda: os.kill(third, signal.SIGKILL) or end(third))
step("signal the dead", lambda: os.kill(third, signal.SIGKILL))
if len(sys.argv) > 2:
    step("signal everybody", lambda: os.kill(-1, signal.SIGCONT))
stop.set()
print(json.dumps(answers))
