"""Each operation, denied and allowed, through the command line and through Python.

Denied: the right errno, nothing done, one audit record naming the rule. Allowed by a policy that says so:
the same calls work.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from rampart_seccomp import Policy

pytestmark = pytest.mark.core

OTHERS = ("read", "create", "modify", "delete", "metadata", "exec", "connect", "listen")


@attrs.frozen
class Case:
    """One operation: the calls (see src/calls.c), which of them is denied, and what the rule matches.

    Attributes:
        operation: The operation of the policy language.
        steps: Calls; ``{port}`` is the port of a server, ``{free}`` a port nobody uses.
        denied: Index of the call that is denied.
        error: The error it gets.
        matcher: The condition of the deny rule, as YAML.
    """

    operation: str
    steps: tuple[str, ...]
    denied: int
    error: str
    matcher: str


CASES = [
    Case("read", ("open,it/file,r",), 0, "EACCES", 'paths: ["./it/**"]'),
    Case("create", ("open,it/new,w+creat+excl",), 0, "EACCES", 'paths: ["./it/**"]'),
    Case("modify", ("open,it/file,w+trunc",), 0, "EACCES", 'paths: ["./it/**"]'),
    Case("delete", ("unlink,it/file",), 0, "EACCES", 'paths: ["./it/**"]'),
    Case("metadata", ("chmod,it/file",), 0, "EACCES", 'paths: ["./it/**"]'),
    Case("exec", ("exec,it/tool,x",), 0, "EACCES", 'paths: ["./it/**"]'),
    Case(
        "connect",
        ("socket,tcp", "connect,127.0.0.1,{port}"),
        1,
        "ECONNREFUSED",
        'hosts: ["127.0.0.1:{port}"]',
    ),
    Case("listen", ("socket,tcp", "bind,127.0.0.1,{free}"), 1, "EACCES", "ports: [{free}]"),
]


class Scene:
    """What the calls act on, and whether anything happened to it."""

    def __init__(self, project: Any, server: socket.socket) -> None:
        self.project = project
        self.server = server
        self.directory = project.root / "it"
        self.file = project.write("it/file", "content\n", 0o644)
        self.tool = project.write("it/tool", "#!/bin/sh\necho ran > marker\n", 0o755)
        self.port = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.free = free.getsockname()[1]

    def fill(self, text: str) -> str:
        return text.replace("{port}", str(self.port)).replace("{free}", str(self.free))

    def untouched(self) -> bool:
        """Nothing was created, changed, deleted, started or reached."""
        try:
            self.server.accept()[0].close()
        except BlockingIOError:
            pass
        else:
            return False
        return (
            sorted(path.name for path in self.directory.iterdir()) == ["file", "tool"]
            and self.file.read_text() == "content\n"
            and self.file.stat().st_mode & 0o777 == 0o644
            and not (self.project.root / "marker").exists()
        )

    def policy(self, case: Case, verdict: str) -> Path:
        """Write a policy that allows everything but judges the case by a rule named ``judged``."""
        path: Path = self.project.base / "policy.yaml"
        defaults = "".join(f"  {operation}: allow\n" for operation in OTHERS)
        path.write_text(
            f"version: 1\ndefault:\n{defaults}rules:\n"
            f"  - name: judged\n    {verdict}: {case.operation}\n    {self.fill(case.matcher)}\n"
        )
        return path


@pytest.fixture
def scene(project: Any) -> Iterator[Scene]:
    """A directory with a file and a program, and a server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield Scene(project, server)


def results(output: str) -> list[str]:
    """The results of the calls."""
    return [line.rsplit("\t", 1)[1] for line in output.splitlines() if "\t" in line]


def run(face: str, scene: Scene, argv: list[Any], policy: Path) -> Any:
    """Run through the command line or through Python."""
    if face == "cli":
        return scene.project.run_cli(argv, policy)
    return scene.project.run(argv, Policy.load(policy))


