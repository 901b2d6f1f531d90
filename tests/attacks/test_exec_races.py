"""Rows 2, 3, 12 and 13: what changes between the decision about an exec and its commit.

The kernel reads path, arguments, variables and interpreters after the decision. Every test makes the race
bare first, and behind the policy with the verification taken out: there the attacker must win. With it, the
wrong program, argument or variable never reaches a first instruction (the programs report themselves,
src/identity.c), processes that became something else died, and each of those is on record as
``exec-tampered``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import racing
from racing import Amount

from rampart_seccomp.broker.verifying import Verifying
from rampart_seccomp.calls.starting import ExecCall
from rampart_seccomp.launch.protocol import MAX_PACKED

AMOUNTS = racing.amounts(Amount(200, 20.0))
CONTROL = Amount(20_000, 20.0)
RACERS = {"RACERS": "4"}
IDENTITY = ("-nostdlib", "-fno-stack-protector", "-fno-builtin")
FLIPPERS = ["thread", "leader", "vm", "shared"]


@attrs.frozen
class Programs:
    """Copies of src/identity.c: one that may run, and one that may not; their names differ in one byte."""

    right: Path
    wrong: Path


@pytest.fixture
def identities(project: Any, attacker: Callable[..., Path]) -> Programs:
    """Put the two programs into the project."""
    made = {}
    for who in "ab":
        made[who] = project.root / f"area-{who}" / "prog"
        made[who].parent.mkdir()
        made[who].write_bytes(attacker("identity", *IDENTITY, "-static-pie", f"-DWHO='{who}'").read_bytes())
        made[who].chmod(0o755)
    return Programs(made["a"], made["b"])


@pytest.fixture
def walled() -> Any:
    """Everything is allowed but what lies in ./area-b: the engine judges what is allowed by itself."""
    import rampart_seccomp as rampart

    return rampart.Policy(
        rules=[
            rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything"),
            rampart.deny("exec", name="program", paths=["./area-b/**"]),
        ]
    )


@pytest.fixture
def guarded(walled: Any) -> Any:
    """Nor the argument ``gold``, which Python looks at."""
    import rampart_seccomp as rampart

    return walled.with_rules(rampart.deny("exec", name="argument", commands=["* gold **"]))


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> list[ExecCall]:
    """The execs that Python let go."""
    let_go: list[ExecCall] = []
    original = Verifying.let_go

    def note(self: Verifying, call: ExecCall) -> None:
        let_go.append(call)
        original(self, call)

    monkeypatch.setattr(Verifying, "let_go", note)
    return let_go


Race = Callable[..., tuple[dict[str, Any], Any]]


@pytest.fixture
def race(project: Any, attacker: Callable[..., Path]) -> Race:
    """Run src/execrace.c, bare (policy None) or behind a policy; gives its counters and what is done."""
    program = attacker("execrace")

    def make(
        flipper: str,
        what: str,
        amount: Amount,
        names: tuple[Path, Path],
        policy: Any,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], Any]:
        return racing.run_race(
            project, program, flipper, what, amount, names, policy, RACERS | (env or {}), **options
        )

    return make


@pytest.fixture
def unverified() -> Iterator[Callable[[], None]]:
    """Take the verification out, until the returned function is called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExecCall, "perform", lambda call: call.notification.allow())
        yield patch.undo


def assert_lost(counters: dict[str, Any], done: Any, project: Any, amount: Amount) -> None:
    """The race took place, both ways; it was met in the act, and never won."""
    racing.assert_lost(counters, amount)
    assert counters["other"] == 0, counters
    assert counters["killed"] > 0, counters
    tampered = [denial for denial in done.denials if "exec-tampered" in denial.where]
    assert len(tampered) == counters["killed"] or len(done.denials) == 10_000
    recorded = [record for record in project.records() if "exec-tampered" in record["where"]]
    assert len(recorded) == counters["killed"], counters
    assert {record["enforced"] for record in recorded} == {"killed"}
    assert {record["verdict"] for record in recorded} == {"deny"}


def control(race: Race, flipper: str, what: str, names: tuple[Path, Path], policy: Any, restore: Any) -> None:
    """The attacker wins bare, and behind the policy while nothing is verified."""
    assert race(flipper, what, CONTROL, names, None)[0]["wins"] > 0
    counters, _ = race(flipper, what, CONTROL, names, policy, env={"UNTIL_WIN": "1"}, audit=None)
    assert counters["wins"] > 0, counters
    restore()


@pytest.mark.core
@AMOUNTS
@pytest.mark.parametrize("what", ["path", "string", "pointer"])
@pytest.mark.parametrize("flipper", FLIPPERS)
def test_what_is_executed_is_rewritten(
    flipper: str,
    what: str,
    amount: Amount,
    project: Any,
    identities: Programs,
    guarded: Any,
    race: Race,
    unverified: Any,
) -> None:
    """Rows 2, 3, 12: path, an argument, or the pointer to it, rewritten by whoever shares the memory."""
    names = (identities.right, identities.wrong)
    control(race, flipper, what, names, guarded, unverified)

    counters, done = race(flipper, what, amount, names, guarded)

    assert_lost(counters, done, project, amount)
    assert counters["denied"] > 0, counters


