"""Attacker programs: compiled from ``src/``, run bare or behind a policy, their answers read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from racing import Amount, run_race

SOURCES = Path(__file__).resolve().parent / "src"


def answers(output: str) -> list[str]:
    """The results of the steps that ``calls`` made, in order (see src/calls.c)."""
    return [line.rsplit("\t", 1)[1] for line in output.splitlines() if "\t" in line]


@pytest.fixture(scope="session")
def attacker(compiled: Callable[..., Path]) -> Callable[..., Path]:
    """Compile an attacker program by name."""

    def build(name: str, *flags: str) -> Path:
        return compiled(SOURCES / f"{name}.c", *flags)

    return build


@pytest.fixture
def calls(project: Any, attacker: Callable[..., Path]) -> Callable[..., Any]:
    """Make raw calls behind a policy, or bare (policy None); gives the results and the finished command."""
    program = attacker("calls")

    def make(steps: Sequence[str], policy: Any, **options: Any) -> Any:
        argv = [program, *steps]
        done = project.bare(argv, **options) if policy is None else project.run(argv, policy, **options)
        assert done.returncode == 0, done.stderr
        done.answers = answers(done.stdout)
        assert len(done.answers) == len(steps), done.stdout
        return done

    return make


@pytest.fixture
def flipping(attacker: Callable[..., Path]) -> Iterator[Callable[[Path, Path], None]]:
    """Exchange two names from outside of the sandbox, as fast as the kernel can, until the test is over."""
    running: list[subprocess.Popen[str]] = []

    def start(one: Path, other: Path) -> None:
        process = subprocess.Popen([attacker("flip"), one, other], stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "flipping\n"

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def race(project: Any, attacker: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """Run src/race.c, bare until it is won (policy None) or behind a policy; gives its counters."""
    program = attacker("race")

    def make(
        flipper: str, call: str, amount: Amount, names: Sequence[Any], policy: Any, **variables: str
    ) -> dict[str, Any]:
        return run_race(project, program, flipper, call, amount, names, policy, variables)[0]

    return make
