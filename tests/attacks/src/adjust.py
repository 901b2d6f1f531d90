"""adjust.py PID...: try to change how processes run, and who gets their signals; print "PID WAY<tab>RESULT".

"parent" is the parent of this process. A child of this program comes first: there everything must work.
"""

import array
import ctypes
import errno
import fcntl
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SETPARAM, SETSCHEDULER, IOPRIO_SET, SETATTR = {
    "x86_64": (142, 144, 251, 314),
    "aarch64": (118, 119, 30, 274),
}[platform.machine()]
FIOSETOWN, SIOCSPGRP, F_SETOWN_EX, F_SETSIG = 0x8901, 0x8902, 15, 10


def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "syscall")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def tell(pid, choose, group=False):
    """Have SIGIO of a socket sent to a process, and cause one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        choose(ours, -pid if group else pid)
        fcntl.fcntl(ours, fcntl.F_SETFL, fcntl.fcntl(ours, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
        theirs.send(b"x")
        time.sleep(0.05)


def setown_ex(sock, pid):
    fcntl.fcntl(sock, F_SETOWN_EX, struct.pack("ii", 1, pid))


def ioctl(command):
    return lambda sock, pid: fcntl.ioctl(sock, command, array.array("i", [pid]))


def ways(pid):
    group = os.getpgid(pid)
    zero = ctypes.c_int(0)
    attributes = struct.pack("IIQiIQQQ", 48, 3, 0, 7, 0, 0, 0, 0)  # SCHED_BATCH
    limits = (0, 0)
    yield "prlimit64", lambda: resource.prlimit(pid, resource.RLIMIT_CORE, limits)
    yield "setpriority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 7)
    yield "setpriority of a group", lambda: os.setpriority(os.PRIO_PGRP, group, 7)
    yield "ioprio_set", lambda: call(IOPRIO_SET, 1, pid, 3 << 13)
    yield "ioprio_set of a group", lambda: call(IOPRIO_SET, 2, group, 3 << 13)
    yield "sched_setaffinity", lambda: os.sched_setaffinity(pid, {min(os.sched_getaffinity(pid))})
    yield "sched_setparam", lambda: call(SETPARAM, pid, ctypes.byref(zero))
    yield "sched_setattr", lambda: call(SETATTR, pid, attributes, 0)
    yield "sched_setscheduler", lambda: call(SETSCHEDULER, pid, 3, ctypes.byref(zero))
    yield "oom_score_adj", lambda: write(f"/proc/{pid}/oom_score_adj", "900")
    yield "clear_refs", lambda: write(f"/proc/{pid}/clear_refs", "1")
    yield "coredump_filter", lambda: write(f"/proc/{pid}/coredump_filter", "0x7f")
    yield "F_SETOWN", lambda: tell(pid, lambda sock, owner: fcntl.fcntl(sock, fcntl.F_SETOWN, owner))
    yield (
        "F_SETOWN of a group",
        lambda: tell(group, lambda s, owner: fcntl.fcntl(s, fcntl.F_SETOWN, owner), True),
    )
    yield "F_SETOWN_EX", lambda: tell(pid, setown_ex)
    yield "FIOSETOWN", lambda: tell(pid, ioctl(FIOSETOWN))
    yield "SIOCSPGRP", lambda: tell(pid, ioctl(SIOCSPGRP))


def show(name, pid):
    for way, action in ways(pid):
        try:
            action()
        except OSError as problem:
            print(f"{name} {way}\t{errno.errorcode[problem.errno]}")
        else:
            print(f"{name} {way}\tok")


signal.signal(signal.SIGIO, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    print("", flush=True)
    time.sleep(600)
time.sleep(0.2)
show("child", child)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
for word in sys.argv[1:]:
    show(word, os.getppid() if word == "parent" else int(word))
