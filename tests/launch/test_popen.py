"""Popen and run are subprocess's, with a policy: same arguments, same results, same errors."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_broker import FakeBroker
from launching import eventually, gone

from rampart_seccomp.errors import LauncherMissing
from rampart_seccomp.launch import CompletedProcess, Popen, launcher_path, locate, run

SHOW = "import sys; print(sys.argv[1:])"

FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "list": (["echo", "a b", "c"], {}),
    "tuple": (("echo", "a"), {}),
    "bytes": ([b"echo", b"\xff"], {}),
    "path-like": ([Path("/bin/echo"), "x"], {}),
    "one string": ("pwd", {}),
    "one bytes": (b"pwd", {}),
    "one path": (Path("/bin/pwd"), {}),
    "generator": ((word for word in ("echo", "x")), {}),
    "shell": ("echo $0 $1; echo `pwd`", {"shell": True}),
    "shell, list": (["echo $0 $1", "zero", "one"], {"shell": True}),
    "shell, executable": ("echo $0 ${BASH_VERSION:+bash}", {"shell": True, "executable": "/bin/bash"}),
    "executable": (["zero", "-c", "echo $0"], {"executable": "/bin/sh"}),
    "executable through PATH": (["zero", "-c", "echo $0"], {"executable": "sh"}),
    "text": (["cat"], {"text": True, "input": "ä\r\n"}),
    "encoding": (["cat"], {"encoding": "utf-16", "input": "ä"}),
    "universal newlines": (["printf", "a\\r\\nb"], {"universal_newlines": True}),
    "bytes input": (["cat"], {"input": b"x" * 300_000}),
    "cwd": (["pwd"], {"cwd": b"/usr"}),
    "environment": (["/usr/bin/env"], {"env": {"A": "1"}}),
    "umask": (["sh", "-c", "umask"], {"umask": 0o77}),
    "fds stay open": (["sh", "-c", "ls /proc/self/fd | wc -l"], {"close_fds": False}),
    "stderr to stdout": (["sh", "-c", "echo a >&2"], {"stderr": subprocess.STDOUT}),
    "status": (["sh", "-c", "exit 3"], {}),
    "empty argument": (["printf", "%s|", "", "x"], {}),
}


@pytest.mark.parametrize(("args", "options"), FORMS.values(), ids=FORMS)
def test_same_result(args: Any, options: dict[str, Any], broker: FakeBroker) -> None:
    """Output and status equal subprocess.run's for every form of the arguments."""
    words = list(args) if not isinstance(args, str | bytes | os.PathLike) else args
    options = {"stdout": subprocess.PIPE} | options
    bare = subprocess.run(words, **options)
    ours = run(words, broker=broker, **options)
    assert (bare.args, bare.returncode, bare.stdout) == (ours.args, ours.returncode, ours.stdout)
    assert isinstance(ours, subprocess.CompletedProcess)
    assert isinstance(ours, CompletedProcess)


ERRORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "missing": (["nosuch"], {}),
    "missing path": (["/nosuch/x"], {}),
    "missing bytes": ([b"nosuch"], {}),
    "not executable": (["/etc/passwd"], {}),
    "a directory": (["/etc"], {}),
    "empty name": ([""], {}),
    "empty executable": (["x"], {"executable": ""}),
    "missing executable": (["x"], {"executable": "nosuch"}),
    "missing shell": ("x", {"shell": True, "executable": "/nosuch"}),
    "missing directory": (["true"], {"cwd": "/nosuch"}),
    "a number": ([3], {}),
    "a number among arguments": (["echo", 3], {}),
    "no arguments": ([], {}),
    "null byte": (["a\0b"], {}),
    "null byte in argument": (["echo", "a\0b"], {}),
    "path-like with shell": (Path("x"), {"shell": True}),
    "input and stdin": (["cat"], {"input": b"", "stdin": subprocess.PIPE}),
    "output twice": (["cat"], {"capture_output": True, "stdout": subprocess.PIPE}),
    "check": (["sh", "-c", "echo out; exit 3"], {"check": True, "capture_output": True}),
    "check, signal": (["sh", "-c", "kill -TERM $$"], {"check": True}),
    "timeout": (["sleep", "876"], {"timeout": 0.2}),
}


@pytest.mark.parametrize(("args", "options"), ERRORS.values(), ids=ERRORS)
def test_same_error(args: Any, options: dict[str, Any], broker: FakeBroker) -> None:
    """The same exception: type, errno, file name, status, output; and no descriptor or process is left."""

    def attempt(start: Any, **more: Any) -> Any:
        try:
            start(args, **options, **more)
        except Exception as error:
            names = ("errno", "filename", "returncode", "cmd", "output")
            return type(error), [getattr(error, name, None) for name in names]
        raise AssertionError("it was started")

    bare = attempt(subprocess.run)
    before = len(os.listdir("/proc/self/fd"))
    assert bare == attempt(run, broker=broker)
    eventually(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_executable_below_a_script(tmp_path: Path, broker: FakeBroker) -> None:
    """A file without #! is ENOEXEC, never handed to a shell."""
    script = tmp_path / "script"
    script.write_text("echo never\n")
    script.chmod(0o755)
    with pytest.raises(OSError, match="Exec format") as raised:
        run([script], broker=broker)
    assert raised.value.errno == errno.ENOEXEC
    assert raised.value.filename == str(script)


def test_preexec_fn_is_refused(broker: FakeBroker) -> None:
    """It would run outside of the filter and in the wrong process; the error says what to use instead."""
    with pytest.raises(ValueError, match=r"preexec_fn is not supported.*use cwd="):
        Popen(["true"], broker=broker, preexec_fn=os.getpid)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setting", [{"policy": "agent"}, {"on_ask": print}, {"audit": "x"}, {"explain": sys.stderr}]
)
def test_settings_belong_to_the_broker(setting: dict[str, Any], broker: FakeBroker) -> None:
    """Given beside a broker they would be ignored: an error."""
    with pytest.raises(TypeError, match="belongs to the broker"):
        Popen(["true"], broker=broker, **setting)


