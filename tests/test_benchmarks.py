"""The benchmarks compute what they say, and their programs measure what they say."""

from __future__ import annotations

import json
import shutil
import time
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from benchmarks import figures, goals, limit, network, parallel, plot, report, soak, startup, workloads
from benchmarks.__main__ import main
from benchmarks.figures import Figure, Rounds
from benchmarks.settings import Settings
from benchmarks.stage import Interrupted, NotMeasured, Stage, Way, take_turns
from benchmarks.ways import BARE, BY_NAME, CALLS, PEERS

QUICK = Settings(rounds=1, seconds=0.2, scale=0.02)
ABOUT = {
    "when": "2000-01-01 00:00 UTC",
    "version": "0",
    "rounds": 1,
    "machine": {"kernel": "6", "cpu": "a", "processors": 2, "python": "3", "load": 0.0},
}


@pytest.fixture
def stage(project: object) -> Iterator[Stage]:
    """A stage in a directory of its own."""
    with Stage(project.base / "stage") as made:  # type: ignore[attr-defined]
        yield made


def figure(family: str, name: str, way: str, median: float | None, **fields: object) -> Figure:
    """Return a figure in microseconds."""
    return Figure(family, name, way, "us", median=median, **fields)  # type: ignore[arg-type]


def verdicts(found: list[goals.Goal]) -> dict[str, bool | None]:
    """Return what was judged, by its text."""
    return {goal.text: goal.passed for goal in found}


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    rounds = Rounds("calls", "us")
    for number, slow in enumerate((1.0, 2.0, 10.0)):
        rounds.add(number, "open", "bare", 1.0 * slow, 2.0 * slow)
        rounds.add(number, "open", "rampart", 3.0 * slow, 8.0 * slow)

    ours = figures.find(rounds.figures(), "calls", "open", "rampart")

    assert ours is not None
    assert (ours.median, ours.p99, ours.ratio, ours.p99_ratio, ours.rounds) == (6.0, 16.0, 3.0, 4.0, 3)


def test_what_fails_once_has_no_number() -> None:
    """A way that does not do the work is left out with its reason, and not tried again."""
    tried = []

    def measure(name: str, way: Way) -> tuple[float, None]:
        tried.append((name, way.name))
        if way.name == "broken":
            raise NotMeasured("does not run")
        return 2.0, None

    ways = (BARE, attrs.evolve(BARE, name="broken"))
    found = take_turns(Rounds("calls", "us"), 3, ["open"], ways, measure)

    broken = figures.find(found, "calls", "open", "broken")
    assert broken is not None
    assert (broken.median, broken.reason) == (None, "does not run")
    assert tried.count(("open", "broken")) == 1
    assert tried.count(("open", "bare")) == 3


def test_an_interrupt_shows_what_there_is() -> None:
    """The rounds until then are not lost."""

    def measure(name: str, way: Way) -> tuple[float, None]:
        if name == "second":
            raise KeyboardInterrupt
        return 2.0, None

    with pytest.raises(Interrupted) as interruption:
        take_turns(Rounds("calls", "us"), 3, ["first", "second"], [BARE], measure)

    assert [(each.name, each.rounds) for each in interruption.value.figures] == [("first", 1)]


def test_goals_pass_and_fail_by_their_bounds() -> None:
    """Each bound is judged in its direction; what is missing is not measured rather than passed."""
    found = [
        figure("limit, unpinned", "open performed", "rampart", 7.0, ratio=1.99),
        figure("limit, pinned", "open performed", "rampart", 7.0, ratio=2.01),
        figure("parallel", "4 threads", "rampart", 100.0),
        figure("parallel", "64 threads", "rampart", 99.0),
        figure("start-up", startup.COMMAND, "bare", 1.0),
        figure("start-up", startup.COMMAND, startup.API.name, 3.9),
    ]

    judged = verdicts(goals.judge(found))

    assert judged["open performed, beside the limit's ADDFD open, unpinned"] is True
    assert judged["open performed, beside the limit's ADDFD open, pinned"] is False
    assert judged["opens a second of 64 threads, beside 4"] is False
    assert judged["/bin/true behind a warm broker, above bare"] is True
    assert judged["/bin/true by the command line, warm cache"] is None
    assert not [text for text in judged if "soak" in text]


