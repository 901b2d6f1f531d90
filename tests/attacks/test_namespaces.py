"""Row 42, as far as namespaces are open: rights and names of another one count in there, and not here."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from test_worlds import NAMESPACES, OLD_AND_NEW

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

NOBODY = 65534
OPEN = ("user", "pid", "net", "ipc", "uts", "cgroup")
SHUT = [call for call in OLD_AND_NEW if not call.startswith(("unshare ", "clone ")) and call != "clone3"]
SPACES = """
NEWUSER, NEWPID, NEWNET, NEWNS = 0x10000000, 0x20000000, 0x40000000, 0x20000
def unshare(flags):
    return "ok" if libc.unshare(flags) == 0 else errno.errorcode[ctypes.get_errno()]
def attempt(call, *args):
    try:
        return call(*args) or "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
def read(path):
    with open(path, "rb", buffering=0) as file:
        return file.read().decode("latin-1")
def within(call, *args):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, (unshare(NEWUSER) + " " + str(attempt(call, *args))).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    return os.fdopen(reader).read()
"""


@pytest.fixture(scope="module", autouse=True)
def user_namespaces() -> None:
    """Skip where this machine gives none."""
    made = subprocess.run(
        [sys.executable, "-c", "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"]
    )
    if made.returncode:
        pytest.skip("no user namespaces here")


@pytest.fixture
def spaces(allow_all: Any) -> Any:
    """The policy that restricts nothing, with the feature."""
    return attrs.evolve(allow_all, features=["sysv-ipc", "namespaces"])


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
def test_what_the_feature_opens(project: Any, spaces: Any, calls: Any) -> None:
    """Six kinds of namespaces by clone and unshare; the others, mounts and roots stay shut, and on record."""
    project.write("vault/key", "SECRET\n")
    project.write("open/f", "public\n")
    user = f"raw,272,{NAMESPACES['user']:#x}"
    opened = [user, *(f"raw,272,{NAMESPACES[name]:#x}" for name in OPEN if name != "user")]
    cloned = [f"clone,{NAMESPACES['user'] | NAMESPACES[name]:#x}" for name in OPEN]
    kept = [OLD_AND_NEW[call] for call in SHUT]
    others = [user, "raw,272,0x20000", "raw,272,0x80", "raw,272,0x40020000", "clone,0x20000", "clone,0x8000"]
    policy = spaces.with_rules(rampart.deny("read", paths=["./vault/**"], name="secret"))

    done = calls([*opened, *kept, "open,vault/key,r", "open,open/f,r"], policy)
    assert done.answers[: len(opened)] == ["0"] * len(opened)
    absent = {"open_tree_attr": "ENOSYS"}
    assert done.answers[len(opened) : -2] == [absent.get(call, "EPERM") for call in SHUT]
    assert done.answers[-2:] == ["EACCES", "ok"]
    reasons = {record["where"] for record in project.records() if record["syscall"] == "mount"}
    assert reasons == {"built-in: mount is not available in here"}

    assert calls(cloned, policy).answers == ["0"] * len(cloned)
    assert calls(others, policy).answers == ["0", *["EPERM"] * 5]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a broker with rights that the tree has not")
def test_root_of_a_namespace_has_no_rights_here(project: Any, spaces: Any, attack: Any) -> None:
    """The broker has all capabilities, the tree those of a namespace of its own: they open nothing here."""
    theirs = project.write("theirs", "THEIRS", 0o600)
    os.chown(theirs, NOBODY, NOBODY)
    project.write("ours", "OURS", 0o600)
    lines = f"""{SPACES}
said.append(read("theirs"))
said.append(unshare(NEWUSER))
for path in ("ours", "theirs"):
    said.append(attempt(read, path))
said.append(attempt(os.chmod, "theirs", 0o666))
said.append(attempt(os.chown, "ours", {NOBODY}, {NOBODY}))
said.append(attempt(os.truncate, "theirs", 0))
"""
    expected = ["THEIRS", "ok", "OURS", "EACCES", "EPERM", "EINVAL", "EACCES"]

    assert attack(lines, None) == expected, "bare"
    assert attack(lines, spaces) == expected
    assert theirs.read_text() == "THEIRS"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else in the tree")
def test_user_without_rights_gets_none(project: Any, spaces: Any, attack: Any) -> None:
    """Nobody, behind a broker that is root: all capabilities of his namespace, its map, and no file more."""
    project.write("ours", "OURS", 0o600)
    os.chown(project.write("theirs", "THEIRS", 0o600), NOBODY, NOBODY)
    lines = f"""{SPACES}
