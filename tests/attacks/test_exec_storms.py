"""Rows 34 and 46: execs in each other's way. None is denied or killed wrongly, and nobody waits for ever."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core

IDENTITY = ("-nostdlib", "-fno-stack-protector", "-fno-builtin", "-static-pie")


@pytest.mark.parametrize(
    "share", [pytest.param(1, id="quick"), pytest.param(30, id="long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("way", "count"),
    [("threads", 10), ("exiting", 60), ("killed", 60), ("stopped", 60), ("signals", 60), ("daemons", 10)],
)
def test_storm(
    way: str, count: int, share: int, project: Any, deny_rule: Any, attacker: Callable[..., Path]
) -> None:
    """Threads execute at once with 1 MiB each; others end, are killed or stopped meanwhile."""
    count *= share
    program = attacker("identity", *IDENTITY)
    argv = [attacker("exec_storm"), way, program, str(count)]
    expected = {
        "exiting": lambda found: found["ran"] + found["exited"] == count,
        "killed": lambda found: found["ran"] + found["killed"] == count and found["killed"] > 0,
    }.get(way, lambda found: found["ran"] == count)
    bare = project.bare(argv, timeout=600)
    assert expected(json.loads(bare.stdout)), bare.stderr

    done = project.run(argv, deny_rule("exec", paths=["./nothing"]), timeout=900)

    assert done.returncode == 0, done.stderr
    assert expected(json.loads(done.stdout)), done.stdout + done.stderr
    assert done.denials == []
    assert "exec-tampered" not in project.audit.read_text()


def test_tree_is_killable_during_execs(project: Any, deny_rule: Any, attacker: Callable[..., Path]) -> None:
    """Row 46: with execs under way in many daemons, the tree ends within a second or two when told to."""
    import rampart_seccomp as rampart

    program = attacker("identity", *IDENTITY)
    argv = [str(attacker("exec_storm")), "daemons", str(program), "100000"]
    process = rampart.Popen(argv, policy=deny_rule("exec", paths=["./nothing"]), cwd=project.root)
    time.sleep(1)
    assert process.poll() is None

    began = time.monotonic()
    process.kill()
    process.wait(20)

    assert process.session.wait_finished(10)
    assert time.monotonic() - began < 10
