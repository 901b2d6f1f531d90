"""Make many kinds of calls, wrong ones included, in an empty directory, and print what each gave.

Nothing of what is printed depends on who watches: results, error names, numbers of descriptors, modes.
"""

import ctypes
import errno
import json
import os
import resource
import socket
import stat
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
READ, WRITE, CREATE = os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT
secret, port, closed_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.umask(0o022)
results = []


def note(name, call):
    try:
        value = call()
        if name.startswith("open"):
            about = os.fstat(value)
            value = [
                value,
                stat.filemode(about.st_mode),
                os.get_inheritable(value),
                os.lseek(value, 0, 1) if stat.S_ISREG(about.st_mode) else 0,
            ]
            os.close(value[0])
        results.append([name, value])
    except OSError as error:
        results.append([name, errno.errorcode[error.errno]])


def note_open(path, flags=READ, mode=0o666, **options):
    note(f"open {path[:60]!r} {flags:o}", lambda: os.open(path, flags, mode, **options))


def _raise(error):
    raise OSError(error, "raw")


def raw_open(path, flags, mode):
    """open(2) with whatever flags, which Python would not pass."""
    fd = libc.openat(-100, path, flags, mode)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "openat")
    return fd


os.mkdir("dir")
os.mkdir("dir/below")
with open("file", "w") as made:
    made.write("content")
os.symlink("file", "link")
os.symlink("dir", "dirlink")
os.symlink("nothing", "dangling")
os.symlink("loop", "loop")
os.symlink(secret, "to-secret")
os.mkfifo("fifo")
directory = os.open("dir", os.O_DIRECTORY)
here = os.open(".", os.O_DIRECTORY)
plain = os.open("file", READ)

# What exists, what does not, what is something else
for path in (
    "file",
    "./file",
    "dir",
    "dir/",
    "link",
    "dirlink",
    "dirlink/",
    "missing",
    "missing/",
    "file/",
    "file/x",
    "dir/missing/x",
    "loop",
    "loop/x",
    "dangling",
    "",
    "x" * 255,
    "x" * 256,
    "./" * 2100 + "file",
    secret,
    "to-secret",
    "dir/../file",
    "dir/below/../../file",
    os.path.abspath("file"),
    "//" + os.path.abspath("file"),
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/proc/self/status",
    "/proc/self/exe",
    "/proc/self/cwd",
    "/proc/self/cwd/file",
    "/proc/self/fd/" + str(plain),
    "/proc/thread-self/comm",
    "/proc/version",
):
    for flags in (
        READ,
        WRITE,
        os.O_RDWR,
        READ | os.O_DIRECTORY,
        READ | os.O_NOFOLLOW,
        READ | os.O_CLOEXEC,
        WRITE | os.O_APPEND,
    ):
        if not (path == "/dev/tty" or (path.startswith("/proc") and flags & 3)):
            note_open(path, flags)

# Creating
for path in (
    "new",
    "new",
    "file",
    "dir",
    "dir/",
    "missing/",
    "missing/new",
    "file/new",
    "link",
    "dangling",
    "loop",
    "dirlink/new",
    "x" * 256,
    secret,
    "to-secret",
    "",
    "/dev/null",
    "/proc/self/new",
):
    for flags in (CREATE, CREATE | os.O_EXCL, CREATE | os.O_NOFOLLOW, CREATE | os.O_TRUNC, READ | os.O_CREAT):
        note_open(path, flags, 0o640)
    for made in ("new", "nothing", "dir/new", secret + "-never"):
        note(f"remove {os.path.basename(made)}", lambda made=made: os.unlink(made))
for umask in (0, 0o27, 0o77, 0o777):
    os.umask(umask)
    for mode in (0, 0o600, 0o666, 0o777, 0o4755, 0o1777):
        note_open("by-mode", CREATE | os.O_EXCL, mode)
        note(f"mode {umask:o} {mode:o}", lambda: oct(os.stat("by-mode").st_mode))
        note("remove by-mode", lambda: os.unlink("by-mode"))
os.umask(0o022)
note("open O_TMPFILE", lambda: os.open(".", os.O_TMPFILE | os.O_RDWR))
note("open O_PATH", lambda: os.open("file", os.O_PATH))
note("open O_CREAT|O_DIRECTORY", lambda: raw_open(b"odd", os.O_CREAT | os.O_DIRECTORY, 0o644))
note("open 3", lambda: raw_open(b"file", 3, 0))
note("open unknown flags", lambda: raw_open(b"file", 0x40000000, 0))
note("open NULL", lambda: raw_open(None, 0, 0))
note("open wild", lambda: raw_open(ctypes.c_void_p(8), 0, 0))

