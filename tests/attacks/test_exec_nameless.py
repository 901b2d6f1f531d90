"""Row 14: images that no name leads to, under a policy with ``features: [memfd-exec]``.

They run as they do bare, the rules decide about them, and they are nobody: neither the name of a memfd nor
the one that a deleted file had makes an image another program. `test_calls.py` has them without the feature.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core

IDENTITY = ("-nostdlib", "-fno-stack-protector", "-fno-builtin")

MAKERS = """
import fcntl, shutil, subprocess
def copied(fd, content):
    data = open(content, "rb").read() if isinstance(content, str) else content
    os.write(fd, data)
    return fd
def memfd(content, name="tool", cloexec=False, at=40, flags=0):
    fd = copied(os.memfd_create(name, flags), content)
    return placed(fd, cloexec, at)
def placed(fd, cloexec=False, at=40):
    os.dup2(fd, at, inheritable=not cloexec)
    os.close(fd)
    return at
def gone(content, name="open/gone", cloexec=False):
    with open(name, "wb") as file:
        copied(file.fileno(), content)
    os.chmod(name, 0o755)
    fd = placed(os.open(name, os.O_RDONLY), cloexec)
    os.unlink(name)
    return fd
def replaced():
    for name in ("open/old", "open/new"):
        shutil.copy("open/right", name)
    fd = placed(os.open("open/old", os.O_RDONLY))
    os.rename("open/new", "open/old")
    return fd
def unnamed(content):
    fd = copied(os.open("open", os.O_TMPFILE | os.O_RDWR, 0o755), content)
    reader = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)
    os.close(fd)
    return placed(reader)
