"""The proof that a filter does what the table says, for all arguments.

The filter is compiled by a library that is known to miscompile some comparisons, and may come from a cache.
So nothing is installed before every path that a call can take through it has been followed. At a comparison
of the number all ways are taken, each with the range of numbers that go there. A range in which the table
says the same of all numbers, whatever their arguments, must end in that answer without a look at arguments.
A number whose arguments count is followed by itself: at a comparison
of an argument both ways are taken, each with what it says about the argument, and at the end of a path the
table must give the same answer for all the arguments that lead there. Masked equality is all that the table
has for conditions and all that a filter may use on arguments, which keeps this exact.
"""

from __future__ import annotations

import errno
import itertools
import sys
from collections import deque
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
_STEPS_MAX = 100_000  # for one number, or for all at once; a filter of the table takes a few thousand
_OTHER_ABI = 0x40000000  # __X32_SYSCALL_BIT: with it, a number is another ABI's where there is one
_NOTHING = (0,) * 6


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
        open_bits = mask & ~known
        if open_bits == 0:
            return None
        if open_bits & (open_bits - 1) == 0:
            return self.where(_Condition(word, open_bits, ~value & open_bits))
        return _Known(self.bits, (*self.excluded, condition))  # settled: nothing new is known of the bits

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


_Answer = tuple[list[_Condition], int]
"""What all must hold, and what is returned then."""


def _answer(case: Case) -> _Answer:
    conditions = [condition for match in case.matches for condition in _conditions(match)]
    return conditions, returned(Classified(case.disposition, case.errno))


def _answers(known: _Known, cases: Sequence[_Answer], otherwise: int) -> Iterator[tuple[_Known, int]]:
    """Give what the table answers for the arguments of a path, split where it makes a difference."""
    for at, (conditions, value) in enumerate(cases):
        here: _Known | None = known
        for condition in conditions:
            assert here is not None
            without = here.where_not(condition)
            here = here.where(condition)
            if here is None:
                break
            if without is not None:
                yield from _answers(without, cases[at + 1 :], otherwise)
        if here is not None:
            yield here, value
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


def _prove(program: Program, number: int, entry: Syscall, native: int) -> None:
    """Prove what becomes of a call whose arguments count."""
    start = _Known({_NUMBER: (INT, number), _ARCHITECTURE: (INT, native)}, ())
    errnum = errno.ENOSYS if entry.disposition is Disposition.ABSENT else entry.errno
    otherwise = returned(Classified(entry.disposition, errnum))
    what = f"number {number} ({entry.name})"
    cases = [_answer(case) for case in entry.cases]
    for known, value, _ in _paths(program, start, what):
        for where, expected in _answers(known, cases, otherwise):
            if value != expected:
                raise _wrong(what, where.example(), value, expected, entry.name)


def _wrong(what: str, args: Sequence[int], value: int, expected: int, name: str | None) -> FilterError:
    shown = ", ".join(f"{register:#x}" for register in args)
    return FilterError(
        f"{what} with ({shown}) returns {value:#010x}, the table says {expected:#010x}", syscall=name
    )


def _ranges(program: Program, native: int) -> Iterator[tuple[int, int, int | None]]:
    """Follow all numbers at once: a comparison parts those that differ in it.

    Args:
        program: What is followed, until it returns or looks at an argument.
        native: The architecture.

    Returns:
        All numbers, as ranges: the first, the last, and the return value; None if arguments are looked at.

    Raises:
        FilterError: Too many paths, or the number is looked at bit by bit.
    """
    waiting: list[tuple[int, int | None, int, int]] = [(0, 0, 0, INT)]
    steps = 0
    while waiting:
        position, accumulator, first, last = waiting.pop()
        while True:
            steps += 1
            if steps > _STEPS_MAX:
                raise FilterError("the number: too many paths")
            code, operand, then, otherwise = program[position]
            position = then
            if code == bpf.RETURN or (code == bpf.LOAD and operand > _ARCHITECTURE):
                yield first, last, operand if code == bpf.RETURN else None
                break
            if code == bpf.LOAD:
                accumulator = native if operand == _ARCHITECTURE else None  # None: the number
            elif code == bpf.JUMP:
                continue
            elif accumulator is not None:
                if code == bpf.AND:
                    accumulator &= operand
                elif not holds(code, accumulator, operand):
                    position = otherwise
            elif code in (bpf.AND, bpf.SET):
                raise FilterError("the number is looked at bit by bit")
            else:
                low = operand + (code == bpf.GREATER)
                high = operand if code == bpf.EQUAL else INT
                parts = ((then, low, high), (otherwise, 0, low - 1), (otherwise, high + 1, INT))
                for target, start, end in parts:
                    if max(first, start) <= min(last, end):
                        waiting.append((target, None, max(first, start), min(last, end)))
                break


def verify(program: bytes, traps: Traps = STRICTEST) -> None:
    """Prove that a program does on every call what the table says, and kills calls of other architectures.

    A call whose entry has no cases must be settled without a look at the arguments, so that the kernel can
    answer it from its cache.

    Args:
        program: Array of ``struct sock_filter``, native endian.
        traps: As for `syscalls.table`.

    Raises:
        FilterError: The program is malformed, or does something else than `classify` says; names the call.
    """
    decoded = decode(program)
    table = by_number(traps)
    native = architecture().audit
    found = deque(sorted(_ranges(decoded, native)))
    # Between two of these the table says the same of all numbers.
    borders = sorted({0, _OTHER_ABI, INT, INT + 1, *table, *(number + 1 for number in table)})
    for number, beyond in itertools.pairwise(borders):
        entry = table.get(number)
        expected = returned(classify(number, _NOTHING, traps))
        while True:
            first, last, value = found[0]
            if entry is not None and entry.cases:
                _prove(decoded, number, entry, native)
            elif value != expected:
                nr = max(number, first)
                what, name = f"number {nr} ({name_of(nr)})", entry.name if entry else None
                if value is None:
                    raise FilterError(f"{what}: arguments are looked at without need", syscall=name)
                raise _wrong(what, _NOTHING, value, expected, name)
            if last >= beyond:
                break
            found.popleft()
            if last == beyond - 1:
                break
    foreign = _Known({}, (_Condition(_ARCHITECTURE, INT, native),))
    for known, value, looked in _paths(decoded, foreign, "another architecture"):
        if looked:
            raise FilterError("another architecture: arguments are looked at without need")
        if value != bpf.KILL_PROCESS:
            raise _wrong("another architecture", known.example(), value, bpf.KILL_PROCESS, None)
