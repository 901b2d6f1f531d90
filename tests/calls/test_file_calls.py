"""Every system call on files, named in every way: allowed it is as bare, denied it has not happened."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import file_calls
import pytest
from file_calls import CASES, furnish

from rampart_seccomp.kernel.libseccomp import number_of
from rampart_seccomp.kernel.syscalls import table

pytestmark = pytest.mark.core

SCRIPT = Path(file_calls.__file__)
NAMES = sorted({case.call.name for case in CASES})
OPERATIONS = ("read", "create", "modify", "delete", "metadata")


ELSEWHERE = """
    execve execveat socket connect bind listen sendto sendmsg sendmmsg
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset umask prctl
    setrlimit prlimit64 sched_setaffinity sched_setscheduler sched_setparam sched_setattr setpriority
    ioprio_set
"""
"""Mediated calls that are not about files, or, like exec and the names of sockets, tested by themselves."""


def test_all_calls_are_there() -> None:
    """Every call that is ever held is in the table here, or known to be about something else."""
    mediated = {entry.handler for entry in table().values() if entry.handler is not None}
    assert set(NAMES) == mediated - set(ELSEWHERE.split())
    assert set(ELSEWHERE.split()) <= mediated


class Scene:
    """The directories of many cases, and what became of them.

    Args:
        project: Where they are made.
        area: Name of the directory that holds them.
        places: Places of the cases in `CASES`.
    """

    def __init__(self, project: Any, area: str, places: list[int]) -> None:
        self.project = project
        self.directories = {place: f"{area}/{place}" for place in places}
        for place, directory in self.directories.items():
            try:
                furnish(project.root / directory, CASES[place])
            except OSError as error:
                pytest.skip(f"no user attributes here: {error}")
        (project.root / area).chmod(0o755)

    def run(self, policy: Any) -> tuple[dict[int, str], Any]:
        """Make the calls; give the answers and the finished command."""
        file = self.project.write("places.json", json.dumps(self.directories))
        numbers = {name: number for name in NAMES if (number := number_of(name)) is not None}
        argv = [sys.executable, "-I", "-S", SCRIPT, file.name, json.dumps(numbers)]
        done = self.project.bare(argv) if policy is None else self.project.run(argv, policy)
        assert done.returncode == 0, done.stderr
        return {int(place): answer for place, answer in json.loads(done.stdout).items()}, done

    def effects(self, place: int) -> dict[str, tuple[object, ...]]:
        """What is there, as it compares with another scene's: no numbers of inodes, no present times."""
        return {name: self._comparable(path) for name, path in self._entries(place)}

    def exact(self, place: int) -> dict[str, tuple[object, ...]]:
        """What is there, with everything that a change would change."""
        found = {}
        for name, path in self._entries(place):
            st = path.lstat()
            found[name] = (*self._comparable(path), st.st_ino, st.st_mtime_ns, st.st_ctime_ns)
        return found

    def _entries(self, place: int) -> list[tuple[str, Path]]:
        directory: Path = self.project.root / self.directories[place]
        return [(".", directory), *((path.name, path) for path in sorted(directory.iterdir()))]

    def _comparable(self, path: Path) -> tuple[object, ...]:
        st = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(st.st_mode) else None
        leads = os.readlink(path) if stat.S_ISLNK(st.st_mode) else None
        set_by_us = st.st_mtime_ns if int(st.st_mtime) == file_calls.TIME else 0
        names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
        return st.st_mode, st.st_uid, st.st_gid, st.st_nlink, content, leads, set_by_us, sorted(names)


def fitting(operation: str) -> list[int]:
    """Give the places of the cases that are one operation, and can be made here."""
    known = {name for name in NAMES if number_of(name) is not None}
    return [
        place
        for place, case in enumerate(CASES)
        if operation in case.call.operations.split() and case.fits() and case.call.name in known
    ]


@pytest.fixture(params=["native", "python"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", request.param)
    return str(request.param)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_allowed_and_denied(operation: str, project: Any, deny_rule: Any) -> None:
    """Beside a rule that denies it elsewhere a call does what it does bare; where it is denied, nothing."""
    project.base.chmod(0o755)
    places = fitting(operation)
    bare = Scene(project, "bare", places)
    expected, _ = bare.run(None)
    assert sum(answer == "ok" for answer in expected.values()) > len(places) / 4

    policy = deny_rule(operation, paths=["./vault/*/**"])
    allowed = Scene(project, "open", places)
    answers, done = allowed.run(policy)
    assert differing(expected, answers) == {}
    assert done.denials == []
    for place in places:
        assert bare.effects(place) == allowed.effects(place), str(CASES[place])

    shutil.rmtree(project.root / "open")
    denied = Scene(project, "vault", places)
    before = {place: denied.exact(place) for place in places}
    answers, done = denied.run(policy)
    assert {(denial.rule, denial.operation, denial.errno) for denial in done.denials} == {
        ("secret", operation, 13)
    }
    for place, answer in answers.items():
        case, bare_answer = CASES[place], expected[place]
        if bare_answer == "ok" and case.becomes_another():
            continue
        assert answer == "EACCES" if bare_answer == "ok" else answer in (bare_answer, "EACCES"), str(case)
        assert denied.exact(place) == before[place], str(case)


def differing(expected: dict[int, str], answers: dict[int, str]) -> dict[str, tuple[str, str]]:
    """Give the cases that were answered otherwise, with both answers."""
    return {
        str(CASES[place]): (answer, answers[place])
        for place, answer in expected.items()
        if answers[place] != answer
    }