def test_callers_broker_stays_open(broker: FakeBroker) -> None:
    """Popen closes only a broker of its own."""
    assert run(["true"], broker=broker).returncode == 0
    assert not broker.closed


def test_two_pids(broker: FakeBroker) -> None:
    """pid is the launcher's, command_pid the command's."""
    with Popen(["sh", "-c", "echo $$ $PPID"], broker=broker, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert [process.command_pid, process.pid] == [int(word) for word in process.stdout.read().split()]


def test_pass_fds_override_close_fds(broker: FakeBroker) -> None:
    """The warning of subprocess, and its result."""
    reader, writer = os.pipe()
    with pytest.warns(RuntimeWarning, match="pass_fds overriding close_fds"):
        done = run(
            ["sh", "-c", f"echo x >/proc/self/fd/{writer}"], broker=broker, pass_fds=[writer], close_fds=False
        )
    os.close(writer)
    with open(reader) as pipe:
        assert (done.returncode, pipe.read()) == (0, "x\n")


def test_context_manager_and_poll(broker: FakeBroker) -> None:
    """poll() tells None while it runs; leaving the block waits and closes the pipes."""
    with Popen(["cat"], broker=broker, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0
    assert process.poll() == 0
    process.kill()


def test_timeout_counts_the_start() -> None:
    """A start that is held, as by a question, is within run's timeout, and nothing of it is left."""
    held: list[int] = []

    def hold(pid: int, number: int) -> int:
        held.append(pid)
        time.sleep(0.5)
        return 0

    with pytest.raises(subprocess.TimeoutExpired) as raised:
        run(["sleep", "876"], broker=FakeBroker(hold), timeout=0.1)
    assert raised.value.timeout == 0.1
    assert raised.value.cmd == ["sleep", "876"]
    assert gone(*held)


def test_interrupt_ends_the_tree(harness: Any) -> None:
    """KeyboardInterrupt in run() kills the tree and is raised, as from subprocess.run."""
    code = """
import os, sys
from fake_broker import FakeBroker
from rampart_seccomp.launch import run
try:
    run(["sh", "-c", "echo $$; trap '' INT; sleep 876 & sleep 876"], broker=FakeBroker())
except KeyboardInterrupt:
    print("interrupted")
"""
    process = harness(code)
    command = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "interrupted\n"
    assert gone(command)


def test_an_end_is_not_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that is limited wakes when the tree ends, where subprocess sleeps between looks."""
    slept: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (slept.append(seconds), sleep(seconds))[1])
    bare = subprocess.Popen(["sleep", "0.2"])
    bare.wait(20)
    assert slept, "the control: this is how subprocess waits"
    process = Popen(["sleep", "0.2"], broker=FakeBroker())
    slept.clear()
    assert process.wait(20) == 0
    assert slept == []


def test_a_timeout_is_told_as_given() -> None:
    """The exception of a wait that was too short names its whole time."""
    with Popen(["sleep", "876"], broker=FakeBroker()) as process:
        for timeout in (0.1, 0, -1):
            with pytest.raises(subprocess.TimeoutExpired) as raised:
                process.wait(timeout)
            assert raised.value.timeout == timeout
        process.kill()
    for timeout in (1e12, float("inf")):
        assert Popen(["true"], broker=FakeBroker()).wait(timeout) == 0


@pytest.mark.parametrize("timeout", [None, 60])
def test_an_interrupted_wait_gives_the_command_a_moment(timeout: float | None) -> None:
    """As with subprocess, whose first Ctrl-C leaves a command that got it, too, time to end by itself."""
    script = "trap 'exit 7' INT; echo; while :; do sleep 0.01; done"
    with Popen(["sh", "-c", script], broker=FakeBroker(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"\n"
        process._sigint_wait_secs = 60  # a quarter of a second, which a busy machine needs itself
        interrupt = threading.Timer(
            0.2, lambda: (process.send_signal(signal.SIGINT), os.kill(os.getpid(), signal.SIGINT))
        )
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            process.wait(timeout)
        interrupt.join()
        assert process.returncode == 7


def test_launcher_is_found() -> None:
    """It is a program in the package directory."""
    done = subprocess.run([launcher_path()], capture_output=True, text=True)
    assert done.stderr.startswith("usage: rampart-seccomp-launch")


def test_launcher_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without it, as from a zip file: a typed error that says what to do."""
    monkeypatch.setattr(locate, "_PACKAGE", str(tmp_path / "package.zip" / "rampart_seccomp"))
    with pytest.raises(LauncherMissing, match="install rampart-seccomp again") as raised:
        launcher_path()
    assert isinstance(raised.value, FileNotFoundError)
