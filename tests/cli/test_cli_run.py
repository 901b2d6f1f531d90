"""``run``: the command behaves as if it had been started bare, and every failure has its status."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rampart_seccomp.cli.run import _pattern

ALLOW_ALL = """\
version: 1
default: {read: allow, write: allow, exec: allow, connect: allow, listen: allow}
rules: []
"""

POLICY = """\
version: 1
default: {read: allow, exec: allow}
rules:
  - {name: secrets, deny: read, paths: ["./*.key"], message: Keep out.}
  - {name: no-id, deny: exec, paths: ["/usr/bin/id"]}
  - {name: output, allow: write, paths: ["/dev/**", "./out/**"]}
  - {name: careful, ask: read, paths: ["./ask"], timeout: 30s}
"""


class Shell:
    """A project directory, and the program as a shell would start it there."""

    def __init__(self, project: Any) -> None:
        self.project = project
        self.root: Path = project.root
        self.policy: Path = project.base / "policy.yaml"
        self.policy.write_text(POLICY)
        self.allow_all: Path = project.base / "all.yaml"
        self.allow_all.write_text(ALLOW_ALL)
        path = [entry for entry in sys.path if entry.endswith("src")] + [os.environ.get("PYTHONPATH", "")]
        self.environment = project.environment | {"PYTHONPATH": os.pathsep.join(filter(None, path))}

    def argv(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "rampart_seccomp", "run", *map(str, arguments)]

    def run(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 60, "check": False} | options
        return subprocess.run(self.argv(*arguments), cwd=self.root, env=self.environment, **options)

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "text": True} | options
        return subprocess.Popen(self.argv(*arguments), cwd=self.root, env=self.environment, **options)


@pytest.fixture
def shell(project: Any) -> Shell:
    return Shell(project)


# The command's own behaviour


def test_closed_streams_stay_closed(shell: Shell) -> None:
    """A program that is started without output has the command's status, and the command has none either."""
    run = " ".join(shell.argv("--policy", shell.allow_all, "--", "sh", "-c"))
    script = f"{run} 'test ! -e /proc/self/fd/1; exit $((3 + $?))' >&-"
    done = subprocess.run(["sh", "-c", script], cwd=shell.root, env=shell.environment, stderr=-1, check=False)
    assert (done.returncode, done.stderr) == (3, b"")


def test_what_is_open_beside_is_not_passed_on(shell: Shell) -> None:
    """A descriptor that the program inherits, and that no policy was asked about, does not reach the tree."""
    with (shell.root / "out.txt").open("w") as beside:
        fd = beside.fileno()
        ask = ["sh", "-c", f"test -e /proc/self/fd/{fd} && echo open || echo closed"]
        bare = subprocess.run(ask, pass_fds=[fd], capture_output=True, text=True, check=True)
        assert bare.stdout == "open\n", "the control"
        done = shell.run("--policy", shell.allow_all, "--", *ask, pass_fds=[fd])
    assert (done.stdout, done.stderr, done.returncode) == ("closed\n", "", 0)


@pytest.mark.parametrize("status", [0, 1, 3, 125, 255])
def test_the_exit_status_is_the_commands(shell: Shell, status: int) -> None:
    """Any status comes through, and nothing is said about it."""
    done = shell.run("--policy", shell.policy, "--", "sh", "-c", f"echo out; echo err >&2; exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV", "SIGINT", "SIGUSR1", "SIGPIPE", "SIGHUP"])
def test_death_by_a_signal_is_mirrored(shell: Shell, name: str) -> None:
    """Whoever waits for us sees the signal that the command died of."""
    done = shell.run("--policy", shell.policy, "--", "sh", "-c", f"kill -{name[3:]} $$")
    assert (done.returncode, done.stderr) == (-signal.Signals[name], "")


def test_only_the_command_dumps_core(shell: Shell) -> None:
    """The mirrored death leaves no core of ours, though the limit would allow one."""
    dump = ["sh", "-c", 'ulimit -c unlimited 2>/dev/null; exec "$@"', "sh"]

    def dies(*argv: str) -> int:
        pid = os.posix_spawnp("sh", [*dump, *argv], shell.environment)
        return os.waitpid(pid, 0)[1]

    with contextlib.chdir(shell.root) if sys.version_info >= (3, 11) else _chdir(shell.root):
        bare = dies("sh", "-c", "kill -SEGV $$")
        ours = dies(*shell.argv("--policy", shell.allow_all, "--", "sh", "-c", "kill -SEGV $$"))
    if not os.WCOREDUMP(bare):
        pytest.skip("this machine writes no core files")
    assert (os.WTERMSIG(ours), os.WCOREDUMP(ours)) == (signal.SIGSEGV, False)