# Relative to descriptors
for fd in (directory, here, plain, 900, -5):
    for path in ("below", "file", "../file", ".", os.path.abspath("file"), secret):
        note_open(path, READ, dir_fd=fd)
    note(f"mkdirat {fd}", lambda fd=fd: os.mkdir("made", dir_fd=fd))
    note(f"rmdirat {fd}", lambda fd=fd: os.rmdir("made", dir_fd=fd))

# Names
for path in (
    "sub",
    "sub",
    "sub/",
    "dir",
    "file",
    "file/x",
    "missing/x",
    "loop",
    "loop/x",
    "dangling",
    "",
    "x" * 256,
    ".",
    "..",
    "dir/.",
    secret,
    secret + "-directory",
    "/proc/self/x",
    "/",
):
    note(f"mkdir {path[:60]!r}", lambda path=path: os.mkdir(path, 0o750))
for path in (
    "sub",
    "sub",
    "dir",
    "file",
    "dirlink",
    "missing",
    "file/x",
    "loop",
    "",
    ".",
    "..",
    "dir/.",
    "x" * 256,
    "/",
    "/proc/self/fd",
):
    note(f"rmdir {path[:60]!r}", lambda path=path: os.rmdir(path))
for path in (
    "missing",
    "dir",
    "dir/",
    "dirlink/",
    "file/",
    "file/x",
    "loop/x",
    "",
    ".",
    "..",
    "x" * 256,
    secret,
    "to-secret",
    "dangling",
    "/proc/self/status",
    "/",
):
    note(f"unlink {path[:60]!r}", lambda path=path: os.unlink(path))
note("rename", lambda: os.rename("file", "file2"))
note("link", lambda: os.link("file2", "file"))
note("chmod", lambda: os.chmod("file", 0o600))

# What is said about a file: by path, by descriptor, of links, of what is none


def about(name):
    st = os.lstat(name)
    return [stat.filemode(st.st_mode), st.st_uid, st.st_gid, int(st.st_mtime), int(st.st_atime) % 1000]


open("told", "w").close()
os.symlink("told", "told-link")
os.mkdir("told-dir")
for name in ("told", "told-dir"):
    os.utime(name, (9, 9))
deleted = os.open("deleted", os.O_RDWR | os.O_CREAT)
os.unlink("deleted")
path_only = os.open("told", os.O_PATH)
told, told_dir = os.open("told", READ), os.open("told-dir", READ)
for name in (
    "told",
    "./told",
    "told-link",
    "told-dir",
    "told-dir/",
    "told/",
    "missing",
    "fifo",
    "dangling",
    "",
    secret,
    "to-secret",
    "/dev/null/x",
    "told-dir/../told",
    10**6,
    -1,
    told,
    told_dir,
    path_only,
    deleted,
):
    given = (
        str(name)
        if isinstance(name, str)
        else ["no", "negative", "file", "dir", "path", "deleted"][
            (10**6, -1, told, told_dir, path_only, deleted).index(name)
        ]
    )
    for mode in (0o640, 0o4755, 0o100600):
        note(f"chmod {given[:30]} {mode:o}", lambda name=name, mode=mode: os.chmod(name, mode))
    note(f"chown {given[:30]}", lambda name=name: os.chown(name, os.getuid(), os.getgid()))
    note(f"chown {given[:30]} -1", lambda name=name: os.chown(name, -1, -1))
    note(f"utime {given[:30]}", lambda name=name: os.utime(name, (1000, 2000)))
    note(f"utime {given[:30]} ns", lambda name=name: os.utime(name, ns=(5 * 10**9 + 7, 6 * 10**9 + 1)))
    if isinstance(name, str):
        note(f"lchown {given[:30]}", lambda name=name: os.lchown(name, os.getuid(), -1))
        note(f"lutime {given[:30]}", lambda name=name: os.utime(name, (1, 2), follow_symlinks=False))
        note(f"utime at {given[:30]}", lambda name=name: os.utime(name, (3, 4), dir_fd=here))
        note(f"chmod at {given[:30]}", lambda name=name: os.chmod(name, 0o600, dir_fd=here))
        note(f"chown at {given[:30]}", lambda name=name: os.chown(name, -1, os.getgid(), dir_fd=here))
    note("about told", lambda: about("told"))
    note("about told-link", lambda: about("told-link")[:3])
    note("about told-dir", lambda: about("told-dir"))
