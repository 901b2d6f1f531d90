"""`limits` and `linger`: read, united, stacked, written; what they do is tested at a running tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import Limits, Policy

WHOLE = """\
version: 1
limits: {processes: 50, open-files: 256, cpu-seconds: 60, memory: 512M, wall-time: 10m}
linger: true
"""


def test_every_key() -> None:
    """A file with every key is the value that Python would make of it, and survives being written."""
    expected = Policy(
        limits=Limits(processes=50, open_files=256, cpu_seconds=60, memory=2**29, wall_time=600), linger=True
    )
    assert Policy.loads(WHOLE) == expected
    assert Policy.loads(expected.dumps()) == expected
    assert Policy(limits=Limits(memory="512M", wall_time="10m")).limits == Limits(memory=2**29, wall_time=600)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("1k", 1024), ("1K", 1024), ("3 M", 3 * 2**20), ("2g", 2**31), (4096, 4096)]
)
def test_sizes(text: Any, size: int) -> None:
    """Bytes, or multiples of 1024 in k, M and G."""
    assert Limits(memory=text).memory == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("processes", 0),
        ("processes", -1),
        ("processes", "5"),
        ("processes", 2**31),
        ("open_files", True),
        ("cpu_seconds", 1.5),
        ("memory", "1T"),
        ("memory", "-1"),
        ("memory", 0),
        ("memory", ""),
        ("memory", "9" * 16 + "G"),
        ("wall_time", "soon"),
        ("wall_time", 0),
    ],
)
def test_impossible_values(name: str, value: Any) -> None:
    """An error in Python as in a file."""
    with pytest.raises(PolicyError):
        Limits(**{name: value})


def test_linger_is_a_bool() -> None:
    """Nothing truthy stands for True."""
    with pytest.raises(TypeError):
        Policy(linger="yes")  # type: ignore[arg-type]


def test_equality_and_fingerprint() -> None:
    """Both are part of what a policy is."""
    policies = [Policy(), Policy(linger=True), Policy(limits=Limits(processes=1))]
    assert len({policy.fingerprint for policy in policies}) == 3
    assert policies[0] != policies[1] != policies[2]


def test_nearest_wins(tmp_path: Path) -> None:
    """`extends`: each limit by itself, and linger, are what the nearest file says."""
    (tmp_path / "base.yaml").write_text(WHOLE)
    (tmp_path / "near.yaml").write_text(
        "version: 1\nextends: [./base.yaml]\nlimits: {processes: 100, memory: 1G}\nlinger: false\n"
    )
    (tmp_path / "far.yaml").write_text("version: 1\nextends: [./base.yaml]\n")
    near = Policy.load(tmp_path / "near.yaml")
    expected = Limits(processes=100, open_files=256, cpu_seconds=60, memory=2**30, wall_time=600)
    assert (near.limits, near.linger) == (expected, False)
    far, base = Policy.load(tmp_path / "far.yaml"), Policy.load(tmp_path / "base.yaml")
    assert (far.limits, far.linger) == (base.limits, True)


def test_a_stack_takes_the_lowest() -> None:
    """A layer can only tighten: the lowest of each limit; lingering only if all layers want it."""
    one = Policy(limits=Limits(processes=5, memory="1G"), linger=True)
    two = Policy(limits=Limits(processes=50, wall_time=3), linger=True)
    stack = Policy.stack(one, two)
    assert stack.limits == Limits(processes=5, memory=2**30, wall_time=3)
    assert stack.linger
    assert not Policy.stack(one, two, Policy()).linger
    assert Policy.stack(Policy(), Policy()).limits == Limits()