os.setgroups([]), os.setresgid(*[{NOBODY}] * 3), os.setresuid(*[{NOBODY}] * 3)
libc.prctl(4, 1, 0, 0, 0)
said.append(attempt(read, "ours"))
said.append(unshare(NEWUSER))
for name, text in (("setgroups", "deny"), ("uid_map", "0 {NOBODY} 1"), ("gid_map", "0 {NOBODY} 1")):
    with open("/proc/self/" + name, "w") as file:
        file.write(text)
said.append([os.getuid(), read("/proc/self/status").partition("CapEff:")[2][:17]])
said.append([attempt(read, path) for path in ("ours", "theirs", "/etc/shadow")])
said.append(attempt(os.chown, "theirs", 0, 0))
said.append(attempt(os.chown, "theirs", {NOBODY}, {NOBODY}))
said.append(attempt(os.chown, "ours", 0, 0))
said.append(unshare(NEWUSER))
with open("/proc/self/uid_map", "w") as file:
    file.write("7 0 1")
said.append(os.getuid())
"""
    bare = attack(lines, None)

    assert bare[:3] == ["EACCES", "ok", [0, bare[2][1]]]
    assert bare[3:] == [["EACCES", "THEIRS", "EACCES"], "ok", "EINVAL", "EPERM", "ok", 7]
    assert attack(lines, spaces) == bare


def test_processes_outside_of_a_user_namespace(project: Any, spaces: Any, attack: Any) -> None:
    """What is beneath, one may look into as a debugger might; not what is above, nor beside: as bare."""
    project.write("open/f", "public\n")
    lines = f"""{SPACES}
parent = str(os.getpid())
for name in ("environ", "maps", "root/etc/passwd", "cwd/open/f", "fd/1"):
    path = "/proc/" + parent + "/" + name
    call = lambda path: os.close(os.open(path, os.O_RDONLY))
    said.append([attempt(call, path), within(call, path)])
reader, writer = os.pipe()
told, tell = os.pipe()
child = os.fork()
if child == 0:
    unshare(NEWUSER)
    os.write(writer, b"x")
    os.read(told, 1)
    os._exit(0)
os.read(reader, 1)
path = "/proc/%d/" % child
beside = lambda name: attempt(os.close, os.open(path + name, os.O_RDONLY))
for name in ("environ", "root/etc/passwd", "cwd/open/f"):
    said.append([beside(name), within(beside, name)])
os.write(tell, b"x")
os.waitpid(child, 0)
"""
    bare = attack(lines, None)

    assert bare == [["ok", "ok EACCES"]] * 8
    assert attack(lines, spaces) == bare


def test_an_abstract_name_of_another_network(project: Any, spaces: Any, attack: Any) -> None:
    """A socket bound in a network namespace of the tree's own vouches for no namesake outside."""
    name = f"rampart-{secrets.token_hex(4)}"
    lines = f"""{SPACES}
import socket
def bound(name):
    made = socket.socket(socket.AF_UNIX)
    made.bind("\\0" + name)
    made.listen()
    return made
def connect(name, made=None):
    (made or socket.socket(socket.AF_UNIX)).connect("\\0" + name)
kept = bound({name!r} + "-own")
said.append(attempt(connect, {name!r} + "-own"))
early = socket.socket(socket.AF_UNIX)
said.append(unshare(NEWUSER | NEWNET))
mine = bound({name!r})
said.append(attempt(connect, {name!r}, early))
"""
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(f"\0{name}")
        outside.listen()
        outside.settimeout(0.2)
        assert attack(lines, None) == ["ok", "ok", "ok"]
        outside.accept()[0].close()
        policy = rampart.Policy(
            rules=[rampart.allow(["read", "write", "exec", "listen"], name="files")], features=["namespaces"]
        )

        assert attack(lines, policy) == ["ok", "ok", "ECONNREFUSED"]

        with pytest.raises(TimeoutError):
            outside.accept()


