"""Attackers, from ``src/`` or lines of Python: run bare or behind a policy, their answers read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from racing import Amount, run_race
from resolving import RESOLVING

SOURCES = Path(__file__).resolve().parent / "src"
PYTHON = os.path.realpath(sys.executable)
IDENTITY = ("-nostdlib", "-fno-stack-protector", "-fno-builtin", "-static-pie")
PRELUDE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
EXECVEAT = {"x86_64": 322, "aarch64": 281}[os.uname().machine]
EMPTY_PATH, CHECK = 0x1000, 0x10000
def vector(words):
    return None if words is None else (ctypes.c_char_p * (len(words) + 1))(*words, None)
def result(call):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        call()
        os.write(1, errno.errorcode[ctypes.get_errno()].encode())
        os._exit(2)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said.decode("latin-1")
def execve(path, argv, envp=()):
    return result(lambda: libc.execve(path, vector(argv), vector(envp)))
def execveat(fd, path, argv, flags, envp=()):
    return result(lambda: libc.syscall(EXECVEAT, fd, path, vector(argv), vector(envp), flags))
"""


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


@pytest.fixture
def identities(project: Any, attacker: Callable[..., Path]) -> tuple[Path, Path]:
    """Two programs that report themselves: one that may run, and ./vault/wrong, which may not."""
    made = []
    for who, name in (("a", "open/right"), ("b", "vault/wrong")):
        path = project.write(name, "")
        path.write_bytes(attacker("identity", *IDENTITY, f"-DWHO='{who}'").read_bytes())
        path.chmod(0o755)
        made.append(path)
    return made[0], made[1]


@pytest.fixture
def attack(project: Any) -> Callable[..., Any]:
    """Run lines of Python bare (policy None) or behind a policy; gives what they put into ``said``."""

    def make(lines: str, policy: Any, **options: Any) -> Any:
        code = f"{PRELUDE}\nsaid = []\n{lines}\nimport json\nprint(json.dumps(said))"
        argv = [PYTHON, "-I", "-S", "-c", code]
        done = project.bare(argv, **options) if policy is None else project.run(argv, policy, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return make


@pytest.fixture
def ask(by_name: Any) -> Callable[..., Any]:
    """Run lines of Python with the functions of `resolving`; gives the command, with its lines."""

    def run(lines: str, policy: Any, **options: Any) -> Any:
        done = by_name.run(["python3", "-c", RESOLVING + lines], policy, **options)
        assert done.returncode == 0, done.stderr
        done.lines = done.stdout.splitlines()
        return done

    return run
