"""An object of the target's view, held by an O_PATH fd so that it cannot be exchanged."""

from __future__ import annotations

import os
import stat
from typing import Any

import attrs

from rampart_seccomp.calls.shim import checked, ffi, lib

__all__ = ["Pin", "real_name"]

_NAME_SIZE = 4096 + 16


def real_name(fd: int) -> tuple[bytes, int]:
    """Return the real absolute name of what an fd refers to, and RS_PIN_* flags about it.

    Raises:
        OSError: ENAMETOOLONG beyond PATH_MAX; ENOENT if it cannot be reached from here.
    """
    buffer = ffi.new("char[]", _NAME_SIZE)
    flags = ffi.new("uint32_t *")
    length = checked(lib.rs_real_name(fd, flags, buffer, _NAME_SIZE), "readlink")
    return ffi.buffer(buffer, length)[:], int(flags[0])


@attrs.define(eq=False)
class Pin:
    """What a path or descriptor of the target means, and the place where it stands.

    Attributes:
        object: O_PATH fd of the object; -1 if it does not exist.
        parent: O_PATH fd of the directory that has the entry; -1 if it was reached otherwise.
        name: The entry's name in ``parent``, with a trailing slash if the path had one.
        mode, dev, ino, rdev, nlink: stat(2) of the object.
        process: In procfs, the process the object belongs to; else 0.
    """

    object: int
    parent: int
    name: bytes
    flags: int
    mode: int
    dev: int
    ino: int
    rdev: int
    nlink: int
    process: int
    _path: bytes | None = None

    @classmethod
    def adopt(cls, raw: Any) -> Pin:
        """Take over a ``struct rs_pin`` with its fds."""
        return cls(
            object=raw.object,
            parent=raw.parent,
            name=ffi.string(raw.name),
            flags=raw.flags,
            mode=raw.mode,
            dev=raw.dev,
            ino=raw.ino,
            rdev=raw.rdev,
            nlink=raw.nlink,
            process=raw.process,
        )

    @property
    def missing(self) -> bool:
        """True if nothing has the name yet."""
        return bool(self.flags & lib.RS_PIN_MISSING)

    @property
    def trailing_slash(self) -> bool:
        """True if the path ended in a slash."""
        return bool(self.flags & lib.RS_PIN_SLASH)

    @property
    def outside(self) -> bool:
        """True for an object of procfs that belongs to a process outside of the tree."""
        return bool(self.flags & lib.RS_PIN_OUTSIDE)

    @property
    def nameless(self) -> bool:
        """True for what never had a name: a pipe, a socket, a memfd, an anonymous inode."""
        _ = self.path
        return bool(self.flags & lib.RS_PIN_NAMELESS)

    @property
    def deleted(self) -> bool:
        """True if the name is gone; `path` is then the one it had."""
        _ = self.path
        return bool(self.flags & lib.RS_PIN_DELETED)

    @property
    def path(self) -> bytes:
        """Real absolute name; of a missing entry, the parent's real name and the entry's."""
        if self._path is None:
            self._path, flags = self._name_now()
            self.flags |= flags
        return self._path

    def _name_now(self) -> tuple[bytes, int]:
        if self.object >= 0:
            return real_name(self.object)
        parent, flags = real_name(self.parent)
        return parent.rstrip(b"/") + b"/" + self.name.rstrip(b"/"), flags

    def named_as_judged(self) -> bool:
        """Tell whether the name is still what `path` said, if anybody asked for it."""
        return self._path is None or self._name_now()[0] == self._path

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return not self.missing and stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """True for a symbolic link."""
        return not self.missing and stat.S_ISLNK(self.mode)

    def still_there(self) -> bool:
        """Tell whether the pinned directory still has this object under this name."""
        try:
            now = os.stat(self.name.rstrip(b"/") or b".", dir_fd=self.parent, follow_symlinks=False)
        except FileNotFoundError:
            return self.missing
        return not self.missing and (now.st_dev, now.st_ino) == (self.dev, self.ino)

    def close(self) -> None:
        """Let go of the object."""
        for fd in (self.object, self.parent):
            if fd >= 0:
                os.close(fd)
        self.object = self.parent = -1
