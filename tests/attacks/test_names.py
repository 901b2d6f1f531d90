"""Rows 5, 8, 25 and 27: other names for the same object, names that do not exist yet, no side effects."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core


@pytest.fixture
def secret(project: Any) -> Path:
    """A denied file beside an allowed one."""
    project.write("open/f", "public\n")
    path: Path = project.write("vault/key", "SECRET\n", 0o640)
    return path


@pytest.fixture
def guarded(deny_rule: Any) -> Any:
    """Everything is allowed but ./vault."""
    return deny_rule(["read", "write", "exec"], paths=["./vault/**"])


def snapshot(root: Path) -> dict[str, tuple[int, int, int, int, str]]:
    """Kind, inode, links, time and content of everything below a directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_text() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_ino,
            status.st_nlink,
            status.st_mtime_ns,
            content,
        )
    return found


# What an attacker does to get at vault/key under another name. The last step must be denied.
RENAMINGS = {
    "rename of the file": ["rename,vault/key,open/key"],
    "renameat of the file": ["renameat,vault/key,open/key"],
    "renameat2 of the file": ["renameat2,vault/key,open/key"],
    "rename of the directory": ["rename,vault,open/x"],
    "rename within the directory": ["rename,vault/key,vault/other"],
    "exchange of the file": ["exchange,vault/key,open/f"],
    "exchange the other way": ["exchange,open/f,vault/key"],
    "exchange of the directory": ["exchange,vault,open"],
    "exchange of the directory, the other way": ["exchange,open,vault"],
    "rename of an ancestor": ["chdir,..", "rename,project,elsewhere"],
    "exchange of an ancestor": ["chdir,..", "mkdir,spare", "exchange,spare,project"],
    "hard link": ["link,vault/key,open/key"],
    "hard link by linkat": ["linkat,vault/key,open/key"],
    "hard link through a symlink": ["symlink,../vault/key,open/l", "linkfollow,open/l,open/key"],
    "hard link through /proc/self/fd": ["open,vault/key,path", "linkfollow,/proc/self/fd/$,open/key"],
    "hard link of an O_PATH descriptor": ["open,vault/key,path", "linkempty,open/key"],
    "hard link into the directory": ["link,open/f,vault/planted"],
    "rename into the directory": ["rename,open/f,vault/planted"],
    "rename onto the file": ["rename,open/f,vault/key"],
    "O_TMPFILE linked into the directory": [
        "open,open,w+tmpfile",
        "linkfollow,/proc/self/fd/$,vault/planted",
    ],
    "O_TMPFILE in the directory": ["open,vault,w+tmpfile"],
}


@pytest.mark.parametrize("attack", RENAMINGS)
def test_another_name_does_not_help(
    attack: str, project: Any, secret: Path, guarded: Any, calls: Any
) -> None:
    """Row 5: moving, linking or exchanging what is denied, or anything above it, is refused."""
    steps = RENAMINGS[attack]
    before = snapshot(project.root)

    done = calls(steps, guarded)

    assert done.answers[-1] in {"EACCES", "EPERM"}, done.stdout
    assert project.denials("secret")
    after = snapshot(project.root)
    assert {name: after.get(name) for name in ("vault", "vault/key")} == {
        name: before[name] for name in ("vault", "vault/key")
    }
    assert not (project.root / "open" / "key").exists()
    assert not (project.root / "vault" / "planted").exists()


@pytest.mark.parametrize("attack", RENAMINGS)
def test_the_renamings_are_real(attack: str, project: Any, secret: Path, allow_all: Any, calls: Any) -> None:
    """Row 5, control: where nothing is denied every one of them succeeds, with and without Rampart."""
    empty_path_needs_root = attack == "hard link of an O_PATH descriptor" and os.geteuid() != 0
    if empty_path_needs_root:
        pytest.skip("AT_EMPTY_PATH of linkat needs CAP_DAC_READ_SEARCH")

    assert calls(RENAMINGS[attack], allow_all).answers[-1] in {"0", "ok"}


def test_renaming_what_is_not_denied_works(project: Any, secret: Path, guarded: Any, calls: Any) -> None:
    """Row 5, control: beside a denied directory, files are moved, linked and exchanged as ever."""
    project.write("open/g", "other\n")

    done = calls(
        ["rename,open/f,open/h", "link,open/h,open/i", "exchange,open/g,open/h", "open,open/g,r", "read"],
        guarded,
    )

    assert done.answers == ["0", "0", "0", "ok", "public"]
    assert not done.denials


