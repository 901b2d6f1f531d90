"""Rampart needs no privilege: the tests marked ``core`` pass as an unprivileged user, too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def readable_copy(programs: Path) -> Iterator[Path]:
    """A copy of sources and tests that anybody may read, in a directory that anybody may enter.

    Bytecode comes along: nobody could write it there, and would compile the package again for every command.
    """
    with tempfile.TemporaryDirectory(prefix="rampart-nobody-") as made:
        base = Path(made)
        base.chmod(0o755)
        ignored = shutil.ignore_patterns("*.o")
        for path in REPOSITORY.iterdir():
            if path.name in {"build", "dist"} or path.name.startswith("."):
                continue
            if path.is_dir():
                shutil.copytree(path, base / path.name, ignore=ignored)
            else:
                shutil.copy(path, base)
        subprocess.run(["chmod", "-R", "a+rX", base], check=True)
        (base / "home").mkdir()
        (base / "home").chmod(0o777)
        # Its name is that of the ignored directory in which the fixture `project` works.
        (base / "build").mkdir()
        (base / "build").chmod(0o777)
        # What is compiled already need not be compiled again.
        (base / "build" / "programs").mkdir()
        for program in filter(Path.is_file, programs.iterdir()):
            shutil.copy(program, base / "build" / "programs")
        (base / "build" / "programs").chmod(0o777)
        yield base


@pytest.fixture(scope="session")
def packages(readable_copy: Path) -> Path:
    """A copy of what is installed, but for certificates: an interpreter may be set up to add some."""
    installed = Path(sysconfig.get_paths()["purelib"])
    made = readable_copy / "packages"
    shutil.copytree(installed, made, ignore=shutil.ignore_patterns("pip", "certifi"))
    subprocess.run(["chmod", "-R", "a+rX", made], check=True)
    return made


def interpreter(as_nobody: Run, packages: Path) -> str:
    """A Python of this version that nobody can start, with our packages; skips where there is none."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/python{version}"):
        check = [candidate, "-c", "import pytest, cffi, attrs, pyseccomp, subprocess, ctypes"]
        try:
            tried = as_nobody(check, env={"PYTHONPATH": str(packages), "PATH": os.defpath})
        except OSError:
            continue
        if tried.returncode == 0:
            return candidate
    pytest.skip(f"no Python {version} that user 65534 can start")


QUICK = {
    ("tests/attacks",): 150,
    ("tests/broker",): 130,
    ("tests/calls", "tests/launch", "tests/workloads"): 50,
}
"""Directories of which the quick suite takes one case of each test, and how many pass at least."""


@pytest.mark.first
@pytest.mark.parametrize(
    ("options", "least"),
    [
        *(
            pytest.param(["--first-cases", *paths], least, id=Path(paths[0]).name)
            for paths, least in QUICK.items()
        ),
        pytest.param(["-n", "auto", "--dist", "worksteal", "tests"], 700, id="long", marks=pytest.mark.long),
    ],
)
def test_core_suite_as_nobody(
    options: list[str], least: int, readable_copy: Path, packages: Path, as_nobody: Run
) -> None:
    """The core tests pass without root, without capabilities and without a home.

    In the quick suite it is one case of each: what differs between the cases, root has run. Each part is one
    process, beside the others of the suite.
    """
    python = interpreter(as_nobody, packages)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "core and not long", *options]

    done = as_nobody(
        command,
        cwd=readable_copy,
        timeout=1500,
        env={
            "PYTHONPATH": f"{readable_copy / 'src'}:{packages}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(readable_copy / "home"),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
        },
    )

    closing = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
    passed = re.search(r"(\d+) passed", closing)
    assert passed is not None, f"{done.stdout[-4000:]}\n{done.stderr[-1000:]}"
    assert int(passed[1]) > least, closing
    assert done.returncode == 0, done.stdout[-6000:]
