"""The interpreter of filters."""

from __future__ import annotations

import pytest
from assembly import Raw, assemble

from rampart_seccomp.errors import FilterError
from rampart_seccomp.kernel import bpf
from rampart_seccomp.kernel.bpf import AND, EQUAL, JUMP, LOAD, RETURN


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
        return bpf.run(bpf.decode(assemble(*instructions, *ends)), 0, args)

    assert outcome((LOAD, 0, 0, low), (EQUAL, 0, 1, 5)) == 1
    assert outcome((LOAD, 0, 0, high), (EQUAL, 0, 1, 5)) == 2
    assert outcome((LOAD, 0, 0, high), (0x25, 0, 1, 0xFFFFFFFE)) == 1
    assert outcome((LOAD, 0, 0, high), (0x25, 0, 1, 0xFFFFFFFF)) == 2
    assert outcome((LOAD, 0, 0, high), (0x35, 0, 1, 0xFFFFFFFF)) == 1
    assert outcome((LOAD, 0, 0, low), (0x45, 0, 1, 4)) == 1
    assert outcome((LOAD, 0, 0, low), (0x45, 0, 1, 2)) == 2
    assert outcome((LOAD, 0, 0, high), (AND, 0, 0, 0xF0), (EQUAL, 0, 1, 0xF0)) == 1
    assert outcome((JUMP, 0, 0, 1)) == 2