LATER = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        failed = libc.unshare(int(line, 16)) != 0
        print(errno.errorcode[ctypes.get_errno()] if failed else "ok", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("first", [False, True], ids=["without", "with"])
def test_a_feature_that_comes_and_goes(first: bool, project: Any, spaces: Any, allow_all: Any) -> None:
    """The policy in force opens namespaces, whatever the tree was launched with; and no mount namespace."""
    with (
        rampart.Broker(spaces if first else allow_all) as broker,
        rampart.Popen(
            [sys.executable, "-c", LATER],
            broker=broker,
            cwd=project.root,
            env=project.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as tree,
    ):
        stdin, stdout = tree.stdin, tree.stdout
        assert stdin is not None
        assert stdout is not None

        def ask(flags: int) -> str:
            stdin.write(f"{flags:x}\n")
            stdin.flush()
            return stdout.readline().strip()

        wanted = [NAMESPACES["user"], NAMESPACES["user"] | NAMESPACES["mount"], NAMESPACES["time"]]
        assert [ask(flags) for flags in wanted] == ["ok" if first else "EPERM", "EPERM", "EPERM"]
        broker.update(spaces)
        assert [ask(flags) for flags in wanted] == ["ok", "EPERM", "EPERM"]
        broker.update(allow_all)
        assert ask(wanted[0]) == "EPERM"
        tree.kill()


def test_in_a_pid_namespace(project: Any, spaces: Any, attack: Any) -> None:
    """A rule holds in a pid namespace; numbers name the tree's in there, and a group may go beyond it."""
    secret: Path = project.write("vault/key", "SECRET\n")
    policy = spaces.with_rules(rampart.deny("read", paths=["./vault/**"], name="secret"))
    lines = f"""{SPACES}
said.append(unshare(NEWUSER | NEWPID))
reader, writer = os.pipe()
if os.fork() == 0:
    found = [os.getpid(), attempt(read, {str(secret)!r})]
    found.append(attempt(os.sched_setaffinity, 1, os.sched_getaffinity(0)))
    import resource
    same = lambda: os.setpriority(os.PRIO_PGRP, 0, os.getpriority(os.PRIO_PGRP, 0))
    found.append(attempt(same))
    os.setpgid(0, 0)
    found.append(attempt(same))
    found.append(attempt(resource.prlimit, 1, resource.RLIMIT_CORE, (0, 0)) == "EPERM")
    os.write(writer, repr(found).encode())
    os._exit(0)
said.append(os.read(reader, 1000).decode())
"""
    # The group that this test is in may have members of other users.
    groups = ("ok",) if os.geteuid() == 0 else ("ok", "EPERM")
    told, found = attack(lines, None)
    assert told == "ok"
    assert found in [repr([1, "SECRET\n", "ok", group, "ok", False]) for group in groups]
    assert attack(lines, policy) == ["ok", "[1, 'EACCES', 'ok', 'EPERM', 'ok', True]"]


NAMED = """
import socket, struct
QUESTION = b"\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3www\\7allowed\\7example\\0\\0\\1\\0\\1"
def ask(server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(1)
        asked.connect((server, 53))
        asked.send(QUESTION)
        return asked.recv(512)[3] & 15
"""


def test_names_are_not_asked_from_another_network(by_name: Any) -> None:
    """A socket of another network namespace leads to nothing of the broker's; nobody is noted for it."""
    by_name.server.zone["www.allowed.example"] = [("A", "127.200.0.1")]
    policy = attrs.evolve(by_name.policy("www.allowed.example"), features=["namespaces"])
    code = f"""
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
{SPACES}{NAMED}
print(attempt(ask, "127.0.0.1"))
print(unshare(NEWUSER | NEWNET))
print(attempt(ask, "127.0.0.1"))
"""
    done = by_name.run([sys.executable, "-c", code], policy)

    assert done.stdout.split() == ["ok", "ok", "ECONNREFUSED"], done.stderr


def test_nothing_outlives_the_run_in_a_namespace(project: Any, spaces: Any, attack: Any) -> None:
    """The first process of a pid namespace, which fewer signals reach, ends with the tree."""
    lines = f"""{SPACES}
import signal
unshare(NEWUSER | NEWPID)
reader, writer = os.pipe()
if os.fork() == 0:
    for number in set(signal.valid_signals()) - {{signal.SIGKILL, signal.SIGSTOP}}:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    if os.fork() == 0:
        os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1), os.dup2(null, 2)
    os.write(writer, b"x")
    while True:
        signal.pause()
os.read(reader, 1), os.read(reader, 1)
with open("/proc/self/task/" + str(os.getpid()) + "/children") as file:
    first = int(file.read().split()[0])
with open("/proc/%d/task/%d/children" % (first, first)) as file:
    said += [first, int(file.read().split()[0])]
"""
    first, second = attack(lines, spaces)

    assert not any(Path(f"/proc/{pid}").exists() for pid in (first, second))


COMMON = """
id -u; cat /proc/self/uid_map; touch made; chown 0:0 made; stat -c %u:%g made; chown 5 made 2>&1
unshare -Ur sh -c 'cat /proc/self/uid_map; id -u'
unshare -pf --kill-child sh -c 'echo $$; sh -c "kill -0 1 && echo there"; cat /dev/fd/0; ls /dev/fd' <made
unshare -nu sh -c 'cat /proc/net/dev | wc -l; readlink /proc/self/ns/net | cut -c1-5'
"""


def test_in_a_namespace_as_bare(project: Any, spaces: Any) -> None:
    """What tools do with a user namespace, and in it, comes out as it does bare."""
    argv = ["unshare", "-Ur", "sh", "-c", COMMON]
    bare = project.bare(argv)
    assert bare.stdout.startswith("0\n"), bare.stderr

    done = project.run(argv, spaces)

    assert (done.stdout, done.stderr, done.returncode) == (bare.stdout, bare.stderr, bare.returncode)
