"""``rampart-seccomp log``: show the end of an audit log, or prove that it is whole."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rampart_seccomp.approval.escape import printable, shortened
from rampart_seccomp.cli import Parser

__all__ = ["main"]

FOLLOW_SECONDS = 0.2
_OBJECT_LIMIT = 400


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0; 1 if the log does not verify.
    """
    parser = Parser("log", "Show or verify an audit log.")
    commands = parser.add_subparsers(
        dest="action", required=True, metavar="tail|verify", parser_class=_SubParser
    )
    tail = commands.add_parser("tail", description="Show the last records, one a line.")
    tail.add_argument("file", metavar="FILE")
    tail.add_argument("-n", type=_count, default=10, metavar="N", help="how many (default 10)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what is added")
    check = commands.add_parser("verify", description="Find any edit, gap, reordering or truncation.")
    check.add_argument("file", metavar="FILE")
    check.add_argument(
        "--without-checkpoint",
        action="store_true",
        help="for a log that came without its .head file; a missing end is not found then",
    )
    options = parser.parse_args(argv)
    if options.action == "tail":
        return _tail(options.file, options.n, options.follow)
    return _verify(options.file, not options.without_checkpoint)


class _SubParser(Parser):
    """A parser that argparse makes for a part of ``log``."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(prog.partition(" ")[2], description)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of records")
    return int(text)


def _tail(file: str, count: int, follow: bool) -> int:
    with open(file, "rb") as log:
        for line in deque(log, maxlen=count):
            print(_describe(line))
        while follow:
            sys.stdout.flush()
            _show_new(log)
            time.sleep(FOLLOW_SECONDS)
    return 0


def _show_new(log: IO[bytes]) -> None:
    """Print the lines that are whole by now; half a line is read again next time."""
    while (line := log.readline()).endswith(b"\n"):
        print(_describe(line))
    log.seek(-len(line), os.SEEK_CUR)


def _verify(file: str, checkpoint: bool) -> int:
    from rampart_seccomp.audit import verify
    from rampart_seccomp.errors import AuditError

    try:
        found = verify(file, checkpoint=checkpoint)
    except AuditError as error:
        print(printable(str(error)))
        return 1
    end = "" if checkpoint else " (its end was not checked)"
    print(f"{printable(file)}: whole, {found.records} records in {found.sessions} sessions{end}")
    print(f"head {found.head}")
    return 0


def _describe(line: bytes) -> str:
    """Return a line of the log for people; what is no record is shown as it is."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return f"?? {shortened(printable(line.rstrip()), _OBJECT_LIMIT)}"
    when = str(record.get("time", ""))[:23].replace("T", " ")
    if record.get("record") == "decision":
        return f"{when}  {_decision(record)}"
    kind = printable(str(record.get("record", "?")))
    details = " ".join(
        f"{key}={printable(str(record[key]))}"
        for key in ("operation", "object", "policy", "command", "pid", "host", "session")
        if record.get(key) is not None
    )
    return f"{when}  -- {kind} {shortened(details, _OBJECT_LIMIT)}"


def _decision(record: Mapping[str, Any]) -> str:
    def field(name: str) -> str:
        value = record.get(name)
        return "" if value is None else shortened(printable(str(value)), _OBJECT_LIMIT)

    answer = f"{field('verdict')} {field('errno')}".rstrip()
    text = f"{answer:<18} {field('operation'):<8} {field('object')}  [{field('where')}]"
    if record.get("pid") is None:
        return text
    program = os.path.basename(field("exe")) or "?"
    return f"{text}  {program}[{field('pid')}]"
