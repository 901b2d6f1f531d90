"""The classes of execs that rules tell apart: image, name it is started under, and arguments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import attrs

from rampart_seccomp.events import ExecEvent, Operation
from rampart_seccomp.policy.analysis.actors import arguments
from rampart_seccomp.policy.analysis.ground import Ground, united
from rampart_seccomp.policy.analysis.paths import Paths
from rampart_seccomp.policy.analysis.words import NAMES, TooLarge
from rampart_seccomp.policy.conditions import Command, Conditions, Entry
from rampart_seccomp.policy.features import MEMFD_EXEC
from rampart_seccomp.policy.globs import ANY, component

__all__ = ["Programs"]

COMBINATIONS_MAX = 1_000_000
"""Images, names and first arguments that are combined, after which it is too large."""

_DELETED = " (deleted)"


@attrs.frozen
class _Use:
    """A command of some rule.

    Attributes:
        program, system: Slots of the ground.
        strict: True where a match restricts.
    """

    command: Command
    program: int
    system: int
    strict: bool

    def knows(self, image: int, named: int, word: bytes | None) -> bool:
        """Say whether the program is the command's, by its paths' slots and ``argv[0]``."""
        base = self.command.pattern.base is not None
        if image & self.program:
            return True
        if self.strict:
            return bool(named & self.program) or (
                base and word is not None and self.command.pattern.matches_base(word)
            )
        return base and bool(named & self.program) and bool(named & self.system)


@attrs.frozen
class _Start:
    """An exec without its arguments: the slots of its image and of its name, and how they are called."""

    image: int
    named: int
    path: bytes
    name: bytes | None
    first: bytes | None = None
    linked: bool = True


class Programs:
    """Makes the execs.

    Args:
        ground: The matchers.
        paths: Finds classes of paths.
        about: As for `Paths.classes`.
    """

    def __init__(self, ground: Ground, paths: Paths, about: frozenset[Entry] | None = None) -> None:
        self._ground = ground
        self._about = about
        self._paths = paths
        given = list(self._conditions())
        self._uses = list(dict.fromkeys(use for each in given for use in self._used(*each)))
        self._strict = united(ground.slot(place, each.paths) for place, each, strict in given if strict)
        self._lax = united(ground.slot(place, each.paths) for place, each, strict in given if not strict)
        self._memfds = any(MEMFD_EXEC in layer.policy.features for layer in ground.layers)
        self._grants = [
            grant
            for layer in ground.layers
            for grant in layer.policy.grants
            if grant.operation is Operation.EXEC
        ]

    def events(self) -> Iterator[ExecEvent]:
        """Give the execs; those that are started under the image's own name first.

        Raises:
            TooLarge: There are too many.
        """
        seen = set()
        for start in self._starts():
            known = frozenset(use for use in self._uses if use.knows(start.image, start.named, start.first))
            granted = start.path if start.path in {grant.path for grant in self._grants} else None
            paths = (start.image & self._lax, (start.image | start.named) & self._strict)
            key = (paths, known, start.linked, granted)
            if key in seen:
                continue
            seen.add(key)
            more = [grant.command[1:] for grant in self._grants if grant.command and grant.path == granted]
            for words in arguments((use.command.pattern for use in known), more):
                first = start.path if start.first is None else start.first
                yield ExecEvent(path=start.path, argv=(first, *words), named=start.name, linked=start.linked)
        for grant in self._grants:
            assert grant.path is not None
            yield ExecEvent(path=grant.path, argv=grant.command or (), named=grant.path)

    def _conditions(self) -> Iterator[tuple[int, Conditions, bool]]:
        """Give all conditions of rules on exec: the layer's place, the conditions, whether they restrict."""
        for place, layer in enumerate(self._ground.layers):
            for entry in layer.entries[Operation.EXEC]:
                yield place, entry.conditions, entry.strict
                yield from ((place, given, not entry.strict) for given in entry.excepts)

    def _used(self, place: int, given: Conditions, strict: bool) -> Iterator[_Use]:
        for command in given.commands:
            program, system = (self._ground.slot(place, slot) for slot in (command.program, command.system))
            yield _Use(command, program, system, strict)

    def _starts(self) -> Iterator[_Start]:
        deleted = self._ground.add([(ANY, component("*" + _DELETED))])
        images = self._paths.classes(Operation.EXEC, extra=deleted if self._memfds else 0, about=self._about)
        for slots, path in images:
            yield _Start(slots, slots, path, path)
            if slots & deleted:
                yield _Start(slots, 0, path, None, linked=False)
        programs = united(use.program | use.system for use in self._uses)
        names = self._paths.all_classes(self._strict | programs) if self._strict | programs else []
        words = list(self._bases())
        if len(images) * (len(names) + 1) * len(words) > COMBINATIONS_MAX:
            raise TooLarge(f"more than {COMBINATIONS_MAX} programs and names that they are started under")
        for (slots, path), word in itertools.product(images, words):
            for named, name in ((slots, path), *names):
                yield _Start(slots, named, path, name, word)
                if slots & deleted:
                    yield _Start(slots, named, path, name, word, linked=False)

    def _bases(self) -> Iterator[bytes | None]:
        """Give base names for ``argv[0]``; None for that of the image."""
        yield None
        bases = {use.command.pattern.base for use in self._uses if use.strict}
        for _, word in NAMES.classes(frozenset(base for base in bases if base)):  # type: ignore[misc]
            yield word