@AMOUNTS
@pytest.mark.parametrize("flipper", [each for each in FLIPPERS if each != "leader"])
def test_path_is_rewritten_beneath_the_engine(
    flipper: str,
    amount: Amount,
    project: Any,
    identities: Programs,
    walled: Any,
    race: Race,
    unverified: Any,
    in_python: list[ExecCall],
) -> None:
    """Row 3: what the engine has judged is what runs, too. What it finds denied Python looks at again."""
    names = (identities.right, identities.wrong)
    control(race, flipper, "path", names, walled, unverified)

    counters, done = race(flipper, "path", amount, names, walled)

    assert_lost(counters, done, project, amount)
    assert counters["denied"] > 0, counters
    assert counters["allowed"] + counters["killed"] > 20 + len(in_python)


@pytest.mark.core
@AMOUNTS
@pytest.mark.parametrize("what", ["variable", "vector"])
@pytest.mark.parametrize("flipper", FLIPPERS)
def test_variables_are_rewritten(
    flipper: str, what: str, amount: Amount, project: Any, identities: Programs, race: Race
) -> None:
    """Row 2: a program with ``LD_…`` is never taken for one that was started clean, nor that for it."""
    import rampart_seccomp as rampart

    names = (identities.right, identities.wrong)
    bare, _ = race(flipper, what, Amount(200, 20.0), names, None)
    assert 0 < bare["dirty"] < bare["allowed"]
    for letter in "LZ":
        project.write(f"probe-{letter}", "")
    mistaken = []
    seen = {b"probe-L": 0, b"probe-Z": 0}
    counting = threading.Lock()

    def look(event: Any) -> Any:
        name = event.path.rpartition(b"/")[2]
        with counting:
            seen[name] += 1
        if not event.process.lineage or event.process.lineage[0].clean != (name == b"probe-Z"):
            mistaken.append((name, event.process.lineage))
        return rampart.Deny()

    policy = rampart.Policy(
        rules=[
            rampart.allow(["write", "exec"], name="everything"),
            rampart.ask("read", name="look", paths=["./probe-?"]),
        ],
        default={"read": "allow"},
    )

    counters, done = race(flipper, what, amount, names, policy, on_ask=look)

    assert mistaken == []
    assert_lost(counters, done, project, amount)
    assert seen[b"probe-L"] == counters["dirty"] > 0
    assert seen[b"probe-Z"] == counters["allowed"] - counters["dirty"] > 0


@pytest.mark.core
@pytest.mark.parametrize("tries", [80, pytest.param(2_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("what", ["string", "variable"])
def test_long_arguments_are_rewritten(
    what: str, tries: int, project: Any, identities: Programs, guarded: Any, race: Race
) -> None:
    """Row 2: what is too long for one packet to the launcher is compared, too, to its end."""
    names = (identities.right, identities.wrong)
    amount = Amount(tries, tries / 10)

    counters, done = race("thread", what, amount, names, guarded, env={"PAD": str(3 * MAX_PACKED)})

    assert_lost(counters, done, project, amount)


@pytest.mark.core
@AMOUNTS
@pytest.mark.parametrize("judge", ["python", "engine"])
@pytest.mark.parametrize("swapped", ["last", "parent", "interpreter", "second interpreter", "PT_INTERP"])
def test_name_is_swapped(
    swapped: str,
    judge: str,
    amount: Amount,
    project: Any,
    identities: Programs,
    guarded: Any,
    walled: Any,
    race: Race,
    unverified: Any,
    flipping: Any,
    attacker: Callable[..., Path],
) -> None:
    """Rows 12, 13: a link to the program, to the interpreter of a script, or to the one in PT_INTERP."""
    one, other = project.root / "here", project.root / "hero"
    parent = swapped == "parent"
    for link, program in ((one, identities.right), (other, identities.wrong)):
        link.symlink_to(program.parent if parent else program)
    name = one / "prog" if parent else one
    if "interpreter" in swapped:
        name = project.write("script", f"#!{one}\n", 0o755)
    if swapped == "second interpreter":
        name = project.write("outer", f"#!{name}\n", 0o755)
    if swapped == "PT_INTERP":
        name = project.root / "dynamic"
        loaded = attacker("identity", *IDENTITY, "-pie", f"-Wl,--dynamic-linker={one}", "-DWHO='d'")
        name.write_bytes(loaded.read_bytes())
        name.chmod(0o755)
        assert bytes(one) in name.read_bytes()
    names = (name, Path(str(name)[:-1] + "~"))
    flipping(one, other)
    policy = guarded if judge == "python" else walled
    control(race, "none", "nothing", names, policy, unverified)

    counters, done = race("none", "nothing", amount, names, policy)

    assert_lost(counters, done, project, amount)
    assert counters["denied"] > 0, counters


@AMOUNTS
def test_name_is_swapped_from_inside(
    amount: Amount, project: Any, identities: Programs, guarded: Any, race: Race
) -> None:
    """Row 12: the links are exchanged by a process of the same tree, whose renames are mediated, too."""
    (project.root / "link-a").symlink_to(identities.right)
    (project.root / "link-b").symlink_to(identities.wrong)
    names = (project.root / "link-a", project.root / "link-b")
    assert race("link", "nothing", CONTROL, names, None)[0]["wins"] > 0

    counters, _ = race("link", "nothing", amount, names, guarded)

    assert counters["wins"] == counters["other"] == 0, counters
    assert counters["allowed"] > 0, counters
    assert counters["denied"] > 0, counters
