"""Rows 7, 30, 33, 40 and 41: what a process of the tree has, reaches and waits for, and how the tree ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core


@pytest.fixture(params=["allow-all", "guarded"])
def policy(request: pytest.FixtureRequest, allow_all: Any, deny_rule: Callable[..., Any]) -> Any:
    """The same must hold with and without a rule that restricts something."""
    return allow_all if request.param == "allow-all" else deny_rule(["read", "write"], paths=["./vault/**"])


SHELL = {
    "process substitution": "cat <(echo x) <(echo y)",
    "/dev/fd": "exec 5< text; cat /dev/fd/5",
    "/dev/stdin from a pipe": "echo piped | cat /dev/stdin",
    "/dev/stdin from a file": "cat /dev/stdin < text",
    "/proc/self/fd/0": "echo piped | cat /proc/self/fd/0",
    "/dev/stdout": "echo out > /dev/stdout",
    "/dev/stderr": "echo err > /dev/stderr",
    "/dev/tty without a terminal": "setsid sh -c 'echo x > /dev/tty'; echo $?",
    "/dev/null, zero, full": "echo x > /dev/null; head -c 3 /dev/zero | od -c; echo x > /dev/full; echo $?",
    "here document": "cat <<END\ntext\nEND",
    "/proc/self": "head -1 /proc/self/status; readlink /proc/self/exe; cat /proc/thread-self/comm",
    "/proc/self/cwd and root": "cat /proc/self/cwd/text; head -c 4 /proc/self/root/bin/sh | od -c",
    "/proc/self/environ": "env -i A=1 cat /proc/self/environ | tr '\\0' '\\n'",
    "/proc of a child": "sleep 5 & head -c 0 /proc/$!/status; echo $?; kill $!",
    "named pipe": "mkfifo pipe; echo through > pipe & cat pipe; wait",
    "background and wait": "(exit 3) & wait $!; echo $?",
    "signal and trap": "trap 'echo caught' USR1; kill -USR1 $$; echo on",
    "terminal size of nothing": "stty size; echo $?",
}


@pytest.mark.parametrize("case", SHELL)
def test_shell_redirections(case: str, project: Any, policy: Any) -> None:
    """Row 7: descriptors, /proc/self, pipes and special files are those of the program."""
    project.write("text", "content\n")
    command = ["bash", "-c", SHELL[case]]

    bare = project.bare(command)
    (project.root / "pipe").unlink(missing_ok=True)
    done = project.run(command, policy)

    assert (done.returncode, done.stdout, done.stderr) == (bare.returncode, bare.stdout, bare.stderr)


def test_terminal_is_the_targets(project: Any, policy: Any) -> None:
    """Row 7: on a pseudo-terminal of its own, /dev/tty is that terminal."""
    source = Path(__file__).with_name("src") / "own_terminal.py"

    bare = project.bare(["python3", source])
    done = project.run(["python3", source], policy)

    assert bare.stdout == "['on the terminal']\n"
    assert done.stdout == bare.stdout


def test_terminals_by_hand(project: Any, policy: Any) -> None:
    """Row 7: /dev/ptmx, both ends, sizes, modes and SIGWINCH are those of the program, as bare."""
    source = Path(__file__).with_name("src") / "terminals.py"

    bare = project.bare(["python3", source])
    done = project.run(["python3", source], policy)

    assert bare.returncode == 0, bare.stderr
    assert "(33, 77, 0, 0)" in bare.stdout
    assert "(44, 99, 0, 0) True" in bare.stdout
    assert (done.returncode, done.stdout) == (0, bare.stdout), done.stderr


WAITS = {
    "a FIFO without a peer": "mkfifo pipe; (exec cat pipe) & ",
    "a FIFO opened to write": "mkfifo pipe; (exec sh -c 'echo > pipe') & ",
    "a lock that another one has": "(exec flock text sleep 600) & sleep 0.1; (exec flock text true) & ",
    "many FIFOs": "for i in $(seq 40); do mkfifo p$i; (exec cat p$i) & done; ",
}


@pytest.mark.parametrize("case", WAITS)
def test_waiting_sibling_delays_nobody(case: str, project: Any, policy: Any) -> None:
    """Row 30: while one call blocks, the rest of the tree goes on."""
    project.write("text", "content\n")
    script = WAITS[case] + "for i in $(seq 50); do cat text; done; kill $(jobs -p); echo done"

    begin = time.monotonic()
    done = project.run(["bash", "-c", script], policy)

    assert done.stdout == "content\n" * 50 + "done\n"
    assert time.monotonic() - begin < 30


def test_blocked_connect_delays_nobody(project: Any, policy: Any) -> None:
    """Row 30: a connect to a unix socket whose queue is full blocks its own process only."""
    source = Path(__file__).with_name("src") / "full_backlog.py"

    begin = time.monotonic()
    done = project.run(["python3", source], policy)

    assert done.stdout == "others went on\n", done.stderr
    assert time.monotonic() - begin < 30


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in b"ZX"


def wait_gone(pids: list[int], seconds: float) -> list[int]:
    """Wait for processes to be gone; gives those that are not."""
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < end:
        select.select([], [], [], 0.02)
    return left


HARNESS = """
import sys
import rampart_seccomp as rampart
everything = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
done = rampart.run(sys.argv[1:], policy=rampart.Policy(rules=[everything]))
sys.exit(done.returncode)
"""
# Prints the pids of a shell, a child, one that left the session, and one that ignores all it can.
FAMILY = """
echo $$
sleep 600 & echo $!
setsid sh -c 'echo $$; exec sleep 600' &
(trap '' TERM HUP INT PIPE; sh -c 'echo $$; exec sleep 600' & wait) &
python3 -c 'import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)' &
while :; do cat /dev/null; done
"""


@pytest.fixture
def family(project: Any) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A harness with a tree of five processes, and their pids."""
    import rampart_seccomp

    path = [str(Path(rampart_seccomp.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = project.environment | {"PYTHONPATH": os.pathsep.join(path)}
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, "sh", "-c", FAMILY],
        stdout=subprocess.PIPE,
        text=True,
        cwd=project.root,
        env=environment,
    )
    assert harness.stdout is not None
    pids = [int(harness.stdout.readline()) for _ in range(5)]
    assert all(alive(pid) for pid in pids)
    yield harness, pids
    for pid in [harness.pid, *pids]:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    harness.stdout.close()
    harness.wait()


def test_tree_ends_with_the_harness(family: tuple[subprocess.Popen[str], list[int]]) -> None:
    """Row 33: SIGKILL of the harness ends the whole tree, daemons included, in about a second."""
    harness, pids = family

    harness.kill()
    harness.wait()

    assert wait_gone(pids, 3) == []


def test_tree_ends_with_the_command(project: Any, allow_all: Any) -> None:
    """Row 33: daemons that a finished command leaves behind are ended before `run` returns."""
    script = (
        "setsid sleep 86311 > /dev/null 2>&1 & echo $!;"
        "(setsid sh -c 'exec sleep 86311' > /dev/null 2>&1 &);"
        "exit 5"
    )

    done = project.run(["sh", "-c", script], allow_all)

    assert done.returncode == 5
    assert wait_gone([int(done.stdout)], 0.5) == []
    left = subprocess.run(["pgrep", "-f", "^sleep 86311$"], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def test_no_descriptor_of_the_harness(project: Any, policy: Any) -> None:
    """Row 40: beyond 0 to 2 and what was passed on purpose, the command has no descriptor."""
    kept, leaked = os.pipe()
    os.set_inheritable(leaked, True)
    try:
        done = project.run(["sh", "-c", "exec ls /proc/self/fd"], policy)
        passed = project.run(["bash", "-c", f"echo through >&{leaked}"], policy, pass_fds=(leaked,))
        assert passed.returncode == 0, passed.stderr
        assert os.read(kept, 100) == b"through\n"
    finally:
        os.close(kept)
        os.close(leaked)

    # 3 is the directory that ls has open.
    assert done.stdout.split() == ["0", "1", "2", "3"]


def test_no_variable_of_rampart(project: Any, policy: Any) -> None:
    """Row 40: the command's environment and arguments are the ones it was given."""
    bare = project.bare(["env"])

    done = project.run(["env"], policy)

    assert sorted(done.stdout.splitlines()) == sorted(bare.stdout.splitlines())
    assert "RAMPART" not in done.stdout.upper().replace(str(project.base).upper(), "")


def test_signals_stay_inside(project: Any, policy: Any) -> None:
    """Row 41: kill, tgkill, queued signals and pidfds reach the tree, and nobody outside."""
    source = Path(__file__).with_name("src") / "signals.py"
    victim = subprocess.Popen(["sleep", "600"])
    try:
        done = project.run(["python3", source, str(victim.pid), str(os.getpid())], policy)

        assert done.returncode == 0, done.stderr
        answers = dict(line.split("\t") for line in done.stdout.splitlines())
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    inside = {name: answer for name, answer in answers.items() if name.startswith("child")}
    outside = {name: answer for name, answer in answers.items() if not name.startswith("child")}
    assert set(inside.values()) == {"ok"}, inside
    assert set(outside.values()) <= {"EPERM", "EACCES", "ESRCH"}, outside
    assert len(outside) >= 10


def test_signalling_outside_works_bare(project: Any) -> None:
    """Row 41, control: without Rampart those signals arrive."""
    source = Path(__file__).with_name("src") / "signals.py"
    victim = subprocess.Popen(["sleep", "600"])
    try:
        bare = project.bare(["python3", source, str(victim.pid), str(victim.pid)])
        assert victim.wait(timeout=10) == -signal.SIGTERM
    finally:
        victim.kill()
        victim.wait()
    assert "kill\tok" in bare.stdout


ADJUSTMENTS = {
    "prlimit": "resource.prlimit(victim, resource.RLIMIT_CORE, (0, 0))",
    "setpriority": "os.setpriority(os.PRIO_PROCESS, victim, 5)",
    "sched_setaffinity": "os.sched_setaffinity(victim, {0})",
}


@pytest.mark.parametrize("call", ADJUSTMENTS)
def test_adjusting_processes_outside(call: str, project: Any, allow_all: Any) -> None:
    """Row 41: limits, priority and placement of a process outside cannot be changed."""
    code = f"import os, resource, sys; victim = int(sys.argv[1]); {ADJUSTMENTS[call]}"
    inside = code.replace("int(sys.argv[1])", "os.getpid()")
    victim = subprocess.Popen(["sleep", "600"])
    try:
        done = project.run(["python3", "-c", code, str(victim.pid)], allow_all)
        assert "PermissionError" in done.stderr
        assert project.bare(["python3", "-c", code, str(victim.pid)]).returncode == 0
        assert project.run(["python3", "-c", inside], allow_all).returncode == 0
    finally:
        victim.kill()
        victim.wait()


def test_other_processes_memory(project: Any, policy: Any) -> None:
    """Row 6: memory and descriptors of the harness cannot be opened, one's own can."""
    mine = os.getpid()
    script = (
        "for f in mem fd/0 root/etc/passwd environ;"
        f"do head -c 1 /proc/{mine}/$f > /dev/null 2>&1 && echo open $f; done;"
        f"echo x 2> /dev/null > /proc/{mine}/mem && echo wrote;"
        f"echo 500 2> /dev/null > /proc/{mine}/oom_score_adj && echo adjusted;"
        "head -1 /proc/self/root/etc/passwd | cut -d: -f1"
    )

    done = project.run(["sh", "-c", script], policy)

    assert done.stdout == "root\n"


MEMORY = """
import os, subprocess
other = subprocess.Popen(["sleep", "876"])
for pid in ("self", str(os.getpid()), str(other.pid), f"{other.pid}/task/{other.pid}"):
    try:
        open(f"/proc/{pid}/mem", "rb").close()
        print("opened")
    except OSError as error:
        print(error.strerror)
other.kill()
other.wait()
"""


@pytest.mark.core
def test_memory_of_a_sibling_is_closed(project: Any, allow_all: Any) -> None:
    """Row 3, 47: what a trusted program has read is not to be had from its memory; a process has its own."""
    assert project.bare([sys.executable, "-c", MEMORY]).stdout.split("\n")[:4] == ["opened"] * 4

    done = project.run([sys.executable, "-c", MEMORY], allow_all)

    assert done.stdout.split("\n")[:4] == ["opened"] * 2 + ["Permission denied"] * 2
