"""Opens of paths without symbolic links, which the engine answers in one walk: as bare, and no way around."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting import PYTHON, count

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

OPEN = rampart.Policy(
    rules=[rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything", log=False)],
    features=["sysv-ipc"],
)

JUDGED = OPEN.with_rules(rampart.deny("read", paths=["/nowhere"], name="other"))


@pytest.fixture
def place(workspace: Path) -> Iterator[Path]:
    """An empty directory."""
    made = Path(tempfile.mkdtemp(dir=workspace)).resolve()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def _run(
    place: Path, code: str, policy: rampart.Policy | None, *args: object
) -> subprocess.CompletedProcess[str]:
    """Run a program there; bare without a policy."""
    command = [*PYTHON, "-c", code, *map(str, args)]
    if policy is None:
        return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    with rampart.Broker(policy) as broker:
        return rampart.run(command, broker=broker, cwd=place, capture_output=True, text=True, timeout=120)


FLAGS = """
import fcntl, os, stat
os.umask(0o027)
open("file", "w").write("content")
os.mkdir("directory")
os.mkfifo("fifo")
os.symlink("file", "link")
os.symlink("nothing", "dangling")
os.symlink("directory", "way")
names = ["file", "./file", "directory/../file", "directory//../file", "link", "dangling", "directory",
         "directory/", "directory/.", "way/../file", "missing", "missing/x", "file/x", "file/", "..", ".",
         "way", os.path.abspath("file")]
extra = [0, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_APPEND, os.O_NONBLOCK, os.O_SYNC, os.O_NOATIME, os.O_TRUNC,
         os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_NOFOLLOW]
for name in names:
    for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        for flags in extra:
            for made in ("missing", "nothing"):
                if os.path.exists(made):
                    os.unlink(made)
            open("file", "w").write("content")
            os.utime("file", (1, 1))
            try:
                fd = os.open(name, access | flags, 0o666)
            except OSError as error:
                print(name, access, flags, error.errno)
                continue
            st = os.fstat(fd)
            changed = int(st.st_mtime) != 1 if stat.S_ISREG(st.st_mode) else None
            seen = oct(fcntl.fcntl(fd, fcntl.F_GETFL))
            print(name, access, flags, seen, oct(st.st_mode), st.st_size, changed)
            os.close(fd)
"""


def test_flags_and_errors_are_the_kernels(place: Path) -> None:
    """Whatever the flags, however the path is spelt: descriptor, mode, content and error are as bare."""
    if os.environ.get("RAMPART_SECCOMP_ENGINE") == "python":
        pytest.skip("the reference opens pins anew, which lose O_NOFOLLOW (docs/compatibility.md)")
    given = []
    for policy in (None, OPEN, JUDGED):
        work = place / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        done = _run(work, FLAGS, policy)
        assert (done.returncode, done.stderr) == (0, "")
        given.append(done.stdout.splitlines())

    bare, everything, other = given
    assert len(bare) == 18 * 3 * 12
    for seen in (everything, other):
        assert [pair for pair in zip(bare, seen, strict=True) if pair[0] != pair[1]] == []


MOVING = """
import os, signal, sys
os.mkdir("one")
open("one/file", "w").write("mine")
os.chdir("one")
mover = os.fork()
if mover == 0:
    while True:
        os.rename("../one", "../two")
        os.rename("../two", "../one")
try:
    for _ in range(10000):
        os.close(os.open("file", os.O_RDONLY))
finally:
    os.kill(mover, signal.SIGKILL)
    os.waitpid(mover, 0)
print("done")
"""


def test_a_working_directory_that_moves(place: Path) -> None:
    """A program whose working directory is renamed all the time finds in it what is there."""
    done = _run(place, MOVING, JUDGED)
    assert (done.stdout, done.stderr) == ("done\n", "")


AROUND = """
import os, sys
for path in sys.argv[1:]:
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        try:
            fd = os.open(path, flags)
            print("open", os.readlink(f"/proc/self/fd/{fd}"))
            os.close(fd)
        except OSError as error:
            print(error.errno)
