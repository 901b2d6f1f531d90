"""File calls whose results must be the same bare and behind a policy that allows them; one section a run.

Usage: unchanged.py SECTION, in an empty directory. Prints "NAME: RESULT" lines, without a number that differs
from run to run. With privilege, sections change user in children.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pty
import resource
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable

NOBODY, OTHER = 65534, 65533
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
OPENAT2 = 437
CLONE_FS = 0x200


def show(name: str, action: Callable[..., object], *arguments: object, **options: object) -> None:
    """Print what an action gives; descriptors are closed."""
    try:
        result = action(*arguments, **options)
    except OSError as error:
        result = errno.errorcode[error.errno or 0]
    if isinstance(result, int) and not isinstance(result, bool):
        os.close(result)
        result = "open"
    print(f"{name}: {result}", flush=True)


def as_user(user: int, action: Callable[[], None]) -> None:
    """Do something as another user, in a child."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        action()
        os._exit(0)
    print(f"child: {os.waitpid(child, 0)[1]}", flush=True)


def put(name: str, content: str = "content", mode: int = 0o644) -> None:
    with open(name, "w") as file:
        file.write(content)
    os.chmod(name, mode)


def contents(name: str) -> str:
    with open(name) as file:
        return file.read()


def look(name: str) -> None:
    def found() -> str:
        st = os.lstat(name)
        lists = [
            os.getxattr(name, key, follow_symlinks=False).hex()
            for key in sorted(os.listxattr(name, follow_symlinks=False))
            if "acl" in key
        ]
        size = st.st_size if stat.S_ISREG(st.st_mode) else ""
        return f"{st.st_mode:o} {st.st_uid} {st.st_gid} {st.st_nlink} {size} {lists}"

    show(f"{name} is", found)


def defaults() -> None:
    """Default access control lists and set-group-id directories decide modes and groups."""
    # u::rwx g::r-x o::--- u:65533:rw- m::rwx (posix_acl_xattr.h)
    entries = [(1, 7, -1), (2, 6, OTHER), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
    packed = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, who & 0xFFFFFFFF) for tag, rights, who in entries
    )
    os.mkdir("acl")
    show("set", os.setxattr, "acl", "system.posix_acl_default", packed)
    os.mkdir("group", 0o2775)
    if os.getuid() == 0:
        os.chown("group", 0, OTHER)
        os.chmod("group", 0o2775)
    for mask in (0o077, 0o002, 0):
        os.umask(mask)
        for where in ("acl", "group", "."):
            for mode in (0o666, 0o777, 0o600):
                name = f"{where}/{mask:o}-{mode:o}"
                show("open", os.open, name + "f", os.O_CREAT | os.O_WRONLY, mode)
                show("mkdir", os.mkdir, name + "d", mode)
                show("fifo", os.mkfifo, name + "p", mode)
                show("node", os.mknod, name + "n", mode | stat.S_IFREG)
                show("link", os.symlink, "x", name + "l")
                fd = os.open(where, os.O_TMPFILE | os.O_RDWR, mode)
                show("linked", os.link, f"/proc/self/fd/{fd}", name + "t", src_dir_fd=fd)
                os.close(fd)
                for kind in "fdpnlt":
                    look(name + kind)
    os.umask(0o022)


def opened_flags(path: str, flags: int) -> str:
    """Open, and say which flags the file and its descriptor have."""
    fd = os.open(path, flags, 0o600)
    said = f"{fcntl.fcntl(fd, fcntl.F_GETFL):o} {fcntl.fcntl(fd, fcntl.F_GETFD)}"
    os.close(fd)
    return said


