"""Measure what Rampart costs, beside bare, beside what is possible, and beside what others use.

Prints tables of medians, and a line for everything that has to be shown. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rampart_seccomp
from benchmarks import (
    busy,
    calls,
    figures,
    limit,
    network,
    parallel,
    plot,
    report,
    soak,
    startup,
    verified,
    workloads,
)
from benchmarks.goals import judge
from benchmarks.settings import Settings
from benchmarks.stage import ROOT, Interrupted, Stage

FAMILIES: dict[str, Callable[[Stage, Settings], list[figures.Figure]]] = {
    "limit": limit.measure,
    "calls": calls.measure,
    "busy": busy.measure,
    "parallel": parallel.measure,
    "network": network.measure,
    "startup": startup.measure,
    "verified": verified.measure,
    "workloads": workloads.measure,
}
SOAK_FAMILY = "soak"
QUICK = {"rounds": 2, "seconds": 0.3, "scale": 0.1}
SOAK = 10_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the command line says.

    Returns:
        1 if something that has to be shown is not, and `--check` was given.
    """
    options = _options(argv)
    if options.read:
        about, found = figures.read(options.read)
    else:
        about, found = _measure(options)
    goals = judge(found)
    print(report.text(about, found, goals), end="")
    if options.json:
        figures.write(options.json, about, found, goals)
    if options.markdown:
        report.into_document(options.markdown, report.markdown(about, found, goals))
    if options.plot:
        options.plot.write_text(plot.svg(found))
    return int(options.check and any(goal.passed is False for goal in goals))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    known = [*FAMILIES, SOAK_FAMILY]
    parser.add_argument(
        "families",
        nargs="*",
        metavar="FAMILY",
        help=f"of {', '.join(known)}; without one: all but {SOAK_FAMILY}",
    )
    parser.add_argument("--rounds", type=int, default=7, help="in which the ways take turns (7)")
    parser.add_argument("--seconds", type=float, default=1.5, help="for one call in a round, at most (1.5)")
    parser.add_argument(
        "--quick", action="store_true", help="few samples: shows that it runs, proves nothing"
    )
    parser.add_argument(
        "--soak", type=int, nargs="?", const=SOAK, metavar="N", help=f"{SOAK_FAMILY}, too: N calls ({SOAK:,})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, or into it")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture there (SVG)")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: take an earlier --json")
    parser.add_argument("--check", action="store_true", help="exit status 1 if something fails")
    parser.add_argument(
        "--directory",
        type=Path,
        default=ROOT / "build" / "bench",
        help="for programs and files (build/bench)",
    )
    options = parser.parse_args(argv)
    unknown = set(options.families) - set(known)
    if unknown:
        parser.error(f"no such family: {', '.join(sorted(unknown))} (there are: {', '.join(known)})")
    return options


def _measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[figures.Figure]]:
    given = {"rounds": options.rounds, "seconds": options.seconds} | (QUICK if options.quick else {})
    settings = Settings(**given, say=_say)
    about = {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "version": rampart_seccomp.__version__,
        "rounds": settings.rounds,
        "machine": {
            "kernel": platform.release(),
            "cpu": _cpu(),
            "processors": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "load": os.getloadavg()[0],
        },
    }
    measures = [FAMILIES[family] for family in options.families or FAMILIES if family != SOAK_FAMILY]
    if options.soak or SOAK_FAMILY in options.families:
        measures.append(functools.partial(soak.measure, notifications=options.soak or SOAK))
    found: list[figures.Figure] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Stage(options.directory) as stage:
        try:
            for measure in measures:
                found += measure(stage, settings)
        except Interrupted as interruption:
            found += interruption.figures
            about["interrupted"] = True
    _say("")
    return about, found


def _say(text: str) -> None:
    """Tell how far it is, on one line of a terminal, or in a log."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
