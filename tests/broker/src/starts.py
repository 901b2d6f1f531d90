"""Start programs in many ways, each in a process of its own; print what came of each: a line of JSON.

    starts.py DIRECTORY

What is started says nothing but its arguments, and of its variables those whose names begin with TOLD.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Sequence

libc = ctypes.CDLL(None, use_errno=True)
SYS_EXECVE, SYS_EXECVEAT = {"x86_64": (59, 322), "aarch64": (221, 281)}[os.uname().machine]
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000


def vector(strings: Sequence[bytes]) -> object:
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)


def execve(path: bytes, argv: Sequence[bytes] | None, variables: Sequence[bytes] = (b"A=1",)) -> int:
    """Return only on failure, with the errno."""
    libc.syscall(SYS_EXECVE, path, None if argv is None else vector(argv), vector(variables))
    return ctypes.get_errno()


def execveat(fd: int, path: bytes, flags: int) -> int:
    libc.syscall(SYS_EXECVEAT, fd, path, vector([b"at"]), vector([b"A=1"]), flags)
    return ctypes.get_errno()


def attempt(start: Callable[[], int]) -> dict[str, object]:
    """Start something in a child; say how it ended, and what it printed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        error = start()
        os.write(1, b"errno %d" % error)
        os._exit(100)
    os.close(writing)
    with open(reading, "rb") as said:
        text = said.read()
    _, status = os.waitpid(pid, 0)
    return {"status": status, "said": text.decode(errors="replace")}


def scripts(directory: str) -> dict[str, bytes]:
    """The beginnings of scripts, by their names."""
    tell = os.fsencode(f"{directory}/tell")
    return {
        "plain": b"#!%s\n" % tell,
        "spaced": b"#! \t %s \t \n" % tell,
        "argument": b"#!%s one two \n" % tell,
        "tab": b"#!%s\tone\n" % tell,
        "carriage": b"#!%s\r\n" % tell,
        "unended": b"#!%s" % tell,
        "empty": b"#!\n",
        "blank": b"#!   \n",
        "bare": b"#!",
        "nul": b"#!%s\0x\n" % tell,
        "nul-argument": b"#!%s a\0b\n" % tell,
        "relative": b"#!tell\n",
        "dotted": b"#!./tell\n",
        "missing": b"#!/nowhere/at/all\n",
        "directory": b"#!/usr\n",
        "long-name": b"#!/%s\n" % (b"x" * 300),
        "long-argument": b"#!%s %s\n" % (tell, b"x" * 300),
        "to-the-end": (b"#!%s %s" % (tell, b"x" * 300))[:255] + b"\n",
        "loader": b"#!/lib64/ld-linux-x86-64.so.2\n",
        "nested-1": b"#!%s/plain\n" % os.fsencode(directory),
        "nested-2": b"#!%s/nested-1 x\n" % os.fsencode(directory),
        "nested-3": b"#!%s/nested-2\n" % os.fsencode(directory),
        "nested-4": b"#!%s/nested-3\n" % os.fsencode(directory),
        "nested-5": b"#!%s/nested-4\n" % os.fsencode(directory),
        "nested-6": b"#!%s/nested-5\n" % os.fsencode(directory),
        "itself": b"#!%s/itself\n" % os.fsencode(directory),
        "words": b"echo hello\n",
        "nothing": b"",
        "elf": b"\x7fELF",
        "elf-long": b"\x7fELF" + bytes(500),
    }


