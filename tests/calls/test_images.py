"""Images are read as the kernel reads them, whatever they say about themselves."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from rampart_seccomp.calls.images import Script, elf_interpreter, loaded_program, parse_script

NAME = b"/lib/of/mine\0"
HEADER, ENTRY = struct.Struct("=HHIQQQIHHHHHH"), struct.Struct("=IIQQQQQQ")


def image(ident: bytes, *, type_: int = 3, machine: int = 62, size: int = ENTRY.size) -> bytes:
    """Make an ELF file with one program header, a PT_INTERP."""
    header = HEADER.pack(type_, machine, 1, 0, 64, 0, 0, 64, size, 1, 0, 0, 0)
    entry = ENTRY.pack(3, 4, 64 + ENTRY.size, 0, 0, len(NAME), len(NAME), 1)
    return ident.ljust(16, b"\0") + header + entry + NAME


def interpreter(path: Path, content: bytes) -> bytes | None:
    path.write_bytes(content)
    file = os.open(path, os.O_RDONLY)
    try:
        return elf_interpreter(file)
    finally:
        os.close(file)


@pytest.mark.parametrize("kind", [0, 1, 2, 255])
@pytest.mark.parametrize("order", [0, 1, 2, 255])
def test_identification_does_not_count(tmp_path: Path, kind: int, order: int) -> None:
    """The kernel looks at neither class nor byte order: an image that lies about them has its interpreter."""
    content = image(b"\x7fELF" + bytes([kind, order, 1]))
    assert interpreter(tmp_path / "image", content) == NAME[:-1]


def test_no_interpreter(tmp_path: Path) -> None:
    """Other files, and images without a PT_INTERP, have none; one cut short is no program."""
    plain = image(b"\x7fELF\2\1\1")
    assert interpreter(tmp_path / "image", b"#!" + plain[2:]) is None
    assert interpreter(tmp_path / "image", b"") is None
    loadable = plain[:64] + struct.pack("=I", 1) + plain[68:]
    assert interpreter(tmp_path / "image", loadable) is None
    with pytest.raises(OSError, match="Exec format error"):
        interpreter(tmp_path / "image", plain[:-1])


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"#!/bin/sh\n", Script(b"/bin/sh", None)),
        (b"#! /bin/sh -e -u \n", Script(b"/bin/sh", b"-e -u")),
        (b"#!\t/bin/sh\t-x", Script(b"/bin/sh", b"-x")),
        (b"#!/bin/sh\0 -x\n", Script(b"/bin/sh", None)),
        (b"\x7fELF", None),
    ],
)
def test_heads_of_scripts(head: bytes, expected: Script | None) -> None:
    """A line is split into a path and at most one argument."""
    assert parse_script(head) == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((b"ld.so", b"./x"), 1),
        ((b"ld.so", b"--library-path", b"/lib", b"./x", b"./y"), 3),
        ((b"ld.so", b"--argv0", b"ls", b"--preload", b"./p.so", b"./x"), 5),
        ((b"ld.so", b"--unknown", b"./x"), 1),
        ((b"ld.so",), None),
        ((b"ld.so", b"--list"), None),
    ],
)
def test_what_a_loader_is_told(argv: tuple[bytes, ...], expected: int | None) -> None:
    """The program stands behind the options; an option that is not known here may be it."""
    assert loaded_program(argv) == expected
