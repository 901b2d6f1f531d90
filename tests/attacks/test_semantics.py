"""Allowed means unchanged: file calls give the same results bare and behind a policy that allows them."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

pytestmark = pytest.mark.core


def difference(bare: str, judged: str) -> list[str]:
    """The lines that differ, as a diff without context."""
    lines = difflib.unified_diff(bare.splitlines(), judged.splitlines(), "bare", "judged", lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


# Section of src/semantics.c, and how many lines it prints at least.
SECTIONS = {
    "modes": 400,
    "open": 70,
    "descriptors": 20,
    "openat2": 18,
    "names": 105,
    "metadata": 35,
    "directories": 14,
    "pipes": 5,
}


@pytest.mark.parametrize("kind", ["allow-all", "guarded"])
@pytest.mark.parametrize("section", SECTIONS)
def test_file_calls(
    section: str, kind: str, project: Any, attacker: Any, allow_all: Any, deny_rule: Any
) -> None:
    """Modes, flags, links, names, times, long paths and FIFOs: same results, same errnos.

    A deny rule about something else must not change them, either.
    """
    program = attacker("semantics")
    policy = allow_all if kind == "allow-all" else deny_rule(["read", "write", "exec"], paths=["~/vault/**"])
    for name in ("bare", "judged"):
        (project.root / name).mkdir()

    bare = project.bare(["sh", "-c", f"cd bare && exec {program} {section}"])
    done = project.run(["sh", "-c", f"cd judged && exec {program} {section}"], policy)

    assert bare.returncode == 0, bare.stderr
    assert len(bare.stdout.splitlines()) >= SECTIONS[section]
    assert difference(bare.stdout, done.stdout) == []
    assert done.returncode == 0, done.stderr


def test_names_beyond_path_max(project: Any, attacker: Any, allow_all: Any) -> None:
    """What has a longer real name than PATH_MAX cannot be judged: an error, as docs/compatibility.md says."""
    program = attacker("semantics")

    done = project.run([program, "deep"], allow_all)

    assert "File name too long" in done.stderr
    assert done.denials == []


def test_nothing_of_ours_stays_open(project: Any, attacker: Any, allow_all: Any) -> None:
    """When an open has been answered nobody else holds it: no ETXTBSY, no FIFO with a phantom at its end."""
    program = attacker("leftover")
    bare = project.bare([program, "300"])
    assert bare.stdout == "busy 0, early 0\n"
    (project.root / "pipe").unlink()

    done = project.run([program, "300"], allow_all)

    assert done.stdout == bare.stdout
    assert done.returncode == 0


def test_names_that_cannot_be_judged(project: Any, attacker: Any, allow_all: Any) -> None:
    """A documented difference: where an object's own name is longer than PATH_MAX, calls get ENAMETOOLONG."""
    program = attacker("semantics")
    for name in ("bare", "judged"):
        (project.root / name).mkdir()

    bare = project.bare(["sh", "-c", f"cd bare && exec {program} deep"])
    done = project.run(["sh", "-c", f"cd judged && exec {program} deep"], allow_all)

    assert "create below PATH_MAX: ok" in bare.stdout
    assert done.stdout == ""
    assert done.stderr == "attacker: going deep: File name too long\n"
