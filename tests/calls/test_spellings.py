"""Path spelling never matters: what is judged is the real object, however a program names it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from looking import Target

import rampart_seccomp as rampart
import strategies
from rampart_seccomp.events import FileEvent, Operation

# Each line names the same file in another way; D is its directory, N its name, ROOT where the program starts.
PROGRAM = """\
import errno, json, os, sys

os.umask(0)
D, N = map(os.fsencode, sys.argv[1:])
ROOT = os.getcwdb()
PATH = D + b"/" + N
ABSOLUTE = ROOT + b"/" + PATH
directory = os.open(D, os.O_PATH | os.O_DIRECTORY)
root = os.open(b"/", os.O_PATH | os.O_DIRECTORY)
me = b"/proc/%d" % os.getpid()

SPELLINGS = {
    "relative": PATH,
    "with dots": b"./" + D + b"/././" + N,
    "with slashes": D + b"///" + N,
    "up and down": D + b"/../" + D + b"/" + N,
    "up from below": b"other/deep/../../" + PATH,
    "absolute": ABSOLUTE,
    "with two slashes in front": b"/" + ABSOLUTE,
    "above the root": b"/../.." + ABSOLUTE,
    "a link to it": b"link-to-file-" + D,
    "a link to its directory": b"link-to-" + D + b"/" + N,
    "a link to a link": b"link-to-link-" + D,
    "an absolute link": b"absolute-link-" + D,
    "a link that climbs": b"other/climbing-" + D + b"/" + N,
    "the working directory": b"/proc/self/cwd/" + PATH,
    "the working directory by number": me + b"/cwd/" + PATH,
    "the thread's working directory": b"/proc/thread-self/cwd/" + PATH,
    "the root directory": b"/proc/self/root" + ABSOLUTE,
    "a descriptor's entry": b"/proc/self/fd/%d/" % directory + N,
    "a device's entry": b"/dev/fd/%d/" % directory + N,
    "beneath a descriptor": (N, directory),
    "beside a descriptor": (b"../" + PATH, directory),
    "beneath the root's descriptor": (ABSOLUTE[1:], root),
    "absolute, and a descriptor": (ABSOLUTE, directory),
}
answers = {}
for name, spelling in SPELLINGS.items():
    path, base = spelling if isinstance(spelling, tuple) else (spelling, None)
    try:
        fd = os.open(path, os.O_RDONLY, dir_fd=base)
        answers[name] = os.read(fd, 100).decode()
        os.close(fd)
    except OSError as error:
        answers[name] = errno.errorcode[error.errno]
os.fchdir(directory)
try:
    with open(N) as file:
        answers["from within"] = file.read()
except OSError as error:
    answers["from within"] = errno.errorcode[error.errno]
