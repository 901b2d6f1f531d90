"""The launcher stands in for the command: what the command and its parent see is as without it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_broker import EXECVE, FakeBroker, notify
from launching import SCOPES, eventually, gone, state

from rampart_seccomp.launch import Popen, launcher_path, protocol, run

pytestmark = pytest.mark.core

ENDINGS = ["exit 0", "exit 7", "exit 255"] + [
    f"kill -{name} $$"
    for name in ("TERM", "KILL", "SEGV", "HUP", "INT", "ABRT", "PIPE", "USR1", "ALRM", "40")
]


@SCOPES
@pytest.mark.parametrize("script", ENDINGS)
def test_ends_as_the_command_ends(script: str, scope: bool, tmp_path: Path) -> None:
    """Exit codes and deaths by signal reach the parent unchanged; the command leaves at most its own core."""
    command = ["/bin/sh", "-c", script]
    bare = subprocess.run(command, cwd=tmp_path).returncode
    assert bare == run(command, broker=FakeBroker(scope=scope), cwd=tmp_path).returncode


def outcome(start: Any, *args: Any, **options: Any) -> Any:
    """The output of a command, or the error of starting it."""
    try:
        return start(*args, stdout=subprocess.PIPE, **options).stdout
    except OSError as error:
        return type(error), error.errno, error.filename


def make(path: Path, text: str = "#!/bin/sh\necho $0 $1", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


PROGRAMS = {
    "found": ("prog", "a:b"),
    "second element": ("second", "a:b"),
    "not executable, then found": ("plain", "a:b"),
    "not executable": ("data", "a:b"),
    "a directory": ("dir", "a:b"),
    "missing": ("missing", "a:b"),
    "missing, through a file": ("missing", "a/prog:b"),
    "missing directory": ("prog", "nosuch:a"),
    "empty element": ("here", "a::b"),
    "empty search path": ("here", ""),
    "trailing colon": ("here", "a:"),
    "relative": ("./here", "a"),
    "relative in a directory": ("a/prog", ""),
    "relative missing": ("./nosuch", "a"),
    "unset": ("sh", None),
    "script without #!": ("raw", "a"),
    "interpreter missing": ("broken", "a"),
    "too long": ("x" * 300, "a"),
    "path too long": ("/" + "x/" * 3000, "a"),
    "slash at the end of an element": ("prog", "a/:b"),
}


@pytest.mark.parametrize(("name", "search"), PROGRAMS.values(), ids=PROGRAMS)
def test_finds_programs_as_subprocess_does(name: str, search: str | None, tmp_path: Path) -> None:
    """The same file runs, or the same error with the same file name is raised; never a shell instead."""
    for program in ("a/prog", "b/prog", "b/second", "b/plain", "here"):
        make(tmp_path / program)
    make(tmp_path / "a/plain", mode=0o644)
    make(tmp_path / "a/data", mode=0o644)
    make(tmp_path / "a/raw", "echo never")
    make(tmp_path / "a/broken", "#!/nosuch/interpreter\n")
    (tmp_path / "a/dir").mkdir()
    options: dict[str, Any] = {"cwd": tmp_path, "env": {} if search is None else {"PATH": search}}
    command = [name, "-c", "echo from sh"] if name == "sh" else [name, "argument"]
    bare = outcome(subprocess.run, command, **options)
    assert bare == outcome(run, command, broker=FakeBroker(), **options)


def test_unreadable_search_directory(as_nobody: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """A directory of PATH that may not be searched gives EACCES only if nothing is found; unprivileged."""
    make(tmp_path / "secret/prog").parent.chmod(0o700)
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(0o755)
    code = """
import os, sys
from fake_broker import FakeBroker
from rampart_seccomp.launch import run
search = {"PATH": sys.argv[1] + "/secret:/bin:/usr/bin"}
for name in ("prog", "true"):
    try:
        print(run([name], broker=FakeBroker(), env=search).returncode)
    except OSError as error:
        print(error.errno)
