"""Row 36: what a program can name is shown escaped, wherever it is shown; and it cannot flood a person."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

NASTY = {
    "escape": "\x1b]0;owned\x07\x1b[2J\x1b[1A",
    "line": "x\nrampart: allowed everything",
    "return": "x\rAllow this once? y",
    "bidi": "a\u202etxt.exe\u2066",
    "invisible": "a\u200b\u2060\ufeffb",
    "c1": "a\x9b2J",
    "bytes": os.fsdecode(b"caf\xe9\xff"),
}
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def command(project: Any, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line."""
    path = os.pathsep.join([str(Path(rampart.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "rampart_seccomp", *words],
        cwd=project.root,
        env=project.environment | {"PYTHONPATH": path},
        capture_output=True,
        timeout=60,
        check=False,
    )


def plain(output: bytes, lines: int | None = None) -> str:
    """Decode what was shown, which must be text without anything that acts or hides."""
    text = output.decode()
    assert RAW.findall(text) == []
    assert lines is None or len(text.splitlines()) == lines, text
    return text


@pytest.fixture
def policy(project: Any) -> str:
    project.write("vault/key", "SECRET\n")
    path = project.base / "policy.yaml"
    path.write_text(
        "version: 1\n"
        "default: {read: allow, exec: allow, write: allow, listen: allow}\n"
        "rules:\n"
        "  - {name: secret, deny: [read, write, exec], paths: ['./vault/**']}\n"
    )
    return str(path)


@pytest.mark.parametrize("case", NASTY)
def test_names_in_reports(case: str, project: Any, policy: str) -> None:
    """--explain, log tail, explain and the audit log show a nasty path and argv escaped, on one line each."""
    name = NASTY[case]
    (project.root / "vault" / name).write_text("SECRET")
    inner = ["python3", "-c", "import sys\ntry: open(sys.argv[1])\nexcept OSError as e: print(e.errno)"]

    done = command(
        project,
        "run",
        "--policy",
        policy,
        "--explain",
        "--audit",
        str(project.audit),
        "--",
        *inner,
        f"vault/{name}",
    )

    assert done.stdout == b"13\n", done.stderr
    shown = plain(done.stderr)
    assert sum(line.startswith("rampart:") for line in shown.splitlines()) == 1
    log = project.audit.read_bytes()
    assert all(byte >= 0x20 or byte == 0x0A for byte in log)
    assert log.isascii()
    assert len(project.denials("secret")) == 1
    assert os.path.basename(project.denials("secret")[0]["path"]) == name
    tail = plain(
        command(project, "log", "tail", "-n", "100000", str(project.audit)).stdout, len(log.splitlines())
    )
    assert tail.count("deny EACCES") == 1
    for words in (["read", f"vault/{name}"], ["exec", "sh", "-c", name]):
        told = command(project, "explain", "--policy", policy, *words)
        assert plain(told.stdout).startswith(("deny: read", "allow: exec"))
    missing = command(project, "check", name)
    assert missing.returncode == 1
    plain(missing.stdout, 1)
    assert plain(command(project, "doctor", "--policy", name).stderr) or case == "none"
    refused = command(project, "run", "--policy", policy, "--", f"./{name}")
    assert refused.returncode == 127
    plain(refused.stderr)


def test_names_in_policies(project: Any) -> None:
    """Names, messages and keys of a policy file are shown escaped by check, explain and doctor."""
    path = project.base / "nasty.yaml"
    for text in (
        'version: 1\nrules: [{name: "a\\e[2Jb\\u202e", deny: read, paths: ["./x"], message: "m\\a"}]\n',
        'version: 1\n"k\\e[2J\\n": 1\n',
        'version: 1\nrules: [{name: n, deny: connect, hosts: ["h\\e[2J\\u202e:1"]}]\n',
        'version: 1\nrules: [{name: n, deny: "re\\e[2Jad"}]\n',
    ):
        path.write_text(text)
        for words in (
            ["check", str(path)],
            ["explain", "--policy", str(path), "read", "x"],
            ["doctor", "--policy", str(path)],
        ):
            done = command(project, *words)
            plain(done.stdout)
            plain(done.stderr)


class Terminal:
    """A harness on a pty of its own, and the person in front of it."""

    def __init__(self, project: Any, code: str) -> None:
        self.pid, self.tty = pty.fork()
        if self.pid == 0:
            os.chdir(project.root)
            path = os.pathsep.join(
                [str(Path(rampart.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
            )
            os.execve(
                sys.executable, [sys.executable, "-c", code], project.environment | {"PYTHONPATH": path}
            )
        self.seen = b""

    def until(self, text: bytes, count: int = 1, seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while self.seen.count(text) < count:
            ready, _, _ = select.select([self.tty], [], [], max(0.0, end - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.tty, 65536)

    def type(self, text: bytes) -> None:
        os.write(self.tty, text)


@pytest.fixture
def terminal(project: Any) -> Iterator[Callable[[str], Terminal]]:
    made: list[Terminal] = []

    def make(code: str) -> Terminal:
        made.append(Terminal(project, code))
        return made[-1]

    yield make
    for each in made:
        os.kill(each.pid, signal.SIGKILL)
        os.waitpid(each.pid, 0)
        os.close(each.tty)


HARNESS = """
import rampart_seccomp as rampart
from rampart_seccomp.approval import terminal_approver
policy = rampart.Policy(rules=[
    rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything"),
    rampart.ask("read", paths=["./ask/**"], name="asked"),
])
ask = terminal_approver(timeout=60)
done = rampart.run({argv!r}, policy=policy, on_ask=ask, capture_output=True, text=True)
print("result:", done.stdout, done.stderr[-300:], "end.", flush=True)
"""


@pytest.mark.parametrize("case", [case for case in NASTY if case != "bytes"])
def test_names_in_a_prompt(case: str, project: Any, terminal: Callable[[str], Terminal]) -> None:
    """The question on a real terminal shows path and program escaped; a yes then opens just that."""
    path = project.root / "ask" / NASTY[case]
    path.parent.mkdir()
    path.write_text("content")
    person = terminal(
        HARNESS.format(
            argv=["python3", "-c", "import sys; print(open(sys.argv[1]).read())", f"ask/{NASTY[case]}"]
        )
    )

    person.until(b"[y/N]")
    question = person.seen.replace(b"\r\n", b"\n")
    plain(question)
    assert question.count(b"Allow this once?") == 1 or case == "return"
    assert len(question.strip().splitlines()) == 5
    person.type(b"y\n")
    person.until(b"end.")
    assert b"result: content" in person.seen


FLOOD = """
import errno, threading
answers = []
def one(number):
    try:
        open(f"ask/{number}").close()
        answers.append("ok")
    except OSError as error:
        answers.append(errno.errorcode[error.errno])
threads = [threading.Thread(target=one, args=(number,)) for number in range(300)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(answers), sorted(set(answers)))
"""


def test_flood_of_questions(project: Any, terminal: Callable[[str], Terminal]) -> None:
    """300 questions at once are few on the screen, one at a time, and what is typed ahead answers none."""
    (project.root / "ask").mkdir()
    for number in range(300):
        project.write(f"ask/{number}", "")
    person = terminal(HARNESS.format(argv=["python3", "-c", FLOOD]))

    person.until(b"[y/N]")
    person.type(b"n\n")  # the first
    for _ in range(5):
        person.type(b"y\n")  # at once, on their way before the second stands there
    for count in range(2, 11):
        person.until(b"[y/N]", count)
        person.type(b"n\n")
    person.until(b"end.")

    assert b"300 ['EACCES']" in person.seen
    assert person.seen.count(b"Allow this once?") == 10