def flags() -> None:
    """Flags of an open arrive as asked, and what they forbid is forbidden."""
    put("file", "x" * 8192)
    for name in (
        "DIRECT",
        "NOATIME",
        "SYNC",
        "DSYNC",
        "ASYNC",
        "APPEND",
        "NONBLOCK",
        "NOCTTY",
        "LARGEFILE",
        "CLOEXEC",
    ):
        for base in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_TMPFILE):
            for where in ("." if base & os.O_DIRECTORY else "file", "/dev/null", f"new-{name}-{base:o}"):
                show(f"{name} {base:o} {where}", opened_flags, where, base | getattr(os, f"O_{name}"))

    def direct() -> str:
        fd = os.open("file", os.O_RDONLY | os.O_DIRECT)
        with mmap.mmap(-1, 4096) as room:
            return f"{os.readv(fd, [room])} {room[:3]!r}"

    show("direct read", direct)
    if os.getuid() == 0:

        def strangers() -> None:
            show("another's, O_NOATIME", os.open, "file", os.O_RDONLY | os.O_NOATIME)
            show("another's", os.open, "file", os.O_RDONLY)
            show("another's, to write", os.open, "file", os.O_WRONLY)
            show("another's, to truncate", os.open, "file", os.O_RDONLY | os.O_TRUNC)

        as_user(NOBODY, strangers)
    atime = os.stat("file").st_atime_ns
    os.utime("file", ns=(1, 2))
    os.close(os.open("file", os.O_RDONLY | os.O_NOATIME))
    show("times stay", lambda: f"{os.stat('file').st_atime_ns} {atime > 0}")


def openat2(directory: int, name: str, flags: int, resolve: int) -> int:
    how = struct.pack("=QQQ", flags, 0o600 if flags & os.O_CREAT else 0, resolve)
    while True:
        fd = libc.syscall(OPENAT2, directory, os.fsencode(name), how, len(how))
        if fd >= 0:
            return int(fd)
        # Somebody anywhere renamed something while ".." was followed: to be tried again (openat2(2)).
        if ctypes.get_errno() != errno.EAGAIN:
            raise OSError(ctypes.get_errno(), "")


def resolving() -> None:
    """openat2 with flags for the way: creating, through links, with a slash behind."""
    for name in ("dir", "dir/deep"):
        os.mkdir(name)
    put("file"), put("dir/inner")
    here = os.getcwd()
    os.symlink(f"{here}/file", "absolute")
    os.symlink("../file", "dir/up")
    os.symlink("/inner", "dir/rooted")
    os.symlink("deep", "dir/link")
    os.symlink("new-through-link", "dir/dangling")
    names = [
        "inner",
        "deep",
        "link",
        "link/",
        "deep/",
        "inner/",
        "up",
        "rooted",
        "dangling",
        ".",
        "..",
        "../dir/inner",
        "/inner",
        "/",
        "deep/../inner",
        "missing",
        "missing/x",
        "deep/new",
        "",
        "deep/../../file",
        "//inner",
    ]
    directory = os.open("dir", os.O_PATH)
    for resolve in (0, 1, 2, 4, 8, 16, 4 | 8, 4 | 16, 8 | 16, 1 | 8, 64):
        for flags in (
            os.O_RDONLY,
            os.O_RDWR | os.O_CREAT,
            os.O_RDONLY | os.O_NOFOLLOW,
            os.O_RDONLY | os.O_DIRECTORY,
            os.O_RDWR | os.O_CREAT | os.O_EXCL,
        ):
            for name in names:
                leaves = name.startswith(("/i", "//", "rooted")) and not resolve & (8 | 16)
                if leaves and flags & os.O_CREAT:
                    continue  # that is outside of the directory
                show(f"{resolve} {flags:o} {name!r}", openat2, directory, name, flags, resolve)
                for made in ("dir/missing", "dir/deep/new", "dir/new-through-link", "new-through-link"):
                    if os.path.lexists(made):
                        os.unlink(made)
                        print("made", made)