for arguments in (
    (here, None, None, 1),
    (-100, None, None, 0),
    (here, b"told", 1, 0),
    (here, b"told", None, 0x4000),
):
    note(
        f"utimensat {arguments[1:]}",
        lambda arguments=arguments: libc.utimensat(*arguments) and _raise(ctypes.get_errno()),
    )
note("truncate", lambda: os.truncate("file", 3))

# FIFOs, without anybody who waits
note_open("fifo", READ | os.O_NONBLOCK)
note_open("fifo", WRITE | os.O_NONBLOCK)
note_open("fifo", os.O_RDWR)
note_open("fifo", READ | os.O_DIRECTORY)
note_open("fifo", CREATE | os.O_EXCL)

# No descriptor left
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (here + 2, limits[1]))
for path in ("file", "missing", secret, "dir", "loop", "/dev/null"):
    note_open(path)
    note_open(path, CREATE)
    note_open(path, WRITE | os.O_TRUNC)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)

# No room
resource.setrlimit(resource.RLIMIT_FSIZE, (5, resource.RLIM_INFINITY))
note_open("file", WRITE | os.O_TRUNC)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


# Sockets
def with_socket(kind, family, action):
    with socket.socket(family, kind) as made:
        return action(made)


def connecting(address):
    def act(made):
        made.settimeout(5)
        made.connect(address)
        return list(made.getpeername()[:2]) if isinstance(address, tuple) else None

    return act


for target in (("127.0.0.1", port), ("127.0.0.1", closed_port), ("0.0.0.0", port), ("127.0.0.9", port)):
    note(
        f"connect {target[0]} {target[1] == port}",
        lambda target=target: with_socket(socket.SOCK_STREAM, socket.AF_INET, connecting(target)),
    )
    for payload in (b"", b"payload", b"x" * 70000):
        note(
            f"sendto {target[0]} {len(payload)}",
            lambda target=target, payload=payload: with_socket(
                socket.SOCK_DGRAM, socket.AF_INET, lambda made: made.sendto(payload, target)
            ),
        )
        note(
            f"sendmsg {target[0]} {len(payload)}",
            lambda target=target, payload=payload: with_socket(
                socket.SOCK_DGRAM,
                socket.AF_INET,
                lambda made: made.sendmsg([payload, b"more"], [], 0, target),
            ),
        )
note(
    "connect twice",
    lambda: with_socket(
        socket.SOCK_STREAM,
        socket.AF_INET,
        lambda made: (made.connect(("127.0.0.1", port)), made.connect(("127.0.0.1", port))),
    ),
)
note(
    "connect unix missing",
    lambda: with_socket(socket.SOCK_STREAM, socket.AF_UNIX, connecting("missing.sock")),
)
note("connect unix file", lambda: with_socket(socket.SOCK_STREAM, socket.AF_UNIX, connecting("file")))
note(
    "connect 6 by 4",
    lambda: with_socket(
        socket.SOCK_STREAM,
        socket.AF_INET6,
        lambda made: list((made.connect(("::ffff:127.0.0.1", port)), made.getpeername()[:2])[1]),
    ),
)
note("connect not a socket", lambda: libc.connect(plain, b"\2\0" + b"\0" * 14, 16) or ctypes.get_errno())
note("connect bad fd", lambda: (libc.connect(900, b"\2\0" + b"\0" * 14, 16), ctypes.get_errno())[1])
note("connect bad address", lambda: (libc.connect(900, ctypes.c_void_p(8), 16), ctypes.get_errno())[1])
note(
    "sendto stream",
    lambda: with_socket(
        socket.SOCK_STREAM, socket.AF_INET, lambda made: made.sendto(b"x", ("127.0.0.1", port))
    ),
)
ours, theirs = socket.socketpair()
note("sendmsg pair", lambda: ours.sendmsg([b"one", b"two"]))
note("recv pair", lambda: theirs.recv(100).decode())
note("sendmsg fds", lambda: socket.send_fds(ours, [b"x"], [plain]))
theirs.close()
note("sendmsg broken", lambda: ours.sendmsg([b"x"], [], socket.MSG_NOSIGNAL))


def second():
    for turn in range(20):
        with open("from-thread", "w"):
            pass
        os.unlink("from-thread")
        try:
            os.open(secret, READ)
        except OSError as error:
            results.append(["thread", turn, errno.errorcode[error.errno]])


thread = threading.Thread(target=second)
thread.start()
thread.join()
print(json.dumps(results))
