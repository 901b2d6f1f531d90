"""The launcher under a broker of one page, and harnesses in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from fake_broker import FakeBroker

import rampart_seccomp


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A signal that never comes fails the test instead of holding it for ever."""

    def fail(number: int, frame: object) -> None:
        raise TimeoutError("the test took longer than a minute")

    inherited = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, inherited)


@pytest.fixture
def environment() -> dict[str, str]:
    """For a harness in a process of its own: it can import the package and fake_broker."""
    paths = [
        str(Path(rampart_seccomp.__file__).parent.parent),
        str(Path(__file__).parent),
        str(Path(__file__).parents[1]),
        str(Path(attrs.__file__).parent.parent),
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def harness(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code as a harness in a process of its own, with pipes; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [options.pop("python", sys.executable), "-c", code, *(str(word) for word in arguments)],
            **{
                "env": environment,
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "text": True,
                **options,
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


@pytest.fixture
def broker() -> FakeBroker:
    """A broker that lets everything pass."""
    return FakeBroker()
