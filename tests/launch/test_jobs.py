"""Job control on a real terminal: as bare, inside of a sandboxed shell and around a sandboxed command."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_broker import FakeBroker
from launching import eventually
from terminal import CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Z, Terminal

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
]

PROMPT = "@@"
SHELL = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
HARNESS = """
import signal, sys
import rampart_seccomp as rampart
for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, lambda number, frame: None)
everything = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
process = rampart.Popen(sys.argv[1:], policy=rampart.Policy(rules=[everything]))
status = process.wait()
sys.exit(status if status >= 0 else 128 - status)
"""


@pytest.fixture
def ways(environment: dict[str, str], tmp_path: Path) -> dict[str, list[str]]:
    """What to put in front of a command: nothing, the command line, a harness that uses Popen."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\n"
        "default: {read: allow, write: allow, exec: allow, connect: allow, listen: allow}\n"
        "rules: []\n"
    )
    harness = tmp_path / "harness.py"
    harness.write_text(HARNESS)
    return {
        "bare": [],
        "run": [sys.executable, "-m", "rampart_seccomp", "run", "--policy", str(policy), "--"],
        "Popen": [sys.executable, str(harness)],
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[list[str]], Terminal]]:
    """Start a program on a terminal of its own."""
    started: list[Terminal] = []

    def begin(argv: list[str]) -> Terminal:
        # The prompt is no part of what is typed, or its echo would be taken for it.
        terminal = Terminal(argv, {**environment, "PS1": PROMPT, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"})
        started.append(terminal)
        return terminal

    yield begin
    for terminal in started:
        terminal.close()


WAYS = pytest.mark.parametrize("way", ["bare", "run", "Popen"])


@pytest.fixture
def shell(way: str, ways: dict[str, list[str]], start: Callable[[list[str]], Terminal]) -> Terminal:
    """An interactive shell that is itself behind the policy."""
    terminal = start([*ways[way], *SHELL])
    terminal.expect(PROMPT)
    return terminal


def ask(terminal: Terminal, command: str) -> list[str]:
    """Run a command at the prompt; give the lines that it printed."""
    terminal.type(command + "\n")
    return [line for line in terminal.expect(PROMPT).splitlines() if line and line != command]


def runs(terminal: Terminal, program: str) -> None:
    """Wait until a program is in the foreground, and has come to its point."""

    def there() -> bool:
        try:
            return Path(f"/proc/{terminal.foreground()}/comm").read_text().strip() == program
        except OSError:
            return False

    eventually(there)
    time.sleep(0.1)


@WAYS
@pytest.mark.parametrize(("key", "status"), [(CTRL_C, "130"), (CTRL_BACKSLASH, "131")], ids=["INT", "QUIT"])
def test_keys_end_a_program(shell: Terminal, key: str, status: str) -> None:
    """Ctrl-C and Ctrl-\\ end what is in the foreground, and the shell goes on."""
    shell.type("sleep 876\n")
    runs(shell, "sleep")
    shell.type(key)
    shell.expect(PROMPT)
    assert ask(shell, "echo $?") == [status]


@WAYS
def test_suspend_and_resume(shell: Terminal) -> None:
    """Ctrl-Z stops the job, jobs knows it, bg and fg go on with it, Ctrl-C ends it."""
    shell.type("sleep 876\n")
    runs(shell, "sleep")
    shell.type(CTRL_Z)
    assert "Stopped" in shell.expect(PROMPT)
    assert "Stopped" in "".join(ask(shell, "jobs"))
    ask(shell, "bg")
    assert "Running" in "".join(ask(shell, "jobs"))
    shell.type("fg\n")
    runs(shell, "sleep")
    shell.type(CTRL_Z)
    shell.expect(PROMPT)
    shell.type("fg\n")
    runs(shell, "sleep")
    shell.type(CTRL_C)
    shell.expect(PROMPT)
    assert ask(shell, "echo $?; jobs") == ["130"]


@WAYS
def test_background_reader_is_stopped(shell: Terminal) -> None:
    """A background job that reads from the terminal gets SIGTTIN."""
    ask(shell, "cat &")
    eventually(lambda: "Stopped" in "".join(ask(shell, "jobs")))
    shell.type("fg\n")
    runs(shell, "cat")
    shell.type("hello\n")
    shell.expect("hello\r\nhello")
    shell.type(CTRL_D)
    shell.expect(PROMPT)


@WAYS
def test_window_size(shell: Terminal) -> None:
    """The size is the terminal's, and a change of it is told to the program in the foreground, once."""
    assert ask(shell, "stty size") == ["24 80"]
    shell.resize(30, 100)
    assert ask(shell, "stty size") == ["30 100"]
    shell.type(
        "sh -c 'trap \"stty size; n=x\\$n; echo once:\\$n:\" WINCH; echo go; while :; do sleep 0.1; done'\n"
    )
    shell.expect("go\r\n")
    shell.resize(40, 120)
    shell.expect("40 120\r\nonce:x:")
    shell.type(CTRL_C)
    shell.expect(PROMPT)


@WAYS
def test_status_and_pipelines(shell: Terminal) -> None:
    """Pipelines of jobs work, and the shell's own status comes through."""
    assert ask(shell, "seq 3 | sort -r | tr '\\n' ,; echo") == ["3,2,1,"]
    assert ask(shell, "tty > /dev/null && echo on a terminal") == ["on a terminal"]
    shell.type("exit 7\n")
    assert shell.wait() == 7


@WAYS
def test_pager_and_editor(shell: Terminal, tmp_path: Path) -> None:
    """Programs that take the whole screen come up, and give it back."""
    text = tmp_path / "text"
    text.write_text("".join(f"line {number}\n" for number in range(100)))
    if shutil.which("less"):
        shell.type(f"less {text}\n")
        shell.expect("line 20")
        shell.type("G")
        shell.expect("line 99")
        shell.type("q")
        shell.expect(PROMPT)
    if shutil.which("vim"):
        shell.type(f"vim -u NONE -c 'normal Gochanged' -c wq {text}\n")
        shell.expect(PROMPT)
        assert text.read_text().endswith("line 99\nchanged\n")
    assert ask(shell, "stty -a | grep -ow icanon; echo $?") == ["icanon", "0"]


@WAYS
def test_python_prompt(shell: Terminal) -> None:
    """The interpreter's own prompt: Ctrl-C interrupts, Ctrl-D ends."""
    shell.type(f"PYTHON_BASIC_REPL=1 {sys.executable} -q\n")
    shell.expect(">>> ")
    shell.type("print(6 * 7)\n")
    shell.expect("42\r\n>>> ")
    shell.type("import time; time.sleep(876)\n")
    shell.expect("\r\n")
    time.sleep(0.3)
    shell.type(CTRL_C)
    assert "KeyboardInterrupt" in shell.expect(">>> ")
    shell.type(CTRL_D)
    shell.expect(PROMPT)


@WAYS
def test_the_sandbox_as_a_job(
    way: str, ways: dict[str, list[str]], start: Callable[[list[str]], Terminal]
) -> None:
    """Around it: a shell outside sees the sandboxed command stop, resumes it, and sees how it ended."""
    outside = start(SHELL)
    outside.expect(PROMPT)
    command = " ".join([*ways[way], "sh -c 'echo begun; exec sleep 876'"])
    for key, status in ((CTRL_C, "130"), (CTRL_BACKSLASH, "131")):
        outside.type(f"{command}\n")
        outside.expect("begun\r\n")
        time.sleep(0.2)
        outside.type(CTRL_Z)
        assert "Stopped" in outside.expect(PROMPT)
        outside.type("fg\n")
        outside.expect("876")
        time.sleep(0.3)
        outside.type(key)
        outside.expect(PROMPT)
        assert ask(outside, "echo $?") == [status]
    assert ask(outside, "jobs") == []


@pytest.mark.parametrize("way", ["bare", "run", "launcher"])
def test_hang_up(
    way: str, ways: dict[str, list[str]], start: Callable[[list[str]], Terminal], tmp_path: Path
) -> None:
    """When the terminal goes away, its leader is told: the command, once. A harness that dies of it takes the
    tree along."""
    said = tmp_path / "said"
    script = f"trap 'echo hung up >> {said}' HUP; echo go; "
    script += f"for i in $(seq 8); do sleep 0.1; done; echo end >> {said}"
    if way == "launcher":
        wrapped = FakeBroker().wrap([b"sh", b"-c", os.fsencode(script)])
        os.set_inheritable(wrapped.pass_fds[0], True)
        terminal = start([os.fsdecode(word) for word in wrapped.argv])
        wrapped.close()
    else:
        terminal = start([*ways[way], "sh", "-c", script])
    terminal.expect("go\r\n")
    terminal.hang_up()
    eventually(lambda: said.exists() and "end" in said.read_text())
    assert said.read_text() == "hung up\nend\n"
