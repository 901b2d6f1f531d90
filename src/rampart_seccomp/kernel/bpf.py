"""A small interpreter of seccomp's classic BPF.

It knows the instructions that libseccomp emits; a program with any other is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from rampart_seccomp.errors import FilterError
from rampart_seccomp.kernel.entries import INT, Classified, Disposition
from rampart_seccomp.kernel.libseccomp import architecture

__all__ = ["KILL_PROCESS", "Instruction", "Program", "decode", "holds", "returned", "run"]

KILL_PROCESS = 0x80000000
USER_NOTIF = 0x7FC00000
ALLOW = 0x7FFF0000
ERRNO = 0x00050000

LOAD, RETURN, AND = 0x20, 0x06, 0x54  # BPF_LD|W|ABS, BPF_RET|K, BPF_ALU|AND|K
JUMP, EQUAL, GREATER, GREATER_EQUAL, SET = 0x05, 0x15, 0x25, 0x35, 0x45  # BPF_JMP|…|K
_CONDITIONAL = frozenset({EQUAL, GREATER, GREATER_EQUAL, SET})
_LENGTH_MAX = 4096  # BPF_MAXINSNS
_DATA = struct.Struct("=IIQ6Q")  # struct seccomp_data: nr, arch, instruction_pointer, args
_WORDS = struct.Struct("=16I")


class Instruction(NamedTuple):
    """One ``struct sock_filter``, with absolute jump targets; a load's operand is a word index."""

    code: int
    operand: int
    then: int
    otherwise: int


Program = tuple[Instruction, ...]


def decode(program: bytes) -> Program:
    """Decode an array of ``struct sock_filter`` (native endian) and check that it can only run to an end.

    Raises:
        FilterError: Wrong length, an instruction outside of the known set, a jump out of the program, a load
            that is not a word of ``struct seccomp_data``, or a last instruction that does not return.
    """
    if not program or len(program) % 8 or len(program) > 8 * _LENGTH_MAX:
        raise FilterError(f"{len(program)} bytes are no BPF program")
    length = len(program) // 8
    decoded = []
    for index, (code, jump_true, jump_false, operand) in enumerate(struct.iter_unpack("=HBBI", program)):
        then = otherwise = index + 1
        if code in _CONDITIONAL:
            then, otherwise = then + jump_true, otherwise + jump_false
        elif code == JUMP:
            then = otherwise = index + 1 + operand
        elif code == LOAD:
            if operand % 4 or operand >= _DATA.size:
                raise FilterError(f"instruction {index} loads offset {operand}")
            operand //= 4
        elif code not in (RETURN, AND):
            raise FilterError(f"instruction {index} has the unknown opcode {code:#x}")
        if code != RETURN and max(then, otherwise) >= length:
            raise FilterError(f"instruction {index} leads out of the program")
        decoded.append(Instruction(code, operand, then, otherwise))
    return tuple(decoded)


def run(program: Program, nr: int, args: Sequence[int], arch: int | None = None) -> int:
    """Run a decoded program on one call, as the kernel would: Documentation/userspace-api/seccomp_filter.rst.

    Args:
        program: What `decode` returned.
        nr: Number of the call; the lower 32 bits count.
        args: Six unsigned 64-bit registers.
        arch: ``seccomp_data.arch``; the native one by default.

    Returns:
        The filter's return value: seccomp(2).
    """
    audit = architecture().audit if arch is None else arch
    words = _WORDS.unpack(_DATA.pack(nr & INT, audit, 0, *args))
    accumulator = position = 0
    while True:
        code, operand, then, otherwise = program[position]
        position = then
        if code == LOAD:
            accumulator = words[operand]
        elif code == AND:
            accumulator &= operand
        elif code == RETURN:
            return operand
        elif code != JUMP and not holds(code, accumulator, operand):
            position = otherwise


def holds(code: int, accumulator: int, operand: int) -> bool:
    """Tell whether a conditional jump is taken. All comparisons are unsigned."""
    if code == EQUAL:
        return accumulator == operand
    if code == GREATER:
        return accumulator > operand
    if code == GREATER_EQUAL:
        return accumulator >= operand
    return bool(accumulator & operand)


def returned(classified: Classified) -> int:
    """Give the return value (seccomp(2)) by which a filter has to express a classification."""
    disposition, number = classified
    if disposition is Disposition.FREE:
        return ALLOW
    if disposition in (Disposition.MEDIATED, Disposition.REFUSED):
        return USER_NOTIF
    if disposition is Disposition.KILLED:
        return KILL_PROCESS
    return ERRNO | (number or 0)
