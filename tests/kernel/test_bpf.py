"""The interpreter, and the check that stands between libseccomp and an installed filter."""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rampart_seccomp.errors import FilterError
from rampart_seccomp.kernel import bpf
from rampart_seccomp.kernel.filter import build_filter
from rampart_seccomp.kernel.libseccomp import architecture
from rampart_seccomp.kernel.syscalls import Match, by_number, classify

LOAD, RETURN, AND, JUMP, EQUAL = 0x20, 0x06, 0x54, 0x05, 0x15
Raw = tuple[int, int, int, int]


def assemble(*instructions: Raw) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


@pytest.fixture(scope="module")
def program() -> bytes:
    return build_filter()


registers = st.one_of(
    st.sampled_from(
        sorted(
            {value for entry in by_number().values() for case in entry.cases for _, _, value in case.matches}
        )
    ),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1).map(lambda low: low | 0xFFFFFFFF00000000),
    st.integers(0, 300),
)
numbers = st.one_of(st.sampled_from(sorted(by_number())), st.integers(0, 2**32 - 1))
depending = st.sampled_from(sorted(number for number, entry in by_number().items() if entry.cases))


@given(nr=st.one_of(numbers, depending), args=st.tuples(*[registers] * 6))
def test_the_filter_does_what_the_table_says(
    built: Callable[[], bpf.Program], nr: int, args: tuple[int, ...]
) -> None:
    """On any number and any arguments the exported program returns what the table asks for."""
    assert bpf.run(built(), nr, args).value == bpf.returned(classify(nr, args))


@pytest.fixture(scope="module")
def built(program: bytes) -> Callable[[], bpf.Program]:
    decoded = bpf.decode(program)
    return lambda: decoded


def test_the_real_filter_verifies(program: bytes) -> None:
    """What libseccomp makes of the table passes the check."""
    bpf.verify(program)


def outcomes(program: bytes) -> dict[int, set[int]]:
    """Tell where each instruction leads, over all calls and the values in their cases; returns: nowhere."""
    decoded = bpf.decode(program)
    led: dict[int, set[int]] = {}
    for nr, entry in by_number().items():
        values = {value for case in entry.cases for _, _, value in case.matches} | {0, 2**64 - 1}
        for args in itertools.product(values, repeat=3) if entry.cases else [(0, 0, 0)]:
            words = struct.unpack(
                "=16I", struct.pack("=IIQ6Q", nr, architecture().audit, 0, *args, 0, args[0], 0)
            )
            position = accumulator = 0
            while decoded[position].code != RETURN:
                code, operand, then, otherwise = decoded[position]
                if code == LOAD:
                    accumulator = words[operand]
                elif code == AND:
                    accumulator &= operand
                held = {
                    EQUAL: accumulator == operand,
                    0x25: accumulator > operand,
                    0x35: accumulator >= operand,
                }
                following = then if held.get(code, True) else otherwise
                led.setdefault(position, set()).add(following)
                position = following
            led.setdefault(position, set())
    return led


