"""Execs that the engine judged, and what came of them: the bytes of ``csrc/flights.h``, and their meaning."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

import attrs

from rampart_seccomp.events import ExecEvent, Program
from rampart_seccomp.kernel.syscalls import name_of
from rampart_seccomp.launch import protocol
from rampart_seccomp.policy.clean import clean

__all__ = ["Landed", "read_landed", "started_program"]

_HEAD = struct.Struct("=IiIIIIQQ")
_SIZE = struct.Struct("=I")


@attrs.define(eq=False, repr=False)
class Landed:
    """An exec that has come to its end.

    Attributes:
        executed: What the launcher said of it.
        image: Device and inode of what was to run, of a script its last interpreter.
        environment: What it was started with: ``NAME=value``, each with its NUL.
        syscall: Name of the call.
    """

    executed: protocol.Executed
    image: tuple[int, int]
    environment: bytes
    syscall: str
    _images: bytes

    @functools.cached_property
    def execs(self) -> tuple[ExecEvent, ...]:
        """What was judged: the program, and of a script its interpreters."""
        found = []
        at = 0
        while at < len(self._images):
            (size,) = _SIZE.unpack_from(self._images, at)
            at += _SIZE.size
            found.append(started_program(self._images[at : at + size], syscall=self.syscall))
            at += size
        return tuple(found)

    @functools.cached_property
    def program(self) -> Program:
        """What runs. The engine judges no loader that is told what to load, and nothing without a name."""
        last = self.execs[-1]
        unspoilt = clean(last.path, self.environment.split(b"\0")[:-1])
        return Program(last.path, last.argv, unspoilt, self.execs)


def started_program(raw: bytes, *, syscall: str) -> ExecEvent:
    """Read what the engine writes of one program: path, name before the last link, and arguments.

    It lets no program go whose variables a rule is about; so for the rules, none has changed.
    """
    path, named, *argv = raw.removesuffix(b"\0").split(b"\0")
    return ExecEvent(path=path, named=named, argv=tuple(argv), syscall=syscall)


def read_landed(raw: bytes) -> Iterator[Landed]:
    """Read what `Engine.take_landed` gave, in the order in which the launcher said it."""
    at = 0
    while at < len(raw):
        size, number, packet, images, command, environment, device, inode = _HEAD.unpack_from(raw, at)
        start = at + _HEAD.size
        message = protocol.Executed.unpack(raw[start : start + packet])
        start += packet
        variables = start + images + command
        yield Landed(
            message,
            (device, inode),
            raw[variables : variables + environment],
            name_of(number),
            raw[start : start + images],
        )
        at += size
