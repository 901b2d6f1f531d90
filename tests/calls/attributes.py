"""Read extended attributes in every way there is, and print what came of it as JSON.

In the current directory: "file" and "directory" have attributes, "link" leads to the file, "broken" nowhere.
Raw calls, so that sizes and addresses are those given. An answer is the result with what was written, or the
name of the errno.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os

GETXATTR, LGETXATTR, FGETXATTR, LISTXATTR, LLISTXATTR, FLISTXATTR = {
    "x86_64": range(191, 197),
    "aarch64": range(8, 14),
}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
answers: dict[str, object] = {}


def call(
    name: str, number: int, where: bytes | int, *rest: object, size: int, room: int | None = None
) -> None:
    """Make a call with a buffer of ``room`` bytes, of which ``size`` are told; none if room is 0."""
    buffer = ctypes.create_string_buffer(b"?" * 32, 70000)
    address = 8 if room == 0 else ctypes.addressof(buffer)
    place = ctypes.c_char_p(where) if isinstance(where, bytes) else ctypes.c_long(where)
    ctypes.set_errno(0)
    result = libc.syscall(
        ctypes.c_long(number), place, *rest, ctypes.c_void_p(address), ctypes.c_size_t(size)
    )
    if result < 0:
        answers[name] = errno.errorcode[ctypes.get_errno()]
    else:
        written = buffer.raw[: max(result, 8)]
        # The order in which names are listed is the file system's own.
        answers[name] = (result, sorted(written.decode("latin-1").split("\0")))


def both(kind: str, path: bytes, size: int = 100, name: bytes = b"user.one") -> None:
    for which, number in (("", GETXATTR), ("l", LGETXATTR)):
        call(f"{which}get {kind}", number, path, name, size=size)


for path in (
    b"file",
    b"directory",
    b"link",
    b"broken",
    b"missing",
    b"file/",
    b"link/",
    b"",
    b"directory/",
    b".",
):
    both(f"of {path.decode()}", path)
    call(f"list of {path.decode()}", LISTXATTR, path, size=100)
    call(f"llist of {path.decode()}", LLISTXATTR, path, size=100)
for size in (0, 2, 3, 4, 65535, 65536, 65537, 2**31, 2**63):
    both(f"with room for {size}", b"file", size)
    both(f"of the long one with room for {size}", b"file", size, b"user.long")
    call(f"list with room for {size}", LISTXATTR, b"file", size=size)
for attribute in (
    b"user.none",
    b"one",
    b"",
    b"user.",
    b"user." + b"x" * 250,
    b"user." + b"x" * 251,
    b"x" * 5000,
):
    both(f"the attribute {attribute[:12].decode()} {len(attribute)}", b"file", name=attribute)
for attribute in (b"trusted.one", b"security.one", b"system.posix_acl_access", b"security.selinux"):
    both(f"{attribute.decode()} of the file", b"file", name=attribute)
    both(f"{attribute.decode()} of the link", b"link", name=attribute)
call("get, nowhere to write", GETXATTR, b"file", b"user.one", size=100, room=0)
call("get, nowhere to write, length only", GETXATTR, b"file", b"user.one", size=0, room=0)
call("get, nowhere to write, no such", GETXATTR, b"file", b"user.none", size=100, room=0)
call("list, nowhere to write", LISTXATTR, b"file", size=100, room=0)
call("get, unreadable path", GETXATTR, 8, b"user.one", size=100)
call("get, unreadable name", GETXATTR, b"file", ctypes.c_long(8), size=100)
call("get of a long path", GETXATTR, b"x/" * 3000, b"user.one", size=100)
for kind, flags in (
    ("read", os.O_RDONLY),
    ("written", os.O_WRONLY),
    ("both", os.O_RDWR),
    ("pinned", os.O_PATH),
):
    fd = os.open("file", flags)
    call(f"get, open for being {kind}", FGETXATTR, fd, b"user.one", size=100)
    call(f"list, open for being {kind}", FLISTXATTR, fd, size=100)
    call(f"length, open for being {kind}", FGETXATTR, fd, b"user.long", size=0)
    both(f"by its descriptor, open for being {kind}", b"/proc/self/fd/%d" % fd)
    os.close(fd)
call("get of no descriptor", FGETXATTR, 999, b"user.one", size=100)
call("get of a negative descriptor", FGETXATTR, -1, b"user.one", size=100)
fd = os.open("directory", os.O_RDONLY)
call("get of an open directory", FGETXATTR, fd, b"user.one", size=100)
reading, writing = os.pipe()
call("get of a pipe", FGETXATTR, reading, b"user.one", size=100)
call("list of a pipe", FLISTXATTR, writing, size=100)
memory = os.memfd_create("memory")
call("get of a memfd", FGETXATTR, memory, b"user.one", size=100)
gone = os.open("gone", os.O_RDWR | os.O_CREAT)
os.setxattr(gone, "user.one", b"one")
os.unlink("gone")
call("get of a deleted file", FGETXATTR, gone, b"user.one", size=100)
both("of a process", b"/proc/self")
both("of a process outside", b"/proc/1/status")
page = mmap.mmap(-1, mmap.PAGESIZE * 2)
start = ctypes.addressof(ctypes.c_char.from_buffer(page))
libc.munmap(ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE))
edge = ctypes.c_void_p(start + mmap.PAGESIZE - 2)
result = libc.syscall(ctypes.c_long(GETXATTR), b"file", b"user.one", edge, ctypes.c_size_t(100))
answers["get across the end of memory"] = (result, errno.errorcode.get(ctypes.get_errno()))
print(json.dumps(answers), flush=True)
os._exit(0)
