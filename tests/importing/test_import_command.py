"""``rampart-seccomp import``: where it writes, what it says, how it exits."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampart_seccomp.cli import main
from rampart_seccomp.policy import Policy

CLEAN = '{"permissions": {"deny": ["Read(./.env)"]}}'
LOSSY = '{"permissions": {"deny": ["Read(./.env)", "mcp__x"], "allow": ["WebSearch"]}}'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to stand in, with one clean and one lossy file."""
    (tmp_path / "clean.json").write_text(CLEAN)
    (tmp_path / "lossy.json").write_text(LOSSY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_standard_output(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -o, and with `-o -`, the policy is all that is on standard output."""
    assert main(["import", "clean.json"]) == 0
    first = capsys.readouterr().out
    assert main(["import", "clean.json", "-o", "-"]) == 0

    assert first == capsys.readouterr().out
    assert Policy.loads(first).rules[0].paths == ("./.env/**",)


def test_losses_are_loud(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A deny that is not enforced: exit 1, named at the top of the file, which is there, and on stderr."""
    assert main(["import", "lossy.json", "-o", "policy.yaml"]) == 1
    written = (place / "policy.yaml").read_text()
    said = capsys.readouterr().err

    for text in (written.partition("version: 1")[0], said):
        assert "NOT ENFORCED" in text
        assert "permissions.deny[1] (line 1): deny mcp__x" in text
        assert "permissions.allow[0] (line 1): allow WebSearch" in text
    assert Policy.load("./policy.yaml").rules


def test_losses_can_be_accepted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --accept-losses the exit status is 0, and they are said all the same."""
    assert main(["import", "lossy.json", "--accept-losses"]) == 0
    assert "NOT ENFORCED" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_never_overwrites(place: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """What is there stays, a symbolic link to nothing included; --force replaces the name itself."""
    output = place / "policy.yaml"
    if kind == "file":
        output.write_text("mine")
    else:
        output.symlink_to("elsewhere")

    assert main(["import", "clean.json", "-o", "policy.yaml"]) == 125
    assert "--force" in capsys.readouterr().err
    assert kind != "file" or output.read_text() == "mine"
    assert not (place / "elsewhere").exists()

    assert main(["import", "clean.json", "-o", "policy.yaml", "--force"]) == 0
    assert not output.is_symlink()
    assert Policy.load(output).rules
    assert not (place / "elsewhere").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["clean.json", "--from", "peg"],
        ["clean.json", "--from", "toml"],
        ["missing.json"],
        ["broken.json"],
        ["clean.json", "-o", "missing/policy.yaml"],
        [],
    ],
)
def test_failures(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """One line, exit 125, and nothing written: not even a part of it."""
    (place / "broken.json").write_text(CLEAN[:-2])
    before = sorted(place.iterdir())
    options = arguments if "-o" in arguments or not arguments else [*arguments, "-o", "policy.yaml"]

    try:
        status = main(["import", *options])
    except SystemExit as exit_:
        status = int(exit_.code or 0)

    assert status == 125
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert before == sorted(place.iterdir())
