"""What the harness itself runs, and no tree may change."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.machinery import BuiltinImporter, PathFinder
from pathlib import Path

import pytest

import rampart_seccomp
from rampart_seccomp.broker.ownfiles import ClosedPlaces, harness_code, import_from_closed_places


@pytest.mark.parametrize("name", ["stdlib", "platstdlib", "purelib", "platlib"])
def test_the_library_is_among_it(name: str) -> None:
    """All places that Python itself names are closed, without the module that names them."""
    place = os.fsencode(os.path.realpath(sysconfig.get_paths()[name]))
    closed = harness_code()
    assert [code for code in closed if place == code or place.startswith(code + b"/")] != []


def test_this_package_is_among_it() -> None:
    """Wherever it is installed."""
    package = os.path.dirname(rampart_seccomp.__file__)
    assert os.fsencode(os.path.realpath(package)) in harness_code()


# A module of the project with the name of one that is imported late: it says so, and fails.
PLANT = "print('planted', __name__, flush=True)"
HARNESS = """
import sys
import rampart_seccomp as rampart
policy = rampart.Policy.loads({policy!r})
plant = "import sys; [open(name + '.py', 'w').write(sys.argv[1]) for name in sys.argv[2:]]"
names = ["dnslib", "stringprep", "asyncio", "difflib", "msvcrt"]
rampart.run(["/usr/bin/python3", "-c", plant, {plant!r}, *names], policy=policy, check=True)
for name in names:
    if name not in sys.modules:
        try:
            __import__(name)
        except ImportError:
            print("not there:", name)
import dnslib
"""
POLICY = """
version: 1
default: {read: allow, exec: allow, connect: deny}
rules:
  - {name: project, allow: write, paths: ["./**"]}
"""


@pytest.mark.core
def test_a_tree_plants_no_module_before_those_that_are_imported_late(tmp_path: Path) -> None:
    """A harness in the project has the project first on its path: what comes late is not found there."""
    harness = tmp_path / "harness.py"
    harness.write_text(HARNESS.format(policy=POLICY, plant=PLANT))
    done = subprocess.run([sys.executable, harness], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (tmp_path / "dnslib.py").exists()
    assert done.stdout.splitlines() == ["not there: msvcrt"]


def test_other_modules_are_found_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither the library nor a dependency, and submodules; a dependency only from a closed place."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "dnslib.py").touch()
    finder = ClosedPlaces([b"/usr"])
    assert finder.find_spec("harness", None) is None
    with pytest.raises(ModuleNotFoundError):
        finder.find_spec("dnslib", None)
    found = ClosedPlaces([os.fsencode(tmp_path)]).find_spec("dnslib", None)
    assert found is not None
    assert found.origin == str(tmp_path / "dnslib.py")
    assert finder.find_spec("yaml", ["/usr/ruamel"]) is None


def test_there_is_one_finder_for_all_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands right before that of the path."""
    monkeypatch.setattr(sys, "meta_path", [BuiltinImporter, PathFinder])
    for _ in range(2):
        import_from_closed_places([b"/usr"])
    assert [type(finder) for finder in sys.meta_path][1:2] == [ClosedPlaces]
    assert (sys.meta_path[0], sys.meta_path[2:]) == (BuiltinImporter, [PathFinder])
