"""Policies from the permission lists of other tools: Claude Code's settings, peg/rampart's YAML.

A translation never allows what its source did not. What cannot be said in the policy language, or cannot be
enforced at the system-call boundary, comes back as a `Loss` and is written above the rules.
"""

from __future__ import annotations

import os

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.importing import claude, peg, source
from rampart_seccomp.importing.draft import Entry, Imported, Loss, Proposal
from rampart_seccomp.importing.write import to_yaml

__all__ = ["FORMATS", "Entry", "Imported", "Loss", "Proposal", "convert", "load", "to_yaml"]

FORMATS = ("claude", "peg")


def load(path: str | os.PathLike[str], *, form: str | None = None, floating: bool = False) -> Imported:
    """Read a file of another tool and translate it; arguments and errors as for `convert`."""
    name = os.fspath(path)
    return convert(source.read_text(name), file=name, form=form, floating=floating)


def convert(text: str, *, file: str, form: str | None = None, floating: bool = False) -> Imported:
    """Translate the permission list of another tool.

    Args:
        text: The content of the file.
        file: Its name, for errors and comments. It also tells a user's settings of Claude Code from a
            project's, whose patterns begin elsewhere.
        form: ``claude`` or ``peg``; None takes JSON for the former and YAML for the latter.
        floating: Keep ``**/x`` of peg/rampart as it is, instead of below home and launch directory.

    Raises:
        PolicyError: The text is not of that format.
    """
    form = form or source.detect(text)
    if form == "claude":
        return claude.convert(source.read_json(text, file), file)
    if form == "peg":
        return peg.convert(source.read_yaml(text, file), file, floating=floating)
    raise PolicyError(f"there is no format {form!r} to import", hint=f"the formats are {', '.join(FORMATS)}")
