"""Programs of seccomp's BPF, written out."""

from __future__ import annotations

import struct

Raw = tuple[int, int, int, int]


def assemble(*instructions: Raw) -> bytes:
    """Pack instructions: opcode, jump if true, jump if false, operand."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def disassemble(program: bytes) -> list[Raw]:
    """Unpack a program."""
    return list(struct.iter_unpack("=HBBI", program))
