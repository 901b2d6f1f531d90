"""Set and remove extended attributes in every way there is, and print what came of it as JSON.

In the current directory: "file" and "directory" have attributes, "link" leads to the file, "broken" nowhere.
Raw calls, so that sizes, addresses and flags are those given. An answer is "ok" or the name of the errno; at
the end stands what attributes there are.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os

SETXATTR, LSETXATTR, FSETXATTR, REMOVEXATTR, LREMOVEXATTR, FREMOVEXATTR = {
    "x86_64": (188, 189, 190, 197, 198, 199),
    "aarch64": (5, 6, 7, 14, 15, 16),
}[os.uname().machine]
FCHMODAT2 = 452
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
answers: dict[str, str] = {}


def call(name: str, number: int, *arguments: bytes | int) -> None:
    given = [ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *given)
    answers[name] = "ok" if result == 0 else errno.errorcode.get(ctypes.get_errno(), str(result))


def both(kind: str, path: bytes | int, name: bytes | int, value: bytes | int, size: int, flags: int) -> None:
    """Set by path, remove, and set again without following a link."""
    call(f"set {kind}", SETXATTR, path, name, value, size, flags)
    call(f"set the link's {kind}", LSETXATTR, path, name, value, size, flags)
    call(f"remove the link's {kind}", LREMOVEXATTR, path, name)
    call(f"remove {kind}", REMOVEXATTR, path, name)


for path in (
    *(b"file", b"./file", b"directory/../file", b"directory", b"link", b"broken", b"missing", b"missing/x"),
    *(b"file/", b"link/", b"directory/", b"", b".", b"file/x", b"/proc/self/cwd/file", b"n" * 256),
):
    both(f"of {path[:20].decode()}", path, b"user.two", b"value", 5, 0)
for name in (
    *(b"user.x", b"user.", b"one", b"", b"user." + b"x" * 250, b"user." + b"x" * 251, b"x" * 5000),
    *(b"trusted.one", b"security.two", b"system.posix_acl_access", b"system.x", b"user.\xff"),
):
    both(f"attribute {name[:12].decode('latin-1')} {len(name)}", b"file", name, b"value", 5, 0)
for size in (0, 1, 1000, 65535, 65536, 65537, 2**31, 2**63 - 1):
    both(f"with {size} bytes", b"file", b"user.sized", b"v" * min(size, 70000), size, 0)
    both(f"with {size} bytes of a missing file", b"missing", b"user.sized", b"v" * min(size, 70000), size, 0)
for flags in (1, 2, 3):
    for name in (b"user.one", b"user.new"):
        both(f"{name.decode()} with flags {flags}", b"file", name, b"value", 5, flags)
for flags in (4, -1, 1 << 31):
    both(f"with the flags {flags}", b"file", b"user.one", b"value", 5, flags)
call("again", SETXATTR, b"file", b"user.one", b"value", 5, 0)
both("with an unreadable path", 8, b"user.one", b"value", 5, 0)
both("with an unreadable name", b"file", 8, b"value", 5, 0)
both("with an unreadable value", b"file", b"user.one", 8, 5, 0)
both("with no value", b"file", b"user.one", 0, 0, 0)
page = mmap.mmap(-1, mmap.PAGESIZE * 2)
start = ctypes.addressof(ctypes.c_char.from_buffer(page))
libc.munmap(ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE))
both("with a value that ends before its end", b"file", b"user.one", start + mmap.PAGESIZE - 2, 5, 0)
both("with a value at the end", b"file", b"user.edge", start + mmap.PAGESIZE - 5, 5, 0)
for kind, opening in (
    *(("read", os.O_RDONLY), ("written", os.O_WRONLY), ("both", os.O_RDWR), ("pinned", os.O_PATH)),
    ("a directory", os.O_RDONLY | os.O_DIRECTORY),
):
    fd = os.open("directory" if opening & os.O_DIRECTORY else "file", opening)
    call(f"set, open as {kind}", FSETXATTR, fd, b"user.fd", b"value", 5, 0)
    call(f"set, open as {kind}, with 65537 bytes", FSETXATTR, fd, b"user.fd", b"v" * 65537, 65537, 0)
    call(f"replace, open as {kind}", FSETXATTR, fd, b"user.fd", b"other", 5, 2)
    call(f"remove, open as {kind}", FREMOVEXATTR, fd, b"user.fd")
    call(f"remove again, open as {kind}", FREMOVEXATTR, fd, b"user.fd")
    call(f"set, open as {kind}, no name", FSETXATTR, fd, b"", b"value", 5, 0)
    both(f"by its descriptor, open as {kind}", b"/proc/self/fd/%d" % fd, b"user.magic", b"value", 5, 0)
    os.close(fd)
for fd in (999, -1, os.pipe()[0], os.memfd_create("memory")):
    call(f"set of {fd}", FSETXATTR, fd, b"user.one", b"value", 5, 0)
    call(f"remove of {fd}", FREMOVEXATTR, fd, b"user.one")
gone = os.open("gone", os.O_RDWR | os.O_CREAT)
os.unlink("gone")
call("set of a deleted file", FSETXATTR, gone, b"user.one", b"value", 5, 0)
call("remove of a deleted file", FREMOVEXATTR, gone, b"user.one")
for number, flags in enumerate((0, 0x100, 0x1000, 0x1100, 0x400, 1)):
    for path in (b"file", b"link", b"directory", b"broken", b"missing", b"file/", b""):
        call(f"mode of {path.decode()} with {flags:#x}", FCHMODAT2, -100, path, 0o700 + number, flags)
answers["left"] = str(
    {
        (path, name): os.getxattr(path, name, follow_symlinks=False)
        for path in ("file", "directory", "link")
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if name != "user.long"
    }
)
answers["modes"] = str([oct(os.lstat(path).st_mode) for path in ("file", "directory", "link")])
print(json.dumps(answers), flush=True)
os._exit(0)
