"""Between the start of the launcher and the first call of its tree: what is not in force decides nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.broker import deciding
from rampart_seccomp.errors import CommandDenied

EVERYTHING = ["read", "write", "exec", "connect", "listen"]


def _denying(operation: str, path: Path) -> rampart.Policy:
    rules = [rampart.allow(EVERYTHING, name="everything")]
    return rampart.Policy(rules=[*rules, rampart.deny(operation, paths=[str(path)], name="never")])


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two directories with a program and a file each, and a link that leads to the first."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name / "program").write_text("#!/bin/sh\necho ran\n")
        (tmp_path / name / "program").chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to("one")
    return tmp_path / "one", tmp_path / "two", link


def _relink(link: Path, target: str) -> None:
    other = link.with_name("other")
    other.symlink_to(target)
    other.rename(link)


@pytest.mark.parametrize("engine", ["native", "python"])
def test_each_tree_is_judged_by_the_links_that_it_finds(places: Any, engine: str) -> None:
    """What is bound is kept for the next tree, but not past a change of a link in a pattern."""
    one, two, link = places
    with rampart.Broker(_denying("read", link / "file"), engine=engine) as broker:

        def denied() -> list[str]:
            readable = [path for path in (one, two) if _reads(broker, path / "file")]
            return [path.name for path in (one, two) if path not in readable]

        assert denied() == ["one"]
        _relink(link, "two")
        assert denied() == ["two"]
        _relink(link, "one")
        assert denied() == ["one"]


def _reads(broker: rampart.Broker, file: Path) -> bool:
    return rampart.run(["/bin/cat", str(file)], broker=broker, capture_output=True).returncode == 0


def test_the_very_first_call_is_judged_by_the_new_links(places: Any) -> None:
    """The exec of the command itself, after a change that nobody told the broker of."""
    one, two, link = places
    with rampart.Broker(_denying("exec", link / "program")) as broker:
        for denied, allowed in ((one, two), (two, one)):
            assert rampart.run([str(allowed / "program")], broker=broker, stdout=-1).stdout == b"ran\n"
            with pytest.raises(CommandDenied):
                rampart.run([str(denied / "program")], broker=broker)
            _relink(link, allowed.name)


def test_a_link_that_changes_after_the_wrapping(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was bound when the command was wrapped is looked at again before the command goes on."""
    one, two, link = places
    with rampart.Broker(_denying("read", link / "file")) as broker:
        assert not _reads(broker, one / "file")
        verify = rampart.Broker._verify

        def late(self: rampart.Broker, session: rampart.Session) -> None:
            _relink(link, "two")
            verify(self, session)

        monkeypatch.setattr(rampart.Broker, "_verify", late)
        assert not _reads(broker, two / "file")


@pytest.mark.parametrize("engine", ["native", "python"])
def test_the_command_waits_for_whoever_decides(
    tmp_path: Path, allow_all: rampart.Policy, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to go on before all is ready, and comes no further than its first call."""
    mark = tmp_path / "mark"
    begin = deciding.Deciding.begin
    seen: list[tuple[str, bool]] = []

    def slow(self: deciding.Deciding, lineage: Any, listener: Any, member: int, *others: Any) -> None:
        time.sleep(0.5)
        seen.append((os.readlink(f"/proc/{member}/exe"), mark.exists()))
        begin(self, lineage, listener, member, *others)

    monkeypatch.setattr(deciding.Deciding, "begin", slow)
    with rampart.Broker(allow_all, engine=engine) as broker:
        assert rampart.run(["/bin/touch", str(mark)], broker=broker).returncode == 0
    assert mark.exists()
    ((image, marked),) = seen
    assert image.endswith("/rampart-seccomp-launch"), "it has not executed anything"
    assert not marked


def test_if_nobody_can_decide_nothing_runs(
    tmp_path: Path, allow_all: rampart.Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure at that point is the start's, and ends the command where it waits."""
    mark = tmp_path / "mark"
    members: list[int] = []

    def fail(_: deciding.Deciding, lineage: Any, listener: Any, member: int, *others: Any) -> None:
        time.sleep(0.2)
        members.append(member)
        raise OSError(12, "no memory")

    monkeypatch.setattr(deciding.Deciding, "begin", fail)
    with rampart.Broker(allow_all) as broker:
        with pytest.raises(OSError, match="no memory"):
            rampart.run(["/bin/touch", str(mark)], broker=broker)
        assert not os.path.exists(f"/proc/{members[0]}")
    assert not mark.exists()
