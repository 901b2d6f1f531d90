"""The proof that stands between libseccomp, or the cache, and an installed filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from assembly import Raw, assemble, disassemble
from hypothesis import given
from hypothesis import strategies as st

from rampart_seccomp.errors import FilterError
from rampart_seccomp.kernel import bpf
from rampart_seccomp.kernel.bpf import AND, EQUAL, GREATER, LOAD, RETURN
from rampart_seccomp.kernel.entries import INT, LONG
from rampart_seccomp.kernel.filter import build_filter
from rampart_seccomp.kernel.libseccomp import architecture
from rampart_seccomp.kernel.proof import verify
from rampart_seccomp.kernel.syscalls import FEATURES, Match, by_number, classify
from rampart_seccomp.kernel.traps import STRICTEST, Traps

UNSCOPED = Traps(scoped=False)
LAXEST = Traps(features=FEATURES, restricted=(), opens=False)
PROGRAMS = {traps: build_filter(traps) for traps in (STRICTEST, UNSCOPED, LAXEST)}
DECODED = {traps: bpf.decode(program) for traps, program in PROGRAMS.items()}
TABLE = by_number(UNSCOPED)  # the one with more cases

registers = st.one_of(
    st.sampled_from(
        sorted({value for entry in TABLE.values() for case in entry.cases for _, _, value in case.matches})
    ),
    st.integers(0, LONG),
    st.integers(0, INT).map(lambda low: low | LONG & ~INT),
    st.integers(0, 300),
)
numbers = st.one_of(
    st.sampled_from(sorted(TABLE)),
    st.sampled_from(sorted(number for number, entry in TABLE.items() if entry.cases)),
    st.integers(0, INT),
)


@given(traps=st.sampled_from(list(PROGRAMS)), nr=numbers, args=st.tuples(*[registers] * 6))
def test_the_filter_does_what_the_table_says(traps: Traps, nr: int, args: tuple[int, ...]) -> None:
    """On any number and any arguments the exported program returns what the table asks for."""
    assert bpf.run(DECODED[traps], nr, args) == bpf.returned(classify(nr, args, traps))


@pytest.mark.parametrize("traps", PROGRAMS)
def test_the_real_filter_verifies(traps: Traps) -> None:
    """What libseccomp makes of the table passes, and not as the filter of another table."""
    verify(PROGRAMS[traps], traps)
    for other in PROGRAMS.keys() - {traps}:
        with pytest.raises(FilterError):
            verify(PROGRAMS[traps], other)


def borders(traps: Traps) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Give calls in each case of the table, and just beside it."""
    for nr in (*range(1024), INT, 0x40000000):
        yield nr, (0,) * 6
    for nr, entry in by_number(traps).items():
        for case in entry.cases:
            for background in (0, LONG):
                args = [background] * 6
                for index, mask, value in case.matches:
                    args[index] = args[index] & ~mask | value
                yield nr, tuple(args)
                for index, mask, _ in case.matches:
                    beside = list(args)
                    beside[index] ^= mask & -mask
                    yield nr, tuple(beside)


WAYS: dict[str, tuple[int, Callable[[Raw], Raw]]] = {
    "allow": (RETURN, lambda i: (*i[:3], bpf.ALLOW if i[3] != bpf.ALLOW else bpf.USER_NOTIF)),
    "errno": (RETURN, lambda i: (*i[:3], bpf.ERRNO | 1)),
    "value": (EQUAL, lambda i: (*i[:3], i[3] ^ 0x80)),
    "branch": (EQUAL, lambda i: (i[0], i[2], i[1], i[3])),
    "number": (GREATER, lambda i: (*i[:3], i[3] + 1)),
    "mask": (AND, lambda i: (*i[:3], i[3] ^ (i[3] & -i[3]))),
    "word": (LOAD, lambda i: (*i[:3], i[3] ^ 4)),
}


