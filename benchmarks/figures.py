"""What was measured: one figure for each thing and each way to run it, and how rounds become figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Figure", "Rounds", "find", "read", "write"]


@attrs.frozen
class Figure:
    """One number of the result.

    Attributes:
        family: Which module measured it.
        name: What: a call, a workload.
        way: How it was run: ``bare``, ``rampart``, a peer.
        unit: Of `median` and `p99`: ``us``, ``ms``, ``s``, ``/s``.
        median: Over the rounds, of each round's own median; None if it could not be measured.
        p99: Over the rounds, the median of each round's 99th percentile.
        least: The least of the rounds' medians, which other work on the machine disturbs least.
        ratio: Median of what each round gives relative to the base, which ran beside it.
        p99_ratio: The same of the percentiles.
        base: The way that the ratios are relative to.
        rounds: How many.
        reason: Why there is no number.
    """

    family: str
    name: str
    way: str
    unit: str
    median: float | None = None
    p99: float | None = None
    least: float | None = None
    ratio: float | None = None
    p99_ratio: float | None = None
    base: str | None = None
    rounds: int = 0
    reason: str | None = None


class Rounds:
    """Collects what rounds give, in which the ways take turns, and makes figures of it.

    Args:
        family: The family.
        unit: The unit of everything.
        base: From a way, the one that its ratios are relative to; ``bare`` if not given.
    """

    def __init__(self, family: str, unit: str, base: Callable[[str], str] = lambda way: "bare") -> None:
        self.family, self.unit, self._base = family, unit, base
        self._samples: dict[tuple[str, str], dict[int, tuple[float, float | None]]] = {}
        self._reasons: dict[tuple[str, str], str] = {}

    def add(self, number: int, name: str, way: str, median: float, p99: float | None = None) -> None:
        """Note what a round gave."""
        self._samples.setdefault((name, way), {})[number] = (median, p99)

    def give_up(self, name: str, way: str, reason: str) -> None:
        """Note that something cannot be measured. What it gave before does not count."""
        self._reasons[name, way] = reason

    def gave_up(self, name: str, way: str) -> bool:
        """Tell whether to leave something out from now on."""
        return (name, way) in self._reasons

    def figures(self) -> list[Figure]:
        """Return a figure for everything that was tried."""
        keys = dict.fromkeys([*self._samples, *self._reasons])
        return [self._figure(name, way) for name, way in keys]

    def _figure(self, name: str, way: str) -> Figure:
        if (name, way) in self._reasons:
            return Figure(self.family, name, way, self.unit, reason=self._reasons[name, way])
        samples, base = self._samples[name, way], self._base(way)
        beside = {} if (name, base) in self._reasons else self._samples.get((name, base), {})
        pairs = [(samples[number], beside[number]) for number in samples.keys() & beside.keys()]
        return Figure(
            self.family,
            name,
            way,
            self.unit,
            median=_median(median for median, _ in samples.values()),
            least=min(median for median, _ in samples.values()),
            p99=_median(p99 for _, p99 in samples.values()),
            ratio=_median(ours[0] / theirs[0] for ours, theirs in pairs),
            p99_ratio=_median(ours[1] / theirs[1] for ours, theirs in pairs if ours[1] and theirs[1]),
            base=base,
            rounds=len(samples),
        )


def find(figures: Iterable[Figure], family: str, name: str, way: str) -> Figure | None:
    """Return one figure, None if nobody tried it."""
    for figure in figures:
        if (figure.family, figure.name, figure.way) == (family, name, way):
            return figure
    return None


def write(path: Path, about: dict[str, Any], figures: Iterable[Figure], goals: Iterable[Any]) -> None:
    """Write everything as JSON: what `read` reads, and the verdicts beside it."""
    document = about | {
        "figures": [attrs.asdict(figure) for figure in figures],
        "goals": [attrs.asdict(goal) for goal in goals],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Return what an earlier run wrote: about it, and its figures."""
    document = json.loads(path.read_text())
    figures = [Figure(**figure) for figure in document.pop("figures")]
    document.pop("goals")
    return document, figures


def _median(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None