def mutations(program: bytes) -> list[tuple[str, bytes]]:
    """Give a few wrong programs of each kind, spread over all of the program that decides anything."""
    instructions: list[Raw] = list(struct.iter_unpack("=HBBI", program))
    led = outcomes(program)
    ways: dict[str, tuple[int, Callable[[Raw], Raw]]] = {
        "allow": (RETURN, lambda i: (*i[:3], bpf.ALLOW if i[3] != bpf.ALLOW else bpf.USER_NOTIF)),
        "errno": (RETURN, lambda i: (*i[:3], bpf.ERRNO | errno.EPERM)),
        "value": (EQUAL, lambda i: (*i[:3], i[3] ^ 0x80)),
        "branch": (EQUAL, lambda i: (i[0], i[2], i[1], i[3])),
    }
    made = []
    for name, (code, change) in ways.items():
        sites = [at for at, to in sorted(led.items()) if instructions[at][0] == code and len(to) != 1]
        for at in sites[:: max(1, len(sites) // 5)]:
            mutant = [*instructions[:at], change(instructions[at]), *instructions[at + 1 :]]
            made.append((f"{name} at {at}", assemble(*mutant)))
    return made


def passes(program: bytes) -> bool:
    try:
        bpf.verify(program)
    except FilterError:
        return False
    return True


def test_a_wrong_filter_is_caught(program: bytes) -> None:
    """A changed action, value or branch does not pass, wherever it is."""
    wrong = mutations(program)
    assert len(wrong) > 15
    assert [what for what, mutant in wrong if passes(mutant)] == []


def test_the_error_names_call_and_arguments(program: bytes) -> None:
    """The message says which call goes wrong and with which arguments."""
    everything_allowed = assemble((RETURN, 0, 0, bpf.ALLOW))
    with pytest.raises(FilterError, match=r"number \d+ with \(0x0, .*returns 0x7fff0000") as caught:
        bpf.verify(everything_allowed)
    assert caught.value.syscall in {entry.name for entry in by_number().values()}


def test_a_needless_look_at_arguments_is_caught(program: bytes) -> None:
    """Calls without cases must be settled by number alone, or one run would not stand for all."""
    shifted = assemble((LOAD, 0, 0, 16)) + program
    with pytest.raises(FilterError, match="looked at"):
        bpf.verify(shifted)


@pytest.mark.parametrize("number", [0x40000003, 0xC00000B7, 0xC000003E, 0, 0xFFFFFFFF])
def test_foreign_architectures_are_killed(program: bytes, number: int) -> None:
    """Only calls of the native architecture get past the first instruction."""
    if number == architecture().audit:
        pytest.skip("the native one")
    assert bpf.run(bpf.decode(program), 0, (0,) * 6, number).value == bpf.KILL_PROCESS


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (b"", "no BPF program"),
        (b"1234567", "no BPF program"),
        (assemble((RETURN, 0, 0, 0)) * 4097, "no BPF program"),
        (assemble((LOAD, 0, 0, 64), (RETURN, 0, 0, 0)), "loads offset 64"),
        (assemble((LOAD, 0, 0, 2), (RETURN, 0, 0, 0)), "loads offset 2"),
        (assemble((0x60, 0, 0, 0), (RETURN, 0, 0, 0)), "unknown opcode"),
        (assemble((EQUAL, 1, 0, 0), (RETURN, 0, 0, 0)), "leads out"),
        (assemble((EQUAL, 0, 1, 0), (RETURN, 0, 0, 0)), "leads out"),
        (assemble((JUMP, 0, 0, 0xFFFFFFFF), (RETURN, 0, 0, 0)), "leads out"),
        (assemble((RETURN, 0, 0, 0), (LOAD, 0, 0, 0)), "leads out"),
    ],
)
def test_malformed_programs_are_refused(program: bytes, problem: str) -> None:
    """A program that could run astray is refused before it is run."""
    with pytest.raises(FilterError, match=problem):
        bpf.decode(program)


def test_the_interpreter_computes_as_the_kernel_does() -> None:
    """Loads take the low word of an argument first; every comparison is unsigned; masks are applied."""
    low, high = 16, 20
    args = (0xFFFFFFFF_00000005, *(0,) * 5)

    def outcome(*instructions: Raw) -> int:
        ends = ((RETURN, 0, 0, 1), (RETURN, 0, 0, 2))
        return bpf.run(bpf.decode(assemble(*instructions, *ends)), 0, args).value

    assert outcome((LOAD, 0, 0, low), (EQUAL, 0, 1, 5)) == 1
    assert outcome((LOAD, 0, 0, high), (EQUAL, 0, 1, 5)) == 2
    assert outcome((LOAD, 0, 0, high), (0x25, 0, 1, 0xFFFFFFFE)) == 1
    assert outcome((LOAD, 0, 0, high), (0x25, 0, 1, 0xFFFFFFFF)) == 2
    assert outcome((LOAD, 0, 0, high), (0x35, 0, 1, 0xFFFFFFFF)) == 1
    assert outcome((LOAD, 0, 0, low), (0x45, 0, 1, 4)) == 1
    assert outcome((LOAD, 0, 0, low), (0x45, 0, 1, 2)) == 2
    assert outcome((LOAD, 0, 0, high), (AND, 0, 0, 0xF0), (EQUAL, 0, 1, 0xF0)) == 1
    assert outcome((JUMP, 0, 0, 1)) == 2


def test_conditions_lie_within_their_masks() -> None:
    """A condition that could never be met would be a mistake in the table."""
    for entry in by_number().values():
        for case in entry.cases:
            assert all(isinstance(match, Match) and match.value & ~match.mask == 0 for match in case.matches)
