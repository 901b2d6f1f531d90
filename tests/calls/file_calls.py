"""Every system call on files, in every way a program can name one; run as a program, their answers as JSON.

Usage: file_calls.py PLACES NUMBERS. PLACES is a JSON file that maps the places of cases in `CASES` to their
directories, relative to the working directory; NUMBERS, JSON, the names of calls to their numbers. An answer
is "ok" or the name of the errno. Raw calls, so that no library comes between.

In each case's directory, see `furnish`: ``f`` a file, ``d`` an empty directory, ``l`` a link to what the call
acts on, ``broken`` one to nowhere, ``name`` nothing; and beside it a link to the directory itself.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

NOBODY = 65534
AT_FDCWD = -100
TIME = 1_000_000_000  # seconds: what the calls that set times set
BYTES = b"\xff"

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

Argument = int | bytes
Place = tuple[int, bytes]
Action = Callable[[Place, Place], tuple[Argument, ...]]


class Call(NamedTuple):
    """A call, with the operations that it is.

    Attributes:
        name: Of the system call.
        operations: What is judged, in words of the policy.
        on: Name in the case's directory that it acts on.
        arguments: From the place of that name, and the place of a second one, which is new.
        at: True if it takes a descriptor with each path.
        second: True if it has a second path.
    """

    name: str
    operations: str
    on: str
    arguments: Action
    at: bool = False
    second: bool = False


def _flags(flags: int, mode: int = 0o640) -> Action:
    return lambda one, two: (*one, flags, mode)


def _plain(action: Action) -> Action:
    """Take the descriptors out, for a call that has none."""
    return lambda one, two: tuple(action(one, two)[1:])


def _opened(*arguments: Argument, flags: int = os.O_RDONLY) -> Action:
    """Open first: for a call on a descriptor."""
    return lambda one, two: (
        os.open(one[1], flags, dir_fd=None if one[0] == AT_FDCWD else one[0]),
        *arguments,
    )


_how = struct.pack("=QQQ", os.O_RDONLY, 0, 0)
_times = {
    "utime": struct.pack("=qq", TIME, TIME),
    "utimes": struct.pack("=qqqq", TIME, 5, TIME, 5),
    "utimensat": struct.pack("=qqqq", TIME, 5, TIME, 5),
}
_attribute = (b"user.x", b"value", 5, 0)
_room = b" " * 64
_W = os.O_WRONLY

CALLS = (
    Call("open", "read", "f", _plain(_flags(os.O_RDONLY))),
    Call("open", "read", "d", _plain(_flags(os.O_RDONLY | os.O_DIRECTORY))),
    Call("open", "modify", "f", _plain(_flags(os.O_WRONLY))),
    Call("open", "create", "name", _plain(_flags(os.O_WRONLY | os.O_CREAT))),
    Call("creat", "modify", "f", lambda one, two: (one[1], 0o640)),
    Call("creat", "create", "name", lambda one, two: (one[1], 0o640)),
    Call("openat", "read", "f", _flags(os.O_RDONLY), at=True),
    Call("openat", "read", "f", _flags(os.O_RDONLY | os.O_CREAT), at=True),
    Call("openat", "read", "f", _flags(os.O_RDONLY | os.O_NOFOLLOW), at=True),
    Call("openat", "read modify", "f", _flags(os.O_RDWR | os.O_APPEND), at=True),
    Call("openat", "modify", "f", _flags(os.O_WRONLY | os.O_TRUNC), at=True),
    Call("openat", "read modify", "f", _flags(os.O_RDONLY | os.O_TRUNC), at=True),
    Call("openat", "create", "name", _flags(os.O_RDONLY | os.O_CREAT), at=True),
    Call("openat", "create", "name", _flags(os.O_RDWR | os.O_CREAT | os.O_EXCL), at=True),
    Call("openat", "create", "d", _flags(os.O_RDWR | os.O_TMPFILE), at=True),
    Call("openat2", "read", "f", lambda one, two: (*one, _how, len(_how)), at=True),
    Call("truncate", "modify", "f", lambda one, two: (one[1], 3)),
    Call("unlink", "delete", "f", lambda one, two: (one[1],)),
    Call("unlinkat", "delete", "f", lambda one, two: (*one, 0), at=True),
    Call("unlinkat", "delete", "d", lambda one, two: (*one, 0x200), at=True),
    Call("rmdir", "delete", "d", lambda one, two: (one[1],)),
    Call("rename", "delete create", "f", lambda one, two: (one[1], two[1]), second=True),
    Call("renameat", "delete create", "f", lambda one, two: (*one, *two), at=True, second=True),
    Call("renameat2", "delete create", "d", lambda one, two: (*one, *two, 1), at=True, second=True),
    Call("link", "create", "f", lambda one, two: (one[1], two[1]), second=True),
    Call("linkat", "create", "f", lambda one, two: (*one, *two, 0x400), at=True, second=True),
    Call("symlink", "create", "name", lambda one, two: (b"f", one[1])),
    Call("symlinkat", "create", "name", lambda one, two: (b"f", *one), at=True),
    Call("mkdir", "create", "name", lambda one, two: (one[1], 0o751)),
    Call("mkdirat", "create", "name", lambda one, two: (*one, 0o751), at=True),
    Call("mknod", "create", "name", lambda one, two: (one[1], 0o010640, 0)),
    Call("mknodat", "create", "name", lambda one, two: (*one, 0o100640, 0), at=True),
    Call("chmod", "metadata", "f", lambda one, two: (one[1], 0o604)),
    Call("fchmodat", "metadata", "f", lambda one, two: (*one, 0o604), at=True),
    Call("fchmodat2", "metadata", "f", lambda one, two: (*one, 0o604, 0), at=True),
    Call("fchmod", "metadata", "f", _opened(0o604), at=True),
    Call("chown", "metadata", "f", lambda one, two: (one[1], NOBODY, -1)),
    Call("lchown", "metadata", "f", lambda one, two: (one[1], NOBODY, -1)),
    Call("fchownat", "metadata", "f", lambda one, two: (*one, NOBODY, -1, 0x100), at=True),
    Call("fchown", "metadata", "f", _opened(NOBODY, -1), at=True),
    Call("utime", "metadata", "f", lambda one, two: (one[1], _times["utime"])),
    Call("utimes", "metadata", "f", lambda one, two: (one[1], _times["utimes"])),
    Call("futimesat", "metadata", "f", lambda one, two: (*one, _times["utimes"]), at=True),
    Call("utimensat", "metadata", "f", lambda one, two: (*one, _times["utimensat"], 0), at=True),
    Call("utimensat", "metadata", "f", _opened(0, _times["utimensat"], 0), at=True),
    Call("setxattr", "metadata", "f", lambda one, two: (one[1], *_attribute)),
    Call("lsetxattr", "metadata", "f", lambda one, two: (one[1], *_attribute)),
    Call("fsetxattr", "metadata", "f", _opened(*_attribute), at=True),
    Call("removexattr", "metadata", "f", lambda one, two: (one[1], b"user.given")),
    Call("lremovexattr", "metadata", "f", lambda one, two: (one[1], b"user.given")),
    Call("fremovexattr", "metadata", "f", _opened(b"user.given"), at=True),
    Call("getxattr", "read", "f", lambda one, two: (one[1], b"user.given", _room, 64)),
    Call("lgetxattr", "read", "f", lambda one, two: (one[1], b"user.given", _room, 64)),
    Call("fgetxattr", "read", "f", _opened(b"user.given", _room, 64, flags=_W), at=True),
    Call("listxattr", "read", "f", lambda one, two: (one[1], _room, 64)),
    Call("llistxattr", "read", "f", lambda one, two: (one[1], _room, 64)),
    Call("flistxattr", "read", "f", _opened(_room, 64, flags=_W), at=True),
)

WAYS = (
    "relative",
    "absolute",
    "up and down",
    "symlink above",
    "symlink",
    "dangling symlink",
    "descriptor",
    "descriptor, absolute",
    "wrong descriptor",
    "within",
    "magic link",
    "bytes",
    "missing",
    "present",
    "missing above",
    "a file above",
    "slash behind",
    "slash behind a symlink",
    "slash behind a dangling symlink",
    "dot behind",
    "up at the end",
    "empty",
    "too long",
    "unreadable",
    "another user",
    "another user's",
)
"""How the file is named, what is there, or who calls."""


class Case(NamedTuple):
    """A call made in one way."""

    call: Call
    way: str

    def __str__(self) -> str:
        place = CALLS.index(self.call)
        return f"{self.call.name} {self.call.operations} {place}: {self.way}"

    def becomes_another(self) -> bool:
        """Say whether the call is another operation in this way: it creates, or finds what is there."""
        opens = self.call.name in ("open", "openat", "creat")
        return opens and self.way in ("present", "missing", "dangling symlink")

    def fits(self) -> bool:
        """Say whether the call can be made in this way."""
        if "descriptor" in self.way:
            return self.call.at
        return os.getuid() == 0 or not self.way.startswith("another user")


CASES = tuple(Case(call, way) for call in CALLS for way in WAYS)


def furnish(directory: Path, case: Case) -> None:
    """Make what a case acts on."""
    suffix = os.fsdecode(BYTES) if case.way == "bytes" else ""
    directory.mkdir(parents=True)
    file = directory / f"f{suffix}"
    file.write_text("content")
    (directory / f"d{suffix}").mkdir()
    (directory / "l").symlink_to(case.call.on)
    (directory / "broken").symlink_to("nowhere")
    directory.with_name(f"{directory.name}-beneath").symlink_to(directory.name)
    os.setxattr(file, "user.given", b"given")
    if case.way == "another user":
        for path in (directory, file, directory / "d"):
            os.chown(path, NOBODY, NOBODY)
    file.chmod(0o600 if case.way == "another user's" else 0o644)


def _name(case: Case) -> bytes:
    name = case.call.on.encode()
    if case.way in ("symlink", "dangling symlink"):
        return b"l" if case.way == "symlink" else b"broken"
    changed = {
        "bytes": name + BYTES,
        "missing": b"nothing",
        "present": b"d" if name == b"f" else b"f",
        "missing above": b"nothing/" + name,
        "a file above": b"f/" + name,
        "slash behind": name + b"/",
        "slash behind a symlink": b"l/",
        "slash behind a dangling symlink": b"broken/",
        "dot behind": name + b"/.",
        "up at the end": name + b"/..",
        "too long": b"n" * 256,
    }
    return changed.get(case.way, name)


def _placed(case: Case, directory: bytes, name: bytes) -> Place:
    """Spell a name in the case's directory."""
    whole = directory + b"/" + name
    if case.way == "absolute":
        return AT_FDCWD, os.getcwdb() + b"/" + whole
    if case.way == "up and down":
        return AT_FDCWD, directory + b"/../" + whole.partition(b"/")[2]
    if case.way == "symlink above":
        return AT_FDCWD, directory + b"-beneath/" + name
    if case.way == "magic link":
        return AT_FDCWD, b"/proc/self/cwd/" + whole
    if case.way == "empty":
        return AT_FDCWD, b""
    if case.way == "descriptor":
        return os.open(directory, os.O_PATH), name
    if case.way == "descriptor, absolute":
        return os.open("/", os.O_PATH), os.getcwdb() + b"/" + whole
    if case.way == "wrong descriptor":
        return 0, name
    if case.way == "within":
        return AT_FDCWD, name
    return AT_FDCWD, whole