def sealed(content):
    fd = memfd(content, flags=os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
def by_fd(fd, argv=(b"x", b"y"), envp=(b"V=1",)):
    return execveat(fd, b"", argv, EMPTY_PATH, envp)
def by_name(fd, directory=b"/proc/self/fd", argv=(b"x", b"y"), envp=(b"V=1",)):
    return execve(b"%s/%d" % (directory, fd), argv, envp)
def by_link(fd):
    os.symlink("/proc/self/fd/%d" % fd, "open/link")
    try:
        return execve(b"open/link", [b"x"])
    finally:
        os.unlink("open/link")
def spawned(fd):
    done = subprocess.run(["/proc/self/fd/%d" % fd, "z"], pass_fds=[fd], capture_output=True, env={})
    return done.stdout.decode("latin-1"), done.returncode
RIGHT, ECHO = "open/right", "/bin/echo"
SCRIPT = b"#!/bin/sh\\necho script $# $1\\n"
def interpreted(fd):
    with open("open/script", "w") as file:
        file.write("#!/proc/self/fd/%d argument\\n" % fd)
    os.chmod("open/script", 0o755)
    return execve(b"open/script", [b"x", b"y"])
"""

WAYS = [
    "by_fd(memfd(RIGHT))",
    "by_fd(memfd(RIGHT, cloexec=True))",
    "by_name(memfd(RIGHT))",
    "by_name(memfd(RIGHT), b'/dev/fd')",
    "by_name(memfd(RIGHT), b'/proc/thread-self/fd')",
    "by_link(memfd(RIGHT))",
    "spawned(memfd(RIGHT))",
    "by_fd(memfd(ECHO))",
    "by_name(memfd(ECHO), argv=(b'echo', b'dynamic'))",
    "by_fd(sealed(RIGHT))",
    "by_fd(memfd(RIGHT, name=''))",
    "by_fd(memfd(RIGHT, name='/usr/bin/../bin/git\\n'))",
    "by_fd(memfd(SCRIPT))",
    "by_fd(memfd(SCRIPT, cloexec=True))",
    "by_name(memfd(SCRIPT))",
    "by_name(memfd(SCRIPT, cloexec=True))",
    "interpreted(memfd(RIGHT))",
    "by_fd(memfd(b'no program'))",
    "by_fd(memfd(b''))",
    "by_fd(memfd(RIGHT, flags=8))",  # MFD_NOEXEC_SEAL
    "by_fd(gone(RIGHT))",
    "by_name(gone(RIGHT))",
    "by_link(gone(RIGHT))",
    "spawned(gone(RIGHT))",
    "by_name(gone(ECHO), argv=(b'echo', b'dynamic'))",
    "by_fd(gone(SCRIPT))",
    "by_name(gone(SCRIPT))",
    "by_fd(gone(SCRIPT, cloexec=True))",
    "interpreted(gone(RIGHT))",
    "by_fd(gone(RIGHT, name='open/odd (deleted)'))",
    "by_fd(replaced())",
    "by_fd(unnamed(RIGHT))",
    "by_fd(unnamed(SCRIPT))",
]


def lines(ways: list[str]) -> str:
    """Lines for `attack` that go all these ways, one after the other."""
    return MAKERS + "\n".join(f"said.append({way})" for way in ways)


def ran(said: Any) -> bool:
    """Whether a program said this, and not the kernel."""
    return (said if isinstance(said, str) else said[0]).startswith(("a ", "script ", "dynamic\n", "y\n"))


@pytest.fixture
def opened() -> Any:
    """Everything is allowed, memfds included, but executing what lies, or lay, in ./vault."""
    import rampart_seccomp as rampart

    return rampart.Policy(
        rules=[
            rampart.allow(["read", "write", "exec"], name="everything"),
            rampart.deny("exec", name="vault", paths=["./vault/**"]),
        ],
        features=["memfd-exec"],
    )


def test_as_bare(project: Any, identities: Any, opened: Any, attack: Any) -> None:
    """Output, errno and status of each way are the same, and every exec was verified."""
    (project.root / "open").chmod(0o777)
    bare = attack(lines(WAYS), None)

    judged = attack(lines(WAYS), opened)

    assert dict(zip(WAYS, judged, strict=True)) == dict(zip(WAYS, bare, strict=True))
    assert sum(ran(said) for said in bare) == 27
    execs = [record for record in project.records() if record["operation"] == "exec"]
    assert {record["verdict"] for record in execs} == {"allow"}
    assert {record["enforced"] for record in execs} == {"verified"}
    paths = {record["path"] for record in execs}
    assert {"/memfd:tool (deleted)", "/memfd: (deleted)", "/memfd::usr:bin:..:bin:git\n (deleted)"} <= paths
    assert {f"{project.root}/open/gone (deleted)", f"{project.root}/open/odd (deleted) (deleted)"} <= paths


def test_none_without_the_feature(project: Any, identities: Any, opened: Any, attack: Any) -> None:
    """What runs bare is denied and recorded; scripts and interpreters count."""
    import attrs

    shut = attrs.evolve(opened, features=())
    ways = [way for way in WAYS if not any(part in way for part in ("spawned", "interpreted"))]
    bare = attack(lines(ways), None)

    judged = attack(lines(ways), shut)

    runs = [way for way, said in zip(ways, bare, strict=True) if ran(said)]
    found = dict(zip(ways, judged, strict=True))
    assert len(runs) == 23
    assert {way: found[way] for way in runs} == dict.fromkeys(runs, "EACCES")
    denied = [record for record in project.records() if record["verdict"] == "deny"]
    where = "built-in: a program without a name (memfd or deleted file)"
    assert {record["where"] for record in denied} == {where}
    assert len(denied) >= len(runs)
    interpreted = ["interpreted(memfd(RIGHT))", "interpreted(gone(RIGHT))"]
    assert attack(lines(interpreted), shut) == ["EACCES"] * 2


def test_rules_hold(project: Any, identities: Any, opened: Any, attack: Any) -> None:
    """What is denied stays so for a memfd's script, for a deleted file, and for memfds by their spelling."""
    import rampart_seccomp as rampart

    wrong = f"b'#!{project.root}/vault/wrong\\n'"
    ways = [
        f"by_fd(memfd({wrong}))",
        f"by_name(memfd({wrong}))",
        f"by_fd(gone({wrong}))",
        "by_fd(gone(RIGHT, name='vault/gone'))",
        "by_name(gone(RIGHT, name='vault/gone'))",
    ]
    some = ["by_fd(memfd(RIGHT))", "by_fd(memfd(RIGHT, name='a/b'))", "by_fd(gone(RIGHT))"]
    for place in ("open", "vault"):
        (project.root / place).chmod(0o777)

    assert attack(lines(ways), opened) == ["EACCES"] * 5
    assert len(project.denials("vault")) == 5
    for pattern, expected in (("/memfd:tool *", ["E", "a", "a"]), ("/memfd:*", ["E", "E", "a"])):
        denying = opened.with_rules(rampart.deny("exec", name="memory", paths=[pattern]))
        assert [said[0] for said in attack(lines(some), denying)] == expected
        asking = opened.with_rules(rampart.ask("exec", name="memory", paths=[pattern]))
        assert [said[0] for said in attack(lines(some), asking)] == expected


NAMES = [
    "{root}/open/right",
    "../../{root}/open/right",
    "x/../../..{root}/open/right",
    "/open/right",
    "right",
    "a/right",
    "a/open/right",
]


def test_forged_names(project: Any, identities: Any, attack: Any) -> None:
    """A memfd called like an allowed program is not that program; neither is a deleted one of its name."""
    import rampart_seccomp as rampart

    right = project.root / "open" / "right"
    policy = rampart.Policy(
        rules=[
            rampart.allow(["read", "write"], name="files"),
            rampart.allow("exec", name="python", paths=[os.path.realpath(sys.executable)]),
            rampart.allow("exec", name="paths", paths=["./open/right", "**/open/**/right", "**/right*"]),
            rampart.allow("exec", name="commands", commands=["right **", "./open/right **", "r* **"]),
        ],
        features=["memfd-exec"],
    )
    names = [name.replace("{root}", str(project.root)) for name in NAMES]
    argvs = ["(b'right', b'x')", f"({os.fsencode(right)!r},)"]
    ways = [f"by_fd(memfd(RIGHT, name={name!r}), argv={argv})" for name in names for argv in argvs]
    ways += ["by_fd(gone(RIGHT, name='open/other'), argv=(b'right',))"]
    (project.root / "open").chmod(0o777)

    bare = attack(lines(ways), None)
    judged = attack(lines(ways), policy)

    assert [said[:2] for said in bare] == ["a "] * len(ways)
    assert judged == ["EACCES"] * len(ways)
    here = "fd = placed(os.open('open/right', os.O_PATH))\nos.rename('open/right', 'open/aside')\n"
    gone = "\nos.unlink('open/aside')\nsaid.append(by_fd(fd, (b'right',)))"
    control = lines(["execve(b'open/right', [b'x'])"])
    assert attack(control, policy)[0][:2] == "a "
    assert attack(f"{control}\n{here}{gone}", policy)[1] == "EACCES"


def test_nobody(project: Any, attack: Any) -> None:
    """What some programs may do, no image without a name may; what some may not, holds for the memfd too."""
    import rampart_seccomp as rampart
    from rampart_seccomp.policy import Exemption

    cat = project.root / "open" / "cat"
    cat.parent.mkdir()
    shutil.copy(shutil.which("cat") or "", cat)
    cat.parent.chmod(0o777)
    for name in ("known", "within", "kept"):
        project.write(name, name)
    programs = ["./open/**", "/memfd:*", "**/cat*"]
    commands = ["cat* **", "./open/* **", "/memfd:* **"]
    policy = rampart.Policy(
        default={"read": "allow", "write": "allow", "exec": "allow"},
        rules=[
            rampart.deny("read", name="k", paths=["./known"], except_=[Exemption(programs=programs)]),
            rampart.deny("read", name="w", paths=["./within"], except_=[Exemption(within=commands)]),
            rampart.deny("read", name="r", paths=["./kept"], programs=["/memfd:*", "./open/gone*"]),
        ],
        features=["memfd-exec"],
    )
    files = ["known", "within", "kept"]
    starts = [
        f"execve({os.fsencode(cat)!r}, (b'cat', b'{{}}'))",
        f"by_fd(memfd({str(cat)!r}, name='/usr/bin/cat'), (b'cat', b'{{}}'))",
        f"by_fd(memfd({str(cat)!r}, name={str(cat)!r}), (b'cat', b'{{}}'))",
        f"by_fd(gone({str(cat)!r}, name='open/gone'), (b'cat', b'{{}}'))",
    ]
    found = attack(lines([start.format(name) for start in starts for name in files]), policy)

    assert found == ["known", "within", "kept", *[""] * 9]
    assert [record["rule"] for record in project.records() if record["verdict"] == "deny"] == [
        "k",
        "w",
        "r",
    ] * 3


RACE = """
import signal
wrong = os.path.realpath("vault/wrong").encode()
right = open(RIGHT, "rb").read()
contents = [right, b"#!" + wrong + b"\\n", open("open/loaded", "rb").read()]
fd = memfd(RIGHT)
size = max(map(len, contents))
flipper = os.fork()
while flipper == 0:
    for content in contents:
        os.pwrite(fd, content.ljust(size, b"\\0"), 0)
said = [by_fd(fd)[:1] for _ in range({count})]
os.kill(flipper, signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "count", [pytest.param(200, id="quick"), pytest.param(20_000, id="long", marks=pytest.mark.long)]
)
def test_memfd_is_rewritten(
    count: int, project: Any, identities: Any, opened: Any, attack: Any, attacker: Any
) -> None:
    """No writer makes a memfd start a denied program by a ``#!`` line or an interpreter written later."""
    loader = f"-Wl,--dynamic-linker={project.root}/vault/wrong"
    loaded = attacker("identity", *IDENTITY, "-pie", loader, "-DWHO='d'")
    shutil.copy(loaded, project.root / "open" / "loaded")
    race = MAKERS + RACE.replace("{count}", str(count))

    bare = attack(race.replace(str(count), "200"), None)
    judged = attack(race, opened, timeout=600)

    assert {"a", "b"} <= set(bare)
    assert "a" in judged
    assert "b" not in judged
    killed = [record for record in project.records() if "exec-tampered" in record["where"]]
    assert killed != []


OVERLAY = """
mount -t tmpfs none "$1"; mkdir "$1/upper" "$1/work" "$1/m"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/m" || exit 77
cd "$1/m"; shift 2
cp lower upper
exec "$@"
"""
DELETED = """
import os, subprocess
for name in ("lower", "upper"):
    fd = os.open(name, os.O_RDONLY)
    os.unlink(name)
    print(subprocess.run(["/proc/self/fd/%d" % fd, name], pass_fds=[fd], capture_output=True))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_deleted_where_mappings_show_another_device(project: Any, tmp_path: Path) -> None:
    """On overlays of several file systems, maps and stat show different devices: it runs nevertheless."""
    import rampart_seccomp as rampart

    lower = project.root / "lower"
    lower.mkdir()
    (tmp_path / "place").mkdir()
    shutil.copy("/bin/echo", lower / "lower")
    (project.root / "policy.yaml").write_text(
        "version: 1\nfeatures: [memfd-exec]\ndefault: {read: allow, write: allow, exec: allow}\n"
        "rules: [{name: never, deny: exec, paths: [/nothing]}]\n"
    )
    command = [sys.executable, "-c", DELETED]
    run = [sys.executable, "-m", "rampart_seccomp", "run", "--policy", project.root / "policy.yaml", "--"]
    overlay = ["unshare", "-m", "sh", "-c", OVERLAY, "sh", tmp_path / "place", lower]
    environment = {"PYTHONPATH": str(Path(rampart.__file__).parent.parent)}

    bare = project.bare([*overlay, *command])
    if bare.returncode in (1, 77) and not bare.stdout:
        pytest.skip("no overlay can be mounted here")
    judged = project.bare([*overlay, *run, *command], env=environment)

    assert bare.stdout.count("returncode=0") == 2
    assert (judged.stdout, judged.returncode) == (bare.stdout, 0), judged.stderr
