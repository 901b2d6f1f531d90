"""A small interpreter of seccomp's classic BPF, and the check of a filter against the table.

The filter is compiled by a library that is known to miscompile some comparisons. So nothing is installed
that this module has not run, call by call, and found to do what `syscalls.classify` says. It knows the
instructions that libseccomp emits; a program with any other is refused.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rampart_seccomp.errors import FilterError
from rampart_seccomp.kernel.libseccomp import architecture
from rampart_seccomp.kernel.syscalls import (
    INT,
    LONG,
    Classified,
    Disposition,
    Syscall,
    by_number,
    classify,
    name_of,
)

__all__ = ["KILL_PROCESS", "Instruction", "Program", "Ran", "decode", "returned", "run", "verify"]

KILL_PROCESS = 0x80000000
USER_NOTIF = 0x7FC00000
ALLOW = 0x7FFF0000
ERRNO = 0x00050000

_LOAD, _RETURN, _AND = 0x20, 0x06, 0x54  # BPF_LD|W|ABS, BPF_RET|K, BPF_ALU|AND|K
_JUMP, _EQUAL, _GREATER, _GREATER_EQUAL, _SET = 0x05, 0x15, 0x25, 0x35, 0x45  # BPF_JMP|…|K
_CONDITIONAL = frozenset({_EQUAL, _GREATER, _GREATER_EQUAL, _SET})
_LENGTH_MAX = 4096  # BPF_MAXINSNS
_DATA = struct.Struct("=IIQ6Q")  # struct seccomp_data: nr, arch, instruction_pointer, args
_WORDS = struct.Struct("=16I")
_ARGUMENTS = 4  # index of the first word of the arguments

_FOREIGN = {
    "i386": 0x40000003,
    "x86_64": 0xC000003E,
    "arm": 0x40000028,
    "aarch64": 0xC00000B7,
    "riscv64": 0xC00000F3,
    "ppc64le": 0xC0000015,
    "s390x": 0x80000016,
}


class Instruction(NamedTuple):
    """One ``struct sock_filter``, with absolute jump targets; a load's operand is a word index."""

    code: int
    operand: int
    then: int
    otherwise: int


class Ran(NamedTuple):
    """The return value of a run, and whether the program looked at an argument on its way there."""

    value: int
    looked: bool


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
        elif code == _JUMP:
            then = otherwise = index + 1 + operand
        elif code == _LOAD:
            if operand % 4 or operand >= _DATA.size:
                raise FilterError(f"instruction {index} loads offset {operand}")
            operand //= 4
        elif code not in (_RETURN, _AND):
            raise FilterError(f"instruction {index} has the unknown opcode {code:#x}")
        if code != _RETURN and max(then, otherwise) >= length:
            raise FilterError(f"instruction {index} leads out of the program")
        decoded.append(Instruction(code, operand, then, otherwise))
    return tuple(decoded)


def run(program: Program, nr: int, args: Sequence[int], arch: int | None = None) -> Ran:
    """Run a decoded program on one call, as the kernel would: Documentation/userspace-api/seccomp_filter.rst.

    Args:
        program: What `decode` returned.
        nr: Number of the call; the lower 32 bits count.
        args: Six unsigned 64-bit registers.
        arch: ``seccomp_data.arch``; the native one by default.
    """
    audit = architecture().audit if arch is None else arch
    words = _WORDS.unpack(_DATA.pack(nr & INT, audit, 0, *args))
    accumulator = position = 0
    looked = False
    while True:
        code, operand, then, otherwise = program[position]
        position = then
        if code == _EQUAL:
            if accumulator != operand:
                position = otherwise
        elif code == _LOAD:
            accumulator = words[operand]
            looked = looked or operand >= _ARGUMENTS
        elif code == _GREATER:
            if accumulator <= operand:
                position = otherwise
        elif code == _GREATER_EQUAL:
            if accumulator < operand:
                position = otherwise
        elif code == _AND:
            accumulator &= operand
        elif code == _SET:
            if not accumulator & operand:
                position = otherwise
        elif code == _RETURN:
            return Ran(operand, looked)


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


def _around(mask: int, value: int) -> Iterator[int]:
    """Give values at and near the border of ``register & mask == value``."""
    signed = value | LONG & ~INT if value & 0x80000000 else value
    yield from (value, value | LONG & ~mask, signed, value + 1 & LONG, value - 1 & LONG, value ^ mask)
    for bit in range(64):
        yield value ^ 1 << bit


def _arguments(entry: Syscall) -> Iterator[tuple[int, ...]]:
    """Give the argument patterns that could tell a right filter for a call from a wrong one.

    All combinations of the values in the entry's cases, and each of these with one register moved across the
    borders of every condition on it.
    """
    matches = {match for case in entry.cases for match in case.matches}
    exact: list[set[int]] = [{0, LONG} for _ in range(6)]
    near: list[set[int]] = [set() for _ in range(6)]
    for index, mask, value in matches:
        exact[index].add(value)
        near[index].update(_around(mask, value))
    used = sorted({match.argument for match in matches})
    for chosen in itertools.product(*(sorted(exact[index]) for index in used)):
        for background in (0, LONG):
            args = [background] * 6
            for index, value in zip(used, chosen, strict=True):
                args[index] = value
            yield tuple(args)
            for index in used:
                for value in near[index]:
                    yield (*args[:index], value, *args[index + 1 :])


def _check(program: Program, nr: int, args: Sequence[int], arch: int | None, expected: int) -> Ran:
    ran = run(program, nr, args, arch)
    if ran.value != expected:
        shown = ", ".join(f"{value:#x}" for value in args)
        where = "" if arch is None else f" on architecture {arch:#x}"
        raise FilterError(
            f"number {nr}{where} with ({shown}) returns {ran.value:#010x}, the table says {expected:#010x}",
            syscall=name_of(nr),
        )
    return ran


def verify(program: bytes) -> None:
    """Run a program over the whole table, unknown numbers and foreign architectures, and compare.

    A call whose entry has no cases must be settled without a look at the arguments: then one run stands for
    all of them, and the kernel can answer it from its cache.

    Raises:
        FilterError: The program is malformed, or does something else than `classify` says; names the call.
    """
    decoded = decode(program)
    nothing = (0,) * 6
    table = by_number()
    beyond = [INT, INT - 1, 0x80000000, 0x7FFFFFFF, 0xBFFFFFFF, 0x40000000, 0x3FFFFFFF]
    numbers = [*range(max(1024, max(table) + 65)), *beyond, *(0x40000000 | nr for nr in range(1024))]
    for nr in numbers:
        entry = table.get(nr)
        expected = returned(classify(nr, nothing))
        if _check(decoded, nr, nothing, None, expected).looked and not (entry and entry.cases):
            raise FilterError(f"number {nr}: arguments are looked at without need", syscall=name_of(nr))
        if entry and entry.cases:
            for args in set(_arguments(entry)):
                _check(decoded, nr, args, None, returned(classify(nr, args)))
    native = architecture().audit
    foreign = {*_FOREIGN.values(), 0, INT, *(native ^ 1 << bit for bit in range(32))} - {native}
    for arch, nr in itertools.product(sorted(foreign), (*range(0, max(table) + 1, 7), INT)):
        _check(decoded, nr, nothing, arch, KILL_PROCESS)