def _made(case: Case, directory: bytes, numbers: dict[str, int]) -> str:
    """Make the call of a case; give its answer."""
    call = case.call
    try:
        one = _placed(case, directory, _name(case))
        two = _placed(case, directory, b"new" + (BYTES if case.way == "bytes" else b""))
        if case.way == "within":
            os.chdir(directory)
        arguments = call.arguments(one, two)
    except OSError as error:
        return f"before: {errno.errorcode[error.errno or 0]}"
    if case.way == "unreadable":
        arguments = tuple(8 if isinstance(each, bytes) else each for each in arguments)
    given = [ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(numbers[call.name]), *given) < 0:
        return errno.errorcode[ctypes.get_errno()]
    return "ok"


def _answers(places: dict[int, str], numbers: dict[str, int]) -> Iterator[tuple[int, str]]:
    """Make each call in a process of its own, since it may change user or directory."""
    for place, directory in places.items():
        case = CASES[place]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            if case.way.startswith("another user"):
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writer, _made(case, os.fsencode(directory), numbers).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            yield place, answer.read()
        os.waitpid(child, 0)


if __name__ == "__main__":
    os.umask(0o027)
    given = {int(place): directory for place, directory in json.loads(Path(sys.argv[1]).read_text()).items()}
    print(json.dumps(dict(_answers(given, json.loads(sys.argv[2])))))