def scarce() -> None:
    """Which error comes first where there is no descriptor left; and nothing is made."""
    put("file")
    os.mkdir("dir")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = os.open("/dev/null", os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    for name in ("file", "missing", "missing/x", "file/x", "dir", "", "n" * 300, "n" * 5000, "file/", "loop"):
        for flags in (
            os.O_RDONLY,
            os.O_RDWR | os.O_CREAT,
            os.O_RDONLY | os.O_CREAT | os.O_EXCL,
            os.O_RDWR | os.O_TMPFILE,
            os.O_WRONLY | os.O_TRUNC,
            os.O_RDONLY | os.O_TMPFILE,
            os.O_PATH,
        ):
            show(f"{name[:9]} {len(name)} {flags:o}", os.open, name, flags, 0o600)
    show(
        "bad address",
        lambda: (
            libc.syscall(2 if os.uname().machine == "x86_64" else 56, 8, 0, 0)
            and errno.errorcode[ctypes.get_errno()]
        ),
    )
    os.close(last)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    show("left", sorted, os.listdir("."))
    show("size", str, os.stat("file").st_size)


def threads() -> None:
    """Working directory and umask of a thread that shares neither with the others."""
    for name in ("one", "two"):
        os.mkdir(name)
        put(f"{name}/file", name)

    def apart() -> None:
        show("unshare", lambda: libc.unshare(CLONE_FS) and errno.errorcode[ctypes.get_errno()])
        os.chdir("one")
        os.umask(0o077)
        ready.wait(), ready.wait()
        show("thread reads", contents, "file")
        show("thread makes", os.open, "made", os.O_CREAT | os.O_WRONLY, 0o666)
        show("thread by self", contents, "/proc/thread-self/cwd/file")
        show("the process by self", contents, "/proc/self/cwd/file")
        show("thread renames", os.rename, "made", "moved")
        look("moved")

    ready = threading.Barrier(2)
    thread = threading.Thread(target=apart)
    thread.start()
    ready.wait()
    os.chdir("two")
    ready.wait()
    thread.join()
    show("process reads", contents, "file")
    show("process makes", os.open, "made", os.O_CREAT | os.O_WRONLY, 0o666)
    look("made")
    show("process by thread-self", contents, "/proc/thread-self/cwd/file")


def magic() -> None:
    """What descriptors are called, /dev/fd, /dev/stdin, /proc/self/fd: opened, made, renamed, removed."""
    put("file", "file\n")
    os.mkdir("dir")
    fds = {
        "file": os.open("file", os.O_RDWR),
        "write only": os.open("file", os.O_WRONLY),
        "read only": os.open("file", os.O_RDONLY),
        "path": os.open("file", os.O_PATH),
        "directory": os.open("dir", os.O_RDONLY),
        "memory": os.memfd_create("m"),
        "null": os.open("/dev/null", os.O_RDWR),
        "socket": socket.socket().detach(),
        "event": os.eventfd(0),
        "temporary": os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600),
    }
    fds["reader"], fds["writer"] = os.pipe()
    _, fds["slave"] = pty.openpty()
    os.close(os.open("deleted", os.O_CREAT | os.O_RDWR, 0o600))
    fds["deleted"] = os.open("deleted", os.O_RDWR)
    os.unlink("deleted")
    kinds = (
        os.O_RDONLY,
        os.O_WRONLY,
        os.O_RDWR,
        os.O_RDONLY | os.O_CREAT,
        os.O_RDWR | os.O_CREAT | os.O_EXCL,
        os.O_RDWR | os.O_TRUNC,
        os.O_RDONLY | os.O_NOFOLLOW,
        os.O_RDONLY | os.O_DIRECTORY,
        os.O_WRONLY | os.O_APPEND,
    )
    for kind, fd in fds.items():
        for prefix in ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd", f"/proc/{os.getpid()}/fd"):
            for flags in kinds:
                shown = prefix.replace(str(os.getpid()), "PID")
                show(
                    f"{kind} {shown} {flags:o}",
                    os.open,
                    f"{prefix}/{fd}",
                    flags | os.O_NONBLOCK,
                    0o600,
                )
        name = f"/dev/fd/{fd}"
        if kind not in ("null", "slave"):
            show(f"{kind} chmod", os.chmod, name, 0o640)
        show(f"{kind} truncate", os.truncate, name, 0)
        show(f"{kind} unlink", os.unlink, name)
        show(f"{kind} rename", os.rename, name, "renamed")
        show(f"{kind} rename to", os.rename, "file", name)
        show(f"{kind} link", os.link, name, f"linked-{kind}", src_dir_fd=fds["directory"])
        show(f"{kind} mkdir", os.mkdir, name)
        show(f"{kind} beneath", os.open, name + "/x", os.O_RDONLY)
        show(f"{kind} slash", os.open, name + "/", os.O_RDONLY)
    for name in (
        "/dev/fd/999",
        "/dev/fd/-1",
        "/dev/fd/x",
        "/dev/fd/00",
        "/proc/self/fd/999",
        "/dev/fd/",
        "/dev/fd",
        "/proc/self/fdinfo/0",
        "/proc/self/fdinfo/999",
        "/proc/self/exe",
        "/proc/self/maps",
        "/proc/self/task",
    ):
        show(name, os.open, name, os.O_RDONLY)
        if "exe" not in name:
            show(name + " made", os.open, name, os.O_RDWR | os.O_CREAT, 0o600)
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        kept = os.dup(number)
        for kind in ("file", "reader", "writer", "socket", "slave", "null", "directory", "memory", "deleted"):
            os.dup2(fds[kind], number)
            results = []
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
                try:
                    os.close(os.open(f"/dev/{name}", flags | os.O_NONBLOCK | os.O_NOCTTY))
                    results.append("open")
                except OSError as error:
                    results.append(errno.errorcode[error.errno])
            os.close(number)
            try:
                os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
                results.append("open")
            except OSError as error:
                results.append(errno.errorcode[error.errno])
            os.dup2(kept, number)
            print(name, kind, results, flush=True)
        os.close(kept)
    one = os.open("file", os.O_RDONLY)
    os.read(one, 2)
    show("a place of its own", str, os.lseek(os.open(f"/dev/fd/{one}", os.O_RDONLY), 0, 1))


