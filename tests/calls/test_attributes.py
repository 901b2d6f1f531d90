"""Reading extended attributes is reading the file: held where that is restricted, and otherwise as bare."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rampart_seccomp.calls.attributes import DECODERS

SCRIPT = Path(__file__).with_name("attributes.py")
SETTING = Path(__file__).with_name("setting.py")

pytestmark = pytest.mark.core


@pytest.fixture
def attributed(project: Any) -> Any:
    """Give a project whose files have attributes."""
    for name in ("file", "directory/inner", "vault/key"):
        project.write(name, "content\n", mode=0o666)
    for path, value in (
        ("file", b"one"),
        ("directory", b"one"),
        ("vault/key", b"SECRET"),
        ("vault", b"SECRET"),
    ):
        try:
            os.setxattr(project.root / path, "user.one", value)
        except OSError as error:
            pytest.skip(f"no user attributes here: {error}")
    os.setxattr(project.root / "file", "user.long", b"l" * 3000)
    os.symlink("file", project.root / "link")
    os.symlink("nowhere", project.root / "broken")
    if os.geteuid() == 0:
        for path in ("file", "link"):
            for kind in ("trusted", "security"):
                os.setxattr(project.root / path, f"{kind}.one", path.encode(), follow_symlinks=False)
    for script in (SCRIPT, SETTING):
        shutil.copy(script, project.root)
    return project


@pytest.fixture
def guarded(deny_rule: Any) -> Any:
    """Everything is allowed but reading ./vault."""
    return deny_rule("read", paths=["./vault/**"])


def reading(project: Any) -> Counter[str]:
    """Count the calls that read attributes and are on record."""
    return Counter(record["syscall"] for record in project.records() if record["syscall"] in DECODERS)


def test_attributes_of_what_may_be_read_are_as_bare(attributed: Any, guarded: Any) -> None:
    """Sizes, errnos and content are the kernel's, though the broker reads them: 140 ways."""
    command = [sys.executable, "attributes.py"]
    expected = json.loads(attributed.bare(command).stdout)
    assert len(expected) > 140

    done = attributed.run(command, guarded)

    assert json.loads(done.stdout) == expected
    held = reading(attributed)
    assert set(held) >= {"getxattr", "lgetxattr", "listxattr", "llistxattr"}, "the control: they were held"


def test_attributes_are_free_where_every_file_may_be_read(attributed: Any, allow_all: Any) -> None:
    """Nothing is held that nothing restricts."""
    done = attributed.run([sys.executable, "attributes.py"], allow_all)

    assert done.returncode == 0
    assert reading(attributed) == Counter()


