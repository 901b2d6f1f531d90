"""What the numbers have to show, and whether they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from benchmarks import busy, calls, limit, network, parallel, soak, startup, workloads
from benchmarks.figures import Figure, find
from benchmarks.ways import AGENT, BY_NAME, PEERS

__all__ = ["Goal", "judge"]

OURS = AGENT.name
FREE_IN_BOTH = ("getppid", "read")
"""Neither Rampart nor the peer holds these, so that nothing but noise can tell them apart."""
FREE_IN_PEERS = ("chmod", "mkdir")
"""The peer holds neither, so they cost there what they do bare: it has no rules about modes, and leaves
directories to Landlock, by place and never by name."""


@attrs.frozen
class Goal:
    """One line of what has to be shown.

    Attributes:
        text: What.
        measured: The number; None if it was not measured.
        bound: The number that it must not exceed, or must reach.
        unit: ``x``, ``ms``, ...
        at_least: The bound has to be reached.
        detail: What stands behind it.
        passed: None if it was not measured.
    """

    text: str
    measured: float | None
    bound: float
    unit: str = "x"
    at_least: bool = False
    detail: str = ""
    passed: bool | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        passed = None
        if self.measured is not None:
            passed = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        object.__setattr__(self, "passed", passed)

    def __str__(self) -> str:
        verdict = {True: "pass", False: "FAIL", None: "----"}[self.passed]
        sign = ">=" if self.at_least else "<="
        measured = "not measured" if self.measured is None else f"{self.measured:.4g} {self.unit}".rstrip()
        bound = f"{sign} {self.bound:g} {self.unit}".rstrip()
        line = f"{verdict}  {self.text}: {measured} ({bound})"
        return f"{line}; {self.detail}" if self.detail else line


def judge(figures: Sequence[Figure]) -> list[Goal]:
    """Return every goal of the families that were measured."""
    measured = {figure.family for figure in figures}
    goals: list[Goal] = []
    for families, judged in (
        ({f"limit, {place}" for place in limit.PLACES}, _limit),
        ({"calls"}, _calls),
        ({"busy"}, _busy),
        ({"parallel"}, _parallel),
        ({"beside waiting"}, _beside_waiting),
        ({"network"}, _network),
        ({"beside connects"}, _beside_connects),
        ({"calls", "workloads"}, _peers),
        ({"workloads"}, _workloads),
        ({"start-up"}, _startup),
        ({"verified"}, _verified),
        ({"soak"}, _soak),
    ):
        if families & measured:
            goals += judged(figures)
    return goals


def _limit(figures: Sequence[Figure]) -> Iterable[Goal]:
    for place in limit.PLACES:
        ours = find(figures, f"limit, {place}", "open performed", OURS)
        smallest = find(figures, f"limit, {place}", "open performed", "limit")
        yield Goal(
            f"open performed, beside the limit's ADDFD open, {place}",
            _ratio(ours),
            2.0,
            detail=_us(ours, smallest),
        )
        ours = find(figures, f"limit, {place}", "open clean", OURS)
        smallest = find(figures, f"limit, {place}", "open clean", "limit")
        yield Goal(
            f"open clean, beside the limit's CONTINUE open, {place}",
            _ratio(ours),
            1.5,
            detail=_us(ours, smallest),
        )


def _calls(figures: Sequence[Figure]) -> Iterable[Goal]:
    denied = find(figures, "calls", "open denied", OURS)
    performed = find(figures, "calls", "open performed", OURS)
    yield Goal(
        "open denied, beside performed", _quotient(denied, performed), 1.0, detail=_us(denied, performed)
    )
    for name in calls.FREE:
        ours, bare = (find(figures, "calls", name, way) for way in (OURS, "bare"))
        bound = 1.3 if name == "getppid" else 1.1
        yield Goal(f"{name}, beside bare", _ratio(ours), bound, detail=_us(ours, bare))


def _busy(figures: Sequence[Figure]) -> Iterable[Goal]:
    for name in busy.NAMES:
        idle, python, c = (find(figures, "busy", name, way) for way in ("idle", "busy Python", "busy C"))
        yield Goal(
            f"{name}, harness busy, median beside idle",
            _quotient(python, idle),
            1.3,
            detail=_us(python, idle),
        )
        yield Goal(
            f"{name}, harness busy, p99 beside busy C",
            _ratio(python, p99=True),
            2.0,
            detail=_us(python, c, p99=True),
        )


def _parallel(figures: Sequence[Figure]) -> Iterable[Goal]:
    many, few = (find(figures, "parallel", f"{number} threads", OURS) for number in (64, 4))
    detail = f"{many.median:.0f}/s, {few.median:.0f}/s" if many and few and many.median and few.median else ""
    yield Goal(
        "opens a second of 64 threads, beside 4", _quotient(many, few), 1.0, at_least=True, detail=detail
    )


def _beside_waiting(figures: Sequence[Figure]) -> Iterable[Goal]:
    for hindrance in parallel.HINDRANCES[1:]:
        beside = find(figures, "beside waiting", "open performed", hindrance)
        alone = find(figures, "beside waiting", "open performed", "none")
        yield Goal(
            f"open performed beside one waiting {hindrance}, p99",
            _ratio(beside, p99=True),
            1.5,
            detail=_us(beside, alone, p99=True),
        )


def _network(figures: Sequence[Figure]) -> Iterable[Goal]:
    for name in network.ESTABLISHED:
        ours, bare = (find(figures, "network", name, way) for way in (OURS, "bare"))
        yield Goal(f"{name}, beside bare", _ratio(ours), 1.1, detail=_us(ours, bare))
    bare = find(figures, "network", network.CONNECT, "bare")
    for way, text in ((OURS, "connect by a rule about addresses"), (BY_NAME.name, "connect by name")):
        ours = find(figures, "network", network.CONNECT, way)
        yield Goal(f"{text}, beside bare", _ratio(ours), 3.0, detail=_us(ours, bare))


def _beside_connects(figures: Sequence[Figure]) -> Iterable[Goal]:
    alone, many = (find(figures, "beside connects", "open performed", way) for way in network.HINDRANCES)
    yield Goal(
        "open performed beside 1,000 waiting connects, p99",
        _ratio(many, p99=True),
        2.0,
        detail=_us(many, alone, p99=True),
    )


def _peers(figures: Sequence[Figure]) -> Iterable[Goal]:
    measured = {figure.family for figure in figures}
    held = [name for name in calls.SAMPLES if name not in FREE_IN_BOTH + FREE_IN_PEERS]
    for peer in PEERS:
        if "calls" in measured:
            yield _cheaper(figures, "calls", held, peer.name, "every held call", 1.0)
            yield _cheaper(figures, "calls", FREE_IN_BOTH, peer.name, "calls free in both", 1.1)
        if "workloads" in measured:
            yield _cheaper(figures, "workloads", [*workloads.WORKLOADS], peer.name, "every workload", 1.0)


def _workloads(figures: Sequence[Figure]) -> Iterable[Goal]:
    for name, bound in workloads.BOUNDS.items():
        ours, bare = (find(figures, "workloads", name, way) for way in (OURS, "bare"))
        detail = "" if not ours or not bare else f"{ours.median:.3g} s, {bare.median:.3g} s"
        yield Goal(f"{name}, beside bare", _ratio(ours), bound, detail=detail)


def _cheaper(
    figures: Sequence[Figure], family: str, names: Sequence[str], peer: str, text: str, bound: float
) -> Goal:
    """Return the worst quotient of ours and the peer's, with all that are too dear."""
    quotients = {
        name: quotient
        for name in names
        if (quotient := _quotient(find(figures, family, name, OURS), find(figures, family, name, peer)))
    }
    dearer = [f"{name} {quotient:.2f}x" for name, quotient in quotients.items() if quotient > bound]
    lost = [name for name in names if name not in quotients]
    detail = f"dearer: {', '.join(dearer)}" if dearer else f"{len(quotients)} compared"
    if lost:
        detail += f"; without a comparison: {', '.join(lost)}"
    return Goal(f"{text}, beside {peer}, worst", max(quotients.values(), default=None), bound, detail=detail)


