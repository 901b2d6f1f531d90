"""What reads memory, addresses and paths, and the ring of records: against models and the kernel.

The drivers are beside this file; that of compiled policies is run by tests/policy/test_tables.py.
"""

from __future__ import annotations

import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCES = runpy.run_path(str(Path(__file__).parents[2] / "csrc" / "build_shim.py"))["SOURCES"]
Build = Callable[..., Path]


def run(program: Path, *arguments: object) -> list[int]:
    """Run a driver to its end; gives the numbers that it prints."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 2_000), pytest.param(2, 200_000, marks=pytest.mark.long)], ids=["little", "lot"]
)
class TestDrivers:
    @pytest.mark.parametrize("way", [[], ["mem"]], ids=["readv", "mem"])
    def test_reading(self, fuzzer: Build, seed: int, count: int, way: list[str]) -> None:
        """Strings and vectors are read to their end or not at all, whatever pages cannot be read."""
        (complete,) = run(fuzzer("reading", ["target.c", "identity.c", "spaces.c"]), seed, count, *way)
        assert count // 4 < complete < 2 * count

    def test_addresses(self, fuzzer: Build, seed: int, count: int) -> None:
        """A socket address leads where the kernel goes, or is a question; nothing behind its end is read."""
        program = fuzzer("addresses", [name for name in SOURCES if name != "held_sockets.c"])
        led, connected = run(program, seed, 10 * count)
        assert count // 2 < led < 10 * count
        assert 0 < connected <= led

    def test_journal(self, fuzzer: Build, seed: int, count: int) -> None:
        """Records come out whole and in order, and what has a reservation finds room."""
        (taken,) = run(fuzzer("journal", ["journal.c"]), seed, count)
        assert count // 10 < taken < count

    def test_paths(self, fuzzer: Build, seed: int, count: int, tmp_path: Path) -> None:
        """Among links, a path means the object, the place or the error that it means to the kernel."""
        counts = run(fuzzer("paths", SOURCES), seed, count, tmp_path)
        assert min(counts) > count // 20