@contextlib.contextmanager
def _chdir(path: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(path)
    yield
    os.chdir(before)


def test_standard_streams_and_arguments_pass_unchanged(shell: Shell) -> None:
    """Input reaches the command, and so do arguments of any bytes, empty ones and options too."""
    script = "import sys, os; print([os.fsencode(a) for a in sys.argv[1:]], sys.stdin.read())"
    arguments = ["-v", "--policy", "", "--", "a b", "\udcff\n"]
    done = shell.run("--policy", shell.policy, "--", sys.executable, "-c", script, *arguments, input="in")
    assert done.stdout == f"{[os.fsencode(argument) for argument in arguments]} in\n"


def test_the_command_may_follow_without_a_border(shell: Shell) -> None:
    """`run CMD ARG…` works, and the command's options stay its own."""
    assert shell.run("--policy", shell.policy, "sh", "-c", "exit 4").returncode == 4


def test_the_command_inherits_what_it_would_bare(shell: Shell) -> None:
    """Signal mask, ignored signals, open descriptors and environment are those of a bare start."""
    command = [
        "sh",
        "-c",
        "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd | wc -l; env | grep -v ^_= | sort",
    ]
    bare = subprocess.run(
        command, cwd=shell.root, env=shell.environment, capture_output=True, text=True, check=True
    )
    assert shell.run("--policy", shell.allow_all, "--", *command).stdout == bare.stdout


# Failures

BROKEN = Path(__file__).parent.parent / "policy" / "broken"


@pytest.mark.parametrize(
    "name",
    [
        "unknown_top",
        "duplicate_name",
        "unquoted_star",
        "unreachable",
        "test_fails",
        "extends_cycle",
        "not_utf8",
    ],
)
def test_a_broken_policy_starts_nothing(shell: Shell, name: str) -> None:
    """The one error that belongs to the file, status 125, and the command was not started; fixed, it is."""
    expected = (BROKEN / f"{name}.txt").read_text()
    command = ["--", "touch", "started"]
    done = shell.run("--policy", BROKEN / f"{name}.yaml", *command)
    assert (done.returncode, done.stdout) == (125, "")
    assert f": {expected}" in done.stderr.replace(f"{BROKEN}/", "")
    # Beneath a policy that allows it, too: a stack is as sound as each of its layers.
    assert (
        shell.run("--policy", shell.allow_all, "--policy", BROKEN / f"{name}.yaml", *command).returncode
        == 125
    )
    assert not (shell.root / "started").exists()
    assert shell.run("--policy", shell.allow_all, *command).returncode == 0
    assert (shell.root / "started").exists()


def failures(shell: Shell) -> dict[str, tuple[list[str | Path], str]]:
    broken = shell.project.base / "broken.yaml"
    broken.write_text("version: 1\nrulez: []\n")
    link = shell.project.base / "link"
    link.symlink_to("/dev/null")
    return {
        "no policy file": (["--policy", "none.yaml"], "none.yaml"),
        "broken policy": (["--policy", broken], f"{broken}:2: "),
        "queue": (["--ask", "queue"], "not supported by this version"),
        "observe and policy": (["--observe", "--policy", "agent"], "leave --policy out"),
        "host pattern": (["--allow-host", "a:b:c"], "a:b:c"),
        "path pattern": (["--allow-write", "a/**b**"], "**b**"),
        "audit link": (["--audit", link], "is a symbolic link"),
        "unknown option": (["--frob"], "--frob"),
        "abbreviated option": (["--pol", "agent"], "--pol"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "no policy file",
        "broken policy",
        "queue",
        "observe and policy",
        "host pattern",
        "path pattern",
        "audit link",
        "unknown option",
        "abbreviated option",
    ],
)
def test_a_failure_of_our_own_is_125_and_starts_nothing(shell: Shell, case: str) -> None:
    """One clear line on standard error, and the command was not started."""
    arguments, problem = failures(shell)[case]
    done = shell.run(*arguments, "--", "touch", "started")
    assert done.returncode == 125
    assert done.stderr.startswith("rampart-seccomp run: ")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (shell.root / "started").exists()


def test_a_missing_command_is_125(shell: Shell) -> None:
    """Options alone start nothing."""
    assert shell.run("--policy", "agent").returncode == 125
    assert shell.run("--policy", "agent", "--").returncode == 125
    assert "stands before --" in shell.run("stray", "--", "true").stderr


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        ("no-such-command", 127, "No such file or directory"),
        ("./missing", 127, "No such file or directory"),
        ("./plain", 126, "Permission denied"),
        ("./", 126, "Permission denied"),
        ("./garbage", 126, "Exec format error"),
    ],
)
def test_what_cannot_be_started(shell: Shell, command: str, status: int, text: str) -> None:
    """127 for what is not there, 126 for what cannot be executed, and the reason by name."""
    shell.project.write("plain", "x")
    shell.project.write("garbage", "\x7fnothing", 0o755)
    done = shell.run("--policy", shell.allow_all, "--", command)
    assert (done.returncode, done.stderr) == (status, f"rampart-seccomp: {command}: {text}\n")


