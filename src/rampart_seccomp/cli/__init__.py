"""The command line: one module a command, imported when it is asked for."""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["FAILURE", "Parser", "complain", "entry", "flush", "main"]

PROGRAM = "rampart-seccomp"

FAILURE = 125
"""Exit status of a failure that is Rampart's own, wrong usage included; nothing was started."""

_GARBAGE = 100_000
"""Objects that may be made before garbage is looked for; a start makes fewer."""

COMMANDS = {
    "run": "put a command behind a policy",
    "check": "check policy files and run their tests",
    "explain": "say which rule decides about something, and why",
    "diff": "say what one policy allows and another does not, and the reverse",
    "doctor": "say what this machine enforces a policy with",
    "log": "show or verify an audit log",
    "import": "a policy from Claude Code's permissions or peg/rampart's YAML",
    "demo": "an agent that is told to steal, bare and stopped",
}

MODULES = {"import": "importing"}
"""Commands whose module cannot have their name."""

LATER = ("approve", "deny", "learn", "pending", "replay", "report")


class _Formatter(argparse.HelpFormatter):
    """The formatter that argparse asks about every option, though it has nothing to write yet.

    It finds out the width by itself: argparse imports shutil for that, and so four libraries that compress.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **({"width": _columns() - 2} | options))


def _columns() -> int:
    """Give the width of the terminal, as shutil.get_terminal_size has it."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80  # it is no terminal


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit 125."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"{PROGRAM} {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def error(self, message: str) -> NoReturn:
        complain(f"{message} (see {self.prog} --help)", self.prog)
        raise SystemExit(FAILURE)


def complain(message: str, program: str = PROGRAM) -> None:
    """Print one line on standard error, whatever is in the message."""
    from rampart_seccomp.approval.escape import printable

    print(f"{program}: {printable(message)}", file=sys.stderr, flush=True)


def flush() -> None:
    """Write what is still to be written; a stream is None if it was closed when the program began."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def entry() -> NoReturn:
    """Be the program: run the command line, and end as it says.

    What is made at the start lives to the end, so it is not searched for garbage all the time, and at the end
    the interpreter is not taken apart. Either takes longer than many a command.
    """
    gc.set_threshold(_GARBAGE)
    try:
        status = main()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else FAILURE
    try:
        atexit._run_exitfuncs()
        flush()
    finally:
        os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None: this process's.

    Returns:
        The exit status: the command's own for ``run``, 125 for a failure of Rampart itself.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments else ""
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name == "--version":
        print(f"{PROGRAM} {_version()}")
        return 0
    if name in LATER:
        complain(f"{name} is not supported by this version")
        return FAILURE
    if name not in COMMANDS:
        complain(f"there is no command {name!r}" if name else "a command is missing")
        print(_usage(), file=sys.stderr)
        return FAILURE
    return _guarded(name, arguments)


def _guarded(name: str, arguments: list[str]) -> int:
    """Run one command; whatever it raises becomes one line."""
    program = f"{PROGRAM} {name}"
    try:
        status: int = importlib.import_module(f"{__name__}.{MODULES.get(name, name)}").main(arguments)
        flush()
    except BrokenPipeError:
        # Whoever read us has gone; the interpreter must not complain about that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        from rampart_seccomp.errors import RampartError

        if isinstance(error, RampartError):
            complain(str(error), program)
        elif isinstance(error, OSError) and error.strerror:
            subject = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            complain(f"{subject}{error.strerror}", program)
        else:
            complain(f"internal error: {type(error).__name__}: {error}", program)
        return FAILURE
    return status


def _usage() -> str:
    commands = "\n".join(f"  {name:<9} {description}" for name, description in COMMANDS.items())
    more = f"{PROGRAM} COMMAND --help says more; --version says which one."
    return f"usage: {PROGRAM} COMMAND …\n\n{commands}\n\n{more}"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "(not installed)"
