"""Re-naming must neither lift a restriction nor plant what could not have been created.

Patterns alone settle most renames: what they say beneath both names is the same. Where it is not, the
directory is looked through, name by name, while no tree can change any.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from rampart_seccomp.calls.call import Linking, Renaming
from rampart_seccomp.events import FileEvent, Operation
from rampart_seccomp.policy import AnyMatcher, Decision
from rampart_seccomp.policy.planting import plants

__all__ = ["AROUND", "LIFTED", "PLANTED", "RenamingCheck"]

LIFTED = "the new name would lift what this rule protects"
AROUND = "the link would lead around what this rule watches"
PLANTED = "the new name would put files where they could not be created"

ENTRIES_MAX = 10_000
"""Names that are looked through at most; beyond it the rename is denied."""

_STRICTNESS = {"allow": 0, "ask": 1, "deny": 2}


class RenamingCheck:
    """Judges new names of objects that exist.

    Args:
        matcher: The policy in force.
    """

    def __init__(self, matcher: AnyMatcher) -> None:
        self._matcher = matcher

    def forbids(self, renaming: Renaming) -> Decision | None:
        """Return the decision that the object itself would escape, if there is one."""
        return self._matcher.widens(
            renaming.old, renaming.new, directory=False, program=renaming.directory is None
        )

    def leads_around(self, linking: Linking) -> Decision | None:
        """Return the decision that a symbolic link would lead around, if there is one."""
        return plants(self._matcher, linking.link, linking.target)

    def provable(self, renaming: Renaming) -> bool:
        """Tell whether patterns alone show that nothing beneath is lifted or planted."""
        if renaming.directory is None:
            return True
        old, new = renaming.old, renaming.new
        return (
            self._matcher.widens(old, new, directory=True) is None
            and self._matcher.widens(new, old, directory=True) is None
        )

    def look_beneath(self, renaming: Renaming) -> tuple[Decision, str] | None:
        """Look at everything beneath a directory; return the first decision that forbids the rename, and why.

        To be called while the names are held still.
        """
        assert renaming.directory is not None
        for count, (beneath, mode) in enumerate(_names(b"/proc/self/fd/%d" % renaming.directory)):
            if count >= ENTRIES_MAX:
                return _too_many(), f"there are more than {ENTRIES_MAX} files to look through"
            old, new = renaming.old + beneath, renaming.new + beneath
            lost = self._matcher.widens(old, new, directory=False, program=not stat.S_ISDIR(mode))
            if lost is not None:
                return lost, LIFTED
            if stat.S_ISLNK(mode) and (around := plants(self._matcher, new, old)) is not None:
                return around, PLANTED
            created = self._create(new)
            before = self._matcher.laxest(FileEvent(operation=Operation.CREATE, path=old))
            if _STRICTNESS[created.verdict] > _STRICTNESS[before.verdict]:
                return created, PLANTED
        return None

    def _create(self, path: bytes) -> Decision:
        return self._matcher.decide(FileEvent(operation=Operation.CREATE, path=path))


def _names(directory: bytes, beneath: bytes = b"") -> Iterator[tuple[bytes, int]]:
    """Yield what lies beneath, as ``/a``, ``/a/b`` …, with its mode; no symbolic link is followed.

    Raises:
        OSError: Something cannot be read.
    """
    pending = [beneath]
    while pending:
        at = pending.pop()
        for name in os.listdir(directory + at):
            inner = at + b"/" + name
            mode = os.lstat(directory + inner).st_mode
            yield inner, mode
            if stat.S_ISDIR(mode):
                pending.append(inner)


def _too_many() -> Decision:
    return Decision(
        verdict="deny", operation=Operation.CREATE, reason="built-in: a directory too large to judge"
    )
