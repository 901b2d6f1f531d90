"""The proof that a filter does what the table says, for all arguments.

The filter is compiled by a library that is known to miscompile some comparisons, and may come from a cache.
So nothing is installed before every path that a call can take through it has been followed: at a comparison
of an argument both ways are taken, each with what it says about the argument, and at the end of a path the
table must give the same answer for all the arguments that lead there. Masked equality is all that the table
has for conditions and all that a filter may use on arguments, which keeps this exact.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rampart_seccomp.errors import FilterError
from rampart_seccomp.kernel import bpf
from rampart_seccomp.kernel.bpf import Program, decode, holds, returned
from rampart_seccomp.kernel.entries import INT, Case, Classified, Disposition, Match, Syscall
from rampart_seccomp.kernel.libseccomp import architecture
from rampart_seccomp.kernel.syscalls import by_number, classify, name_of
from rampart_seccomp.kernel.traps import STRICTEST, Traps

__all__ = ["verify"]

_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 1, 4  # words of struct seccomp_data
_STEPS_MAX = 100_000  # for one number; a filter of the table takes a few hundred


class _Condition(NamedTuple):
    """``words[word] & mask == value``, or its contrary."""

    word: int
    mask: int
    value: int


class _Known(NamedTuple):
    """What a path says about the words of a call.

    Attributes:
        bits: Known bits of each word: (mask, value).
        excluded: Conditions that do not hold.
    """

    bits: Mapping[int, tuple[int, int]]
    excluded: tuple[_Condition, ...]

    def where(self, condition: _Condition) -> _Known | None:
        """Add a condition; None if it cannot hold."""
        word, mask, value = condition
        known, bits = self.bits.get(word, (0, 0))
        if value & ~mask or (bits ^ value) & known & mask:
            return None
        if not mask & ~known:
            return self
        return _Known({**self.bits, word: (known | mask, bits | value)}, self.excluded)._settled(word)

    def where_not(self, condition: _Condition) -> _Known | None:
        """Add that a condition does not hold; None if it must."""
        word, mask, value = condition
        known, bits = self.bits.get(word, (0, 0))
        if value & ~mask or (bits ^ value) & known & mask:
            return self
        return _Known(self.bits, (*self.excluded, condition))._settled(word)

    def _settled(self, word: int) -> _Known | None:
        """Draw the conclusions about a word: what is excluded but for one bit gives that bit."""
        known, bits = self.bits.get(word, (0, 0))
        left = []
        for condition in self.excluded:
            if condition.word != word:
                left.append(condition)
                continue
            if (bits ^ condition.value) & known & condition.mask:
                continue
            open_bits = condition.mask & ~known
            if open_bits == 0:
                return None
            if open_bits & (open_bits - 1) == 0:
                learned = _Condition(word, open_bits, ~condition.value & open_bits)
                others = tuple(other for other in self.excluded if other != condition)
                return _Known(self.bits, others).where(learned)
            left.append(condition)
        return _Known(self.bits, tuple(left))

    def example(self) -> tuple[int, ...]:
        """Give argument registers that fit, as far as single bits show it."""
        words = [0] * 16
        for word, (_, bits) in self.bits.items():
            words[word] = bits
        for word, mask, value in self.excluded:
            if words[word] & mask == value:
                free_bits = mask & ~self.bits.get(word, (0, 0))[0]
                words[word] ^= free_bits & -free_bits
        return tuple(words[_low(index)] | words[_low(index) ^ 1] << 32 for index in range(6))


def _low(argument: int) -> int:
    """The word that holds the lower half of an argument; the other one of the pair holds the upper."""
    return _ARGUMENTS + 2 * argument + (sys.byteorder == "big")


def _conditions(match: Match) -> list[_Condition]:
    """Split a condition on a register into conditions on its words."""
    low = _low(match.argument)
    halves = ((low, match.mask & INT, match.value & INT), (low ^ 1, match.mask >> 32, match.value >> 32))
    return [_Condition(*half) for half in halves if half[1]]


def _answers(known: _Known, cases: Sequence[Case], otherwise: int) -> Iterator[tuple[_Known, int]]:
    """Give what the table answers for the arguments of a path, split where it makes a difference."""
    for at, case in enumerate(cases):
        here: _Known | None = known
        for condition in (part for match in case.matches for part in _conditions(match)):
            assert here is not None
            without = here.where_not(condition)
            here = here.where(condition)
            if here is None:
                break
            if without is not None:
                yield from _answers(without, cases[at + 1 :], otherwise)
        if here is not None:
            yield here, returned(Classified(case.disposition, case.errno))
            return
    yield known, otherwise


def _paths(program: Program, start: _Known, what: str) -> Iterator[tuple[_Known, int, bool]]:
    """Follow every path: what it says, the return value, and whether an argument was looked at.

    Raises:
        FilterError: Too many paths, or a comparison of an argument that is not masked equality.
    """
    waiting = [(0, _NUMBER, 0, start, False)]  # no bit of any word: the accumulator begins as 0
    steps = 0
    while waiting:
        position, word, mask, known, looked = waiting.pop()
        while True:
            steps += 1
            if steps > _STEPS_MAX:
                raise FilterError(f"{what}: too many paths")
            code, operand, then, otherwise = program[position]
            position = then
            if code == bpf.RETURN:
                yield known, operand, looked
                break
            if code == bpf.LOAD:
                word, mask = operand, INT
                looked = looked or operand > _ARCHITECTURE
            elif code == bpf.AND:
                mask &= operand
            elif code != bpf.JUMP:
                whole, bits = known.bits.get(word, (0, 0))
                if not mask & ~whole:
                    position = then if holds(code, bits & mask, operand) else otherwise
                    continue
                if code != bpf.EQUAL:
                    raise FilterError(f"{what}: an argument is compared by something else than equality")
                condition = _Condition(word, mask, operand)
                unequal, equal = known.where_not(condition), known.where(condition)
                if equal is None:
                    assert unequal is not None
                    position, known = otherwise, unequal
                    continue
                if unequal is not None:
                    waiting.append((otherwise, word, mask, unequal, looked))
                known = equal


def _prove(program: Program, start: _Known, what: str, entry: Syscall | None, otherwise: int) -> None:
    cases = entry.cases if entry else ()
    name = entry.name if entry else None
    for known, value, looked in _paths(program, start, what):
        if looked and not cases:
            raise FilterError(f"{what}: arguments are looked at without need", syscall=name)
        for where, expected in _answers(known, cases, otherwise):
            if value != expected:
                shown = ", ".join(f"{register:#x}" for register in where.example())
                raise FilterError(
                    f"{what} with ({shown}) returns {value:#010x}, the table says {expected:#010x}",
                    syscall=name,
                )


def verify(program: bytes, traps: Traps = STRICTEST) -> None:
    """Prove that a program does on every call what the table says, and kills calls of other architectures.

    A call whose entry has no cases must be settled without a look at the arguments, so that the kernel can
    answer it from its cache. Of the numbers that no call has, those are tried that the kernel could come to
    use, and some at the borders.

    Args:
        program: Array of ``struct sock_filter``, native endian.
        traps: As for `syscalls.table`.

    Raises:
        FilterError: The program is malformed, or does something else than `classify` says; names the call.
    """
    decoded = decode(program)
    table = by_number(traps)
    native = architecture().audit
    beyond = [INT, INT - 1, 0x80000000, 0x7FFFFFFF, 0xBFFFFFFF, 0x40000000, 0x3FFFFFFF]
    numbers = [*range(max(1024, max(table) + 65)), *beyond, *(0x40000000 | nr for nr in range(1024))]
    for nr in numbers:
        entry = table.get(nr)
        if entry is None:
            otherwise = classify(nr, (0,) * 6, traps)
        else:
            number = errno.ENOSYS if entry.disposition is Disposition.ABSENT else entry.errno
            otherwise = Classified(entry.disposition, number)
        start = _Known({_NUMBER: (INT, nr), _ARCHITECTURE: (INT, native)}, ())
        _prove(decoded, start, f"number {nr} ({name_of(nr)})", entry, returned(otherwise))
    foreign = _Known({}, (_Condition(_ARCHITECTURE, INT, native),))
    _prove(decoded, foreign, "another architecture", None, bpf.KILL_PROCESS)