print(json.dumps(answers))
"""


@pytest.mark.core
@pytest.mark.parametrize("name", [b"key", b"k\xff\xfe", b"*", b"a b\n", b"key (deleted)"], ids=repr)
def test_of_one_object(project: Any, deny_rule: Any, name: bytes) -> None:
    """Every spelling of a denied file is denied under its real name; the same of an open file succeed."""
    root = os.fsencode(project.root)
    for directory in (b"vault", b"open"):
        os.mkdir(root + b"/" + directory)
        real = root + b"/" + directory + b"/" + name
        Path(os.fsdecode(real)).write_text("content")
        os.symlink(directory + b"/" + name, root + b"/link-to-file-" + directory)
        os.symlink(directory, root + b"/link-to-" + directory)
        os.symlink(b"link-to-file-" + directory, root + b"/link-to-link-" + directory)
        os.symlink(real, root + b"/absolute-link-" + directory)
    (project.root / "other/deep").mkdir(parents=True)
    for directory in (b"vault", b"open"):
        os.symlink(b"../" + directory, root + b"/other/climbing-" + directory)
    policy = deny_rule("read", paths=["./vault/**"])

    def spell(directory: str) -> tuple[dict[str, str], Any]:
        done = project.run([sys.executable, "-B", "-c", PROGRAM, directory, os.fsdecode(name)], policy)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done

    answers, done = spell("open")
    assert (set(answers.values()), len(answers), done.denials) == ({"content"}, 24, [])
    answers, done = spell("vault")
    assert set(answers.values()) == {"EACCES"}
    assert {(denial.rule, os.fsencode(denial.object)) for denial in done.denials} == {
        ("secret", root + b"/vault/" + name)
    }
    assert sum(each.verdict == "deny" for each in done.events) == len(answers)


NAMES = (b"a", b"b", b"\xff", b"x (deleted)")
LINKS = {b"la": b"a", b"lb": b"../a/b", b"l\xff": b"\xff", b"abs": b"%s/a", b"chain": b"la/../abs"}


class Tree:
    """A throw-away tree three deep, in which every directory has links, and a process that stands in it."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self._fill(root, 3)
        self.target = Target(Path(os.fsdecode(root)))

    def _fill(self, directory: bytes, depth: int) -> None:
        for name, leads in LINKS.items():
            os.symlink(leads % self.root if b"%s" in leads else leads, directory + b"/" + name)
        for name in NAMES:
            path = directory + b"/" + name
            if depth == 0:
                Path(os.fsdecode(path)).touch()
            else:
                os.mkdir(path)
                self._fill(path, depth - 1)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    made = Tree(os.path.realpath(os.fsencode(tmp_path_factory.mktemp("tree"))))
    yield made
    made.target.close()


starts = st.sampled_from(
    [
        b"",
        b"./",
        b"%(root)s/",
        b"/%(root)s//",
        b"/..%(root)s/",
        b"/proc/self/cwd/",
        b"/proc/thread-self/cwd/./",
        b"/proc/%(pid)d/cwd/",
        b"/proc/self/../self/cwd/",
        b"/proc/self/root%(root)s/",
    ]
)
steps = st.lists(st.sampled_from([*NAMES, *LINKS, b".", b"", b"..", b"none"]), min_size=1, max_size=6).map(
    b"/".join
)


@strategies.bounded
@given(starts, steps, st.lists(strategies.verdicts, min_size=len(NAMES), max_size=len(NAMES)))
def test_of_any_object(tree: Tree, start: bytes, spelled: bytes, verdicts: list[str]) -> None:
    """A generated spelling is pinned as the object that the kernel finds, and judged as that object is."""
    facts = {b"root": tree.root, b"pid": tree.target.pid}
    policy = rampart.Policy(
        rules=[
            rampart.Rule(
                name=f"r{number}", verdict=verdict, operations="read", paths=f"./{os.fsdecode(name)}/**"
            )
            for number, (name, verdict) in enumerate(zip(NAMES, verdicts, strict=True))
        ]
    )
    matcher = policy.matcher(home=b"/nowhere", directory=tree.root)
    spelling = start % facts + spelled

    # What the kernel makes of the same words, asked from the same place; what is missing has a real parent.
    assume(spelling)  # an empty path is nothing at all
    ours = start % facts + b"/" + spelled if start else spelled if spelled[:1] == b"/" else b"./" + spelled
    ours = ours.replace(b"/proc/self/", b"/proc/%d/" % tree.target.pid)
    ours = ours.replace(b"/proc/thread-self/", b"/proc/%d/" % tree.target.pid)
    here = os.getcwdb()
    os.chdir(tree.root)
    named = os.path.realpath(ours)
    try:
        fd = os.open(ours, os.O_PATH)
        found: bytes | None = os.readlink(b"/proc/self/fd/%d" % fd)
        os.close(fd)
    except OSError:
        found = None
    finally:
        os.chdir(here)

    try:
        pin = tree.target.pin(spelling)
    except OSError:
        assert found is None
        return
    try:
        assert (found is None) == pin.missing
        real = named if found is None else found
        judged = matcher.decide(FileEvent(operation=Operation.READ, path=pin.path))
        assert real == pin.path
        assert matcher.decide(FileEvent(operation=Operation.READ, path=real)) == judged
    finally:
        pin.close()
