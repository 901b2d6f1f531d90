"""Files that the harness itself runs: a tree that could change them would act as the harness.

Those that are there are closed to it. A new one could stand before them: what is imported when it is first
needed, while a tree runs, is looked for along ``sys.path``, and that often begins with the project.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

import rampart_seccomp

__all__ = ["ClosedPlaces", "harness_code", "import_from_closed_places"]

_DEPENDENCIES = frozenset(
    ["_cffi_backend", "attr", "attrs", "cattrs", "cffi", "dnslib", "pyseccomp", "rich", "ruamel", "structlog"]
)
"""What this package imports, some of it late."""


def harness_code() -> list[bytes]:
    """Return this package, the environment of the harness, user site, library, and whence dependencies are.

    The environment that the *harness* runs from is closed to the tree, even if it lies in the project; any
    other environment there is as open as the policy says.
    """
    found = {os.path.dirname(rampart_seccomp.__file__), site.getusersitepackages()}
    found.update(site.getsitepackages())
    # As sysconfig has it ("stdlib", "platstdlib"), which takes longer to import than a command to run.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found |= {os.path.dirname(os.__file__), os.path.join(sys.base_exec_prefix, sys.platlibdir, version)}
    if sys.prefix != sys.base_prefix:
        found.add(sys.prefix)
    if sys.pycache_prefix:
        found.add(sys.pycache_prefix)
    found.update(_homes())
    return sorted(os.fsencode(os.path.realpath(path)) for path in found if path)


def _homes() -> Iterator[str]:
    """Give the directories in which those dependencies were found that are loaded already."""
    for name in _DEPENDENCIES:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if file:
            yield os.path.dirname(os.path.dirname(file) if hasattr(module, "__path__") else file)


class ClosedPlaces:
    """Finds the standard library and what this package depends on where no tree can put a module.

    A finder for ``sys.meta_path`` (importlib.abc.MetaPathFinder). Other modules are not its business.

    Args:
        closed: Real names of directories.
    """

    def __init__(self, closed: Iterable[bytes]) -> None:
        self._closed = tuple(os.path.join(os.fsdecode(place), "") for place in closed)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of the top level.

        Raises:
            ModuleNotFoundError: It is in no such place, as ``msvcrt``, and nothing else may stand for it.
        """
        if path is not None or not (name in sys.stdlib_module_names or name in _DEPENDENCIES):
            return None
        places = [place for place in sys.path if self._has(place)]
        found = PathFinder.find_spec(name, places, target)
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found

    def _has(self, place: str) -> bool:
        return os.path.join(os.path.realpath(place), "").startswith(self._closed)


def import_from_closed_places(closed: Iterable[bytes]) -> None:
    """Have `ClosedPlaces` asked before the places of ``sys.path``, from now on; once for all brokers."""
    if any(isinstance(finder, ClosedPlaces) for finder in sys.meta_path):
        return
    # Behind what is built in or frozen, which no file takes the place of.
    at = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
    sys.meta_path.insert(at, ClosedPlaces(closed))