@pytest.mark.parametrize("engine", ["native", "python"])
def test_attributes_are_set_as_bare(
    engine: str, attributed: Any, deny_rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting and removing (fchmodat2, too) gives the kernel's errnos and leaves the same: some 300 ways."""
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", engine)
    command = [sys.executable, SETTING.name]
    before = attributed.base / "before"
    shutil.copytree(attributed.root, before, symlinks=True)
    expected = json.loads(attributed.bare(command).stdout)
    assert len(expected) > 300
    assert list(expected.values()).count("ok") > 60
    shutil.rmtree(attributed.root)
    shutil.copytree(before, attributed.root, symlinks=True)

    done = attributed.run(command, deny_rule("metadata", paths=["./vault/**"]))

    answers = json.loads(done.stdout)
    assert {name: (each, answers[name]) for name, each in expected.items() if answers[name] != each} == {}
    assert done.denials == []


ATTEMPTS = """
import errno, json, os, sys
def attempt(action):
    try:
        return repr(action())
    except OSError as error:
        return errno.errorcode[error.errno]
answers = {}
for target in sys.argv[1:]:
    writing = os.open(target, os.O_WRONLY) if os.path.isfile(target) else None
    pinned = os.open(target, os.O_PATH)
    answers[target] = [
        attempt(lambda: os.getxattr(target, "user.one")),
        attempt(lambda: os.getxattr(target, "user.one", follow_symlinks=False)),
        attempt(lambda: os.listxattr(target)),
        attempt(lambda: os.listxattr(target, follow_symlinks=False)),
        attempt(lambda: os.getxattr(f"/proc/self/fd/{pinned}", "user.one")),
        *([attempt(lambda: os.getxattr(writing, "user.one")), attempt(lambda: os.listxattr(writing))]
          if writing is not None else []),
    ]
print(json.dumps(answers))
"""


def test_attributes_of_what_may_not_be_read_are_denied(attributed: Any, guarded: Any) -> None:
    """Neither values nor names, by path, by link, by descriptor; what lies beside it is read."""
    attributed.write("attempts.py", ATTEMPTS)
    os.symlink("vault/key", attributed.root / "alias")
    command = [sys.executable, "attempts.py", "vault/key", "vault", "directory", "alias"]
    bare = json.loads(attributed.bare(command).stdout)
    assert bare["vault/key"][0] == "b'SECRET'"

    answers = json.loads(attributed.run(command, guarded).stdout)

    assert answers["vault/key"] == ["EACCES"] * 7
    assert answers["vault"] == ["EACCES"] * 5
    assert answers["directory"] == bare["directory"]
    # Of the link itself there is nothing to be seen, nor to be denied.
    assert [answers["alias"][index] for index in (0, 1, 2, 4)] == ["EACCES", "ENODATA", "EACCES", "EACCES"]
    denied = attributed.denials("secret")
    assert {record["operation"] for record in denied} == {"read"}
    assert {record["syscall"] for record in denied} == {
        *("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
    }


def test_a_descriptor_that_the_harness_passed_stays_open(attributed: Any, guarded: Any) -> None:
    """What was open for reading before the run can be read, its attributes like its content."""
    script = "import os; print(os.getxattr(0, 'user.one'), os.read(0, 7))"
    with open(attributed.root / "vault/key", "rb") as secret:
        done = attributed.run([sys.executable, "-c", script], guarded, stdin=secret)

    assert done.stdout == "b'SECRET' b'content'\n"


RACE = """
import os, sys, threading
value = []
decoy, secret = os.open("file", os.O_RDONLY), os.open("vault/key", os.O_WRONLY)
shared = os.dup(decoy)
def swap():
    while not value:
        os.dup2(secret, shared)
        os.dup2(decoy, shared)
threading.Thread(target=swap, daemon=True).start()
for _ in range(int(sys.argv[1])):
    try:
        found = os.getxattr(shared, "user.one")
    except OSError:
        continue
    if found == b"SECRET":
        value.append(found)
        break
print(value, flush=True)
os._exit(0)
"""


def test_a_descriptor_swapped_meanwhile_does_not_help(attributed: Any, guarded: Any) -> None:
    """A descriptor for writing only, put under the number of one for reading, is judged as what it is."""
    attributed.write("race.py", RACE)
    bare = attributed.bare([sys.executable, "race.py", "200000"])
    assert bare.stdout == "[b'SECRET']\n", "the control: bare, the attacker wins"

    done = attributed.run([sys.executable, "race.py", "2000"], guarded)

    assert done.stdout == "[]\n", done.stderr


def test_ls_shows_the_same(attributed: Any, guarded: Any) -> None:
    """Who may do what with a file is as free as its mode: ls -l is as bare, of what may not be read, too."""
    command = ["ls", "-lad", "directory", "file", "link", "vault", "vault/key"]
    expected = attributed.bare(command)

    done = attributed.run(command, guarded)

    assert (done.stdout, done.stderr) == (expected.stdout, "")
    assert attributed.denials("secret") == []


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("system.posix_acl_access", "ACL"),
        ("security.ima", "EACCES"),
        ("system.posix_acl_accessx", "EACCES"),
    ],
)
def test_only_what_says_who_may_do_what_is_free(
    name: str, answer: str, attributed: Any, guarded: Any
) -> None:
    """Access control lists are; what could tell of the content, such as a digest of it, is not."""
    entries = [(0x01, 6, -1), (0x02, 4, 12345), (0x04, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(attributed.root / "vault/key", "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    script = (
        "import errno, os, sys\n"
        "try: print('ACL' if len(os.getxattr('vault/key', sys.argv[1])) == 44 else 'other')\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    done = attributed.run([sys.executable, "-c", script, name], guarded)

    assert done.stdout == answer + "\n"