def _startup(figures: Sequence[Figure]) -> Iterable[Goal]:
    bare, api, cli = (
        find(figures, "start-up", startup.COMMAND, way)
        for way in ("bare", startup.API.name, startup.CLI_WARM)
    )
    more = api.median - bare.median if api and bare and api.median and bare.median else None
    yield Goal(f"{startup.COMMAND} behind a warm broker, above bare", more, 3.0, unit="ms")
    yield Goal(
        f"{startup.COMMAND} by the command line, warm cache", cli.median if cli else None, 100.0, unit="ms"
    )


def _verified(figures: Sequence[Figure]) -> Iterable[Goal]:
    what = "vfork, execve, wait"
    found = {mode: find(figures, "verified", what, mode) for mode in ("bare", "stopped", "verified")}
    bare, stopped, verified = (None if each is None else each.median for each in found.values())
    remains, detail = None, ""
    if bare and stopped and verified:
        kernel = stopped - bare
        remains = (verified - kernel) / bare
        detail = f"{verified:.1f} us less {kernel:.1f} us; {bare:.1f} us; plainly {verified / bare:.3g}x"
    yield Goal("verified exec less the kernel's own stop, beside bare", remains, 1.15, detail=detail)


def _soak(figures: Sequence[Figure]) -> Iterable[Goal]:
    for name, bound in soak.GROWTH.items():
        before, after = (find(figures, "soak", name, way) for way in ("before", "after"))
        grown = None
        if before and after and before.median is not None and after.median is not None:
            grown = after.median - before.median
        yield Goal(f"soak: {name} of the harness, grown by", grown, bound, unit="")


def _ratio(figure: Figure | None, *, p99: bool = False) -> float | None:
    """Return what a figure is relative to its base, if it was measured."""
    if figure is None:
        return None
    return figure.p99_ratio if p99 else figure.ratio


def _quotient(ours: Figure | None, theirs: Figure | None) -> float | None:
    if ours is None or theirs is None or ours.median is None or not theirs.median:
        return None
    return ours.median / theirs.median


def _us(ours: Figure | None, theirs: Figure | None, *, p99: bool = False) -> str:
    """Return both numbers for people, as far as they are there."""
    found = [(figure.p99 if p99 else figure.median) for figure in (ours, theirs) if figure]
    return ", ".join(f"{value:.4g} us" for value in found if value is not None)