# Ways to an object that do not spell its name.
REOPENINGS = {
    "O_PATH, then /proc/self/fd": ["open,vault/key,path", "open,/proc/self/fd/$,r"],
    "O_PATH, then /proc/self/fd, to write": ["open,vault/key,path", "open,/proc/self/fd/$,rw+trunc"],
    "O_PATH, then /proc/PID/fd": ["open,vault/key,path", "open,/proc/%/fd/$,r"],
    "O_PATH, then /proc/thread-self/fd": ["open,vault/key,path", "open,/proc/thread-self/fd/$,r"],
    "O_PATH, then /dev/fd": ["open,vault/key,path", "open,/dev/fd/$,r"],
    "O_PATH directory, then openat": ["open,vault,path+dir", "openfrom,key,r"],
    "O_PATH directory, then fchdir": ["open,vault,path+dir", "fchdir", "open,key,r"],
    "chdir": ["chdir,vault", "open,key,r"],
    "chdir, then /proc/self/cwd": ["chdir,vault", "open,/proc/self/cwd/key,r"],
    "/proc/self/root": ["open,/proc/self/root{root}/vault/key,r"],
    "symlink": ["symlink,../vault/key,open/l", "open,open/l,r"],
    "symlink to the directory": ["symlink,../vault,open/l", "open,open/l/key,r"],
    "symlink into /proc/self/fd": [
        "open,vault,path+dir",
        "symlink,/proc/self/fd/$,open/l",
        "open,open/l/key,r",
    ],
    "dots": ["open,open/../vault/./key,r"],
    "slashes": ["open,.//vault///key,r"],
    "absolute": ["open,{root}/vault/key,r"],
    "truncate through /proc/self/fd": ["open,vault/key,path", "truncate,/proc/self/fd/$"],
    "chmod through /proc/self/fd": ["open,vault/key,path", "chmod,/proc/self/fd/$"],
    "exec through /proc/self/fd": ["open,vault/tool,path", "exec,/proc/self/fd/$"],
    "exec of an O_PATH descriptor": ["open,vault/tool,path", "execfd,tool"],
}


@pytest.mark.parametrize("attack", REOPENINGS)
def test_descriptors_are_decided_again(
    attack: str, project: Any, secret: Path, guarded: Any, allow_all: Any, calls: Any
) -> None:
    """Rows 6 and 8: whatever leads to the object, it is judged by its own name."""
    tool = project.root / "vault" / "tool"
    tool.write_bytes(Path("/bin/true").resolve().read_bytes())
    tool.chmod(0o755)
    steps = [step.replace("{root}", str(project.root)) for step in REOPENINGS[attack]]
    before = secret.stat()

    done = calls(steps, guarded)

    assert done.answers[-1] == "EACCES", done.stdout
    assert project.denials("secret")
    assert secret.read_text() == "SECRET\n"
    assert secret.stat().st_mode == before.st_mode

    (project.root / "open" / "l").unlink(missing_ok=True)
    assert calls(steps, allow_all).answers[-1] in {"ok", "0"}


# Names that do not exist yet. The paths of the policy, and the steps whose last one must be denied.
UNBORN = {
    "a hook": (["./.git/hooks/**"], ["open,.git/hooks/post-checkout,w+creat+excl"]),
    "a hook by creat": (["./.git/hooks/**"], ["creat,.git/hooks/post-checkout"]),
    "a hook by openat2": (["./.git/hooks/**"], ["openat2,.git/hooks/post-checkout,w+creat"]),
    "a hook by rename": (["./.git/hooks/**"], ["creat,mine", "rename,mine,.git/hooks/post-checkout"]),
    "a hook by link": (["./.git/hooks/**"], ["creat,mine", "link,mine,.git/hooks/post-checkout"]),
    "a hook by symlink": (["./.git/hooks/**"], ["symlink,mine,.git/hooks/post-checkout"]),
    "a hook by mknod": (["./.git/hooks/**"], ["mknod,.git/hooks/post-checkout"]),
    "a hook through a symlink": (["./.git/hooks/**"], ["symlink,.git/hooks,h", "creat,h/post-checkout"]),
    "a hook through a dangling symlink": (
        ["./.git/hooks/**"],
        ["symlink,.git/hooks/post-checkout,h", "open,h,w+creat"],
    ),
    "a dot file at home": (["~/.bashrc"], ["open,{home}/.bashrc,w+creat+append"]),
    "a dot file at home, by rename": (["~/.bashrc"], ["creat,mine", "rename,mine,{home}/.bashrc"]),
    "a directory, as such": (["./.vscode/**"], ["mkdir,.vscode"]),
    "a directory renamed into place": (
        ["./.vscode/tasks.json"],
        ["mkdir,v", "creat,v/tasks.json", "rename,v,.vscode"],
    ),
    "an environment file anywhere": (["./**/.envrc"], ["mkdir,a", "mkdir,a/b", "creat,a/b/.envrc"]),
}