def cases(directory: str) -> dict[str, Callable[[], int]]:
    """All the ways, by their names."""
    place = os.fsencode(directory)
    tell = place + b"/tell"
    found: dict[str, Callable[[], int]] = {
        f"script {name}": lambda name=name: execve(place + b"/" + name.encode(), [b"script", b"x"])  # type: ignore[misc]
        for name in scripts(directory)
    }
    os.chdir(directory)
    names = {
        "absolute": tell,
        "relative": b"tell",
        "dot": b"./tell",
        "dots": b"sub/../tell",
        "slashes": b"//" + tell + b"",
        "link": place + b"/link",
        "link to link": place + b"/links",
        "through a link": place + b"/way/tell",
        "trailing slash": tell + b"/",
        "dangling": place + b"/dangling",
        "loop": place + b"/loop",
        "missing": place + b"/missing",
        "missing directory": place + b"/missing/x",
        "file as directory": tell + b"/x",
        "directory": place + b"/sub",
        "directory itself": b".",
        "parent": b"..",
        "empty": b"",
        "fifo": place + b"/fifo",
        "not executable": place + b"/data",
        "of another name": place + b"/forbidden",
        "hard link": place + b"/hard",
        "loader": b"/lib64/ld-linux-x86-64.so.2",
        "named like a loader": place + b"/ld-mine.so",
        "self": b"/proc/self/exe",
        "self missing": b"/proc/self/missing",
        "task": b"/proc/thread-self/exe",
        "descriptor": b"/dev/fd/%d" % os.open(tell, os.O_RDONLY),
        "long": b"/" + b"x" * 300,
        "too long": b"/x" * 2500,
    }
    for name, path in names.items():
        found[f"path {name}"] = lambda path=path: execve(path, [b"a", b"b"])  # type: ignore[misc]
    vectors: dict[str, Sequence[bytes] | None] = {
        "null": None,
        "empty": [],
        "one empty": [b""],
        "several": [b"a", b"", b"c d", b""],
        "forbidden": [b"forbidden", b"x"],
        "path": [b"/x/y/forbidden"],
        "slash": [b"tell/"],
        "many": [b"x"] * 5000,
        "long": [b"x" * 15000],
        "longer": [b"x" * 60000],
        "longest": [b"x" * 131072],
        "binary": [bytes(range(1, 256))],
    }
    for name, argv in vectors.items():
        found[f"argv {name}"] = lambda argv=argv: execve(tell, argv)  # type: ignore[misc]
    environments: dict[str, Sequence[bytes]] = {
        "empty": [],
        "planted": [b"A=1", b"LD_PRELOAD=/nowhere/x.so", b"B=2"],
        "planted last": [b"A=1", b"TOLD_LAST="],
        "nearly planted": [b"LD_PRELOADED=x", b"XLD_PRELOAD=x", b"=LD_PRELOAD=x", b"LD_PRELOAD"],
        "odd": [b"", b"=", b"A", b"A=1", b"A=2", b"TOLD=\xff\xfe"],
        "long": [b"TOLD_%d=%s" % (number, b"x" * 5000) for number in range(15)],
        "longer": [b"TOLD_%d=%s" % (number, b"x" * 100000) for number in range(3)],
    }
    for name, variables in environments.items():
        found[f"environment {name}"] = lambda variables=variables: execve(tell, [b"a"], variables)  # type: ignore[misc]
    found["bad path"] = lambda: libc.syscall(SYS_EXECVE, 1, None, None) and ctypes.get_errno()
    found["bad argv"] = lambda: libc.syscall(SYS_EXECVE, tell, 1, None) and ctypes.get_errno()
    found["bad variables"] = lambda: libc.syscall(SYS_EXECVE, tell, None, 1) and ctypes.get_errno()
    fd, tell_fd = os.open(directory, os.O_RDONLY), os.open(tell, os.O_RDONLY)
    found["at directory"] = lambda: execveat(fd, b"tell", 0)
    found["at nothing"] = lambda: execveat(AT_FDCWD, b"tell", 0)
    found["at any, absolute"] = lambda: execveat(99, tell, 0)
    found["at descriptor"] = lambda: execveat(tell_fd, b"", AT_EMPTY_PATH)
    found["at, no link"] = lambda: execveat(AT_FDCWD, b"link", 0x100)
    found["at, odd flags"] = lambda: execveat(AT_FDCWD, b"tell", 0x40000000)
    return found


def main() -> None:
    """Do all of it."""
    directory = sys.argv[1]
    for name, start in cases(directory).items():
        print(json.dumps([name, attempt(start)]), flush=True)


if __name__ == "__main__":
    main()