@pytest.mark.parametrize("face", ["cli", "api"])
@pytest.mark.parametrize("case", CASES, ids=[case.operation for case in CASES])
def test_denied(case: Case, face: str, scene: Scene, attacker: Any) -> None:
    """A denied call gets its errno, does nothing, and is on record once with its rule."""
    argv = [attacker("calls"), *(scene.fill(step) for step in case.steps)]

    done = run(face, scene, argv, scene.policy(case, "deny"))

    assert done.returncode == 0
    assert done.stderr == ""
    assert results(done.stdout)[case.denied] == case.error
    assert results(done.stdout)[: case.denied] == ["ok"] * case.denied
    assert scene.untouched()
    records = scene.project.denials("judged")
    assert [(record["operation"], record["errno"]) for record in records] == [(case.operation, case.error)]
    if face == "api":
        assert [(denial.rule, str(denial.operation)) for denial in done.denials] == [
            ("judged", case.operation)
        ]


@pytest.mark.parametrize("face", ["cli", "api"])
@pytest.mark.parametrize("case", CASES, ids=[case.operation for case in CASES])
def test_allowed(case: Case, face: str, scene: Scene, attacker: Any) -> None:
    """The same call, allowed by the same rule the other way round, does what it does."""
    argv = [attacker("calls"), *(scene.fill(step) for step in case.steps)]

    done = run(face, scene, argv, scene.policy(case, "allow"))

    assert done.returncode == 0
    assert done.stderr == ""
    assert set(results(done.stdout)) <= {"ok", "0"}
    assert scene.untouched() == (case.operation in {"read", "listen"})
    assert not scene.project.denials("judged")


@pytest.mark.parametrize("face", ["cli", "api"])
def test_silence_is_a_denial(face: str, scene: Scene, attacker: Any) -> None:
    """An operation that no rule and no default names is denied, and the record says by what."""
    path = scene.project.base / "policy.yaml"
    path.write_text("version: 1\ndefault:\n  read: allow\n  exec: allow\n")
    steps = [case.steps[case.denied] for case in CASES[1:5]]

    done = run(face, scene, [attacker("calls"), *steps], path)

    assert results(done.stdout) == ["EACCES"] * 4
    assert scene.untouched()
    denied = [record for record in scene.project.records() if record["verdict"] == "deny"]
    assert sorted(record["operation"] for record in denied) == ["create", "delete", "metadata", "modify"]
    assert all(record["rule"] is None and "default" in record["where"] for record in denied)


def test_exit_status_is_the_commands_own(scene: Scene) -> None:
    """A code is passed on, a death by a signal is mirrored, and standard streams are the command's."""
    policy = scene.policy(CASES[0], "deny")

    failed = scene.project.run_cli(["sh", "-c", "echo out; echo err >&2; exit 7"], policy)
    assert (failed.returncode, failed.stdout, failed.stderr) == (7, "out\n", "err\n")

    killed = scene.project.run_cli(["sh", "-c", "kill -TERM $$"], policy)
    assert killed.returncode == -15

    asked = scene.project.run_cli(["cat"], policy, input="to the command\n")
    assert asked.stdout == "to the command\n"


def test_command_itself_denied(scene: Scene) -> None:
    """Status 126 for a denied or unexecutable command, 127 for a missing one, 125 for a broken policy."""
    policy = scene.policy(CASES[5], "deny")
    broken = scene.project.base / "broken.yaml"
    broken.write_text("version: 1\nruels: []\n")

    denied = scene.project.run_cli(["./it/tool"], policy)
    assert denied.returncode == 126
    assert "judged" in denied.stderr
    assert scene.project.run_cli(["./it/file"], policy).returncode == 126
    assert scene.project.run_cli(["no-such-command"], policy).returncode == 127
    unloaded = scene.project.run_cli(["./it/tool"], broken)
    assert unloaded.returncode == 125
    assert "broken.yaml:2" in unloaded.stderr
    assert "ruels" in unloaded.stderr
    assert scene.untouched()


def test_explanation_on_stderr(scene: Scene, attacker: Any) -> None:
    """``--explain`` says once what was denied, by which rule, and leaves the command's output alone."""
    policy = scene.policy(CASES[0], "deny")
    argv = [attacker("calls"), *["open,it/file,r"] * 3]

    done = scene.project.run_cli(argv, policy, "--explain")

    assert results(done.stdout) == ["EACCES"] * 3
    assert done.stderr.count("rampart: denied") == 1
    assert "judged (policy.yaml:" in done.stderr
    assert str(scene.file) in done.stderr
