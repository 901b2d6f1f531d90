"""What is made from scratch slowly, and kept for the next start.

The files lie in a directory that belongs to the effective user and is closed to all others; no tree can
write there, whatever its policy. A file counts only if it is whole, and belongs to this very key: a hash of
all that its content depends on.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import time

__all__ = ["Cache", "cache_directories"]

_MAGIC = b"rampart-seccomp cache\n"
_KEPT = 30 * 24 * 3600  # seconds
_SIZE_MAX = 1 << 20


def cache_directories() -> list[bytes]:
    """Name the directories that built filters are kept in; they need not exist.

    Returns:
        The one in use first: ``$XDG_CACHE_HOME/rampart-seccomp``, or ``~/.cache/rampart-seccomp`` where that
        is unset or relative (XDG Base Directory Specification). Then the latter, if it is another, which is
        in use when the variable is not set.
    """
    home = os.environb.get(b"HOME", b"")
    if not home.startswith(b"/"):
        home = os.fsencode(pwd.getpwuid(os.geteuid()).pw_dir)
    bases = [os.environb.get(b"XDG_CACHE_HOME", b""), os.path.join(home, b".cache")]
    found = [os.path.join(base, b"rampart-seccomp") for base in bases if base.startswith(b"/")]
    return list(dict.fromkeys(found))


class Cache:
    """One kind of files in the cache.

    Args:
        kind: Ends their names.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def find(self, key: str) -> bytes | None:
        """Give what was kept under a key; None if there is nothing, or it is not whole or not ours."""
        directory = _open_directory(cache_directories()[0])
        if directory is None:
            return None
        try:
            return _read(directory, self._name(key), key)
        finally:
            os.close(directory)

    def keep(self, key: str, content: bytes) -> None:
        """Keep something under a key, and remove what nobody has written for a month; never fails."""
        directory = _open_directory(cache_directories()[0])
        if directory is None or len(content) > _SIZE_MAX // 2:
            return
        try:
            _write(directory, self._name(key), sealed(key, content))
            self._prune(directory)
        finally:
            os.close(directory)

    def _name(self, key: str) -> str:
        return f"{key[:32]}.{self._kind}"

    def _prune(self, directory: int) -> None:
        """Remove files of other versions, and unfinished ones."""
        limit = time.time() - _KEPT
        for name in os.listdir(directory):
            try:
                old = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime < limit
                if f".{self._kind}" in name and old:
                    os.unlink(name, dir_fd=directory)
            except OSError:
                continue  # somebody else was faster, or it is no file


def sealed(key: str, content: bytes) -> bytes:
    """Give the bytes of a file."""
    return _MAGIC + hashlib.sha256(key.encode() + content).hexdigest().encode() + b"\n" + content


def _own(status: os.stat_result, kind: int) -> bool:
    """Tell whether an object is of a kind (``S_IFREG``, ``S_IFDIR``), ours, and closed to everybody else."""
    return (
        stat.S_IFMT(status.st_mode) == kind
        and status.st_uid == os.geteuid()
        and not stat.S_IMODE(status.st_mode) & 0o077
    )


def _open_directory(path: bytes) -> int | None:
    """Open the cache directory, made if needed; None if it cannot be trusted or does not exist."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.mkdir(path, 0o700)
    except OSError:
        pass  # it exists, or the open fails in its turn
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if _own(os.fstat(directory), stat.S_IFDIR):
        return directory
    os.close(directory)
    return None


def _read(directory: int, name: str, key: str) -> bytes | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    with open(file, "rb") as stream:
        if not _own(os.fstat(file), stat.S_IFREG):
            return None
        whole = stream.read(_SIZE_MAX)
    content = whole[len(sealed(key, b"")) :]
    return content if whole == sealed(key, content) else None


def _write(directory: int, name: str, content: bytes) -> None:
    """Put a file into the cache, whole or not at all; a cache that cannot be written is no error."""
    temporary = f".{name}.{os.urandom(8).hex()}"
    try:
        file = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=directory,
        )
    except OSError:
        return
    try:
        with open(file, "wb") as stream:
            stream.write(content)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(temporary, dir_fd=directory)
