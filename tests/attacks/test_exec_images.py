"""Rows 13, 14, 15 and 28: which program an exec is about, whatever it is called and however it is started."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rampart_seccomp.launch.protocol import MAX_PACKED

pytestmark = pytest.mark.core

IDENTITY = ("-nostdlib", "-fno-stack-protector", "-fno-builtin", "-static-pie")
LOADERS = [
    path for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1") if os.path.exists(path)
]


@pytest.fixture
def guarded(deny_rule: Any) -> Any:
    """Everything is allowed but executing what lies in ./vault."""
    return deny_rule("exec", paths=["./vault/**"])


WAYS = {
    "another argv[0]": 'execve(b"{path}", [b"innocent"])',
    "hard link": 'execve(b"{link}", [b"x"])',
    "symbolic link": 'execve(b"open/symlink-{name}", [b"x"])',
    "relative, roundabout": 'execve(b"open/.././{name}/../{relative}", [b"x"])',
    "argv NULL": 'execve(b"{path}", None)',
    "argv empty": 'execve(b"{path}", [])',
    "envp NULL": 'execve(b"{path}", [b"x"], None)',
    "/proc/self/fd": 'execve(b"/proc/self/fd/%d" % os.open("{path}", os.O_PATH), [b"x"])',
    "/dev/fd": 'execve(b"/dev/fd/%d" % os.open("{path}", os.O_RDONLY), [b"x"])',
    "/proc/self/cwd": 'execve(b"/proc/self/cwd/{relative}", [b"x"])',
    "/proc/self/root": 'execve(b"/proc/self/root{path}", [b"x"])',
    "fexecve": 'execveat(os.open("{path}", os.O_PATH), b"", [b"x"], EMPTY_PATH)',
    "directory and name": 'execveat(os.open("{name}", os.O_PATH), b"{leaf}", [b"x"], 0)',
    "directory and roundabout": 'execveat(os.open("open", os.O_PATH), b"../{relative}", [b"x"], 0)',
    "absolute beside a directory": 'execveat(99, b"{path}", [b"x"], 0)',
    "vfork": 'subprocess.run(["{path}"], capture_output=True).stdout.decode("latin-1")',
    "posix_spawn": 'spawned("{path}")',
    "another thread": 'in_thread(lambda: execve(b"{path}", [b"x"]))',
    "thread of a process": 'result(lambda: in_thread(lambda: libc.execve(b"{path}", vector([b"x"]), None)))',
    "script": 'execve(b"open/script-{name}", [b"x"])',
    "script through a descriptor": (
        'execveat(os.dup2(os.open("open/script-{name}", os.O_RDONLY), 40), b"", [b"x"], EMPTY_PATH)'
    ),
    "chain of scripts": 'execve(b"open/chain-{name}", [b"x"])',
    "interpreter of an image": 'execve(b"open/dynamic-{name}", [b"x"])',
}
HELPERS = """
import subprocess, threading
def spawned(path):
    reader, writer = os.pipe()
    try:
        child = os.posix_spawn(path, ["x"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    except OSError as error:
        return errno.errorcode[error.errno]
    os.close(writer)
    said = os.fdopen(reader, "rb").read().decode("latin-1")
    os.waitpid(child, 0)
    return said
def in_thread(call):
    found = []
    def run():
        found.append(call())
        found.append(ctypes.get_errno())
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    ctypes.set_errno(found[1])
    return found[0]
def attempt(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]
"""


def test_every_way_leads_to_the_program(
    project: Any, identities: tuple[Path, Path], guarded: Any, attack: Any, attacker: Any
) -> None:
    """Rows 14, 15: 23 ways to the denied program; by each of them the allowed one runs."""
    for path, name in zip(identities, ("open", "vault"), strict=True):
        os.link(path, project.root / name / "hardlink")
        (project.root / "open" / f"symlink-{name}").symlink_to(path)
        script = project.write(f"open/script-{name}", f"#!{path}\n", 0o755)
        project.write(f"open/chain-{name}", f"#!{script} a b\n", 0o755)
        loaded = attacker("identity", *IDENTITY[:-1], "-pie", f"-Wl,--dynamic-linker={path}", "-DWHO='d'")
        dynamic = project.root / "open" / f"dynamic-{name}"
        dynamic.write_bytes(loaded.read_bytes())
        dynamic.chmod(0o755)
    lines = [HELPERS]
    for path, name in zip(identities, ("open", "vault"), strict=True):
        words = {
            "path": path,
            "link": path.with_name("hardlink"),
            "name": name,
            "leaf": path.name,
            "relative": f"{name}/{path.name}",
        }
        lines += [f"said.append(attempt(lambda: {way.format(**words)}))" for way in WAYS.values()]
    code = "\n".join(lines)

    bare = attack(code, None)
    judged = attack(code, guarded)

    half = len(WAYS)
    assert [said[:1] for said in bare] == ["a"] * half + ["b"] * half
    assert judged[:half] == bare[:half]
    assert dict(zip(WAYS, judged[half:], strict=True)) == dict.fromkeys(WAYS, "EACCES")
    assert len(project.denials("secret")) == half


def test_copied_program_is_another(project: Any, identities: tuple[Path, Path], guarded: Any) -> None:
    """Row 15: a copy is another object, judged by its own path."""
    right, wrong = identities
    shutil.copy(wrong, right.with_name("copy"))

    assert project.run(["open/copy"], guarded).stdout.startswith("b 1 ")


@pytest.mark.skipif(not LOADERS, reason="no glibc loader at its usual place")
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--argv0", "innocent"],
        ["--library-path", "/tmp"],
        ["--inhibit-cache"],
        ["--argv0=innocent"],
        ["--"],
    ],
    ids=" ".join,
)
def test_loader_as_a_program(options: list[str], project: Any, guarded: Any) -> None:
    """Row 14: ``ld.so PROGRAM`` is judged as PROGRAM, too."""
    for name in ("open/true", "vault/true"):
        path = project.write(name, "")
        path.write_bytes(Path(os.path.realpath("/bin/true")).read_bytes())
        path.chmod(0o755)
    loader = LOADERS[0]
    argv = [loader, *options]
    bare = project.bare([*argv, "vault/true"]).returncode

    control = project.run(["sh", "-c", '"$@"', "sh", *argv, "open/true"], guarded)
    done = project.run(["sh", "-c", '"$@"', "sh", *argv, "vault/true"], guarded)

    assert control.returncode == bare
    if bare == 0:
        assert done.returncode == 126
        assert project.denials("secret")


def test_check_executes_nothing(
    project: Any, identities: tuple[Path, Path], guarded: Any, attack: Any
) -> None:
    """Row 14: AT_EXECVE_CHECK is answered as the exec would be, and starts nothing."""
    right, wrong = identities
    code = 'said = [execveat(-100, b"{}", [b"x"], CHECK)]'.replace("{}", str(right))
    if attack(code, None) == ["EINVAL"]:
        pytest.skip("this kernel has no AT_EXECVE_CHECK")

    assert attack(code.replace("said = [", "ctypes.set_errno(2); said = ["), guarded) == ["ENOENT"]
    assert attack(code.replace(str(right), str(wrong)), guarded) == ["EACCES"]


def test_arguments_arrive_whole(
    project: Any, identities: tuple[Path, Path], guarded: Any, attack: Any
) -> None:
    """Row 15: what is no text, 10,000 arguments, 128 KiB in one: the same as bare, and judged to the last."""
    import rampart_seccomp as rampart

    right, _ = identities
    cases = (
        'b"\\xff\\xfe\\n\\x1b[31m"',
        'b"", b"", b""',
        '*[b"%d" % number for number in range(10_000)]',
        'b"x" * 131_071',
        'b"x" * 131_072',
        '*[b"x" * 100_000] * 12',
    )
    code = HELPERS + "".join(
        f'said.append(execve(b"{right}", [b"name", {case}], [b"V=\\xff", b"novalue", b""]))\n'
        for case in cases
    )

    bare = attack(code, None)

    assert attack(code, guarded) == bare
    assert [said[:2] for said in bare] == ["a ", "a ", "a ", "a ", "E2", "a "]
    last = rampart.Policy(
        rules=[
            rampart.allow(["read", "write", "exec"], name="everything"),
            rampart.deny("exec", name="secret", commands=["right ** last"]),
        ]
    )
    for amount in (9_999, 10_000):
        code = f'said = [execve(b"{right}", [b"{{}}", *[b"x"] * {amount}, b"last"])]'
        assert attack(code, last) == ["EACCES"]


def heads(seed: int, amount: int, interpreters: list[str]) -> list[bytes]:
    """First bytes of scripts, odd in every way that a kernel looks at."""
    chance = random.Random(seed)
    found = [
        b"#!",
        b"#!\n",
        b"#! \n",
        b"#!  \t ",
        b"#",
        b"",
        b"#!\0\n",
        b"#!/" + b"x" * 300,
        b"#!" + b" " * 300,
    ]
    while len(found) < amount:
        spaces = ["", " ", "\t", "  ", " \t ", "\0", " " * 200, " " * 253]
        name = chance.choice(
            [*interpreters, "/nonexistent", "/", "relative", "./open/right", "/etc/passwd", "x" * 260]
        )
        words = [
            chance.choice(spaces[:6] if chance.random() < 0.9 else spaces),
            name,
            chance.choice(spaces if chance.random() < 0.3 else spaces[:4]),
            chance.choice(["", "-a", "-a  b c", "\xff\xfe", "x\0y", "-", "#", "z" * 120, "z" * 260]),
            chance.choice(spaces[:6]),
            chance.choice(["\n", "", "\r\n", "\n\n", "\0\n", "\nmore"]),
        ]
        line = "".join(words).encode("latin-1")
        if chance.random() < 0.15:
            room = chance.choice([252, 253, 254, 255, 256])
            line = b"#!" + line.strip(b"\n").ljust(room, chance.choice([b"p", b" ", b"\t"]))[:room] + b"\n"
            found.append(line)
            continue
        found.append(b"#!" + line)
    return found


@pytest.mark.parametrize("packets", [1, 2, 3])
def test_every_length_is_compared(
    packets: int, project: Any, identities: Any, guarded: Any, attack: Any
) -> None:
    """Row 15: around the lengths at which the launcher is told, or compares, in another way."""
    right, _ = identities
    lengths = [packets * MAX_PACKED + more for more in (-1, 0, 1)]
    code = "".join(
        f'said.append(execve(b"{right}", [b"x" * {length - 8}], [b"V={letter}xxx"]).split("\\n")[0])\n'
        for length in lengths
        for letter in "ab"
    )

    bare = attack(code, None)

    assert attack(code, guarded) == bare == [f"a 1 {length}" for length in lengths for _ in "ab"]
    assert "exec-tampered" not in project.audit.read_text()


@pytest.mark.parametrize(
    ("seed", "amount"),
    [pytest.param(1, 250, id="quick"), pytest.param(2, 4000, id="long", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("call", ["execve", "execveat", "script", "dirfd", "check"])
def test_heads_of_scripts(
    call: str,
    seed: int,
    amount: int,
    project: Any,
    identities: tuple[Path, Path],
    guarded: Any,
    attacker: Any,
) -> None:
    """Row 13: for generated ``#!`` lines, errno and what runs with which arguments are as bare."""
    right, _ = identities
    names = []
    for number, head in enumerate(heads(seed, amount, [str(right), "/bin/echo", "open/right"])):
        path = project.write(f"open/s{number}", "", 0o755)
        path.write_bytes(head)
        names.append(f"open/s{number}")
    for kind in ("A", "B"):
        previous = str(right)
        for depth in range(1, 8):
            line = f"#!{previous} deep{depth}\n" if kind == "A" else f"#! \t{previous}\t \n"
            previous = str(project.write(f"open/{kind}{depth}", line, 0o755))
            names.append(previous)
    names += ["open", "open/missing", "open/s0/x", "/proc/self/exe"]
    argv = [attacker("spawn_each"), call, "argument zero", "", "two \x7f"]
    feed = "".join(f"{name}\n" for name in names)

    bare = project.bare(argv, input=feed, text=True, errors="surrogateescape", env={"LC_ALL": "C"})
    judged = project.run(
        argv, guarded, input=feed, text=True, errors="surrogateescape", env={"LC_ALL": "C"}, timeout=300
    )

    expected, found = (done.stdout.split("\n= ") for done in (bare, judged))
    assert len(expected) == len(names)
    different = [(one, other) for one, other in zip(expected, found, strict=True) if one != other]
    assert different == [], "\n".join(f"{one!r}\n{other!r}" for one, other in different)
    assert bare.stdout.count("\na ") > 20 or call in {"check", "execveat"}
    assert judged.returncode == bare.returncode == 0
    assert [record for record in project.records() if record["verdict"] == "deny"] == []


def test_unreadable_image(project: Any, identities: tuple[Path, Path], guarded: Any) -> None:
    """Row 28: an image of mode 0111: root's is judged, an unprivileged user's denied."""
    for path in identities:
        path.chmod(0o111)

    right = project.run(["sh", "-c", "open/right"], guarded)
    wrong = project.run(["sh", "-c", "vault/wrong"], guarded)

    if os.geteuid() == 0:
        assert right.stdout.startswith("a 1 ")
    else:
        assert right.returncode == 126
    assert (wrong.returncode, wrong.stdout) == (126, "")
    assert subprocess.run([project.root / "open/right"], capture_output=True).stdout.startswith(b"a 1 ")
