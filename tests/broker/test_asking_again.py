"""A program that is searched for along PATH: who was refused it at one entry is not asked at the next.

After EACCES the search of execvp(3), dash and env(1) goes on, and what further entries have is often the same
file: /bin is a link to /usr/bin.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.broker import questions

pytestmark = pytest.mark.core

EXECVP = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def search(*words):
    libc.execvp(words[0], (ctypes.c_char_p * (len(words) + 1))(*words, None))
    print(os.strerror(ctypes.get_errno()), flush=True)
def start(path, *words):
    libc.execve(path, (ctypes.c_char_p * (len(words) + 1))(*words, None), None)
"""

SEARCHES = {
    "dash": ["dash", "-c", "{} now"],
    "env": ["env", "{}", "now"],
    "execvp": [sys.executable, "-c", EXECVP + "search(b'{}', b'now')"],
    "subprocess": [
        sys.executable,
        "-c",
        "import subprocess\ntry: subprocess.run(['{}', 'now'])\nexcept OSError as error: print(error)",
    ],
}


class Asked:
    """Who is asked: keeps what about, and refuses until told otherwise."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.verdict: Callable[[], rampart.Verdict] = lambda: rampart.Deny(message="no")

    def __call__(self, event: Any) -> rampart.Verdict:
        self.events.append(event)
        return self.verdict()

    @property
    def commands(self) -> list[str]:
        return [" ".join(map(os.fsdecode, event.argv)) for event in self.events]


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def run(project: Any, asked: Asked) -> Callable[..., Any]:
    """Run a command with a PATH that leads to ./real four times, each exec of what lies there an ask."""
    real = project.root / "real"
    project.write("real/another", "#!/bin/sh\necho another $1\n", 0o755)
    project.write("real/a-script", "#!/usr/bin/env sh\necho ran $1\n", 0o755)
    shutil.copy(os.path.realpath("/bin/echo"), real / "a-tool")
    (project.root / "directory").symlink_to("real")
    for name in ("a-tool", "a-script"):
        path = project.root / "links" / name
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(real / name)
    entries = [project.root / name for name in ("missing", "directory", "real", "links", "real")]

    def make(argv: list[str], **options: Any) -> Any:
        conditions = options.pop("conditions", {"paths": ["./real/**"]})
        policy = rampart.Policy(
            rules=[
                rampart.allow(["read", "write", "exec"], name="everything"),
                rampart.ask("exec", name="asked", **conditions),
            ]
        )
        path = os.pathsep.join([*map(str, entries), project.environment["PATH"]])
        return project.run(argv, policy, on_ask=asked, env={"PATH": path}, **options)

    return make


@pytest.mark.parametrize("program", ["a-tool", "a-script"])
@pytest.mark.parametrize("search", SEARCHES)
def test_refused_once(search: str, program: str, run: Any, asked: Asked, project: Any) -> None:
    """One question, one answer; every try is on record as denied by it."""
    if shutil.which(SEARCHES[search][0]) is None:
        pytest.skip(f"no {search}")

    done = run([word.replace("{}", program) for word in SEARCHES[search]])

    assert "Permission denied" in done.stdout + done.stderr
    assert asked.commands == [f"{program} now"]
    tries = project.denials("asked")
    assert len(tries) == 4
    assert {(record["asked"], record["message"], record["object"]) for record in tries} == {
        (True, "no", f"{program} now")
    }


@pytest.mark.parametrize("search", SEARCHES)
def test_each_try_was_a_question(
    search: str, run: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: were nothing remembered, there would be several."""
    monkeypatch.setattr(questions, "AGAIN", 0)
    run([word.replace("{}", "a-tool") for word in SEARCHES[search]])
    assert len(asked.events) > 1


def test_the_interpreter_of_a_script(run: Any, asked: Asked) -> None:
    """Where it is the interpreter that is asked about, its arguments differ by the entry of PATH only."""
    interpreter = os.path.realpath(shutil.which("env") or "")

    run([sys.executable, "-c", EXECVP + "search(b'a-script', b'now')"], conditions={"paths": [interpreter]})

    assert [event.path for event in asked.events] == [os.fsencode(interpreter)]


def test_other_things_are_asked(run: Any, asked: Asked) -> None:
    """Other arguments, another program of the name, another process: each is a question of its own."""
    code = """
for word in (b"1", b"2", b"1"):
    search(b"a-tool", word)
search(b"another", b"1")
start(b"real/a-tool", b"another", b"1")
if os.fork() == 0:
    search(b"a-tool", b"1")
    os._exit(0)
os.wait()
"""
    run([sys.executable, "-c", EXECVP + code])

    assert asked.commands == ["a-tool 1", "a-tool 2", "another 1", "another 1", "a-tool 1"]


def test_a_yes_counts_once(run: Any, asked: Asked, project: Any) -> None:
    """An exec that was allowed and failed is a question again, and so is one after it that was refused."""
    project.write("real/broken", "neither", 0o755)
    answers = iter([rampart.Allow(), rampart.Allow(), rampart.Deny(), rampart.Allow()])
    asked.verdict = lambda: next(answers)
    code = 'for _ in range(4): start(b"real/broken", b"broken")'

    run([sys.executable, "-c", EXECVP + code])

    assert len(asked.events) == 3, "the last was answered by the one before it"


def test_it_is_soon_forgotten(run: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that tries again later is asked about again."""
    monkeypatch.setattr(questions, "AGAIN", 0.2)
    code = 'import time\nfor _ in range(2): start(b"real/a-tool", b"a-tool"); time.sleep(0.4)'

    run([sys.executable, "-c", EXECVP + code])

    assert len(asked.events) == 2


def test_unanswered_once(run: Any, asked: Asked, project: Any) -> None:
    """A question that nobody answers in time is not put, and waited for, once for each entry."""

    def late() -> rampart.Verdict:
        time.sleep(4)
        return rampart.Allow()

    asked.verdict = late
    began = time.monotonic()
    done = run(["env", "a-tool", "now"], conditions={"paths": ["./real/**"], "timeout": 1.5})

    assert done.returncode == 126
    assert len(asked.events) == 1
    assert {record["message"] for record in project.denials("asked")} == {"nobody answered in time"}
    assert len(project.denials("asked")) == 4
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("verdict", [rampart.Allow(), rampart.Deny()], ids=["allow", "deny"])
def test_files_are_asked_about_each_time(verdict: rampart.Verdict, asked: Asked, project: Any) -> None:
    """An answer is for one call, however soon the next one follows."""
    path = project.write("file", "")
    policy = rampart.Policy(
        rules=[
            rampart.allow(["read", "write", "exec"], name="everything"),
            rampart.ask("read", name="asked", paths=[str(path)]),
        ]
    )
    asked.verdict = lambda: verdict
    code = """
import os, sys
for _ in range(100):
    try: os.close(os.open(sys.argv[1], os.O_RDONLY))
    except PermissionError: pass
"""
    project.run([sys.executable, "-c", code, path], policy, on_ask=asked)

    assert len(asked.events) == 100
