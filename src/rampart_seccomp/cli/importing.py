"""``rampart-seccomp import``: a policy from the permission list of another tool."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence

from rampart_seccomp.approval.escape import printable
from rampart_seccomp.cli import FAILURE, Parser, complain

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0; 1 if the policy was written and something that the source denied or asked about is not enforced by
        it (0 with ``--accept-losses``); 125 if nothing was written.
    """
    parser = Parser(
        "import",
        "Translate the permissions of Claude Code (settings.json) or a policy of peg/rampart (YAML). "
        "What cannot be said or enforced stands at the top of the result, and on standard error.",
    )
    parser.add_argument("file", metavar="FILE", help="what to translate")
    parser.add_argument(
        "-o", "--output", default="-", metavar="POLICY", help="where to; default: standard output"
    )
    parser.add_argument(
        "--from", dest="form", choices=("claude", "peg"), help="format of FILE; default: by its look"
    )
    parser.add_argument("--force", action="store_true", help="overwrite POLICY")
    parser.add_argument(
        "--accept-losses", action="store_true", help="exit 0 even if something denied is not enforced"
    )
    parser.add_argument(
        "--floating", action="store_true", help="keep '**/x' of peg/rampart for the whole machine (slower)"
    )
    options = parser.parse_args(argv)
    if options.output != "-" and os.path.lexists(options.output) and not options.force:
        complain(f"{options.output}: is there already (--force overwrites it)", parser.prog)
        return FAILURE
    from rampart_seccomp.importing import load, to_yaml
    from rampart_seccomp.importing.write import losses

    imported = load(options.file, form=options.form, floating=options.floating)
    text = to_yaml(imported)
    if options.output == "-":
        sys.stdout.write(text)
    else:
        _write(options.output, text, overwrite=options.force)
    name = printable(os.fsencode(options.file))
    for line in losses(imported):
        print(f"{name}: {line}" if not line.startswith(" ") else line, file=sys.stderr)
    return 1 if imported.not_enforced and not options.accept_losses else 0


def _write(path: str, text: str, *, overwrite: bool) -> None:
    """Write a whole file or none; without `overwrite` never in place of what appeared meanwhile."""
    directory, name = os.path.split(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        if overwrite:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
