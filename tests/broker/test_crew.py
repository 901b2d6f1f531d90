"""The threads of a tree serve the next one, and end with their broker."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.broker.crew import Crews

EACH = 6
"""Threads of a crew: one leads, one looks after those that wait, four answer; more on a busy machine."""


Ours = Callable[[], set[threading.Thread]]


@pytest.fixture
def ours() -> Ours:
    """Gives the threads of this package that are there since the test began."""
    gc.collect()
    before = set(threading.enumerate())

    def found() -> set[threading.Thread]:
        there = set(threading.enumerate()) - before
        return {thread for thread in there if thread.name.startswith("rampart-")}

    return found


def _becomes(expected: int, ours: Ours, seconds: float = 20) -> int:
    end = time.monotonic() + seconds
    while len(ours()) != expected and time.monotonic() < end:
        time.sleep(0.01)
    return len(ours())


def test_the_next_tree_has_the_threads_of_the_last(allow_all: rampart.Policy, ours: Ours) -> None:
    """No thread is started for a tree after the first, and closing the broker ends them all."""
    with rampart.Broker(allow_all) as broker:
        rampart.run(["/bin/true"], broker=broker)
        first = ours()
        for _ in range(3):
            rampart.run(["/bin/true"], broker=broker)
        assert len(first) >= EACH
        assert ours() <= first
    assert _becomes(0, ours) == 0


def test_trees_at_the_same_time_share_no_threads(allow_all: rampart.Policy, ours: Ours) -> None:
    """Each has a crew of its own; when they have ended, a few crews wait for the next."""
    with rampart.Broker(allow_all) as broker:
        trees = [rampart.Popen(["/bin/cat"], broker=broker, stdin=-1, stdout=-1) for _ in range(4)]
        assert len(ours()) >= 4 * EACH
        for tree in trees:
            tree.communicate(b"")
        assert _becomes(Crews.SPARE * EACH, ours) == Crews.SPARE * EACH


def test_a_forgotten_broker_keeps_no_threads(allow_all: rampart.Policy, ours: Ours) -> None:
    """Who does not close a broker, and refers to it no more, is left with none of its threads."""
    broker = rampart.Broker(allow_all)
    rampart.run(["/bin/true"], broker=broker)
    assert len(ours()) >= EACH
    del broker
    gc.collect()
    assert _becomes(0, ours) == 0


def test_a_command_of_its_own_leaves_no_threads(allow_all: rampart.Policy, ours: Ours) -> None:
    """Without a broker of the caller's there is no next tree, even if nobody waits for the first."""
    process = rampart.Popen(["/bin/sleep", "600"], policy=allow_all)
    process.kill()
    assert _becomes(0, ours) == 0
    assert process.wait(10) != 0


@pytest.mark.parametrize("what", ["groups", "root"])
def test_threads_from_before_a_change_are_dismissed(
    what: str, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crew serves only whoever has the same ids, rights and root as its maker."""
    if os.geteuid() != 0:
        pytest.skip("only root can change these")
    crews = Crews()
    crew = crews.take()
    crews.give_back(crew, idle=True)
    again = crews.take()
    assert again is crew, "the control: nothing has changed"
    crews.give_back(again, idle=True)
    if what == "groups":
        before = os.getgroups()
        os.setgroups([*before, 54321])
        try:
            other = crews.take()
        finally:
            os.setgroups(before)
    else:
        seen = os.stat("/proc")
        monkeypatch.setattr("rampart_seccomp.broker.crew.os.stat", lambda _: seen)
        other = crews.take()
        monkeypatch.undo()
    assert other is not crew
    assert _becomes(EACH, ours) == EACH
    crews.give_back(other, idle=False)
    crews.close()
    assert _becomes(0, ours) == 0
