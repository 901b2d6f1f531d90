"""The seccomp filter: built from the table with libseccomp, checked, and kept in a cache.

Only masked equality is used, since libseccomp miscompiles the ordering comparisons; what it makes of the
rules is proven right by `proof.verify` before anybody sees it, and so is what comes from the cache. It is
exported, never loaded into this process.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import operator
import os
import pwd
import secrets
import stat
import time
from collections.abc import Iterator
from typing import Any

import attrs

from rampart_seccomp.errors import FilterError, LibraryMissing
from rampart_seccomp.kernel import bpf, entries, ioctls, libseccomp, proof, sockets, syscalls
from rampart_seccomp.kernel.entries import Classified, Disposition, Match, Syscall
from rampart_seccomp.kernel.traps import STRICTEST, Traps

__all__ = ["Filter", "build_filter", "cache_directories", "load_filter"]

_MAGIC = b"rampart-seccomp filter\n"
_INSTRUCTION = 8  # sizeof(struct sock_filter)
_KEPT = 30 * 24 * 3600  # seconds


@attrs.frozen
class Filter:
    """A checked filter.

    Attributes:
        program: Array of ``struct sock_filter``, native endian.
        fingerprint: SHA-256 of the program, in hex.
    """

    program: bytes = attrs.field(repr=False)
    fingerprint: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", hashlib.sha256(self.program).hexdigest())

    @property
    def instructions(self) -> int:
        """Number of BPF instructions."""
        return len(self.program) // _INSTRUCTION


def _pyseccomp() -> Any:
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise
        raise LibraryMissing("libseccomp", libseccomp.MISSING_HINT) from error
    return pyseccomp


def _rules(entry: Syscall) -> Iterator[tuple[int, tuple[Match, ...]]]:
    """Give a call's rules as (action, conditions).

    Last rules whose action is that of the entry itself are left out. "Everything else" cannot be said by a
    rule without conditions, which would swallow the others, so it is said by two rules on one bit, 0 and 1,
    that all masks have: libseccomp tests the wider mask first.
    """
    otherwise = bpf.returned(Classified(entry.disposition, entry.errno))
    found = [(bpf.returned(Classified(case.disposition, case.errno)), case.matches) for case in entry.cases]
    while found and found[-1][0] == otherwise:
        found.pop()
    if not found:
        yield otherwise, ()
        return
    yield from found
    argument = min(match.argument for _, matches in found for match in matches)
    shared = functools.reduce(
        operator.and_, (match.mask for _, matches in found for match in matches if match.argument == argument)
    )
    bit = shared & -shared
    taken = {matches for _, matches in found}
    for value in (0, bit):
        if ((rest := Match(argument, bit, value)),) not in taken:
            yield otherwise, (rest,)


def build_filter(traps: Traps = STRICTEST) -> bytes:
    """Build the filter for this machine and check it.

    Args:
        traps: What the filter is for, as for `syscalls.table`.

    Returns:
        An array of ``struct sock_filter``, native endian.

    Raises:
        LibraryMissing: libseccomp is not installed.
        FilterError: libseccomp refused a rule, or made something else of the rules than the table says.
    """
    library = _pyseccomp()
    absent = library.ERRNO(errno.ENOSYS)
    made = library.SyscallFilter(absent)
    made.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)
    made.set_attr(library.Attr.CTL_OPTIMIZE, 2)
    for number, entry in sorted(syscalls.by_number(traps).items()):
        if entry.disposition is Disposition.ABSENT:
            continue
        for action, matches in _rules(entry):
            conditions = [
                library.Arg(index, library.MASKED_EQ, mask, value) for index, mask, value in matches
            ]
            try:
                made.add_rule_exactly(action, number, *conditions)
            except OSError as error:
                raise FilterError(f"libseccomp refuses a rule: {error}", syscall=entry.name) from error
    with open(os.memfd_create("filter", os.MFD_CLOEXEC), "w+b") as file:
        made.export_bpf(file)
        file.seek(0)
        program = file.read()
    proof.verify(program, traps)
    return program


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


def _key(traps: Traps) -> str:
    """Give the SHA-256, in hex, of all that a filter depends on: table, library, machine and this code."""
    digest = hashlib.sha256(f"{syscalls.fingerprint(traps)} {libseccomp.version()}\n".encode())
    modules = (bpf, entries, ioctls, libseccomp, proof, sockets, syscalls)
    for path in (__file__, *(module.__file__ for module in modules)):
        with open(str(path), "rb") as source:
            digest.update(hashlib.sha256(source.read()).digest())
    return digest.hexdigest()


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


def _sealed(key: str, program: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(key.encode() + program).hexdigest().encode() + b"\n" + program


def _read(directory: int, name: str, key: str, traps: Traps) -> bytes | None:
    """Read a cached program; None if there is none, or it is not whole, not ours, stale or wrong."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    with open(file, "rb") as stream:
        if not _own(os.fstat(file), stat.S_IFREG):
            return None
        content = stream.read(1 << 20)
    program = content[len(_sealed(key, b"")) :]
    if content != _sealed(key, program):
        return None
    try:
        proof.verify(program, traps)
    except FilterError:
        return None
    return program


def _write(directory: int, name: str, content: bytes) -> None:
    """Put a file into the cache, whole or not at all; a cache that cannot be written is no error."""
    temporary = f".{name}.{secrets.token_hex(8)}"
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


def _prune(directory: int) -> None:
    """Remove filters of other versions, and unfinished files, that nobody has written for a month."""
    limit = time.time() - _KEPT
    for name in os.listdir(directory):
        try:
            if ".bpf" in name and os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime < limit:
                os.unlink(name, dir_fd=directory)
        except OSError:
            continue  # somebody else was faster, or it is no file


def load_filter(traps: Traps = STRICTEST) -> Filter:
    """Take the filter for this machine from the cache, or build and cache it.

    A cached file is looked at only if it and its directory belong to the effective user and are closed to all
    others, and is used only if it is proven to do what the table says; otherwise the filter is built again.

    Args:
        traps: What the filter is for, as for `syscalls.table`.

    Raises:
        LibraryMissing: libseccomp is not installed.
        FilterError: See `build_filter`.
        KernelSupportError: There is no table for this type of machine.
    """
    directory = _open_directory(cache_directories()[0])
    if directory is None:
        return Filter(build_filter(traps))
    try:
        key = _key(traps)
        name = f"{key[:32]}.bpf"
        program = _read(directory, name, key, traps)
        if program is None:
            program = build_filter(traps)
            _write(directory, name, _sealed(key, program))
            _prune(directory)
        return Filter(program)
    finally:
        os.close(directory)
