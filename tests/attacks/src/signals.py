"""signals.py VICTIM HARNESS: try every way to signal a process; print "WAY<tab>RESULT".

A child of this program comes first: there everything must work. SIGTERM comes last.
"""

import ctypes
import errno
import os
import platform
import signal
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {"tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297},
    "aarch64": {"tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240},
}[platform.machine()]


def call(name, *arguments):
    if libc.syscall(NUMBERS[name], *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def information(signo):
    """A siginfo_t as sigqueue(3) fills it."""
    content = (ctypes.c_int * 32)()
    content[0], content[2] = signo, -1
    content[4], content[5] = os.getpid(), os.getuid()
    return content


def through_pidfd(pid, signo):
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signo)
    finally:
        os.close(descriptor)


def show(name, action):
    try:
        action()
    except OSError as problem:
        print(f"{name}\t{errno.errorcode[problem.errno]}")
    else:
        print(f"{name}\tok")


def signals(prefix, pid, signo):
    show(f"{prefix}kill {signo}", lambda: os.kill(pid, signo))
    show(f"{prefix}tkill {signo}", lambda: call("tkill", pid, signo))
    show(f"{prefix}tgkill {signo}", lambda: call("tgkill", pid, pid, signo))
    show(f"{prefix}queue {signo}", lambda: call("rt_sigqueueinfo", pid, signo, information(signo)))
    show(f"{prefix}tgqueue {signo}", lambda: call("rt_tgsigqueueinfo", pid, pid, signo, information(signo)))
    show(f"{prefix}pidfd {signo}", lambda: through_pidfd(pid, signo))


victim, harness = int(sys.argv[1]), int(sys.argv[2])
child = os.fork()
if child == 0:
    time.sleep(600)
signals("child ", child, 0)
signals("child ", child, signal.SIGCONT.value)
show("child group", lambda: os.killpg(os.getpgid(child), 0))

for name, pid in (("victim ", victim), ("harness ", harness)):
    signals(name, pid, 0)
    signals(name, pid, signal.SIGCONT.value)

os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
show("kill", lambda: os.kill(victim, signal.SIGTERM))