def terminal() -> None:
    """The terminal of a session, which one without a terminal has not."""
    child = os.fork()
    if child == 0:
        os.setsid()
        show("none", os.open, "/dev/tty", os.O_RDWR)
        show("none, made", os.open, "/dev/tty", os.O_RDWR | os.O_CREAT, 0o600)
        show("none, path", os.open, "/dev/tty", os.O_PATH)
        master, slave = pty.openpty()
        name = os.ttyname(slave)
        show("slave by name", os.open, name, os.O_RDWR | os.O_NOCTTY)
        show("slave by descriptor", os.open, f"/proc/self/fd/{slave}", os.O_RDWR | os.O_NOCTTY)
        show("peer", fcntl.ioctl, master, 0x5441, os.O_RDWR | os.O_NOCTTY)
        show("console", lambda: os.open("/dev/console", os.O_RDWR | os.O_NOCTTY) and "some")
        fcntl.ioctl(slave, 0x540E, 0)
        tty = os.open("/dev/tty", os.O_RDWR)
        os.write(tty, b"through\n")
        show("read", os.read, master, 20)
        show("is a terminal", str, os.isatty(tty))
        show("its group", str, os.tcgetpgrp(tty) == os.getpgrp())
        show("listed", str, os.path.basename(name) in os.listdir("/dev/pts"))
        os.close(slave)
        os._exit(0)
    print(f"child: {os.waitpid(child, 0)[1]}")
    for name in ("/dev/ptmx", "/dev/pts/ptmx"):
        show(name, os.open, name, os.O_RDWR | os.O_NOCTTY)


