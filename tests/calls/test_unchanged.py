"""Allowed means unchanged, where modes, mounts, descriptors, terminals and other users are what decides."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import unchanged

pytestmark = pytest.mark.core

SCRIPT = Path(unchanged.__file__)
INTERPRETER = [sys.executable, "-I", "-S"]

LINES = {
    "defaults": 320,
    "flags": 120,
    "resolving": 1100,
    "scarce": 70,
    "threads": 11,
    "magic": 650,
    "terminal": 14,
    "sticky": 800 if os.getuid() == 0 else 1,
}
"""The sections, and how many lines each prints at least."""


@pytest.fixture(params=["native", "python"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", request.param)
    return str(request.param)


def differences(bare: str, judged: str) -> list[str]:
    lines = difflib.unified_diff(bare.splitlines(), judged.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def test_all_sections_are_there() -> None:
    assert {*LINES, "read_only"} == set(unchanged.SECTIONS)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("section", LINES)
def test_section(section: str, project: Any, deny_rule: Any) -> None:
    """What a program is told is what it is told bare; a rule about something else changes nothing."""
    project.base.chmod(0o755)
    results = {}
    for kind in ("bare", "judged"):
        (project.root / kind).mkdir()
        argv = ["sh", "-c", f'cd {kind} && exec "$@"', "sh", *INTERPRETER, SCRIPT, section]
        policy = deny_rule(["read", "write"], paths=["~/vault/**"])
        done = project.bare(argv) if kind == "bare" else project.run(argv, policy)
        assert done.returncode == 0, done.stderr
        results[kind] = done.stdout
    assert len(results["bare"].splitlines()) >= LINES[section]
    assert differences(**results) == []
    assert done.denials == []


READ_ONLY = """\
set -e
mkdir "$1" && cd "$1" && mkdir ro && touch in
mount -t tmpfs tmpfs ro
touch ro/file && mkdir ro/dir && ln -s file ro/link && ln -s nowhere ro/dangling
mount -o remount,ro ro
shift
exec "$@"
"""


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="needs root, to mount")
def test_read_only(project: Any, engine: str) -> None:
    """On a file system that is mounted read-only the same errors come first, bare and behind Rampart."""
    section = [*INTERPRETER, SCRIPT, "read_only"]
    (project.base / "policy.yaml").write_text(
        "version: 1\ndefault: {read: allow, write: allow, exec: allow}\n"
        'rules:\n  - {name: no, deny: [read, write], paths: ["~/vault/**"]}\n'
    )
    rampart = [sys.executable, "-m", "rampart_seccomp", "run", "--policy", project.base / "policy.yaml", "--"]
    mounting = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh"]
    bare = project.bare([*mounting, "bare", *section])
    judged = project.bare(
        [*mounting, "judged", *rampart, *section],
        env={"RAMPART_SECCOMP_ENGINE": engine, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (bare.returncode, judged.returncode) == (0, 0), bare.stderr + judged.stderr
    assert len(bare.stdout.splitlines()) >= 300
    assert differences(bare.stdout, judged.stdout) == []
