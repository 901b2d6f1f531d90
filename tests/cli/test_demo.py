"""The demo shows what it claims, and fails when it does not hold."""

from __future__ import annotations

import io
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.cli import demo


@pytest.fixture
def root() -> Iterator[pathlib.Path]:
    """A directory where agents may not write by themselves."""
    with tempfile.TemporaryDirectory(prefix="rampart-demo-test-", dir=demo._base()) as path:
        yield pathlib.Path(path)


def section(output: str, number: int) -> str:
    """Cut one of the three numbered runs out of the story."""
    return output.partition(f"\n{number}. ")[2].partition(f"\n{number + 1}. ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Map the first column of every table line to the further columns."""
    cells = ([cell for cell in line.strip().split("  ") if cell] for line in text.splitlines())
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells if len(row) > 1}


def test_every_claim_is_shown() -> None:
    """Bare it leaks by every way; under the policy the work is done and nothing leaves; all is removed."""
    done = subprocess.run(
        [sys.executable, "-c", "from rampart_seccomp.cli import main; raise SystemExit(main())", "demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stderr == ""
    assert done.returncode == 0
    ways = 5 - sum(f"skipped: {way} (" in done.stdout for way in demo.WAYS)
    bare, guarded, handed = (rows(section(done.stdout, number)) for number in (1, 2, 3))
    assert [f"the secret, {ways} times"] == bare["attacker received"]
    assert bare["~/thesis.txt"] == ["GONE"]
    assert bare["~/.bashrc"] == ["PLANTED"]
    for run in (guarded, handed):
        assert bare["honest work"] == run["honest work"]
        assert run["attacker received"] == ["nothing"]
        assert run["~/thesis.txt"] == ["there"]
        assert run["~/.bashrc"] == ["not touched"]
    assert guarded["read ~/project/.env"][0].startswith("env-files ")
    assert any(name.startswith("connect 127.0.0.1:") for name in handed)
    assert not any(name.startswith("read ") for name in handed)
    log = re.search(r"^Audit log: (\S+), (\d+) records, chain intact$", done.stdout, re.MULTILINE)
    assert log is not None
    assert int(log[2]) > 2 * ways
    assert not pathlib.Path(log[1]).parent.exists()


def test_fails_when_nothing_is_stopped(root: pathlib.Path) -> None:
    """Under a policy that allows everything, the demo names each thing that did not hold."""
    problems = demo.demonstrate(rampart.Policy.load("observe"), root=root, out=io.StringIO())

    text = "\n".join(problems)
    assert "under Rampart: 0 reads denied" in text
    assert "connections to the attacker" in text
    assert "secret handed in: 0 connections denied" in text
    assert "~/thesis.txt was wiped" in text
    assert "~/.bashrc was planted" in text
    assert "did not work" not in text


def test_fails_when_the_work_is_stopped(root: pathlib.Path) -> None:
    """A policy that stops the attack by stopping everything does not pass."""
    policy = rampart.Policy.load("agent").with_rules(rampart.deny("connect", name="offline"))

    problems = demo.demonstrate(policy, root=root, out=io.StringIO())

    assert any("the honest work did not reach the API" in problem for problem in problems)
