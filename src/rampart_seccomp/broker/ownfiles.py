"""Files that the harness itself runs: a tree that could change them would act as the harness."""

from __future__ import annotations

import os
import site
import sys

import rampart_seccomp

__all__ = ["harness_code"]


def harness_code() -> list[bytes]:
    """Return this package, the environment of the harness, its user site and its library.

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
    return sorted(os.fsencode(os.path.realpath(path)) for path in found if path)
