"""A picture of the figures, as SVG, made without any library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from benchmarks.figures import Figure

__all__ = ["svg"]

COLOURS = {
    "bare": "#6b7280",
    "rampart": "#0072b2",
    "sandlock": "#e69f00",
    "sandlock+python": "#d55e00",
    "strace": "#cc79a7",
    "bwrap": "#009e73",
    "limit": "#56b4e9",
}
"""Told apart by people who do not see all colours, too (Okabe and Ito)."""

WIDTH, LEFT, RIGHT = 860, 170, 30
ROW, AXIS, GAP = 26, 34, 44
PLOT = WIDTH - LEFT - RIGHT


def svg(figures: Sequence[Figure]) -> str:
    """Return the picture: calls in microseconds, workloads beside bare, opens of many at once."""
    panels = [
        _dots("One call, microseconds", figures, "calls", lambda figure: figure.median),
        _dots("Workloads, times as long as bare", figures, "workloads", lambda figure: figure.ratio),
        _lines("Opens a second, of all threads", figures),
    ]
    body, height = [], 56
    for drawn, size in filter(None, panels):
        body.append(f'<g transform="translate(0 {height})">{drawn}</g>')
        height += size + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#111827">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f"{_legend(figures)}\n" + "\n".join(body) + "\n</svg>\n"
    )


def _legend(figures: Iterable[Figure]) -> str:
    ways = [way for way in COLOURS if any(figure.way == way for figure in figures)]
    marks, x = [], LEFT
    for way in ways:
        marks.append(f'<circle cx="{x}" cy="24" r="5" fill="{COLOURS[way]}"/>')
        marks.append(_text(x + 10, 28, way))
        x += 28 + 8 * len(way)
    return "".join(marks)


def _dots(title: str, figures: Sequence[Figure], family: str, value: object) -> tuple[str, int] | None:
    """Draw a row for each name and a dot for each way, on a logarithmic axis."""
    points = [
        (figure.name, figure.way, number)
        for figure in figures
        if figure.family == family and figure.way in COLOURS and (number := value(figure))  # type: ignore[operator]
    ]
    if not points:
        return None
    names = list(dict.fromkeys(name for name, _, _ in points))
    scale = _Scale([number for _, _, number in points])
    height = AXIS + ROW * len(names)
    drawn = [_text(LEFT, 0, title, weight="bold"), *scale.vertical_grid(14, height)]
    for row, name in enumerate(names):
        y = AXIS + ROW * row
        drawn.append(_text(LEFT - 12, y + 4, name, anchor="end"))
        for other, way, number in points:
            if other == name:
                tip = f"<title>{escape(f'{name}, {way}: {number:.3g}')}</title>"
                drawn.append(
                    f'<circle cx="{scale.x(number):.1f}" cy="{y}" r="5" fill="{COLOURS[way]}">{tip}</circle>'
                )
    return "".join(drawn), height


def _lines(title: str, figures: Sequence[Figure]) -> tuple[str, int] | None:
    """Draw throughput over the number of threads, both logarithmic."""
    points = [
        (int(figure.name.split()[0]), figure.way, figure.median)
        for figure in figures
        if figure.family == "parallel" and figure.name.endswith("threads") and figure.median
    ]
    if not points:
        return None
    height = 220
    most = max(number for number, _, _ in points)
    scale = _Scale([throughput for _, _, throughput in points])
    drawn = [_text(LEFT, 0, title, weight="bold")]
    for tick in scale.ticks():
        y = height - scale.part(tick) * (height - AXIS)
        drawn.append(_rule(LEFT, y, LEFT + PLOT, y))
        drawn.append(_text(LEFT - 12, y + 4, f"{tick:,.0f}", anchor="end"))

    def x(number: int) -> float:
        return LEFT + PLOT * math.log2(number) / max(1.0, math.log2(most))

    for number in sorted({number for number, _, _ in points}):
        drawn.append(_text(x(number), height + 18, str(number), anchor="middle"))
    for way in dict.fromkeys(way for _, way, _ in points):
        corners = " ".join(
            f"{x(number):.1f},{height - scale.part(throughput) * (height - AXIS):.1f}"
            for number, other, throughput in sorted(points)
            if other == way
        )
        drawn.append(f'<polyline points="{corners}" fill="none" stroke="{COLOURS[way]}" stroke-width="2.5"/>')
    return "".join(drawn), height + 18


class _Scale:
    """A logarithmic axis over whole powers of ten."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self.low = math.floor(math.log10(min(numbers)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(numbers))))

    def part(self, number: float) -> float:
        """Return where it is, from 0 to 1."""
        return (math.log10(number) - self.low) / (self.high - self.low)

    def x(self, number: float) -> float:
        """Return where it is on the picture."""
        return LEFT + self.part(number) * PLOT

    def ticks(self) -> list[float]:
        """Return the powers of ten."""
        return [10.0**power for power in range(self.low, self.high + 1)]

    def vertical_grid(self, top: float, bottom: float) -> list[str]:
        """Return a line and its number for each power of ten."""
        drawn = []
        for tick in self.ticks():
            drawn.append(_rule(self.x(tick), top, self.x(tick), bottom))
            drawn.append(_text(self.x(tick), bottom + 14, f"{tick:g}", anchor="middle"))
        return drawn


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e5e7eb"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
    )
