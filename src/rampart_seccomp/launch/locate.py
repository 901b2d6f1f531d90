"""Find the launcher: a program that ships as a file of the package."""

from __future__ import annotations

import errno
import os

from rampart_seccomp.errors import LauncherMissing

__all__ = ["launcher_path"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def launcher_path() -> str:
    """Return the absolute path of ``rampart-seccomp-launch``.

    Raises:
        LauncherMissing: The package was installed without it, or is imported from a zip file.
    """
    path = os.path.join(_PACKAGE, "rampart-seccomp-launch")
    if not os.access(path, os.X_OK):
        raise LauncherMissing(errno.ENOENT, path)
    return path