def test_a_denied_command_is_126(shell: Shell) -> None:
    """The policy's rule is named; an allowed program of the same place runs."""
    done = shell.run("--policy", shell.policy, "--", "/usr/bin/id")
    assert done.returncode == 126
    assert "no-id (policy.yaml:5)" in done.stderr
    assert shell.run("--policy", shell.policy, "--", "/usr/bin/env", "true").returncode == 0


# Flags


def test_flags_amend_the_policy(shell: Shell) -> None:
    """--allow-write and --allow-read add; what the policy denies stays denied."""
    (shell.root / "place").mkdir()
    shell.project.write("my.key", "secret")
    write = ["sh", "-c", "echo x > place/new"]
    assert shell.run("--policy", shell.policy, "--", *write).returncode != 0
    assert not (shell.root / "place" / "new").exists()
    assert shell.run("--policy", shell.policy, "--allow-write", "place", "--", *write).returncode == 0
    assert (shell.root / "place" / "new").read_text() == "x\n"
    read = shell.run("--policy", shell.policy, "--allow-read", "my.key", "--", "cat", "my.key")
    assert (read.returncode, read.stdout) == (1, "")


def test_allow_host_opens_one_destination(shell: Shell) -> None:
    """With the flag the connection is made (and refused by nobody listening); both are on record."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port})); print('connected')"
        command = ["--", sys.executable, "-c", script]
        denied = shell.run("--policy", shell.policy, *command)
        assert "ConnectionRefusedError" in denied.stderr
        allowed = shell.run("--policy", shell.policy, "--allow-host", f"127.0.0.1:{port}", *command)
        assert allowed.stdout == "connected\n"


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("/etc/hosts", "/etc/hosts"),
        ("/etc", "/etc/**"),
        ("/etc/", "/etc/**"),
        ("build", "./build"),
        ("sub", "./sub/**"),
        (".", "./**"),
        ("./**", "./**"),
        ("**/x", "**/x"),
        ("@tmp", "@tmp"),
        ("~/none", "~/none"),
        ("../x", "{parent}/x"),
    ],
)
def test_paths_become_patterns(
    given: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags take paths as a shell has them: relative to here, and a directory means all of it."""
    (tmp_path / "here" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert _pattern(given) == pattern.format(parent=tmp_path)


def test_explain_tells_each_denial_once(shell: Shell) -> None:
    """What, by which rule and line, and what the rule says; twice the same is told once, and escaped."""
    shell.project.write("\x1b[2J.key", "secret")
    shell.project.write("a.key", "secret")
    script = "cat a.key; cat a.key; cat *2J.key; exit 0"
    done = shell.run("--policy", shell.policy, "--explain", "--", "sh", "-c", f"({script}) 2>/dev/null")
    told = [line for line in done.stderr.splitlines() if line.startswith("rampart: denied")]
    assert told == [
        f"rampart: denied read {shell.root}/a.key: secrets (policy.yaml:4)",
        f"rampart: denied read {shell.root}/\\x1b[2J.key: secrets (policy.yaml:4)",
    ]
    assert "Keep out." in done.stderr
    assert shell.run("--policy", shell.policy, "--", "sh", "-c", f"({script}) 2>/dev/null").stderr == ""


def test_the_audit_log_has_every_decision(shell: Shell) -> None:
    """--audit records what was denied and allowed, the last call too, and verifies."""
    from rampart_seccomp.audit import verify

    shell.project.write("a.key", "secret")
    log = shell.project.audit
    shell.run("--policy", shell.policy, "--audit", log, "--", "cat", "a.key")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    denied = [record for record in records if record.get("verdict") == "deny"]
    assert [(record["object"], record["rule"]) for record in denied] == [(f"{shell.root}/a.key", "secrets")]
    assert verify(log).records == len(records)


def test_observe_restricts_nothing_and_records(shell: Shell) -> None:
    """The profile observe, with a log in the user's state directory, which is named."""
    shell.project.write(".env", "secret")
    done = shell.run("--observe", "--", "cat", ".env")
    assert (done.returncode, done.stdout) == (0, "secret")
    prefix = "rampart-seccomp: recording to "
    assert done.stderr.startswith(prefix)
    log = Path(done.stderr.removeprefix(prefix).strip())
    assert log.is_relative_to(shell.project.home)
    assert f"{shell.root}/.env" in log.read_text()


# Signals

WAITING = """
import signal, sys, time
got = []
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), lambda number, frame: got.append(signal.Signals(number).name))
print("ready", flush=True)
while not got:
    time.sleep(0.01)
time.sleep(0.3)
print(*got, flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGQUIT"])
def test_a_signal_to_us_alone_reaches_the_command(shell: Shell, name: str) -> None:
    """Once; and we end as the command does."""
    with shell.start("--policy", shell.allow_all, "--", sys.executable, "-c", WAITING, name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[name])
        assert process.stdout.readline() == f"{name}\n"
        assert process.wait(20) == 0


def test_our_death_ends_the_command(shell: Shell) -> None:
    """SIGKILL to us leaves nothing running: the pipe that the command holds is closed soon."""
    with shell.start(
        "--policy", shell.allow_all, "--", "sh", "-c", "echo ready; sleep 60 & sleep 60"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        began = time.monotonic()
        assert process.stdout.read() == ""
        assert time.monotonic() - began < 10


class Terminal:
    """A process with a controlling terminal, and the person in front of it."""

    def __init__(self, shell: Shell, *arguments: str | Path) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(shell.root)
            argv = shell.argv(*arguments)
            os.execve(argv[0], argv, shell.environment)
        self.seen = ""

    def read_until(self, text: str) -> str:
        deadline = time.monotonic() + 30
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        """Read to the end, and return the exit status."""
        with contextlib.suppress(OSError):
            while more := os.read(self.fd, 4096):
                self.seen += more.decode(errors="replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(shell: Shell) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def open_terminal(*arguments: str | Path) -> Terminal:
        made.append(Terminal(shell, *arguments))
        return made[-1]

    yield open_terminal
    for each in made:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)
        os.close(each.fd)


def test_ctrl_c_reaches_the_command_once(shell: Shell, terminal: Callable[..., Terminal]) -> None:
    """The terminal sends SIGINT to the whole foreground: the command gets one, not a second from us."""
    child = terminal("--policy", shell.allow_all, "--", sys.executable, "-c", WAITING, "SIGINT")
    child.read_until("ready")
    child.type("\x03")
    assert child.wait() == 0
    assert child.seen.count("SIGINT") == 1


def test_ctrl_c_kills_a_command_that_does_not_catch_it(
    shell: Shell, terminal: Callable[..., Terminal]
) -> None:
    """As bare: the command dies of SIGINT, and so do we, without a word."""
    child = terminal("--policy", shell.allow_all, "--", "sh", "-c", "echo ready; exec sleep 60")
    child.read_until("ready")
    child.type("\x03")
    assert child.wait() == -signal.SIGINT
    assert "rampart" not in child.seen


@pytest.mark.parametrize(
    ("answer", "status", "shown"), [("y\n", 0, "content"), ("n\n", 1, "Permission denied")]
)
def test_a_person_is_asked(
    shell: Shell, terminal: Callable[..., Terminal], answer: str, status: int, shown: str
) -> None:
    """The rule and the object are shown; `y` lets the held call happen, `n` denies it."""
    shell.project.write("ask", "content")
    child = terminal("--policy", shell.policy, "--", "cat", "ask")
    prompt = child.read_until("[y/N]")
    assert f"read      {shell.root}/ask" in prompt
    assert "rule      careful" in prompt
    child.type(answer)
    assert child.wait() == status
    assert shown in child.seen


def test_ctrl_c_ends_the_run_while_a_question_stands(shell: Shell, terminal: Callable[..., Terminal]) -> None:
    """Nobody waits for an answer that cannot matter any more."""
    shell.project.write("ask", "content")
    script = "trap 'exit 9' INT; cat ask & wait"
    child = terminal("--policy", shell.policy, "--", "sh", "-c", script)
    child.read_until("[y/N]")
    began = time.monotonic()
    child.type("\x03")
    assert child.wait() == 9
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("flags", [("--ask", "deny"), ()])
def test_without_a_terminal_a_question_is_a_denial_that_says_so(shell: Shell, flags: tuple[str, ...]) -> None:
    """Headless, by flag or because there is no terminal: denied, and --explain tells why."""
    shell.project.write("ask", "content")
    done = shell.run(
        "--policy", shell.policy, *flags, "--explain", "--", "cat", "ask", start_new_session=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody could be asked: no terminal; rule careful" in done.stderr
