"""What the anchors of patterns mean on this machine: home, launch directory, named sets, symbolic links."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rampart_seccomp.policy import globs
from rampart_seccomp.policy.globs import Glob, Tail

__all__ = ["Anchors"]

SYSTEM = ("/usr/**", "/bin/**", "/sbin/**", "/lib*/**", "/etc/**", "/opt/**")
TEMPORARY = ("/tmp/**", "/var/tmp/**", "/dev/shm/**")
CACHES = (
    "~/.cache/**",
    "~/.npm/**",
    "~/.yarn/berry/cache/**",
    "~/.local/share/pnpm/store/**",
    "~/.bun/install/cache/**",
    "~/.cargo/registry/**",
    "~/.cargo/git/**",
    "~/.cargo/.package-cache*",
    "~/go/pkg/mod/**",
    "~/.gradle/caches/**",
    "~/.m2/repository/**",
    "~/.ivy2/cache/**",
    "~/.nuget/packages/**",
    "~/.gem/specs/**",
    "~/.bundle/cache/**",
    "~/.composer/cache/**",
    "~/.pub-cache/**",
)

TRUSTED_LINKS = (b"/usr", b"/etc/alternatives", b"/opt")
"""Beneath these, and in the root, an allow follows symbolic links: nobody but root makes one there."""


LINKS_MAX = 40
"""Links that one name leads through: path_resolution(7)."""


class Anchors:
    """Binds patterns to a home, a launch directory and the links of the file system as they are now.

    Args:
        home: Home of the launching user.
        directory: Launch directory.
        temporary: $TMPDIR; None if there is none.
        links: False for a place where there are no symbolic links, which is none of this machine.
    """

    def __init__(self, home: bytes, directory: bytes, temporary: bytes | None, *, links: bool = True) -> None:
        self._follows = links
        self.home = os.path.realpath(home) if links else home
        self.directory = os.path.realpath(directory) if links else directory
        self._given = {home: self.home, directory: self.directory}
        self._links: dict[bytes, bytes | None] = {}
        self._real: dict[tuple[bytes, bool], bytes] = {}
        self._starts = {"/": (), "~": _split(self.home), "./": _split(self.directory)}
        self._sets = {
            "@system": [globs.parse(text) for text in SYSTEM],
            "@caches": [globs.parse(text) for text in CACHES],
            "@project": [globs.parse("./**")],
            "@tmp": [globs.parse(text) for text in TEMPORARY],
        }
        if temporary is not None and os.path.isabs(temporary):
            real = os.path.realpath(temporary)
            # A $TMPDIR that holds the home itself would open the home under the name of @tmp.
            if os.path.commonpath((real, self.home)) != real:
                self._temporary = (*_split(real), globs.ANY)

    _temporary: Tail | None = None

    def bind(self, glob: Glob, *, strict: bool) -> Iterator[Tail]:
        """Give the components, from the root, of every pattern that this one stands for.

        Args:
            glob: The pattern.
            strict: True where a match restricts: every symbolic link in the literal beginning is followed
                too. Otherwise only links that nobody but root can have made.
        """
        if glob.anchor in self._sets:
            for member in self._sets[glob.anchor]:
                yield from self.bind(member, strict=strict)
            if glob.anchor == "@tmp" and self._temporary is not None:
                yield self._temporary
            return
        spelled: Tail = (*self._starts[glob.anchor], *glob.components)
        yield spelled
        literal: list[bytes] = []
        for name in spelled:
            if not isinstance(name, bytes):
                break
            literal.append(name)
        path = b"/" + b"/".join(literal)
        real = self._resolve(path, strict) if self._follows else path
        if real != path:
            yield (*_split(real), *spelled[len(literal) :])

    @property
    def stands(self) -> bool:
        """Whether each symbolic link that was followed, and each name that was none, is still what it was."""
        return all(_link(path) == target for path, target in self._links.items()) and all(
            os.path.realpath(path) == real for path, real in self._given.items()
        )

    def _resolve(self, path: bytes, strict: bool) -> bytes:
        """Follow the links in a path: all of them, or only those that nobody but root can have made."""
        known = self._real.get((path, strict))
        if known is None:
            above, _, name = path.rpartition(b"/")
            if not above and not name:
                return path
            known = self._follow(self._resolve(above or b"/", strict), name, strict)
            self._real[path, strict] = known
        return known

    def _follow(self, done: bytes, name: bytes, strict: bool) -> bytes:
        names = [name]
        followed = 0
        while names:
            name = names.pop()
            if name == b"..":
                done = os.path.dirname(done)
                continue
            here = os.path.join(done, name)
            target = None
            if followed < LINKS_MAX and (strict or _is_trusted(done)):
                target = self._target(here)
            if target is None:
                done = here
                continue
            followed += 1
            if target.startswith(b"/"):
                done = b"/"
            names += [part for part in _split(target) if part != b"."][::-1]
        return done

    def _target(self, path: bytes) -> bytes | None:
        if path not in self._links:
            self._links[path] = _link(path)
        return self._links[path]


def _link(path: bytes) -> bytes | None:
    """Return what a symbolic link says; None if there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _split(path: bytes) -> tuple[bytes, ...]:
    return tuple(name for name in path.split(b"/") if name)


def _is_trusted(directory: bytes) -> bool:
    return directory == b"/" or any(
        directory == trusted or directory.startswith(trusted + b"/") for trusted in TRUSTED_LINKS
    )