def test_dearer_than_a_peer_is_named() -> None:
    """One call that costs more than in the peer fails the comparison, whatever the others do."""
    found = [
        figure("calls", "connect", "rampart", 5.0),
        figure("calls", "connect", "sandlock", 10.0),
        figure("calls", "spawn", "rampart", 12.0),
        figure("calls", "spawn", "sandlock", 10.0),
    ]

    (compared,) = [
        goal for goal in goals.judge(found) if goal.text == "every held call, beside sandlock, worst"
    ]

    assert (compared.passed, compared.measured) == (False, 1.2)
    assert "dearer: spawn 1.20x" in compared.detail
    assert "connect 0" not in compared.detail


def test_numbers_go_between_the_marks(tmp_path: Path) -> None:
    """The rest of a document stays as it is, and a second run replaces the first."""
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    numbers = report.markdown(ABOUT, [figure("calls", "open", "bare", 1.0)], [])

    for _ in range(2):
        report.into_document(document, numbers)

    written = document.read_text()
    assert written.startswith(f"before\n{report.BEGIN}\n")
    assert written.endswith(f"{report.END}\nafter\n")
    assert "old" not in written
    assert written.count("| open | 1 |") == 1


def test_an_earlier_run_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --json writes, --read shows, with goals and a picture that is well-formed."""
    found = [
        figure("calls", "open performed", "bare", 1.0, base="bare"),
        figure("calls", "open performed", "rampart", 2.0, ratio=2.0, base="bare"),
        figure("parallel", "4 threads", "rampart", 100.0),
        figure("parallel", "64 threads", "rampart", 50.0),
    ]
    figures.write(tmp_path / "run.json", ABOUT, found, goals.judge(found))

    status = main(["--read", str(tmp_path / "run.json"), "--plot", str(tmp_path / "run.svg"), "--check"])

    assert status == 1, "throughput sinks"
    assert "open performed" in capsys.readouterr().out
    xml.etree.ElementTree.parse(tmp_path / "run.svg")
    assert len(json.loads((tmp_path / "run.json").read_text())["figures"]) == 4


def test_no_figures_make_an_empty_picture() -> None:
    """Families that were not measured leave their panel out."""
    assert "<svg" in plot.svg([])


def test_whoever_is_drawn_has_a_colour() -> None:
    """Throughput is drawn for each way that is measured."""
    found = [figure("parallel", "4 threads", way.name, 1.0) for way in (BARE, parallel.LIMIT, *PEERS)]

    assert plot.svg(found).count("<polyline") == len(found)


@pytest.mark.parametrize("mode", [*limit.MODES])
def test_the_smallest_broker_answers(stage: Stage, mode: str) -> None:
    """Each mode holds the call that it is about: the program gets the answer, and it costs more than bare."""
    smallest = attrs.evolve(BARE, prefix=limit.Limit(limit.MODES[mode], "-"))
    call = limit.CALLS.get(mode, mode)

    held, _ = stage.quantiles(smallest, call, 200, 2.0)
    bare, _ = stage.quantiles(BARE, "getppid" if call == "getppid" else "open performed", 200, 2.0)

    assert held > bare * 2


def test_a_denied_open_is_denied(stage: Stage) -> None:
    """The program that measures denials fails where an open is not denied, so the policy has denied it."""
    with pytest.raises(NotMeasured):
        stage.quantiles(BARE, "open denied", 10, 1.0)

    assert stage.quantiles(CALLS, "open denied", 10, 1.0)[0] > 0


@pytest.mark.parametrize("hindrance", parallel.HINDRANCES)
def test_a_hindrance_stays_in_its_call(stage: Stage, hindrance: str) -> None:
    """The program fails if the other thread returns at once; the call of the program itself goes on."""
    median, _ = stage.quantiles(CALLS, "open performed", 10, 1.0, "-w", hindrance)

    assert median > 0


def test_a_thousand_connects_stay_in_their_calls(stage: Stage) -> None:
    """The program fails if one of them returns; its own call goes on."""
    median, _ = stage.quantiles(CALLS, "open performed", 10, 1.0, "-w", "connects")

    assert median > 0


@pytest.mark.parametrize("name", [*network.ESTABLISHED, "connect by name"])
def test_calls_of_connections(stage: Stage, name: str) -> None:
    """They work under the policies that they are about."""
    way = CALLS if name in network.ESTABLISHED else BY_NAME

    assert stage.quantiles(way, name, 10, 1.0)[0] > 0


def test_connections_are_judged_by_their_bounds() -> None:
    """By address and by name, and the opens beside those that wait, each has its own bound."""
    found = [
        figure("network", "connect", "bare", 10.0),
        figure("network", "connect", "rampart", 29.0, ratio=2.9),
        figure("network", "connect", BY_NAME.name, 31.0, ratio=3.1),
        figure("network", "send established", "rampart", 1.0, ratio=1.2),
        figure("beside connects", "open performed", "none", 10.0, p99=20.0),
        figure("beside connects", "open performed", "1,000 connects", 10.0, p99=30.0, p99_ratio=1.5),
    ]

    judged = verdicts(goals.judge(found))

    assert judged["connect by a rule about addresses, beside bare"] is True
    assert judged["connect by name, beside bare"] is False
    assert judged["send established, beside bare"] is False
    assert judged["read established, beside bare"] is None
    assert judged["open performed beside 1,000 waiting connects, p99"] is True


def test_a_harness_that_dies_is_replaced(stage: Stage) -> None:
    """What kills one costs that number alone."""
    suicide = ("sh", "-c", "kill -9 $PPID")
    with pytest.raises(NotMeasured, match="has ended"):
        stage.run(BARE, suicide, stage.project)

    assert stage.run(BARE, ("echo", "again"), stage.project).output == "again\n"


def test_what_takes_too_long_ends_with_all_it_started(stage: Stage) -> None:
    """A workload that hangs must not disturb what is measured after it."""
    endless = ("sh", "-c", "sleep 300 & echo $! >endless; wait")
    with pytest.raises(NotMeasured, match="TimeoutExpired"):
        stage.run(BARE, endless, stage.project, timeout=2.0)

    pid = int((stage.project / "endless").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    assert Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z", "nobody reaps it here, but it is dead"


def test_a_soak_looks_at_the_harness(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds what it was told to, and says what the harness has before and after."""
    monkeypatch.setattr(soak, "WARM_UP", 10)

    found = soak.measure(stage, QUICK, 20)

    assert {"before", "after"} == {each.way for each in found}
    assert all(each.median and each.rounds == 20 for each in found)


SHORT = ("python imports", "grep -r")
BY_LENGTH = [
    pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in workloads.WORKLOADS
]


@pytest.mark.parametrize("name", BY_LENGTH)
def test_a_workload_does_its_work_twice(stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made from nothing, it succeeds bare, and again after the first run's traces are removed."""
    if workloads.WORKLOADS[name].needs and shutil.which(str(workloads.WORKLOADS[name].needs)) is None:
        pytest.skip(f"{workloads.WORKLOADS[name].needs} is not installed")
    monkeypatch.setattr(workloads, "WORKLOADS", {name: workloads.WORKLOADS[name]})
    monkeypatch.setattr(workloads, "PEERS", ())
    for way in ("AGENT", "STRACE", "BWRAP"):
        monkeypatch.setattr(workloads, way, BARE)
    monkeypatch.setattr(workloads, "HELD", ())

    timed, counted = workloads.measure(stage, attrs.evolve(QUICK, rounds=2))

    assert (timed.reason, timed.rounds) == (None, 2)
    if shutil.which("strace") is not None:
        assert counted.median is not None, counted.reason
        assert counted.median > 100
