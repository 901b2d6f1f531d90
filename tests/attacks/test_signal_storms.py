"""Row 31: signals arrive all the time, and every call is made once and says what it says without them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core


@pytest.mark.parametrize("restart", [True, False], ids=["restarting", "interrupting"])
@pytest.mark.parametrize("rounds", [400, pytest.param(30_000, marks=pytest.mark.long)])
def test_signal_storm(
    restart: bool, rounds: int, project: Any, deny_rule: Any, attacker: Callable[..., Path]
) -> None:
    """A 1 kHz timer, SIGURG all the time, ending children: no EINTR where handlers restart, nothing twice."""
    project.write("work/there", "x")
    argv = [attacker("storm"), str(int(restart)), str(rounds), project.root / "work"]
    bare = json.loads(project.bare(argv, timeout=600).stdout)

    done = project.run(argv, deny_rule("read", paths=["./nothing"]), timeout=900)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for result in (bare, found):
        rate = result["interrupted"] / result["calls"]
        print(
            "bare  " if result is bare else "behind", f"{rate:.2%} of {result['calls']} calls: EINTR", result
        )
        assert result["probe"] == ("ok" if restart else "EINTR")
        assert (result["twice"], result["lost"], result["other"], result["error"]) == (0, 0, 0, "")
        assert result["calls"] == 7 * rounds + result["interrupted"]
    assert min(found["alarms"], found["urges"], found["children"]) > 5
    assert done.denials == []
    if restart:
        assert (bare["interrupted"], found["interrupted"]) == (0, 0)
    else:
        # Before a call has been received a signal interrupts it, and nothing has happened. Bare: connects.
        assert found["interrupted"] < found["calls"] * 3 / 4
