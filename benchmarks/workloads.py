"""Whole pieces of work, as agents do them. Everything is made here; nothing comes from a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import Done, NotMeasured, Stage, Way, take_turns
from benchmarks.ways import AGENT, BARE, BWRAP, PEERS, STRACE

__all__ = ["BOUNDS", "WORKLOADS", "Workload", "measure"]

PATIENCE = 30.0
"""How many times as long as bare a way may take before it counts as hanging."""

LEAST_SECONDS, MOST_SECONDS = 60.0, 600.0
"""Nothing counts as hanging sooner; nothing is waited for longer."""

MADE, HELD = "made", ("engine", "Python")
"""Calls in all, and those that are held, by who answers; the rest is free."""

MODULES = (
    "json, asyncio, email.mime.text, http.client, xml.dom.minidom, unittest, sqlite3, logging.config, decimal"
)


@attrs.frozen
class Workload:
    """A piece of work.

    Attributes:
        furnish: Makes what the work needs in a directory, once.
        argv: The command, run there.
        leaves: Patterns of what it makes there, which is removed before each run.
        needs: A program without which it cannot be measured.
        proof: A file that is there if it was done.
    """

    furnish: Callable[[Path], None]
    argv: Sequence[str]
    leaves: Sequence[str] = ()
    needs: str | None = None
    proof: str | None = None


def measure(stage: Stage, settings: Settings) -> list[Figure]:
    """Measure every workload every way, from start to end of the command."""
    rounds, shares = Rounds("workloads", "s"), Rounds("calls of workloads", "", base=lambda way: MADE)
    places: dict[str, Path] = {}
    limits: dict[str, float] = {}

    def done(name: str, way: Way) -> Done:
        workload = WORKLOADS[name]
        if workload.needs is not None and shutil.which(workload.needs) is None:
            raise NotMeasured(f"{workload.needs} is not installed")
        if name not in places:
            places[name] = _furnished(stage, name)
        place = places[name]
        for left in [path for pattern in workload.leaves for path in place.glob(pattern)]:
            _remove(left)
        done = stage.run(way, workload.argv, place, timeout=limits.get(name, MOST_SECONDS))
        if way is BARE:
            limits[name] = min(MOST_SECONDS, max(LEAST_SECONDS, PATIENCE * done.seconds))
        if workload.proof is not None and not (place / workload.proof).exists():
            raise NotMeasured(f"it ended well and did not make {workload.proof}")
        return done

    def seconds(name: str, way: Way) -> tuple[float, None]:
        return done(name, way).seconds, None

    def calls(name: str, way: Way) -> tuple[float, None]:
        if way.name == MADE:
            done(name, way)
            return float(_counted(counts)), None
        return float(done(name, AGENT).held[way.name]), None

    counts = stage.directory / "counts"
    made = attrs.evolve(
        BARE, name=MADE, prefix=lambda _, __: ("strace", "-f", "-qq", "-c", "-U", "name,calls", "-o", counts)
    )
    held = [attrs.evolve(AGENT, name=name) for name in HELD]
    ways = (BARE, AGENT, *PEERS, STRACE, BWRAP)
    figures = take_turns(rounds, settings.fewer(5), [*WORKLOADS], ways, seconds, settings.say)
    return figures + take_turns(shares, 1, [*WORKLOADS], (made, *held), calls, settings.say)


def _counted(report: Path) -> int:
    """Add up what strace counted: a line for each call, with its name and number."""
    lines = (line.split() for line in report.read_text().splitlines())
    return sum(int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit() and line[0] != "total")


def _furnished(stage: Stage, name: str) -> Path:
    place = stage.directory / "workloads" / name.replace(" ", "-")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    WORKLOADS[name].furnish(place)
    return place


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _nothing(_: Path) -> None:
    pass


def _tree(place: Path) -> None:
    """Make 2,000 files of 40 lines in 100 directories."""
    for number in range(2_000):
        path = place / "tree" / f"part{number % 10}" / f"sub{number // 10 % 10}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (hashlib.sha256(f"{number} {line}".encode()).hexdigest() for line in range(40))
        path.write_text("\n".join([*lines, "needle" if number % 100 == 0 else "hay"]) + "\n")


def _origin(place: Path) -> None:
    """Make a repository with 300 files and 10 commits."""
    origin = place / "origin"
    origin.mkdir()
    identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.invalid")

    def git(*words: str) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", *identity, *words], cwd=origin, env=environment, check=True)

    git("init", "--quiet", ".")
    for commit in range(10):
        for number in range(30):
            path = origin / f"directory{number % 6}" / f"file{commit}-{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{commit} {number}\n" * 50)
        git("add", ".")
        git("commit", "--quiet", "-m", f"commit {commit}")


def _c_project(place: Path) -> None:
    """Make 200 C files, each with a header of its own and two common ones, and a Makefile."""
    for number in range(200):
        (place / f"part{number}.h").write_text(f"int part{number}(int value);\n")
        (place / f"part{number}.c").write_text(
            '#include <stdio.h>\n#include <string.h>\n#include "common.h"\n'
            f'#include "part{number}.h"\n'
            f"int part{number}(int value) {{ return (int)strlen(COMMON) + value + {number}; }}\n"
        )
    (place / "common.h").write_text('#define COMMON "common"\n')
    (place / "main.c").write_text(
        "\n".join(f'#include "part{number}.h"' for number in range(200))
        + "\nint main(void) { return part0(0) < 0; }\n"
    )
    objects = " ".join(["main.o", *(f"part{number}.o" for number in range(200))])
    (place / "Makefile").write_text(
        f"program: {objects}\n\tcc -o $@ {objects}\n%.o: %.c\n\tcc -O0 -c -o $@ $<\n"
        f"clean:\n\trm -f program {objects}\n"
    )


def _wheels(place: Path) -> None:
    """Make ten wheels with 20 modules each, which are archives and need no build."""
    (place / "wheels").mkdir()
    for number in range(10):
        name = f"made{number}"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        files = {f"{name}/__init__.py": "", f"{name}-1.0.dist-info/METADATA": metadata}
        files |= {f"{name}/module{module}.py": f"VALUE = {module}\n" * 20 for module in range(20)}
        files[f"{name}-1.0.dist-info/WHEEL"] = (
            "Wheel-Version: 1.0\nGenerator: benchmarks\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        record = f"{name}-1.0.dist-info/RECORD"
        files[record] = "".join(f"{path},,\n" for path in [*files, record])
        with zipfile.ZipFile(place / "wheels" / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)


def _tests(place: Path) -> None:
    """Make 20 files with ten tests each, which use files and processes."""
    (place / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    for number in range(20):
        (place / f"test_part{number}.py").write_text(
            "import subprocess\nimport pytest\n\n"
            "@pytest.mark.parametrize('value', range(9))\n"
            "def test_file(tmp_path, value):\n"
            "    path = tmp_path / 'file'\n    path.write_text(str(value))\n"
            "    assert int(path.read_text()) == value\n\n"
            "def test_process():\n    assert subprocess.run(['/bin/true']).returncode == 0\n"
        )


PYTHON = sys.executable

WORKLOADS = {
    "python imports": Workload(_nothing, (PYTHON, "-I", "-c", f"import {MODULES}")),
    "grep -r": Workload(_tree, ("grep", "-r", "-l", "needle", "."), needs="grep"),
    "git clone + status": Workload(
        _origin,
        ("sh", "-c", "git clone --quiet --no-local origin clone && git -C clone status --short"),
        leaves=("clone",),
        needs="git",
        proof="clone/.git/index",
    ),
    "make, 200 C files": Workload(
        _c_project,
        ("make", "-s", "-j2", "program"),
        leaves=("program", "*.o"),
        needs="make",
        proof="program",
    ),
    "pip install": Workload(
        _wheels,
        (
            *(PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", "site"),
            *("--find-links", "wheels", *(f"made{number}" for number in range(10))),
        ),
        leaves=("site",),
        proof="site/made9/module19.py",
    ),
    "pytest": Workload(_tests, (PYTHON, "-m", "pytest"), leaves=(".pytest_cache",)),
    "tar": Workload(
        _tree,
        ("sh", "-c", "tar -cf all.tar tree && mkdir out && tar -xf all.tar -C out"),
        leaves=("all.tar", "out"),
        needs="tar",
        proof="out/tree/part9",
    ),
}

BOUNDS = {
    "make, 200 C files": 1.15,
    "pytest": 1.15,
    "git clone + status": 1.15,
    "pip install": 1.15,
    "tar": 1.5,
    "grep -r": 2.0,
}
"""How many times as long as bare each may take."""
