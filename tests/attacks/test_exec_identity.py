"""Row 47: who a process is taken for follows from verified execs and forks, not from what can be forged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core

NAMES = ("known-1", "known-2", "unknown")


@pytest.fixture
def descend(
    project: Any, attacker: Callable[..., Path]
) -> Callable[..., tuple[Counter[str], list[Any], str]]:
    """Run src/descent.c with each open of a marked file put to us; gives who was seen, and the mistakes."""
    program = attacker("descent")
    for name in NAMES:
        project.write(name, "")

    def make(way: str, count: int = 0, **options: Any) -> tuple[Counter[str], list[Any], str]:
        import rampart_seccomp as rampart

        seen: Counter[str] = Counter()
        mistaken: list[Any] = []

        def look(event: Any) -> Any:
            name = os.fsdecode(event.path.rpartition(b"/")[2])
            seen[name] += 1
            lineage = event.process.lineage
            expected = None if name == "unknown" else int(name[-1])
            found = None if lineage is None else len(lineage)
            paths = {entry.path for entry in lineage or ()}
            if found != expected or paths - {os.fsencode(program)}:
                mistaken.append((name, lineage))
            return rampart.Allow()

        policy = rampart.Policy(
            rules=[
                rampart.allow(["write", "exec"], name="everything"),
                rampart.ask("read", name="look", paths=[f"./{name}" for name in NAMES]),
            ],
            default={"read": "allow"},
            features=["namespaces"],
        )
        done = project.run([program, way, program, str(count)], policy, on_ask=look, **options)
        assert done.returncode == 0, done.stderr
        return seen, mistaken, done.stdout

    return make


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("fork", {"known-1": 3}),
        ("exec", {"known-1": 1, "known-2": 1}),
        ("double", {"known-1": 1, "unknown": 1}),
        ("orphan", {"known-1": 1, "unknown": 1}),
        ("subreaper", {"known-1": 1, "unknown": 1}),
        ("space", {"known-1": 2, "unknown": 1}),
    ],
)
def test_descent(way: str, expected: dict[str, int], descend: Any, project: Any, attacker: Any) -> None:
    """Children are what their parent is; orphans, whoever adopts them, and what they execute, are nobody."""
    if way == "space" and project.bare([attacker("descent"), way, attacker("descent")]).returncode:
        pytest.skip("no user namespaces here")
    seen, mistaken, _ = descend(way)

    assert mistaken == []
    assert seen == expected


def test_clone_parent_is_refused(descend: Any, project: Any, attacker: Any) -> None:
    """A sibling that claims our parent cannot be made."""
    bare = project.bare([attacker("descent"), "parent", attacker("descent")])
    assert bare.stdout == "cloned\ncloned\n"

    seen, mistaken, said = descend("parent")

    assert said == "EPERM\nEPERM\n"
    assert mistaken == []
    assert seen == {"known-1": 1}


@pytest.mark.parametrize(
    "count", [pytest.param(100, id="quick"), pytest.param(5_000, id="long", marks=pytest.mark.long)]
)
def test_forked_around_an_exec(count: int, descend: Any) -> None:
    """Forked before its parent's exec, a child is what the parent was; after it, what the parent is."""
    seen, mistaken, _ = descend("around", count, timeout=600)

    assert mistaken == []
    assert seen == {"known-1": 1 + count, "known-2": 2 * count}


@pytest.mark.parametrize(
    "count", [pytest.param(8, id="quick"), pytest.param(500, id="long", marks=pytest.mark.long)]
)
def test_forked_in_a_crowd(count: int, descend: Any) -> None:
    """Nobody is overlooked whose siblings end while it is noted who was forked before an exec.

    Where that cannot be told, they are nobody.
    """
    seen, mistaken, _ = descend("crowd", count, timeout=600)

    assert [(name, line) for name, line in mistaken if line is not None] == []
    assert seen == {"known-1": 1 + 10 * count, "known-2": count}


@pytest.mark.parametrize(
    "count", [pytest.param(100, id="quick"), pytest.param(20_000, id="long", marks=pytest.mark.long)]
)
def test_many_short_lives(count: int, descend: Any) -> None:
    """A number used again belongs to another process; ``long`` goes once around a pid_max of 32,768."""
    seen, mistaken, _ = descend("reuse", count, timeout=900)

    assert mistaken == []
    assert seen == {"known-1": 1 + count, "unknown": count // 2}


@pytest.mark.parametrize(
    ("variable", "clean"),
    [
        ("LD_PRELOAD=/nonexistent.so", False),
        ("LD_AUDIT=/nonexistent.so", False),
        ("GCONV_PATH=/tmp", False),
        ("HARMLESS=1", True),
    ],
)
def test_variables_that_bring_code(variable: str, clean: bool, project: Any) -> None:
    """A program that was entered by a variable is itself, but not clean; nor is it by its own later doing."""
    import rampart_seccomp as rampart

    project.write("known-1", "")
    found = []

    def look(event: Any) -> Any:
        found.append(event.process.lineage)
        return rampart.Allow()

    policy = rampart.Policy(
        rules=[
            rampart.allow(["write", "exec"], name="everything"),
            rampart.ask("read", name="look", paths=["./known-1"]),
        ],
        default={"read": "allow"},
    )

    done = project.run(["env", variable, "cat", "known-1"], policy, on_ask=look)

    assert done.returncode == 0
    assert [
        [(os.path.basename(entry.path), entry.argv[0], entry.clean) for entry in line] for line in found
    ] == [
        [
            (os.fsencode(os.path.basename(os.path.realpath("/usr/bin/cat"))), b"cat", clean),
            (os.fsencode(os.path.basename(os.path.realpath("/usr/bin/env"))), b"env", True),
        ]
    ]


def test_an_exec_of_which_much_is_to_be_said(project: Any, attacker: Callable[..., Path]) -> None:
    """However much there is to say of an exec, who executes something afterwards is taken for what it is."""
    import rampart_seccomp as rampart

    project.write("marked", "told\n")
    for name, interpreter in (("first", "second"), ("second", "third"), ("third", None)):
        project.write(name, f"#!{project.root / interpreter if interpreter else '/bin/true'}\n", 0o755)
    policy = rampart.Policy(
        rules=[
            rampart.allow(["read", "write", "exec"], name="everything"),
            rampart.deny("read", paths=["./marked"], programs=["/**/cat"], name="cat"),
        ],
    )

    done = project.run([attacker("overlong"), "1000", "/bin/cat", "marked"], policy)

    assert (done.stdout, [denial.rule for denial in done.denials]) == ("", ["cat"]), done.stderr
