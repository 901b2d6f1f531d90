"""Moves names and makes symbolic links in every way, each in a directory of its own; says what came of it."""

import ctypes
import os
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
RENAMEAT2, RENAME, SYMLINK = 316, 82, 88
AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2
KINDS = ["file", "link", "dangling", "directory", "full", "fifo", "missing"]
ROOT = os.getcwd()


def make(kind, name):
    if kind == "file":
        Path(name).write_text("content of " + name)
    elif kind == "link":
        os.symlink("target", name)
    elif kind == "dangling":
        os.symlink("nowhere", name)
    elif kind == "directory":
        os.mkdir(name)
    elif kind == "full":
        os.mkdir(name)
        Path(name, "inner").write_text("inner")
    elif kind == "fifo":
        os.mkfifo(name)


def shown(path):
    for directory, directories, names in os.walk(path):
        directories.sort()
        for name in sorted(directories + names):
            inner = os.path.join(directory, name)
            what = os.readlink(inner) if os.path.islink(inner) else oct(os.lstat(inner).st_mode)
            if os.path.isfile(inner) and not os.path.islink(inner):
                what += " " + Path(inner).read_text()
            yield os.path.relpath(inner, path), what


number = 0


def attempt(what, call, before=lambda: None):
    global number
    number += 1
    os.chdir(ROOT)
    os.mkdir(f"at{number}")
    os.chdir(f"at{number}")
    Path("target").write_text("target")
    before()
    try:
        result = call()
    except OSError as error:
        result = error.errno
    print(what, result, sorted(shown(".")))


def renameat2(old, new, flags, old_fd=AT_FDCWD, new_fd=AT_FDCWD):
    if libc.syscall(RENAMEAT2, old_fd, old, new_fd, new, flags) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


for old in KINDS:
    for new in KINDS:
        for flags in (0, NOREPLACE, EXCHANGE):
            attempt(
                f"{old} {new} {flags}",
                lambda flags=flags: renameat2(b"old", b"new", flags),
                lambda old=old, new=new: (make(old, "old"), make(new, "new")),
            )

SPELT = [
    "new/",
    "./new",
    "../{here}/new",
    "sub/new",
    "missing/new",
    "target/new",
    ".",
    "..",
    "",
    "old/new",
    "x" * 256,
]
for kind in ("file", "directory", "link"):
    for spelt in SPELT:
        for way in ("to", "from"):

            def call(spelt=spelt, way=way):
                name = spelt.replace("{here}", os.path.basename(os.getcwd()))
                os.rename("old", name) if way == "to" else os.rename(name, "old")

            attempt(
                f"{kind} {spelt[:20]} {way}", call, lambda kind=kind: (os.mkdir("sub"), make(kind, "old"))
            )


def by_descriptor():
    one, two = os.open("one", os.O_RDONLY), os.open("two", os.O_RDONLY)
    os.rename("a", "b", src_dir_fd=one, dst_dir_fd=two)
    os.symlink("b", "c", dir_fd=two)
    os.close(one), os.close(two)


attempt("dirfd", by_descriptor, lambda: (os.mkdir("one"), os.mkdir("two"), make("file", "one/a")))
attempt("bad dirfd", lambda: os.rename("a", "b", src_dir_fd=999), lambda: make("file", "a"))
attempt("no dirfd", lambda: renameat2(b"a", b"b", 0, 0, 0), lambda: make("file", "a"))
attempt("flags", lambda: renameat2(b"old", b"new", 3), lambda: make("file", "old"))
attempt("unknown flags", lambda: renameat2(b"old", b"new", 8), lambda: make("file", "old"))
attempt("bytes", lambda: os.rename(b"old", b"\xff\xfe"), lambda: make("file", "old"))
attempt(
    "one file twice", lambda: os.rename("old", "new"), lambda: (make("file", "old"), os.link("old", "new"))
)
attempt("itself", lambda: os.rename("old", "old"), lambda: make("file", "old"))
attempt("bad pointers", lambda: (libc.syscall(RENAME, b"missing", 1), ctypes.get_errno()))
attempt("bad pointer", lambda: (libc.syscall(RENAME, 1, b"x"), ctypes.get_errno()))

TEXTS = [
    b"target",
    b"/etc/passwd",
    b"nowhere",
    b"../..",
    b"\xff\xfe",
    b"",
    b"y" * 4095,
    b"y" * 4096,
    b"new",
    b"old/",
]
for text in TEXTS:
    attempt(f"symlink {text[:12]!r}", lambda text=text: os.symlink(text, b"new"))
for spelt in SPELT:
    attempt(
        f"symlink at {spelt[:20]}", lambda spelt=spelt: os.symlink("target", spelt), lambda: os.mkdir("sub")
    )
for kind in KINDS:
    before = lambda kind=kind: make(kind, "new")  # noqa: E731
    attempt(f"symlink over {kind}", lambda: os.symlink("target", "new"), before)
attempt("symlink text", lambda: (libc.syscall(SYMLINK, 1, b"x"), ctypes.get_errno()))
attempt("symlink nowhere", lambda: (libc.syscall(SYMLINK, b"x", 1), ctypes.get_errno()))


def sticky():
    os.setresuid(65534, 65534, 65534)
    for name in ("old", "theirs"):
        try:
            os.rename(name, "moved")
            print("moved", name)
        except OSError as error:
            print(name, error.errno)
    try:
        os.symlink("x", "closed/x")
    except OSError as error:
        print("closed", error.errno)


if os.geteuid() == 0:
    sys.stdout.flush()
    attempt(
        "another user",
        lambda: 0,
        lambda: (
            make("file", "old"),
            make("file", "theirs"),
            os.chown("theirs", 65534, 65534),
            os.mkdir("closed", 0o700),
        ),
    )
    os.chmod(".", 0o1777)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sticky()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
