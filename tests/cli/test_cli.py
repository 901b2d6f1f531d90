"""The command line around the commands: usage, versions, and errors as one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rampart_seccomp.cli import COMMANDS, LATER, main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` succeeds and lists what there is, and only that."""
    assert main(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command can be imported and says how it is used."""
    for name in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert f"usage: rampart-seccomp {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", LATER)
def test_later_commands_say_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command of a later version is not an unknown one."""
    assert main([name, "x", "--flag"]) == 125
    assert capsys.readouterr().err == f"rampart-seccomp: {name} is not supported by this version\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "a command is missing"),
        (["runn", "--", "ls"], "there is no command 'runn'"),
        (["\x1b[2J"], "there is no command '\\\\x1b[2J'"),
    ],
)
def test_wrong_usage_is_125(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong: status 125 and the commands that there are."""
    assert main(arguments) == 125
    assert capsys.readouterr().err.startswith(f"rampart-seccomp: {problem}\nusage: ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["check"], "rampart-seccomp check: the following arguments are required: FILE"),
        (["log", "tail"], "rampart-seccomp log tail: the following arguments are required: FILE"),
        (
            ["log", "tail", "-n", "-1", "x"],
            "rampart-seccomp log tail: argument -n: '-1' is not a number of records",
        ),
        (["doctor", "--frob"], "rampart-seccomp doctor: unrecognized arguments: --frob"),
        (["explain", "read"], "rampart-seccomp explain: read of what?"),
        (
            ["explain", "--env", "A", "read", "a"],
            "rampart-seccomp explain: --env is for exec, and not for read",
        ),
        (["explain", "read", "a", "b"], "rampart-seccomp explain: read takes one object"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command answers wrong arguments with 125 and one line that says where help is."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 125
    error = capsys.readouterr().err
    assert error.startswith(problem)
    assert error.endswith("--help)\n")
    assert error.count("\n") == 1


def test_what_fails_inside_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the system, of Rampart, or of its own code: 125 and one line, without a traceback."""
    assert main(["log", "tail", "/nowhere/\x1b"]) == 125
    assert capsys.readouterr().err == "rampart-seccomp log: /nowhere/\\x1b: No such file or directory\n"
    assert main(["explain", "connect", "nowhere"]) == 125
    assert capsys.readouterr().err.startswith("rampart-seccomp explain: 'nowhere' does not name one port")
    monkeypatch.setattr("rampart_seccomp.cli.check._check", lambda file: 1 // 0)
    assert main(["check", "x"]) == 125
    assert "internal error: ZeroDivisionError" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    """`python -m rampart_seccomp` is the same program, and passes its status on."""
    command = [sys.executable, "-m", "rampart_seccomp"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("rampart-seccomp ")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 125


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--version"], 0), (["log", "--help"], 0), (["log"], 125), (["x"], 125)]
)
def test_the_program_ends_itself(arguments: list[str], status: int) -> None:
    """It does not wait for the interpreter to be taken apart, but what was to be said and done at exit is."""
    code = (
        "import atexit, sys, rampart_seccomp.cli as cli\n"
        "class Last:\n"
        "    def __del__(self): print('taken apart', file=sys.__stderr__, flush=True)\n"
        "last = Last(); last.itself = last\n"
        "atexit.register(print, 'at exit')\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "cli.entry()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout.endswith("at exit\n")
    assert (len(done.stdout) > len("at exit\n")) == (status == 0)
    assert "taken apart" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`log tail … | head -1` ends quietly."""
    log = tmp_path / "log"
    log.write_text('{"record":"session"}\n' * 20_000)
    command = f"{sys.executable} -m rampart_seccomp log tail -n 20000 {log} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