def mutants(way: str, count: int | None) -> list[bytes]:
    """Give programs that are wrong in one instruction, spread over the program; None: all there are."""
    instructions = disassemble(PROGRAMS[STRICTEST])
    opcode, change = WAYS[way]
    sites = [at for at, instruction in enumerate(instructions) if instruction[0] == opcode]
    step = 1 if count is None else max(1, len(sites) // count)
    return [
        assemble(*instructions[:at], change(instructions[at]), *instructions[at + 1 :])
        for at in sites[::step]
    ]


def survivors(way: str, count: int | None) -> tuple[int, int]:
    """Count the mutants, and those that pass; what passes must do the same as the right program."""
    calls = list(borders(STRICTEST))
    made, passed = mutants(way, count), 0
    for mutant in made:
        try:
            verify(mutant)
        except FilterError:
            continue
        passed += 1
        decoded = bpf.decode(mutant)
        for nr, args in calls:
            assert bpf.run(decoded, nr, args) == bpf.returned(classify(nr, args))
    return len(made), passed


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_filter_is_caught(way: str) -> None:
    """A changed action, value, branch, mask or word does not pass, unless it makes no difference."""
    made, passed = survivors(way, 12)
    assert passed < made


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_filter_is_caught_wherever(way: str) -> None:
    """The same for every instruction of the program."""
    made, passed = survivors(way, None)
    assert passed < made


def test_a_single_exception_among_all_arguments_is_caught() -> None:
    """No sample of arguments would find a filter that lets one value through in a register nobody uses."""
    number = next(number for number, entry in TABLE.items() if entry.name == "openat")
    backdoor = (
        (LOAD, 0, 0, 0),
        (EQUAL, 0, 3, number),
        (LOAD, 0, 0, 16 + 8 * 5),
        (EQUAL, 0, 1, 0xDECAFBAD),
        (RETURN, 0, 0, bpf.ALLOW),
    )
    with pytest.raises(FilterError, match=r"openat.*0xdecafbad\) returns 0x7fff0000"):
        verify(assemble(*backdoor) + PROGRAMS[STRICTEST])


def test_the_error_names_call_and_arguments() -> None:
    """The message says which call goes wrong and with which arguments."""
    with pytest.raises(FilterError, match=r"number \d+ .*with \(0x0, .*returns 0x7fff0000") as caught:
        verify(assemble((RETURN, 0, 0, bpf.ALLOW)))
    assert caught.value.syscall in {entry.name for entry in TABLE.values()}


def test_a_needless_look_at_arguments_is_caught() -> None:
    """Calls without cases must be settled by number alone, so that the kernel can cache the answer."""
    with pytest.raises(FilterError, match="looked at"):
        verify(assemble((LOAD, 0, 0, 16)) + PROGRAMS[STRICTEST])


def test_what_cannot_be_proven_is_refused() -> None:
    """A comparison of arguments by order, which libseccomp is known to get wrong, and too many paths."""
    ioctl = next(number for number, entry in TABLE.items() if entry.name == "ioctl")
    by_order = ((LOAD, 0, 0, 0), (EQUAL, 0, 2, ioctl), (LOAD, 0, 0, 16), (GREATER, 0, 0, 5))
    with pytest.raises(FilterError, match="something else than equality"):
        verify(assemble(*by_order) + PROGRAMS[STRICTEST])
    many = [step for bit in range(32) for step in ((LOAD, 0, 0, 24), (AND, 0, 0, 1 << bit), (EQUAL, 0, 0, 0))]
    many = [(LOAD, 0, 0, 0), (EQUAL, 0, len(many), ioctl), *many]
    with pytest.raises(FilterError, match="too many paths"):
        verify(assemble(*many) + PROGRAMS[STRICTEST])


@pytest.mark.parametrize("number", [1025, 5000, 0x12345678, 0x40000400, 0x7FFFFFFE, 0xFFFFFFFD])
def test_no_number_escapes(number: int) -> None:
    """A single number that no call has is caught, wherever it lies, and so is a look at its bits."""
    spared = ((LOAD, 0, 0, 0), (EQUAL, 0, 1, number), (RETURN, 0, 0, bpf.ALLOW))
    with pytest.raises(FilterError, match=rf"number {number} .* returns 0x7fff0000"):
        verify(assemble(*spared) + PROGRAMS[STRICTEST])
    masked = ((LOAD, 0, 0, 0), (AND, 0, 0, ~number & INT), (EQUAL, 0, 1, 0), (RETURN, 0, 0, bpf.ALLOW))
    with pytest.raises(FilterError, match="bit by bit"):
        verify(assemble(*masked) + PROGRAMS[STRICTEST])


@pytest.mark.parametrize("number", [0x40000003, 0xC00000B7, 0xC000003E, 0, 0xFFFFFFFF])
def test_foreign_architectures_are_killed(number: int) -> None:
    """Only calls of the native architecture get past the first instructions."""
    if number == architecture().audit:
        pytest.skip("the native one")
    assert bpf.run(DECODED[STRICTEST], 0, (0,) * 6, number) == bpf.KILL_PROCESS


def test_a_filter_that_spares_a_foreign_architecture_is_caught() -> None:
    """All architectures but the native one must be killed, whichever is let through."""
    spared = ((LOAD, 0, 0, 4), (EQUAL, 0, 1, 0x40000003), (RETURN, 0, 0, bpf.ALLOW))
    with pytest.raises(FilterError, match="another architecture"):
        verify(assemble(*spared) + PROGRAMS[STRICTEST])


def test_conditions_lie_within_their_masks() -> None:
    """A condition that could never be met would be a mistake in the table."""
    for entry in TABLE.values():
        for case in entry.cases:
            assert all(isinstance(match, Match) and match.value & ~match.mask == 0 for match in case.matches)
