"""Attacker programs: compiled from ``src/``, run bare or behind a policy, their answers read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

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
def race(project: Any, attacker: Callable[..., Path]) -> Callable[..., Any]:
    """Run src/race.c behind a policy; gives its counters. Before that, bare until it is won, as a control."""
    program = attacker("race")

    def make(
        flipper: str,
        call: str,
        amount: tuple[int, float],
        names: Sequence[Any],
        policy: Any,
        **variables: Any,
    ) -> dict[str, int]:
        tries, seconds = amount
        argv = [program, flipper, call, str(tries), str(seconds), *names]
        if policy is None:
            done = project.bare(argv, env={"UNTIL_WIN": "1"} | variables)
        else:
            done = project.run(argv, policy, env=variables, timeout=seconds + 60)
        assert done.returncode == 0, done.stderr
        counters: dict[str, int] = json.loads(done.stdout)
        return counters

    return make
