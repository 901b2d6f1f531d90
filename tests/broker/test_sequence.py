"""Records stand in the order of the calls, whoever answered them and however long writing takes."""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.broker import sequence
from rampart_seccomp.broker.ledger import Ledger
from rampart_seccomp.broker.sequence import Sequence

PYTHON = [sys.executable, "-I", "-S", "-B"]


def test_whoever_comes_late_is_waited_for() -> None:
    """What was begun earlier is written earlier, and what needs no waiting for is written at once."""
    written: list[int] = []
    numbers = Sequence(itertools.count().__next__)
    first, second, third = numbers.begin(), numbers.begin(), numbers.begin()
    numbers.put(second, lambda: written.append(second))
    assert numbers.over(second)
    numbers.write()
    assert written == []
    numbers.put(first, lambda: written.append(first))
    numbers.over(first)
    numbers.write()
    assert written == [first, second]
    assert not numbers.over(third)


def test_what_the_engine_may_still_have() -> None:
    """Nothing is written from a number on whose forerunners may not have been taken yet."""
    written: list[int] = []
    numbers = Sequence(itertools.count().__next__)
    numbers.put(7, lambda: written.append(7))
    numbers.write(7)
    assert written == []
    numbers.write(8)
    assert written == [7]


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long is written when it comes, and the end waits for nothing."""
    written: list[int] = []
    numbers = Sequence(itertools.count().__next__)
    numbers.begin()
    later = numbers.begin()
    numbers.put(later, lambda: written.append(later))
    numbers.over(later)
    numbers.write()
    assert written == []
    numbers.write(waiting=False)
    assert written == [later]
    numbers.put(last := numbers.begin(), lambda: written.append(last))
    numbers.over(last)
    monkeypatch.setattr(sequence, "_PATIENCE", 0.0)
    numbers.write()
    assert written == [later, last]


def test_many_threads() -> None:
    """Whatever threads do: all is written, once, in order."""
    written: list[int] = []
    numbers = Sequence(itertools.count().__next__)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(200):
            number = numbers.begin()
            if chance.random() < 0.2:
                time.sleep(0)
            numbers.put(number, lambda number=number: written.append(number))  # type: ignore[misc]
            numbers.over(number)
            numbers.write()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == list(range(1600))


@pytest.mark.parametrize("engine", ["native", "python"])
def test_one_program_with_two_who_answer(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that the engine and Python answer in turn stand on record as they were made."""
    slow(monkeypatch)
    log = tmp_path / "log"
    code = """
import os, sys
for i in range(10):
    for name in (b"engine", b"python"):
        try:
            os.close(os.open(b"%s/%s%d" % (os.fsencode(sys.argv[1]), name, i), os.O_RDONLY))
        except PermissionError:
            pass
"""
    for name in ("engine", "python"):
        for i in range(10):
            (tmp_path / f"{name}{i}").touch()
    rules = [
        rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything"),
        rampart.deny("read", paths=[f"{tmp_path}/engine*"], name="engine"),
        rampart.ask("read", paths=[f"{tmp_path}/python*"], name="python", decide=lambda _: rampart.Allow()),
    ]
    policy = rampart.Policy(rules=rules, audit="denials")

    with rampart.Broker(policy, audit=log, engine=engine) as broker:
        rampart.run([*PYTHON, "-c", code, str(tmp_path)], broker=broker, check=True)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    opened = [Path(record["path"]).name for record in records if record.get("rule") in ("engine", "python")]
    assert opened == [f"{name}{i}" for i in range(10) for name in ("engine", "python")]


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what Python decided go on record a little after the program has its answer."""
    record: Callable[..., None] = Ledger._record

    def later(*args: Any) -> None:
        time.sleep(0.005)
        record(*args)

    monkeypatch.setattr(Ledger, "_record", later)