@pytest.mark.parametrize("attack", UNBORN)
def test_protected_before_it_exists(
    attack: str, project: Any, deny_rule: Any, allow_all: Any, calls: Any
) -> None:
    """Row 25: a denied name cannot come into being, whatever makes it."""
    paths, template = UNBORN[attack]
    steps = [step.replace("{home}", str(project.home)) for step in template]
    (project.root / ".git" / "hooks").mkdir(parents=True)
    project.write("neighbour", "")

    done = calls([*steps, "open,neighbour,w+trunc"], deny_rule("write", paths=paths))

    assert done.answers[-2] in {"EACCES", "EPERM"}, done.stdout
    assert done.answers[-1] == "ok"
    assert project.denials("secret")
    for name in (".git/hooks/post-checkout", ".vscode/tasks.json", "a/b/.envrc"):
        assert not os.path.lexists(project.root / name)
    assert not os.path.lexists(project.home / ".bashrc")


@pytest.mark.parametrize("attack", UNBORN)
def test_the_births_are_real(attack: str, project: Any, allow_all: Any, calls: Any) -> None:
    """Row 25, control: where nothing is denied all of these names come into being."""
    steps = [step.replace("{home}", str(project.home)) for step in UNBORN[attack][1]]
    (project.root / ".git" / "hooks").mkdir(parents=True)

    assert calls(steps, allow_all).answers[-1] in {"ok", "0"}


def test_own_files_cannot_be_touched(project: Any, allow_all: Any, calls: Any) -> None:
    """Row 25: not even a policy that allows everything opens Rampart's own audit log to the tree."""
    project.write("neighbour", "")

    done = calls(
        [
            f"open,{project.audit},w+append",
            f"open,{project.audit},rw+trunc",
            f"unlink,{project.audit}",
            f"truncate,{project.audit}",
            f"rename,{project.audit},stolen",
            f"rename,neighbour,{project.audit}",
            f"rename,{project.audit.parent},stolen",
            f"chmod,{project.audit}",
            "open,neighbour,w",
        ],
        allow_all,
    )

    assert set(done.answers[:-1]) <= {"EACCES", "EPERM"}, done.stdout
    assert done.answers[-1] == "ok"
    assert project.audit.is_file()
    assert len(project.records()) >= 8


# Calls that are denied and would leave something behind.
EFFECTS = {
    "O_CREAT": "open,vault/new,w+creat",
    "O_CREAT | O_EXCL": "open,vault/new,w+creat+excl",
    "O_CREAT in read mode": "open,vault/new,r+creat",
    "O_TRUNC": "open,vault/key,w+trunc",
    "O_TRUNC in read mode": "open,vault/key,r+trunc",
    "O_CREAT | O_TRUNC": "open,vault/key,rw+creat+trunc",
    "openat2 with O_TRUNC": "openat2,vault/key,rw+creat+trunc",
    "creat": "creat,vault/key",
    "creat of a new name": "creat,vault/new",
    "truncate": "truncate,vault/key",
    "rename onto it": "rename,open/f,vault/key",
    "unlink": "unlink,vault/key",
    "unlinkat": "unlinkat,vault/key",
    "rmdir": "rmdir,vault/empty",
    "mkdir": "mkdir,vault/new",
    "mkdirat": "mkdirat,vault/new",
    "symlink": "symlink,x,vault/new",
    "symlinkat": "symlinkat,x,vault/new",
    "mknod": "mknod,vault/new",
    "mknodat": "mknodat,vault/new",
    "chmod": "chmod,vault/key",
    "fchmodat": "fchmodat,vault/key",
    "chown": "chown,vault/key",
    "lchown": "lchown,vault/key",
    "fchownat": "fchownat,vault/key",
    "utime": "utime,vault/key",
    "utimes": "utimes,vault/key",
    "futimesat": "futimesat,vault/key",
    "utimensat": "utimensat,vault/key",
    "setxattr": "setxattr,vault/key",
    "lsetxattr": "lsetxattr,vault/key",
    "removexattr": "removexattr,vault/key",
}


@pytest.mark.parametrize("call", EFFECTS)
def test_denied_means_nothing_happened(
    call: str, project: Any, secret: Path, guarded: Any, allow_all: Any, calls: Any
) -> None:
    """Rows 17 and 27: a denied call, modern or legacy, leaves everything as it was."""
    (project.root / "vault" / "empty").mkdir()
    os.utime(project.root / "vault", ns=(0, 0))
    before = snapshot(project.root)
    step = EFFECTS[call]

    done = calls([step], guarded)

    assert done.answers == ["EACCES"]
    assert snapshot(project.root) == before
    assert len(project.denials("secret")) == 1
    assert project.denials("secret")[0]["errno"] == "EACCES"

    works = calls([step], allow_all).answers[0]
    assert works in ({"ENODATA", "EOPNOTSUPP"} if call == "removexattr" else {"ok", "0", "EOPNOTSUPP"})


