"""Requests and replies of a harness: it runs the command that a line of JSON names, and says how it went.

Standard library only: the interpreters of peers import this, too.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

__all__ = ["Ran", "Run", "arguments", "serve"]


class Ran(NamedTuple):
    """A command that has ended, and how many of its calls were held, by who answered them."""

    status: int
    held: dict[str, int] = {}  # noqa: RUF012


Run = Callable[[list[str], str, BinaryIO, float], Ran]
"""Runs argv in a directory, output to a file, for so many seconds at most."""


def arguments() -> argparse.ArgumentParser:
    """Return the options that every harness has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True, help="where the measuring programs work")
    parser.add_argument("--pin", type=int, help="run everything on this processor alone")
    return parser


def serve(options: argparse.Namespace, prepare: Callable[[argparse.Namespace], Run]) -> None:
    """Answer requests until standard input ends.

    Args:
        options: Of the command line.
        prepare: Makes what runs commands; called after pinning, since threads inherit that.
    """
    if options.pin is not None:
        os.sched_setaffinity(0, {options.pin})
    requests, replies = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w", buffering=1)
    # What the commands get. Nothing of theirs may end up among the replies.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        run = prepare(options)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=replies)
        return
    print(json.dumps({"ready": True}), file=replies)
    spinner = Spinner()
    for line in requests:
        print(json.dumps(_answer(json.loads(line), run, spinner)), file=replies)


def _answer(request: dict[str, Any], run: Run, spinner: Spinner) -> dict[str, object]:
    if "spin" in request:
        spinner.turn(bool(request["spin"]))
        return {}
    try:
        with open(request["output"], "wb") as output:
            began = time.perf_counter()
            ran = run(request["argv"], request["cwd"], output, request["timeout"])
            seconds = time.perf_counter() - began
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"status": ran.status, "seconds": seconds, "held": ran.held}


class Spinner:
    """A thread that keeps the interpreter busy, as an embedding program may."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._on = False

    def turn(self, on: bool) -> None:
        """Start or end it."""
        self._on = on
        if on:
            self._thread = threading.Thread(target=self._spin, daemon=True)
            self._thread.start()
        elif self._thread is not None:
            self._thread.join()
            self._thread = None

    def _spin(self) -> None:
        while self._on:
            pass
