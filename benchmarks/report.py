"""Tables of the figures, for terminals and for documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.goals import Goal

__all__ = ["BEGIN", "END", "into_document", "markdown", "text"]

BEGIN, END = "<!-- numbers: written by `python -m benchmarks --markdown` -->", "<!-- end of numbers -->"

WITH_P99 = ("limit, unpinned", "limit, pinned", "busy", "beside waiting", "beside connects")
UNITS = {"us": "microseconds", "ms": "milliseconds", "s": "seconds", "/s": "opens a second"}


def text(about: dict[str, Any], figures: Sequence[Figure], goals: Sequence[Goal]) -> str:
    """Return everything for a terminal."""
    parts = [_about(about)]
    for family in families(figures):
        rows = _rows(family)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        parts.append("\n".join([_title(family), *lines, *_reasons(family)]))
    parts.append("\n".join(map(str, goals)))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(about: dict[str, Any], figures: Sequence[Figure], goals: Sequence[Goal]) -> str:
    """Return everything for a document."""
    parts = [_about(about)]
    for family in families(figures):
        head, *rows = _rows(family)
        border = ["---", *["--:"] * (len(head) - 1)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in (head, border, *rows))
        parts += [f"### {_title(family)}", table, "\n".join(f"* {reason}" for reason in _reasons(family))]
    lines = ["| | measured | bound | |", "|---|--:|--:|---|"]
    verdicts = {True: "pass", False: "**fail**", None: "not measured"}
    for goal in goals:
        measured = "" if goal.measured is None else f"{goal.measured:.3g} {goal.unit}"
        sign = "≥" if goal.at_least else "≤"
        lines.append(
            f"| {goal.text} | {measured} | {sign} {goal.bound:g} {goal.unit} | {verdicts[goal.passed]} |"
        )
    parts += ["### What has to be shown", "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def into_document(path: Path, numbers: str) -> None:
    """Put the numbers between the marks of a document; without marks they are the document."""
    before = path.read_text() if path.exists() else ""
    if BEGIN in before and END in before:
        head, tail = before.split(BEGIN)[0], before.split(END)[1]
        numbers = f"{head}{BEGIN}\n\n{numbers}\n{END}{tail}"
    path.write_text(numbers)


def families(figures: Iterable[Figure]) -> list[list[Figure]]:
    """Return the figures by family, in the order in which they were measured."""
    found: dict[str, list[Figure]] = {}
    for figure in figures:
        found.setdefault(figure.family, []).append(figure)
    return list(found.values())


def _about(about: dict[str, Any]) -> str:
    machine = about["machine"]
    return (
        f"{about['when']}, rampart-seccomp {about['version']}, Linux {machine['kernel']}, {machine['cpu']}, "
        f"{machine['processors']} processors, CPython {machine['python']}, {about['rounds']} rounds, "
        f"load {machine['load']:.1f} before.{' Interrupted.' if about.get('interrupted') else ''}"
    )


def _title(family: Sequence[Figure]) -> str:
    first = family[0]
    p99 = ": median / p99" if first.family in WITH_P99 else ""
    bases = {figure.base for figure in family if figure.base and _says_ratio(figure)}
    ratio = f" (ratio to {', '.join(sorted(bases))})" if bases else ""
    return f"{first.family}, {UNITS.get(first.unit, first.unit or 'numbers')}{p99}{ratio}"


def _rows(family: Sequence[Figure]) -> list[list[str]]:
    """Return a table: the first row names the ways."""
    ways = list(dict.fromkeys(figure.way for figure in family))
    names = dict.fromkeys(figure.name for figure in family)
    cells = {(figure.name, figure.way): _cell(figure) for figure in family}
    return [["", *ways], *([name, *(cells.get((name, way), "") for way in ways)] for name in names)]


def _cell(figure: Figure) -> str:
    if figure.median is None:
        return "-"
    cell = _number(figure.median)
    if figure.p99 is not None and figure.family in WITH_P99:
        cell += f" / {_number(figure.p99)}"
    if figure.ratio is not None and _says_ratio(figure):
        cell += f" ({_number(figure.ratio)}x)"
    return cell


def _says_ratio(figure: Figure) -> bool:
    """Tell whether the ratio says something: that bare is cheaper needs no number."""
    return figure.ratio is not None and figure.way not in ("bare", figure.base) and figure.unit != "/s"


def _number(value: float) -> str:
    """Return three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _reasons(family: Sequence[Figure]) -> list[str]:
    """Say why numbers are missing; one line for all that share a reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for figure in family:
        if figure.reason:
            reasons.setdefault((figure.way, figure.reason), []).append(figure.name)
    every = {figure.name for figure in family}
    return [
        f"{way}: {'all' if set(names) == every and len(every) > 1 else ', '.join(names)}: {reason}"
        for (way, reason), names in reasons.items()
    ]
