"""Several ``--policy``, ``--grants`` and ``environment``: what the options make of the policies they name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rampart_seccomp import Allow, Broker, Deny, Event, Policy, Verdict, ask
from rampart_seccomp.cli import main
from rampart_seccomp.policy import Grant

BASE = "version: 1\ndefault: {read: allow, exec: allow}\n"
SECRET = BASE + 'rules:\n  - {name: ours, deny: read, paths: ["./secret"], message: Keep out.}\n'
QUESTION = BASE + 'rules:\n  - {name: question, ask: read, paths: ["./secret"]}\n'


@pytest.fixture
def files(project: Any) -> dict[str, Path]:
    """Policies beside the project, and a secret in it."""
    project.write("secret", "secret\n")
    found = {}
    for name, text in (("base", BASE), ("secret", SECRET), ("question", QUESTION)):
        found[name] = project.base / f"{name}.yaml"
        found[name].write_text(text)
    return found


def run(project: Any, *arguments: object, **variables: str) -> tuple[int, str, str]:
    """Run the command line in the project; give status, output and errors."""
    path = [entry for entry in sys.path if entry.endswith("src")] + [os.environ.get("PYTHONPATH", "")]
    environment = project.environment | {"PYTHONPATH": os.pathsep.join(filter(None, path))} | variables
    argv = [sys.executable, "-m", "rampart_seccomp", "run", *map(str, arguments)]
    done = subprocess.run(
        argv, cwd=project.root, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("order", [("base", "secret"), ("secret", "base")])
def test_a_layer_tightens(project: Any, files: dict[str, Path], order: tuple[str, str]) -> None:
    """What one layer denies is denied, whichever it is; alone, the other one allows it."""
    policies = [part for name in order for part in ("--policy", files[name])]
    status, out, err = run(project, "--explain", *policies, "--", "cat", "secret")
    assert (status, out) == (1, "")
    assert "ours (secret.yaml:4)" in err
    assert run(project, "--policy", files["base"], "--", "cat", "secret")[:2] == (0, "secret\n")


def test_flags_amend_the_last_only(project: Any, files: dict[str, Path]) -> None:
    """`--allow-write` opens the last policy, and nothing of those above it."""
    write = ["--allow-write", ".", "--", "touch", "made"]
    assert run(project, "--policy", "observe", "--policy", files["base"], *write)[0] == 0
    (project.root / "made").unlink()
    assert run(project, "--policy", files["base"], "--policy", "observe", *write)[0] == 1
    assert not (project.root / "made").exists()


def test_grants(project: Any, files: dict[str, Path], tmp_path: Path) -> None:
    """What an overrides file grants is not asked; without it the question stands, and nobody answers."""
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(
        Grant.dumps([Grant(operation="read", path=os.path.realpath(project.root / "secret"))])
    )
    command = ["--policy", files["question"], "--ask", "deny", "--", "cat", "secret"]
    assert run(project, "--grants", overrides, *command)[:2] == (0, "secret\n")
    assert run(project, *command)[:2] == (1, "")
    overrides.write_text("- {operation: read}\n")
    status, _, err = run(project, "--grants", overrides, *command)
    assert status == 125
    assert f"{overrides}:1: grants[0]: " in err


def test_environment(project: Any, files: dict[str, Path]) -> None:
    """A variable that is dropped does not reach the command; the others do."""
    with files["base"].open("a") as file:
        file.write('environment: {drop: ["*_TOKEN"]}\n')
    command = ["--", "sh", "-c", 'echo "$MY_TOKEN,$MY_NAME"']
    given = {"MY_TOKEN": "t", "MY_NAME": "n"}
    assert run(project, "--policy", files["base"], *command, **given)[1] == ",n\n"
    assert run(project, "--policy", files["question"], *command, **given)[1] == "t,n\n"


@pytest.mark.parametrize(("yes_to", "status"), [({"theirs"}, 1), ({"ours"}, 1), ({"theirs", "ours"}, 0)])
def test_each_layer_is_asked(project: Any, files: dict[str, Path], yes_to: set[str], status: int) -> None:
    """The approval of one layer's question does not answer the other layer's."""
    asked: list[str] = []

    def layer(name: str) -> Policy:
        def decide(event: Event) -> Verdict:
            asked.append(name)
            return Allow() if name in yes_to else Deny()

        rule = ask("read", name=name, paths=["./secret"], decide=decide)
        return Policy.load(files["base"]).with_rules(rule)

    with Broker(Policy.stack(layer("theirs"), layer("ours"))) as broker:
        with broker.wrap(["cat", "secret"], directory=project.root) as wrapped:
            process = subprocess.Popen(wrapped.argv, pass_fds=wrapped.pass_fds, cwd=project.root)
        assert process.wait(60) == status
    assert asked == (["theirs"] if "theirs" not in yes_to else ["theirs", "ours"])


def test_explain(
    project: Any,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`explain` asks the whole stack, and says what every layer would have to change."""
    monkeypatch.chdir(project.root)
    arguments = ["--policy", str(files["question"]), "--policy", str(files["secret"]), "read", "secret"]
    assert main(["explain", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1] == "  decided by   ours (secret.yaml:4)"
    assert "deny of another layer is stronger than ask" in out
    assert f"in {files['question']}: add" in out
    assert f"; and in {files['secret']}: add" in out