print(os.getuid())
"""
    done = as_nobody(["/usr/bin/python3", "-c", code, tmp_path], env=environment)
    assert (done.stdout.split(), done.stderr) == ([str(errno.EACCES), "0", "65534"], "")


SHOW_FDS = """
import os, sys
fds = {}
for fd in os.listdir("/proc/self/fd"):
    try: fds[int(fd)] = os.readlink("/proc/self/fd/" + fd)
    except FileNotFoundError: pass
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, repr(sorted(fds.items())).encode())
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1), (0, 1, 2)], ids=str)
def test_descriptors_are_as_bare(
    closed: tuple[int, ...], harness: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    """The command has the same descriptors, the passed ones included, and none of the launcher's."""
    code = """
import os, subprocess, sys
from fake_broker import FakeBroker
from rampart_seccomp.launch import run
passed = os.open("/etc/passwd", os.O_RDONLY)
for fd in eval(sys.argv[1]):
    os.close(fd)
command = [sys.executable, "-c", sys.argv[2]]
subprocess.run([*command, sys.argv[3]], pass_fds=[passed])
run([*command, sys.argv[4]], pass_fds=[passed], broker=FakeBroker())
"""
    bare, ours = tmp_path / "bare", tmp_path / "ours"
    process = harness(code, closed, SHOW_FDS, bare, ours, stdout=subprocess.DEVNULL)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert bare.read_text() == ours.read_text()
    assert "/etc/passwd" in ours.read_text()


def test_environment_and_directory_are_as_bare(broker: FakeBroker, tmp_path: Path) -> None:
    """Nothing is added to the environment; the working directory and umask arrive."""
    command = ["/bin/sh", "-c", "env | grep -v ^_=; pwd; umask"]
    options: dict[str, Any] = {"capture_output": True, "cwd": tmp_path, "umask": 0o027}
    bare = subprocess.run(command, **options)
    assert bare.stdout == run(command, broker=broker, **options).stdout
    assert b"0027" in bare.stdout


@pytest.mark.parametrize("restore", [True, False])
def test_signal_state_is_as_bare(restore: bool, harness: Any) -> None:
    """Mask and dispositions arrive as inherited: SIGCHLD ignored, SIGPIPE, blocked ones."""
    code = """
import signal, subprocess, sys, threading
from fake_broker import FakeBroker
from rampart_seccomp.launch import run
command = ["grep", "-E", "^(SigBlk|SigIgn|SigCgt|ShdPnd)", "/proc/self/status"]
options = dict(stdout=subprocess.PIPE, restore_signals=sys.argv[1] == "True", text=True)
# glibc has signals 32 and 33 to itself: posix_spawn ignores both, which subprocess does not use with
# pass_fds, and the first thread takes the second back.
threading.Thread(target=int).start()
print(subprocess.run(command, pass_fds=[2], **options).stdout)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM, 40])
bare = subprocess.run(command, pass_fds=[2], **options).stdout
print(bare)
print(run(command, broker=FakeBroker(), **options).stdout)
"""
    before, bare, ours = harness(code, restore).communicate(timeout=20)[0].strip().split("\n\n")
    assert bare == ours
    assert bare != before


def test_inherited_sigchld_ignored(harness: Any) -> None:
    """With SIGCHLD ignored the kernel would reap in the launcher's place; the status arrives all the same."""
    code = """
import os, signal, sys
from fake_broker import FakeBroker
show = "import sys; print(*[line for line in open('/proc/self/status') if 'SigIgn' in line]); sys.exit(7)"
session = FakeBroker().wrap([sys.executable, "-c", show])
pid = os.fork()
if not pid:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.set_inheritable(session.pass_fds[0], True)
    os.execv(session.argv[0], session.argv)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    _, ignored, status = harness(code).communicate(timeout=20)[0].split()
    assert int(ignored, 16) & 1 << (signal.SIGCHLD - 1)
    assert status == "7"


def test_closing_stdout_ends_the_pipe(broker: FakeBroker) -> None:
    """A pipe that the command closes, or passes on and closes, ends for its reader while the command runs."""
    code = "import os; os.close(1); os.close(int(os.environ['FD'])); os.read(0, 1)"
    reader, writer = os.pipe()
    process: Popen[bytes] = Popen(
        [sys.executable, "-c", code],
        broker=broker,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[writer],
        env={**os.environ, "FD": str(writer)},
    )
    os.close(writer)
    with process:
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert os.read(reader, 1) == b""
        assert process.poll() is None
    os.close(reader)


def test_closing_stdin_breaks_the_pipe(broker: FakeBroker) -> None:
    """Writing to a command that has closed its standard input gives EPIPE."""
    code = "import os; os.close(0); os.write(1, b'x'); os.read(int(os.environ['FD']), 1)"
    reader, writer = os.pipe()
    process: Popen[bytes] = Popen(
        [sys.executable, "-c", code],
        broker=broker,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=[reader],
        env={**os.environ, "FD": str(reader)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.read(1) == b"x"
    with pytest.raises(BrokenPipeError):
        process.stdin.write(b"x")
    os.write(writer, b"x")
    process.communicate(timeout=20)
    assert process.returncode == 0
    os.close(reader)
    os.close(writer)


def test_the_broker_proves_that_it_can_read(broker: FakeBroker) -> None:
    """The nonce is found in the child's memory, and is another one each time."""
    first = run(["true"], broker=broker)
    assert first.returncode == 0
    sessions = [Popen(["true"], broker=broker) for _ in range(2)]
    for process in sessions:
        process.wait()
        session: Any = process.session
        assert session.proof == session.hello.nonce
    one, two = (process.session.hello.nonce for process in sessions)  # type: ignore[attr-defined]
    assert one != two
    assert len(one) == protocol.NONCE_SIZE


def test_no_go_no_command(tmp_path: Path) -> None:
    """A broker that goes away before it said GO: the command never runs, the launcher ends."""
    marker = tmp_path / "ran"
    broker = FakeBroker(go=False)
    wrapped = broker.wrap([b"touch", os.fsencode(marker)])
    launcher = subprocess.Popen(wrapped.argv, pass_fds=wrapped.pass_fds)
    wrapped.close()
    child = eventually(lambda: wrapped.session.command_pid)
    wrapped.session.control.shutdown(socket.SHUT_RDWR)
    assert launcher.wait(20) == 125
    assert gone(child)
    assert not marker.exists()
    assert run(["touch", marker], broker=FakeBroker()).returncode == 0
    assert marker.exists()


def test_second_listener_is_reported() -> None:
    """The kernel gives a process one listener: a broker inside of another is told stage 3, EBUSY."""
    code = """
from fake_broker import FakeBroker
from rampart_seccomp.launch import Popen
try:
    broker = FakeBroker()
    wrapped = broker.wrap([b"true"])
    import subprocess
    status = subprocess.run(wrapped.argv, pass_fds=wrapped.pass_fds).returncode
    wrapped.close()
    wrapped.session.finished.wait(10)
    print(wrapped.session.failed.stage.name, wrapped.session.failed.errno, status)
except BaseException as error:
    print(repr(error))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = run(
        [sys.executable, "-c", code], broker=FakeBroker(), capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["FILTER", str(errno.EBUSY), "125"], done.stderr


def test_denied_start(tmp_path: Path) -> None:
    """An execve that the broker answers with an error: that error is raised, and nothing ran."""
    marker = tmp_path / "ran"
    broker = FakeBroker(lambda pid, number: errno.EACCES)
    with pytest.raises(PermissionError) as raised:
        Popen(["touch", marker], broker=broker)
    assert raised.value.filename == "touch"
    assert not marker.exists()


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\1\0\0\0",
        b"\1\0\0\0" + bytes(12),
        b"\2\0\0\0",
        protocol.encode(protocol.Start(notify(EXECVE)))[:-8],
    ],
    ids=["end", "short", "no program", "out of order", "cut"],
)
def test_malformed_start(packet: bytes) -> None:
    """Anything but a whole START with its descriptor is refused with stage 5, and status 125."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        launcher = subprocess.Popen(
            [launcher_path(), str(theirs.fileno()), "", "--", "true"], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        if packet:
            socket.send_fds(ours, [packet], [0])
        else:
            ours.shutdown(socket.SHUT_WR)
        answer = protocol.decode(ours.recv(100))
        assert isinstance(answer, protocol.Failed)
        assert answer.stage is protocol.Stage.PROTOCOL
        assert launcher.wait(20) == 125


@pytest.mark.parametrize(
    "arguments",
    [[], ["x", "", "--", "true"], ["0", "", "--", "true"], ["0", "", "--"], ["99", "", "true", "x"]],
)
def test_usage(arguments: list[str]) -> None:
    """A command line that no broker made: usage on stderr, status 125, nothing started."""
    done = subprocess.run(
        [launcher_path(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("limited", [True, False])
def test_core_limit(limited: bool) -> None:
    """NO_CORES sets a hard limit of 0 in the command, and nowhere else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    show = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
    done = run([sys.executable, "-c", show], broker=FakeBroker(no_cores=limited), capture_output=True)
    assert done.stdout.split() == ([b"0", b"0"] if limited else [str(soft).encode(), str(hard).encode()])
    assert resource.getrlimit(resource.RLIMIT_CORE) == (soft, hard)


def test_many_at_once(broker: FakeBroker) -> None:
    """One broker, twenty commands started from as many threads: each has its own status."""
    statuses: dict[int, int] = {}

    def start(number: int) -> None:
        statuses[number] = run(["/bin/sh", "-c", f"exit {number}"], broker=broker).returncode

    threads = [threading.Thread(target=start, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == {number: number for number in range(20)}


def test_zombies_are_reaped_meanwhile(broker: FakeBroker) -> None:
    """A daemon whose parent has ended becomes the launcher's child, and does not stay a zombie at its end."""
    script = "(sh -c 'echo $$; exec sleep 0.05' & echo end-of-line >&2); read line"
    process: Popen[str] = Popen(
        ["/bin/sh", "-c", script],
        broker=broker,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        daemon = int(process.stdout.readline())
        assert eventually(lambda: state(daemon) == "")
        assert process.poll() is None