"""


def test_a_link_is_no_way_around_a_name(place: Path) -> None:
    """A path whose text says one thing, and whose links another, is judged by where it leads."""
    (place / "secrets" / "inner").mkdir(parents=True)
    (place / "secrets" / "key").write_text("secret")
    (place / "free").mkdir()
    (place / "free" / "key").write_text("free")
    (place / "free" / "link").symlink_to(place / "secrets" / "inner")
    (place / "free" / "secrets").symlink_to(place / "secrets")
    (place / "free" / "alias").symlink_to(place / "secrets" / "key")
    policy = OPEN.with_rules(
        rampart.deny(["read", "write"], paths=[str(place / "secrets" / "**")], name="secrets")
    )
    paths = ["free/link/../key", "free/secrets/key", "free/alias", "free/secrets/new", "free/./link/..//key"]
    done = _run(place, AROUND, policy, *paths)

    assert done.stderr == ""
    new = ["2", "2", "13", "13"]
    assert done.stdout.split("\n")[:-1] == [
        *(["13"] * 4),
        *(["13"] * 4),
        *(["13"] * 4),
        *new,
        *(["13"] * 4),
    ]
    assert (place / "secrets" / "key").read_text() == "secret"
    assert sorted(os.listdir(place / "secrets")) == ["inner", "key"]


FIFO = """
import os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.mkfifo("fifo")
for turn in range(300):
    child = os.fork()
    if child == 0:
        fd = os.open("fifo", os.O_WRONLY)
        os.write(fd, b"%d" % turn)
        os._exit(0)
    with open("fifo", "rb") as reader:
        assert reader.read() == b"%d" % turn
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""


def test_a_fifo_has_one_reader(place: Path) -> None:
    """Opening a FIFO is one opening: whoever waits at its other end meets nobody else."""
    done = _run(place, FIFO, JUDGED)
    assert (done.stdout, done.stderr) == ("done\n", "")


CALLS = {
    **{
        f"open {path}": f"os.close(os.open({path!r}, os.O_RDONLY))"
        for path in ("file", "./file", "directory")
    },
    "open from below": "os.close(os.open('directory/../file', os.O_RDWR))",
    "open missing": "os.open('missing', os.O_RDONLY)",
    "create": "os.close(os.open('new', os.O_WRONLY | os.O_CREAT | os.O_EXCL)); os.unlink('new')",
    "truncate": "os.close(os.open('file', os.O_WRONLY | os.O_CREAT | os.O_TRUNC))",
    "chmod": "os.chmod('file', 0o600); os.chmod(opened, 0o600)",
    "attributes": (
        "os.setxattr('file', 'user.x', b'value'); os.setxattr('file', 'user.y', b'', follow_symlinks=False); "
        "os.setxattr(opened, 'user.z', b'v' * 1000); os.removexattr('file', 'user.x'); "
        "os.removexattr('file', 'user.y', follow_symlinks=False); os.removexattr(opened, 'user.z')"
    ),
    "chown": "os.chown('file', -1, -1); os.lchown('link', -1, -1); os.chown(opened, -1, -1)",
    "utime": "os.utime('file'); os.utime(opened, (1, 2)); os.utime('link', (1, 2), follow_symlinks=False)",
}


@pytest.mark.parametrize("call", CALLS)
def test_the_interpreter_is_not_asked(place: Path, call: str) -> None:
    """Plain files and directories, and what is not there, are answered in C, however the path is spelt."""
    (place / "file").write_text("x")
    (place / "link").symlink_to("file")
    (place / "directory").mkdir()
    code = (
        "opened = os.open('file', os.O_RDONLY)\n"
        "for _ in range(500):\n"
        "    try:\n"
        f"        {CALLS[call]}\n"
        "    except FileNotFoundError:\n"
        "        pass\n"
    )
    with rampart.Broker(JUDGED) as broker:
        answered, asked = count(broker, place, code)
    assert answered >= 500
    assert asked < 20