def test_metadata_through_a_readable_descriptor(
    project: Any, deny_rule: Any, allow_all: Any, calls: Any
) -> None:
    """Row 44: what may be read but not changed keeps its mode, owner, times and attributes."""
    path = project.write("fixed", "text\n", 0o644)
    before = path.stat()
    steps = ["open,fixed,r", "read", "fchmod", "futimens", "fsetxattr"]

    done = calls(steps, deny_rule("metadata", paths=["./fixed"]))

    assert done.answers == ["ok", "text", "EACCES", "EACCES", "EACCES"]
    assert (path.stat().st_mode, path.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert calls(steps, allow_all).answers[:4] == ["ok", "text", "0", "0"]
    assert path.stat().st_mode & 0o777 == 0o600


THROUGH_A_DESCRIPTOR = {
    "fchmod": "fchmod",
    "fchown": "fchown",
    "futimens": "futimens",
    "futimesat without a path": "raw,261,$,0,0",
    "utimensat with an empty path": "raw,280,$,@,0,0x1000",
    "fchownat with an empty path": "raw,260,$,@,-1,-1,0x1000",
    "fchmodat2 with an empty path": "raw,452,$,@,0600,0x1000",
    "fsetxattr": "fsetxattr",
    "fremovexattr": "raw,199,$,@user.kept",
    "chmod by /proc": "chmod,/proc/self/fd/$",
    "chmod by /dev/fd": "chmod,/dev/fd/$",
    "setxattr by /proc": "setxattr,/proc/self/fd/$",
    "FS_IOC_SETFLAGS": "raw,16,$,0x40086602,B",
    "FS_IOC_FSSETXATTR": "raw,16,$,0x401c5820,B",
    "FS_IOC_SETVERSION": "raw,16,$,0x40087602,B",
    "FAT_IOCTL_SET_ATTRIBUTES": "raw,16,$,0x40047211,B",
    "file_setattr": "raw,469,$,@,B,24,0x1000",
    "setxattrat": "raw,463,$,@,0x1000,@user.mark,B,16",
    "truncate by /proc": "truncate,/proc/self/fd/$",
    "reopened to write": "open,/proc/self/fd/$,w+trunc",
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize("call", THROUGH_A_DESCRIPTOR)
def test_every_way_through_a_readable_descriptor(
    call: str, project: Any, deny_rule: Any, allow_all: Any, calls: Any
) -> None:
    """Row 44: no call changes what is said about a file through a descriptor that only reads."""
    path = project.write("fixed", "text\n", 0o644)
    with contextlib.suppress(OSError):
        os.setxattr(path, "user.kept", b"x")
    os.utime(path, ns=(10**18, 10**18))
    before = (path.stat().st_mode, path.stat().st_uid, path.stat().st_ctime_ns, path.stat().st_mtime_ns)
    steps = ["open,fixed,r", THROUGH_A_DESCRIPTOR[call], "open,fixed,r", "read"]

    done = calls(steps, deny_rule(["metadata", "modify"], paths=["./fixed"]))

    assert done.answers[0] == "ok"
    assert done.answers[1] in {"EACCES", "EOPNOTSUPP", "ENOTSUP", "ENOSYS"}
    assert done.answers[2:] == ["ok", "text"]
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_ctime_ns, now.st_mtime_ns) == before
    if done.answers[1] == "EACCES":
        assert len(project.denials("secret")) == 1
        assert calls(steps, allow_all).answers[1] in {"0", "ok", "EOPNOTSUPP", "ENOTSUP", "ENODATA", "EPERM"}
        assert path.stat().st_ctime_ns != before[2] or "xattr" in call


def test_no_descriptor_left_and_nothing_made(project: Any, secret: Path, allow_all: Any, calls: Any) -> None:
    """Row 45: without a free descriptor nothing is created and nothing is truncated."""
    steps = [
        "open,fresh,w+creat",
        "close",
        "exhaust",
        "open,new,w+creat+excl",
        "open,open/f,w+trunc",
        "openat2,new,w+creat",
    ]

    bare = calls(steps, None)
    assert bare.answers == ["ok", "0", "0", "EMFILE", "EMFILE", "EMFILE"]
    (project.root / "fresh").unlink()
    done = calls(steps, allow_all)

    assert done.answers == bare.answers
    assert (project.root / "fresh").exists()
    assert not (project.root / "new").exists()
    assert (project.root / "open" / "f").read_text() == "public\n"