def sticky() -> None:
    """Directories in which everybody makes files, and what the kernel keeps there from each other."""
    if os.getuid() != 0:
        print("needs root")
        return
    os.chmod(".", 0o755)
    for directory, mode in (("sticky", 0o1777), ("grouped", 0o1775), ("open", 0o777)):
        os.mkdir(directory)
        for owner in (0, NOBODY, OTHER):
            place = f"{directory}/{owner}"
            put(place, mode=0o666)
            os.mkfifo(place + "p")
            os.chmod(place + "p", 0o666)
            os.symlink("../target", place + "l")
            os.symlink("/dev/null", place + "n")
            os.symlink(str(owner), place + "s")
            os.mkdir(place + "d", 0o777)
            for kind in ("", "p", "d"):
                os.chown(place + kind, owner, owner)
            for kind in "lns":
                os.lchown(place + kind, owner, owner)
        os.chmod(directory, mode)
        os.chown(directory, 0, NOBODY)
    put("target", mode=0o666)
    put("private", mode=0o600)
    put("readable", mode=0o644)

    def act() -> None:
        made = 0
        for directory in ("sticky", "grouped", "open"):
            for owner in (0, NOBODY, OTHER):
                place = f"{directory}/{owner}"
                for flags in (
                    os.O_RDONLY,
                    os.O_RDWR,
                    os.O_RDWR | os.O_CREAT,
                    os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
                    os.O_RDONLY | os.O_CREAT,
                    os.O_RDWR | os.O_CREAT | os.O_EXCL,
                ):
                    for kind in ("", "p", "l", "n", "s"):
                        show(
                            f"{place}{kind} {flags:o}",
                            os.open,
                            place + kind,
                            flags | os.O_NONBLOCK,
                            0o600,
                        )
                show(f"{place}l beneath", os.open, place + "l/x", os.O_RDONLY)
                show(f"{place}s chmod", os.chmod, place + "s", 0o666)
                show(f"{place}l truncate", os.truncate, place + "l", 0)
                show(f"{place}l link", os.link, place + "l", f"{directory}/via{owner}", src_dir_fd=3)
                made += 1
                show(f"{place} link", os.link, place, f"{directory}/new{made}")
                show(f"{place} rename", os.rename, place, f"{directory}/renamed{owner}")
                show(f"{place} back", os.rename, f"{directory}/renamed{owner}", place)
                show(f"{place} rename over", os.rename, f"{directory}/{NOBODY}p", place + "p")
                show(f"{place} utime", os.utime, place)
                show(f"{place} utime to", os.utime, place, (1, 1))
                show(f"{place} chmod", os.chmod, place, 0o666)
                show(f"{place} rmdir", os.rmdir, place + "d")
                show(f"{place} unlink l", os.unlink, place + "l")
                show(f"{place} unlink", os.unlink, place)
        for name in ("private", "readable", "target", "open"):
            show(f"link {name}", os.link, name, f"open/{name}")
        show("made", os.open, "new", os.O_CREAT | os.O_RDWR, 0o600)
        show("made in a sticky one", os.open, "sticky/new", os.O_CREAT | os.O_RDWR, 0o600)

    os.close(os.open(".", os.O_RDONLY))
    for user in (NOBODY, OTHER):
        as_user(user, act)


def read_only() -> None:
    """A file system that is mounted read-only, as ``ro``: which error comes first."""
    names = (
        "file",
        "dir",
        "missing",
        "link",
        "dangling",
        "file/x",
        "missing/x",
        "dir/",
        "file/",
        "missing/",
        ".",
        "..",
    )
    for name in names:
        path = f"ro/{name}"
        for flags in (
            os.O_RDONLY,
            os.O_RDWR,
            os.O_WRONLY | os.O_TRUNC,
            os.O_RDONLY | os.O_TRUNC,
            os.O_RDWR | os.O_CREAT,
            os.O_RDONLY | os.O_CREAT,
            os.O_RDWR | os.O_CREAT | os.O_EXCL,
            os.O_RDWR | os.O_TMPFILE,
        ):
            show(f"{name} {flags:o}", os.open, path, flags, 0o600)
        for made in (os.mkdir, os.unlink, os.rmdir, os.mkfifo):
            show(f"{name} {made.__name__}", made, path)
        show(f"{name} rename", os.rename, path, "ro/new")
        show(f"{name} rename to", os.rename, "ro/file", path)
        show(f"{name} rename out", os.rename, path, "out")
        show(f"{name} rename in", os.rename, "in", path)
        show(f"{name} link", os.link, path, "ro/new")
        show(f"{name} link to", os.link, "ro/file", path)
        show(f"{name} symlink", os.symlink, "x", path)
        show(f"{name} chmod", os.chmod, path, 0o600)
        show(f"{name} chown", os.chown, path, 0, 0)
        show(f"{name} utime", os.utime, path)
        show(f"{name} truncate", os.truncate, path, 0)
        show(f"{name} setxattr", os.setxattr, path, "user.x", b"y")
        show(f"{name} removexattr", os.removexattr, path, "user.x")
    fd = os.open("ro/file", os.O_RDONLY)
    show("fchmod", os.fchmod, fd, 0o600)
    show("futimens", os.utime, fd)
    show("fsetxattr", os.setxattr, fd, "user.x", b"y")


SECTIONS: dict[str, Callable[[], None]] = {
    "defaults": defaults,
    "flags": flags,
    "resolving": resolving,
    "scarce": scarce,
    "threads": threads,
    "magic": magic,
    "terminal": terminal,
    "sticky": sticky,
    "read_only": read_only,
}

if __name__ == "__main__":
    os.umask(0o022)
    SECTIONS[sys.argv[1]]()
