"""The policies in examples/policies: the work is done, and the rest denied by the right rule."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.cli import main

POLICIES = Path(__file__).resolve().parent.parent / "examples" / "policies"
NAMES = sorted(path.stem for path in POLICIES.glob("*.yaml"))

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
"""An interpreter that the system ships: what is in somebody's home is out of the strict profiles' reach."""

system_python = pytest.mark.skipif(PYTHON is None, reason="no python3 among the system's programs")

ACTS = """\
import errno, json, os, socket, subprocess, sys

def read(name):
    with open(name) as file:
        return file.read()

def write(name):
    with open(name, "a") as file:
        file.write("written")

def connect(host, port):
    with socket.create_connection((host, int(port)), 10) as peer:
        peer.sendall(b"x")

def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

ACTS = {"read": read, "write": write, "connect": connect, "run": run, "delete": os.unlink,
        "variable": lambda name: os.environ.get(name, "unset")}

def answer(line):
    name, *words = line.split()
    try:
        return ACTS[name](*map(os.path.expanduser, words)) or "ok"
    except OSError as error:
        return errno.errorcode[error.errno]

print(json.dumps([answer(line) for line in sys.argv[1:]]))
"""

ON_THE_RECORD = {"write": ("create", "modify"), "run": ("exec",)}


def example(name: str, exchange: dict[str, str] | None = None) -> rampart.Policy:
    """Load an example; ``exchange`` puts what is here in place of what is elsewhere."""
    path = POLICIES / f"{name}.yaml"
    text = path.read_text()
    for old, new in (exchange or {}).items():
        assert old in text
        text = text.replace(old, new)
    return rampart.Policy.loads(text, source=str(path))


class Scene:
    """A project in which programs do one thing after the other behind a policy."""

    def __init__(self, project: Any) -> None:
        self.project = project
        self.root: Path = project.root
        self.home: Path = project.home
        project.write("acts.py", ACTS)

    def plant(self, *names: str) -> None:
        """Make files, ``~`` being the home."""
        for name in names:
            path = self.home / name[2:] if name.startswith("~/") else self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("content")

    def program(self, name: str, script: str) -> None:
        """Make a shell script that is found by its name."""
        self.project.write(f"bin/{name}", f"#!/bin/sh\n{script}\n", mode=0o755)

    def play(self, policy: Any, expected: dict[str, str], on_ask: Any = None, **variables: str) -> None:
        """Do what the keys say, and compare with the values.

        A value is what the act answers, or the rule (or ``default``) that must have denied it.
        """
        path = f"{self.root}/bin:{self.project.environment['PATH']}"
        argv = [PYTHON or sys.executable, "-B", "acts.py", *expected]
        with rampart.Broker(policy, on_ask=on_ask) as broker:
            done = self.project.run(argv, None, broker=broker, audit=None, env={"PATH": path, **variables})
        assert done.returncode == 0, done.stderr
        said = dict(zip(expected, json.loads(done.stdout), strict=True))
        for act, answer in said.items():
            if answer in ("EACCES", "ECONNREFUSED"):
                said[act] = self._denied_by(act, done.denials)
        assert expected == said

    def _denied_by(self, act: str, denials: list[rampart.Denial]) -> str:
        name, *words = act.split()
        operations = ON_THE_RECORD.get(name, (name,))
        last = f":{words[1]}" if name == "connect" else words[-1].replace("~", str(self.home))
        found = {
            denial.rule or "default"
            for denial in denials
            if denial.operation in operations
            and (denial.object.split()[0] if name == "connect" else denial.object).endswith(last)
        }
        return ", ".join(sorted(found)) or "nobody"


@pytest.fixture
def scene(project: Any) -> Scene:
    return Scene(project)


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on loopback that takes what it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(100)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.fixture
def asked() -> list[str]:
    return []


def answering(asked: list[str], verdict: rampart.Verdict) -> Callable[[rampart.Event], rampart.Verdict]:
    """An approver in code, which keeps what it was asked about."""

    def approve(event: rampart.Event) -> rampart.Verdict:
        # A program that is denied is looked for further along PATH, and asked about again.
        if event.object not in asked:
            asked.append(event.object)
        return verdict

    return approve


@pytest.mark.parametrize("name", NAMES)
def test_check(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` finds no error, and warns only of what the policy is about."""
    assert main(["check", str(POLICIES / f"{name}.yaml")]) == 0
    *warnings, last = capsys.readouterr().out.splitlines()
    assert ": ok, " in last
    expected = {
        # The agent's own login, which its head names, and what the projects beneath are to close.
        "coding-agent": ["well-known secrets can be read: ~/.claude/.credentials.json"],
        "organisation": ["well-known secrets can be read: ~/.azure/"],
    }.get(name, [])
    assert len(expected) == len(warnings)
    assert all(part in line for part, line in zip(expected, warnings, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_form(name: str) -> None:
    """A head says when to use it, it has tests, every rule a reason, and the index names it."""
    text = (POLICIES / f"{name}.yaml").read_text()
    assert re.match(r"# (A|An|The) .+\n#", text)
    policy = example(name)
    assert policy.tests
    own = [rule for rule in policy.rules if rule.file == policy.source]
    assert own
    assert all(rule.reason for rule in own)
    assert f"policies/{name}.yaml" in (POLICIES.parent / "README.md").read_text()


def test_coding_agent(scene: Scene, server: int, asked: list[str]) -> None:
    """The agent works, talks to its model and keeps its session; secrets and its own settings stay closed."""
    scene.plant(
        ".env.production",
        "src/main.py",
        "~/.claude/.credentials.json",
        "~/.claude/settings.json",
        "~/.ssh/id_rsa",
    )
    scene.project.write(".env", "TOKEN=secret")
    (scene.home / ".claude/projects").mkdir()
    scene.program("npm", "echo done $1")
    scene.program("git", "echo done $1")
    policy = example("coding-agent", {"api.anthropic.com:443": f"localhost:{server}"})
    work = {
        "read src/main.py": "content",
        "write src/new.py": "ok",
        "read ~/.claude/.credentials.json": "content",
        "write ~/.claude/projects/session.jsonl": "ok",
        f"connect localhost {server}": "ok",
        "run npm ci": "done ci",
        "run git commit": "done commit",
        "read .env": "TOKEN=***",
        "write .env": "settings-stay",
        "read .env.production": "env-files",
        "read ~/.ssh/id_rsa": "ssh-keys",
        "write ~/.claude/settings.json": "startup-files",
        "write ~/.bashrc": "startup-files",
        "write ~/thesis.txt": "default",
        "connect 127.0.0.1 9": "default",
    }
    questions = {"run npm install left-pad": "new-dependencies", "run git push origin": "pushing"}
    answered = {"run npm install left-pad": "done install", "run git push origin": "done push"}

    scene.play(policy, work | questions)
    scene.play(policy, questions, on_ask=answering(asked, rampart.Deny()))
    assert asked == ["npm install left-pad", "git push origin"]
    scene.play(policy, answered, on_ask=answering(asked, rampart.Allow()))


def test_ci_publish(scene: Scene, server: int, asked: list[str]) -> None:
    """The job builds and fetches unattended; publishing waits for an approval and has its token then."""
    scene.plant("dist/old.tgz", "~/.npmrc", "~/actions-runner/.credentials")
    scene.program("npm", 'echo "$1 with ${NPM_TOKEN:-no} token, ${AWS_SECRET_ACCESS_KEY:-no} key"')
    scene.program("git", "echo done $1")
    policy = example("ci-publish").with_rules(
        rampart.allow("connect", hosts=[f"localhost:{server}"], name="stand-in")
    )
    variables = {"NPM_TOKEN": "the", "AWS_SECRET_ACCESS_KEY": "a"}
    job = {
        "run npm ci": "ci with the token, no key",
        "write dist/package.tgz": "ok",
        f"connect localhost {server}": "ok",
        "run npm publish": "publishing",
        "run git push": "tags",
        "read ~/.npmrc": "registry-credentials",
        "read ~/actions-runner/.credentials": "runner-credentials",
        "connect 127.0.0.1 9": "default",
    }

    scene.play(policy, job, **variables)
    scene.play(policy, job, **variables, on_ask=answering(asked, rampart.Deny()))
    assert asked == ["npm publish"]
    published = job | {"run npm publish": "publish with the token, no key"}
    scene.play(policy, published, **variables, on_ask=answering(asked, rampart.Allow()))


def test_ci_publish_with_nobody_there(scene: Scene) -> None:
    """Behind the command line with nobody to ask, the step fails and what follows it runs."""
    scene.program("npm", "echo done $1")
    script = "npm ci; npm publish || echo not published; npm test"
    done = scene.project.run_cli(
        ["sh", "-c", script],
        POLICIES / "ci-publish.yaml",
        "--ask",
        "deny",
        "--explain",
        env={"PATH": f"{scene.root}/bin:{scene.project.environment['PATH']}"},
    )
    assert done.stdout.splitlines() == ["done ci", "not published", "done test"]
    assert "publishing (ci-publish.yaml:" in done.stderr
    assert {record["operation"] for record in scene.project.denials("publishing")} == {"exec"}


@system_python
def test_research_agent(scene: Scene, server: int, asked: list[str]) -> None:
    """Named sites are read, notes written; a site whose name leads inside is not followed there."""
    scene.plant("published/notes.md", "~/Documents/diary.txt", "~/.ssh/id_rsa")
    site = {"arxiv.org:443": f"localhost:{server}"}
    inside = '      - "127.0.0.0/8"\n'
    proof = '  - {deny: connect, host: "127.0.0.1:443", by: inner-network}\n'
    port = f"connect localhost {server}"
    work = {
        "write notes.md": "ok",
        "read published/notes.md": "content",
        "delete published/notes.md": "published",
        "read ~/Documents/diary.txt": "default",
        "read ~/.ssh/id_rsa": "ssh-keys",
        "write ~/elsewhere.md": "default",
        "connect 192.0.2.1 443": "default",
        "connect 169.254.169.254 80": "inner-network",
        "variable ANTHROPIC_API_KEY": "key",
        "variable GITHUB_TOKEN": "unset",
    }
    variables = {"ANTHROPIC_API_KEY": "key", "GITHUB_TOKEN": "token"}

    scene.play(example("research-agent", site | {inside: "", proof: ""}), work | {port: "ok"}, **variables)
    policy = example("research-agent", site)
    removed = {"delete published/notes.md": "ok"}
    scene.play(policy, work | {port: "inner-network"}, **variables)
    scene.play(policy, removed, on_ask=answering(asked, rampart.Allow()))
    assert [Path(name).name for name in asked] == ["notes.md"]


@system_python
def test_data_analysis(scene: Scene, server: int) -> None:
    """The dataset is read and a result written; nothing else is read, and nothing leaves."""
    scene.plant(
        "~/datasets/sales/2026.csv", "~/datasets/sales/customers/names.csv", "~/datasets/salaries/all.csv"
    )
    (scene.root / "results").mkdir()
    scene.play(
        example("data-analysis"),
        {
            "read ~/datasets/sales/2026.csv": "content",
            "write results/report.csv": "ok",
            "read acts.py": ACTS,
            "run uname": os.uname().sysname,
            "read ~/datasets/sales/customers/names.csv": "personal-data",
            "read ~/datasets/salaries/all.csv": "default",
            "write ~/datasets/sales/2026.csv": "default",
            "delete ~/datasets/sales/2026.csv": "default",
            "write acts.py": "default",
            f"connect 127.0.0.1 {server}": "default",
        },
    )


def test_organisation(scene: Scene, server: int, asked: list[str]) -> None:
    """A project that opens everything stays within the baseline; the organisation is asked itself."""
    scene.plant("src/main.py", "~/.ssh/id_rsa", "~/.netrc", "~/notes.txt")
    scene.program("migrate.sh", "echo migrated")
    production = {"db.example.com:5432": f"localhost:{server}"}
    baseline = example("organisation", production)
    project = example("organisation-project", production)
    question = f"connect localhost {server}"
    work = {
        "read src/main.py": "content",
        "write src/new.py": "ok",
        "write ~/notes.txt": "default",
        "connect 127.0.0.1 9": "default",
    }

    stack = rampart.Policy.stack(baseline, project)
    scene.play(stack, work | {"read ~/.ssh/id_rsa": "credentials", question: "production"})
    scene.play(
        stack, work | {question: "ok", "run migrate.sh": "migrated"}, on_ask=answering(asked, rampart.Allow())
    )
    assert asked == [f"127.0.0.1:{server} (localhost)", "migrate.sh"]

    open_project = rampart.Policy.stack(baseline, rampart.Policy.load("observe"))
    scene.play(
        open_project,
        {
            "write ~/notes.txt": "ok",
            "read ~/.ssh/id_rsa": "credentials",
            "read ~/.netrc": "credentials",
            "connect 169.254.169.254 80": "metadata-service",
            question: "production",
        },
    )


def test_organisation_on_the_command_line(scene: Scene) -> None:
    """Two `--policy` are the stack that the head of the file shows."""
    scene.plant("~/.ssh/id_rsa", "~/.ssh/id_rsa.pub")
    script = 'cat ~/.ssh/id_rsa; cat ~/.ssh/id_rsa.pub; echo x > "$HOME/.bashrc"; echo y > made && cat made'
    flags = ["--policy", str(POLICIES / "organisation-project.yaml"), "--explain"]
    done = scene.project.run_cli(["sh", "-c", script], POLICIES / "organisation.yaml", *flags)
    assert done.stdout == "contenty\n"
    assert "credentials (organisation.yaml:" in done.stderr
    assert "startup-files (agent.yaml:" in done.stderr
    assert not (scene.home / ".bashrc").exists()


SERVER = """\
import json, os, subprocess, sys, urllib.request

def read_note(name):
    return open(os.path.expanduser(f"~/notes/{name}")).read()

def change_note(name):
    open(os.path.expanduser(f"~/notes/{name}"), "w").write("changed")
    return "changed"

def run(name):
    return subprocess.run([name], check=True, stdout=subprocess.PIPE, text=True).stdout

TOOLS = {"read": read_note, "change": change_note, "run": run}

for line in sys.stdin:
    request = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": request["id"]}
    try:
        text = TOOLS[request["params"]["name"]](request["params"]["arguments"]["name"])
        answer["result"] = {"content": [{"type": "text", "text": text}]}
    except OSError as error:
        answer["error"] = {"code": -32000, "message": error.strerror}
    print(json.dumps(answer), flush=True)
"""


@system_python
def test_mcp_server(scene: Scene, asked: list[str]) -> None:
    """Over its pipe the server answers what it is for; a name that leads out of the notes leads nowhere."""
    scene.plant("~/notes/today.md", "~/notes/archive/2020.md", "~/secret.txt")
    scene.project.write("server.py", SERVER)
    requests = [
        ("read", "today.md"),
        ("read", "../secret.txt"),
        ("run", "/usr/bin/id"),
        ("change", "today.md"),
    ]
    requests.append(("change", "archive/2020.md"))
    lines = [
        json.dumps(
            {
                "jsonrpc": "2.0",
                "id": number,
                "method": "tools/call",
                "params": {"name": tool, "arguments": {"name": name}},
            }
        )
        for number, (tool, name) in enumerate(requests)
    ]

    def serve(on_ask: Any) -> tuple[list[str], list[str]]:
        done = scene.project.run(
            [PYTHON, "-B", "server.py"], example("mcp-server"), input="\n".join(lines), on_ask=on_ask
        )
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        said = [
            each["result"]["content"][0]["text"] if "result" in each else each["error"]["message"]
            for each in answers
        ]
        about = (".md", ".txt", "/id")
        denied = [denial.rule or "default" for denial in done.denials if denial.object.endswith(about)]
        return said, denied

    no = "Permission denied"
    assert serve(None) == (["content", no, no, no, no], ["default", "default", "changes", "default"])
    assert serve(answering(asked, rampart.Allow()))[0] == ["content", no, no, "changed", no]
    assert [Path(name).name for name in asked] == ["today.md"]
    assert (scene.home / "notes/today.md").read_text() == "changed"
