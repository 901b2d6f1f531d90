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
"""Threads of a crew: one that leads, one that looks after those that wait, four that answer."""


def _ours() -> set[int]:
    threads = threading.enumerate()
    return {thread.ident or 0 for thread in threads if thread.name.startswith("rampart-")}


def _becomes(expected: int, count: Callable[[], int], seconds: float = 10) -> int:
    end = time.monotonic() + seconds
    while count() != expected and time.monotonic() < end:
        time.sleep(0.01)
    return count()


def _await_none() -> None:
    gc.collect()
    assert _becomes(0, lambda: len(_ours())) == 0, "the control: what came before has ended"


def test_the_next_tree_has_the_threads_of_the_last(allow_all: rampart.Policy) -> None:
    """No thread is started for a tree after the first, and closing the broker ends them all."""
    _await_none()
    with rampart.Broker(allow_all) as broker:
        rampart.run(["/bin/true"], broker=broker)
        first = _ours()
        for _ in range(3):
            rampart.run(["/bin/true"], broker=broker)
        assert len(first) == EACH
        assert _ours() == first
    assert _becomes(0, lambda: len(_ours())) == 0


def test_trees_at_the_same_time_share_no_threads(allow_all: rampart.Policy) -> None:
    """Each has a crew of its own; when they have ended, a few crews wait for the next."""
    _await_none()
    with rampart.Broker(allow_all) as broker:
        trees = [rampart.Popen(["/bin/cat"], broker=broker, stdin=-1, stdout=-1) for _ in range(4)]
        assert len(_ours()) == 4 * EACH
        for tree in trees:
            tree.communicate(b"")
        assert _becomes(Crews.SPARE * EACH, lambda: len(_ours())) == Crews.SPARE * EACH


def test_a_forgotten_broker_keeps_no_threads(allow_all: rampart.Policy) -> None:
    """Who does not close a broker, and refers to it no more, is left with none of its threads."""
    _await_none()
    broker = rampart.Broker(allow_all)
    rampart.run(["/bin/true"], broker=broker)
    assert len(_ours()) == EACH
    del broker
    gc.collect()
    assert _becomes(0, lambda: len(_ours())) == 0


def test_a_command_of_its_own_leaves_no_threads(allow_all: rampart.Policy) -> None:
    """Without a broker of the caller's there is no next tree, even if nobody waits for the first."""
    _await_none()
    process = rampart.Popen(["/bin/sleep", "600"], policy=allow_all)
    process.kill()
    assert _becomes(0, lambda: len(_ours())) == 0
    assert process.wait(10) != 0


@pytest.mark.parametrize("what", ["groups", "root"])
def test_threads_from_before_a_change_are_dismissed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crew serves only whoever has the same ids, rights and root as its maker."""
    if os.geteuid() != 0:
        pytest.skip("only root can change these")
    _await_none()
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
    assert _becomes(EACH, lambda: len(_ours())) == EACH
    crews.give_back(other, idle=False)
    crews.close()
    assert _becomes(0, lambda: len(_ours())) == 0
