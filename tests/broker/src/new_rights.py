"""Make calls, give up rights in one of several ways, and make calls again: what they give is printed.

Arguments: the way, a file of root alone, a file of group 1234, a directory that everybody may write.
"""

import ctypes
import errno
import json
import os
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
way, private, shared, common = sys.argv[1:5]
NOBODY = 65534
SETRESUID, SETRESGID, SETFSUID, SETFSGID, SETGROUPS, CAPSET = 117, 119, 122, 123, 116, 126
OVERRIDES = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def system_call(number, *args):
    """Of this thread alone; C libraries do it for all of them."""
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "syscall")


def opened(path, flags=os.O_RDONLY):
    try:
        os.close(os.open(path, flags))
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]


def seen(name):
    """What it may open, and whose files it makes."""
    found = [opened(private), opened(private, os.O_WRONLY), opened(shared)]
    for turn in range(4):  # whichever thread of the broker answers
        path = os.path.join(common, f"{name}.{turn}")
        made = opened(path, os.O_WRONLY | os.O_CREAT)
        about = os.stat(path) if made == "ok" else None
        found.append([made, about and about.st_uid, about and about.st_gid])
        found.append(opened(private))
    return found


def without(capabilities):
    """capset(2) of what it has but these, which are among the lower 32."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for index in range(3):
        data[index] &= ~capabilities
    if libc.capset(header, data) < 0:
        raise OSError(ctypes.get_errno(), "capset")


def setresuid():
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def effective():
    os.setegid(NOBODY)
    os.seteuid(NOBODY)


def setfsuid():
    libc.setfsgid(NOBODY)
    libc.setfsuid(NOBODY)


def capset():
    without(OVERRIDES)


def setgroups():
    without(OVERRIDES)
    os.setgroups([1234])
    print(json.dumps([opened(shared), opened(shared)]))
    os.setgroups([])


def bounding():
    for number in (1, 2):
        libc.prctl(24, number, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", __file__, "nothing", private, shared, common])


def one_thread():
    """Of two threads one gives up, and both make calls in turn."""
    turns = [threading.Event() for _ in range(4)]
    found = []

    def other():
        found.append(seen("thread-before"))
        system_call(SETRESGID, NOBODY, NOBODY, NOBODY)
        system_call(SETRESUID, NOBODY, NOBODY, NOBODY)
        found.append(seen("thread-after"))
        turns[0].set()
        turns[1].wait()
        found.append(seen("thread-again"))

    thread = threading.Thread(target=other)
    thread.start()
    turns[0].wait()
    found.append(seen("main"))
    turns[1].set()
    thread.join()
    print(json.dumps(found))


def there_and_back():
    for turn in range(8):
        os.setresgid(-1, NOBODY, 0)
        os.setresuid(-1, NOBODY, 0)
        print(json.dumps(seen(f"low{turn}")))
        os.setresuid(-1, 0, 0)
        os.setresgid(-1, 0, 0)
        print(json.dumps(seen(f"high{turn}")))


def umask():
    """Another thread changes what is everybody's."""
    wanted, done = threading.Event(), threading.Event()
    masks = [0o000, 0o077, 0o027, 0o777, 0o022] * 6
    found = []

    def change():
        for mask in masks:
            wanted.wait()
            wanted.clear()
            os.umask(mask)
            done.set()

    thread = threading.Thread(target=change)
    thread.start()
    for turn, _ in enumerate(masks):
        wanted.set()
        done.wait()
        done.clear()
        path = os.path.join(common, f"umask{turn}")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o777))
        os.mkdir(path + ".d", 0o777)
        found.append([oct(os.stat(path).st_mode), oct(os.stat(path + ".d").st_mode)])
    thread.join()
    print(json.dumps(found))


def nothing():
    pass


os.umask(0)
print(json.dumps(seen("before")), flush=True)
globals()[way]()
print(json.dumps(seen("after")))
