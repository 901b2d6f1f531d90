"""What the races have in common: how long they last, how they are run, and what a lost one looks like."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

LONGEST = float(os.environ.get("RAMPART_RACE_SECONDS", "600"))
"""Seconds after which a race of the long suite is given up. One that is too slow then fails."""


@attrs.frozen
class Amount:
    """How long a race lasts: so many tries, and not longer than so many seconds."""

    tries: int
    seconds: float
    whole: bool = False
    """All of the tries are wanted."""


LONG = Amount(100_000, LONGEST, whole=True)


def amounts(quick: Amount) -> Any:
    """How long: in the quick suite, and in the long one."""
    values = [pytest.param(quick, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.long)]
    return pytest.mark.parametrize("amount", values)


def run_race(
    project: Any,
    program: Path,
    flipper: str,
    what: str,
    amount: Amount,
    names: Sequence[Any],
    policy: Any,
    variables: dict[str, str],
    **options: Any,
) -> tuple[dict[str, Any], Any]:
    """Run a racing program: bare, as a control, until it wins (policy None), or behind a policy.

    Returns:
        Its counters, and the finished command.
    """
    argv = [program, flipper, what, str(amount.tries), str(amount.seconds), *names]
    if policy is None:
        done = project.bare(argv, env={"UNTIL_WIN": "1"} | variables)
    else:
        done = project.run(argv, policy, env=variables, timeout=amount.seconds + 60, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done


def assert_lost(counters: dict[str, Any], amount: Amount) -> None:
    """The race took place, and was never won."""
    print(counters)
    assert counters["wins"] == 0, counters
    assert counters["allowed"] > 0, counters
    assert counters["tries"] >= (amount.tries if amount.whole else 20), counters
