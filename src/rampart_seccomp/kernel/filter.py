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
from collections.abc import Iterator
from typing import Any

import attrs

from rampart_seccomp.cache import Cache
from rampart_seccomp.errors import FilterError, LibraryMissing
from rampart_seccomp.kernel import bpf, entries, ioctls, libseccomp, proof, sockets, syscalls
from rampart_seccomp.kernel.entries import Classified, Disposition, Match, Syscall
from rampart_seccomp.kernel.traps import STRICTEST, Traps

__all__ = ["Filter", "build_filter", "load_filter"]

_INSTRUCTION = 8  # sizeof(struct sock_filter)

CACHE = Cache("bpf")
"""Filters built before; none is believed without a proof."""


@attrs.frozen(repr=False)
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


def _key(traps: Traps) -> str:
    """Give the SHA-256, in hex, of all that a filter depends on: table, library, machine and this code."""
    digest = hashlib.sha256(f"{syscalls.fingerprint(traps)} {libseccomp.version()}\n".encode())
    modules = (bpf, entries, ioctls, libseccomp, proof, sockets, syscalls)
    for path in (__file__, *(module.__file__ for module in modules)):
        with open(str(path), "rb") as source:
            digest.update(hashlib.sha256(source.read()).digest())
    return digest.hexdigest()


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
    key = _key(traps)
    program = CACHE.find(key)
    if program is None or not _proven(program, traps):
        program = build_filter(traps)
        CACHE.keep(key, program)
    return Filter(program)


def _proven(program: bytes, traps: Traps) -> bool:
    try:
        proof.verify(program, traps)
    except FilterError:
        return False
    return True
