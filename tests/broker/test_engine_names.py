"""Renames and symbolic links in the engine: as bare, and only where no rule tells the names apart."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import rampart_seccomp as rampart
from rampart_seccomp.broker.answering import Answering

pytestmark = pytest.mark.core

SRC = Path(__file__).parent / "src"
PYTHON = [sys.executable, "-I", "-S", "-B"]
OPEN = rampart.Policy(
    rules=[rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything", log=False)],
    features=["sysv-ipc"],
)


@pytest.fixture
def place(workspace: Path) -> Iterator[Path]:
    """An empty directory."""
    made = Path(tempfile.mkdtemp(dir=workspace)).resolve()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that Python has answered."""
    found: list[str] = []
    answer = Answering._answer

    def noted(self: Answering, notification: object) -> None:
        found.append(notification.syscall)  # type: ignore[attr-defined]
        answer(self, notification)  # type: ignore[arg-type]

    monkeypatch.setattr(Answering, "_answer", noted)
    return found


def _run(
    place: Path, arguments: list[str], policy: rampart.Policy | None, **options: str
) -> subprocess.CompletedProcess[str]:
    command = [*PYTHON, *arguments]
    if policy is None:
        return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    with rampart.Broker(policy, **options) as broker:  # type: ignore[arg-type]
        return rampart.run(command, broker=broker, cwd=place, capture_output=True, text=True, timeout=120)


def test_every_way_is_as_bare(place: Path, asked: list[str]) -> None:
    """Result, error and what is there afterwards, of every kind to every kind, however it is spelt."""
    given = {}
    for way in ("bare", "native", "python"):
        work = place / "work"
        work.mkdir()
        policy = None if way == "bare" else OPEN
        asked.clear()
        done = _run(work, [str(SRC / "moved_names.py")], policy, **({} if way == "bare" else {"engine": way}))
        assert (done.returncode, done.stderr) == (0, ""), way
        given[way] = done.stdout.splitlines()
        shutil.rmtree(work)
        if way == "native":
            moved = sum(call.startswith("rename") for call in asked)
            linked = sum(call.startswith("symlink") for call in asked)

    assert len(given["bare"]) > 240
    for way in ("native", "python"):
        assert [pair for pair in zip(given["bare"], given[way], strict=True) if pair[0] != pair[1]] == []
    # Python's are exchanges, what is missing or spelt with a slash, and calls that are no good anyhow.
    assert 50 < moved < 180
    assert linked < 15


MOVE = """
import os, sys
for old, new in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        os.rename(old, new)
        print(0)
    except OSError as error:
        print(error.errno)
"""


def test_what_rules_tell_apart(place: Path, asked: list[str]) -> None:
    """Between names that differ for some rule Python judges, and refuses what would lift or plant."""
    for name in ("plain", "payload/hooks", "repo/.git/hooks", "vault", "box"):
        (place / name).mkdir(parents=True)
    for name in ("plain/a", "plain/.env", "payload/hooks/post", "vault/key", "box/file"):
        (place / name).write_text(name)
    policy = OPEN.with_rules(
        rampart.deny("read", paths=["./**/.env", "./vault/**"], name="secrets"),
        rampart.deny("write", paths=["./**/.git/hooks/*"], name="hooks"),
    )
    moves = [
        *("plain/a", "plain/b"),  # alike
        *("plain", "elsewhere"),  # alike, with what is denied beneath
        *("elsewhere/.env", "elsewhere/env"),  # would be readable
        *("vault", "open"),
        *("payload", "repo/.git"),  # hooks planted: refused, since it is there and full
        *("payload", "payload/.git"),
        *("payload", ".git"),
    ]
    done = _run(place, ["-c", MOVE, *moves], policy)

    denied = str(errno.EACCES)
    assert done.stdout.split() == ["0", "0", denied, denied, denied, denied, denied]
    assert asked.count("rename") == 5
    assert sorted(path.name for path in place.iterdir()) == ["box", "elsewhere", "payload", "repo", "vault"]


LINK = """
import os, sys
for text, name in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        os.symlink(text, name)
        print(0)
    except OSError as error:
        print(error.errno)
"""


def test_links_where_rules_watch(place: Path, asked: list[str]) -> None:
    """A link is made at once where no rule watches its name; where one does, Python looks where it leads."""
    (place / "payload").mkdir()
    policy = OPEN.with_rules(rampart.deny("write", paths=["./**/.git/hooks/*"], name="hooks"))
    done = _run(place, ["-c", LINK, "payload", "free", "payload", ".git", "missing", "also"], policy)

    assert done.stdout.split() == ["0", str(errno.EACCES), "0"]
    assert asked.count("symlink") == 1
    moved = _run(place, ["-c", MOVE, "free", ".git", "free", "other"], policy)
    assert moved.stdout.split() == [str(errno.EACCES), "0"]


def test_what_is_on_record(place: Path, asked: list[str]) -> None:
    """With a log of everything both engines write down the same; without one the events are there."""
    policy = OPEN.with_rules(rampart.deny("delete", paths=["./kept"], name="kept"))
    code = ["-c", MOVE, "a", "b", "b", "c", "kept", "d"]
    found = {}
    for engine in ("native", "python"):
        for name in ("a", "c", "kept"):
            (place / name).write_text("")
        log = place.parent / f"{place.name}-{engine}.jsonl"
        with rampart.Broker(attrs.evolve(policy, audit="all"), audit=log, engine=engine) as broker:
            rampart.run([*PYTHON, *code], broker=broker, cwd=place, check=True, stdout=subprocess.DEVNULL)
        records = [json.loads(line) for line in log.read_text().splitlines()]
        log.unlink()
        log.with_name(log.name + ".head").unlink()
        found[engine] = [
            (record["operation"], Path(record["path"]).name, record["verdict"])
            for record in records
            if record.get("syscall") == "rename"
        ]
    assert found["native"] == found["python"]
    assert found["native"] == [
        *(("delete", "a", "allow"), ("create", "b", "allow")),
        *(("delete", "b", "allow"), ("create", "c", "allow"), ("delete", "c", "allow")),
        ("delete", "kept", "deny"),
    ]
