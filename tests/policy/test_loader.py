"""Loading: total, with one error that names file, line and key; never something half-loaded."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy import Policy, PolicyTest, Rule, allow
from rampart_seccomp.policy.document import MAX_BYTES
from rampart_seccomp.policy.loader import profiles

BROKEN = sorted(Path(__file__).with_name("broken").glob("*.yaml"))

WHOLE = """\
version: 1
default: {read: allow, write: ask, create: deny}
audit: denials
rules:
  - name: secrets
    deny: [read, write]
    paths: ["~/.ssh/**", ~]
    except: ["~/.ssh/*.pub"]
    message: No.
    errno: ENOENT
    reason: They are secret.
  - name: publish
    ask: exec
    commands: npm publish **
    timeout: 2m
  - name: serve
    allow: listen
    ports: [8000, 9000-9001, "127.0.0.1:1"]
    log: false
tests:
  - {deny: read, path: ~/.ssh/id, by: secrets}
  - {allow: listen, port: 8000}
  - {ask: exec, command: npm publish --tag x}
"""


class TestWhole:
    def test_every_key(self) -> None:
        """A file with every key is the value that Python would make of it."""
        expected = Policy(
            default={"read": "allow", "write": "ask", "create": "deny"},
            audit="denials",
            rules=[
                Rule(
                    name="secrets",
                    verdict="deny",
                    operations=["read", "write"],
                    paths=["~/.ssh/**", "~"],
                    except_="~/.ssh/*.pub",
                    message="No.",
                    errno="ENOENT",
                    reason="They are secret.",
                ),
                Rule(
                    name="publish", verdict="ask", operations="exec", commands="npm publish **", timeout=120
                ),
                allow("listen", name="serve", ports=[8000, "9000-9001", "127.0.0.1:1"], log=False),
            ],
            tests=[
                PolicyTest(verdict="deny", operation="read", path="~/.ssh/id", by="secrets"),
                PolicyTest(verdict="allow", operation="listen", port=8000),
                PolicyTest(verdict="ask", operation="exec", command="npm publish --tag x"),
            ],
        )
        loaded = Policy.loads(WHOLE, source="whole.yaml")
        assert expected == loaded
        assert expected.fingerprint == loaded.fingerprint
        assert [rule.place for rule in loaded.rules] == ["whole.yaml:5", "whole.yaml:12", "whole.yaml:16"]

    def test_words_stay_words(self) -> None:
        """YAML 1.1's surprises (`no`, `on`, sexagesimals) do not happen."""
        policy = Policy.loads("version: 1\nrules:\n  - {name: no, deny: read, reason: 1:30}\n")
        assert (policy.rules[0].name, policy.rules[0].reason) == ("no", "1:30")

    def test_smallest(self) -> None:
        """A version is all that a policy needs; it denies everything."""
        policy = Policy.loads("version: 1\n")
        assert set(policy.default.values()) == {"deny"}
        assert set(policy.default) == set(Operation)


class TestBroken:
    def test_there_are_enough(self) -> None:
        """Forty and more broken files are tried."""
        assert len(BROKEN) >= 40

    @pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
    def test_message(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each broken file gives exactly its one error, fast."""
        monkeypatch.chdir(path.parent)
        started = time.process_time()
        with pytest.raises(PolicyError) as caught:
            Policy.load(path.name)
        assert path.with_suffix(".txt").read_text() == f"{caught.value}\n"
        assert time.process_time() - started < 1
        assert str(caught.value).startswith(f"{caught.value.file}:")

    @pytest.mark.parametrize(
        "text",
        ["[" * 200_000, "{a: " * 50_000, "[a, " * 60_000, "- " * 100_000, "a: " + "x" * 250_000, "? " * 9000],
        ids=["lists", "mappings", "items", "dashes", "scalar", "keys"],
    )
    def test_bombs(self, text: str) -> None:
        """Text made to take long is refused within a second."""
        started = time.process_time()
        with pytest.raises(PolicyError):
            Policy.loads(text)
        assert time.process_time() - started < 1

    def test_huge(self, tmp_path: Path) -> None:
        """A file above the limit is refused before it is parsed, and read no further."""
        huge = tmp_path / "huge.yaml"
        huge.write_text("version: 1\n" + "# x\n" * MAX_BYTES)
        with pytest.raises(PolicyError, match="larger than 256 KiB"):
            Policy.load(huge)
        with pytest.raises(PolicyError, match="larger than 256 KiB"):
            Policy.load("/dev/zero")
        with pytest.raises(PolicyError, match="larger than 256 KiB"):
            Policy.loads(huge.read_text())


class TestSources:
    def test_profile_names(self) -> None:
        """A bare word is a shipped profile."""
        assert profiles() == ["agent", "ci", "observe", "strict"]
        assert Policy.load("agent").source == "profile:agent"

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("nosuch", "there is no profile 'nosuch'"),
            ("./nosuch", "cannot be read: No such file"),
            ("nosuch.yaml", "cannot be read: No such file"),
            ("/", "cannot be read: Is a directory"),
            ("a/\0b", "cannot be read: embedded null byte"),
        ],
    )
    def test_missing(self, name: str, expected: str) -> None:
        """A missing file is a policy error that names it."""
        with pytest.raises(PolicyError) as caught:
            Policy.load(name)
        assert expected in str(caught.value)
        assert caught.value.file == name

    def test_no_file_stands_in_for_a_profile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A profile's name is the profile, though what ran before has put a file of that name here."""
        monkeypatch.chdir(tmp_path)
        for name in profiles():
            expected = Policy.load(name)
            (tmp_path / name).write_text("version: 1\ndefault: {read: allow, write: allow, exec: allow}\n")
            assert Policy.load(name) == expected
            assert Policy.load(f"./{name}").rules == ()

    def test_a_file_without_suffix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bare word is never a file, which a tree could have left there; a path is, and a path object."""
        (tmp_path / "mine").write_text("version: 1\n")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(PolicyError, match=r"there is no profile 'mine' \(for the file write './mine'\)"):
            Policy.load("mine")
        assert Policy.load("./mine").source == "./mine"
        with pytest.raises(PolicyError, match="cannot be read"):
            Policy.load(Path("agent"))

    def test_a_pipe_nobody_writes_to(self, tmp_path: Path) -> None:
        """A FIFO without a writer is an empty file, and no load that hangs; one with a writer is read."""
        os.mkfifo(tmp_path / "fifo.yaml")
        with pytest.raises(PolicyError, match="the file is empty"):
            Policy.load(tmp_path / "fifo.yaml")
        reader, writer = os.pipe()
        script = "sleep 0.3; echo 'version: 1'; sleep 0.2; echo 'audit: denials'"
        with subprocess.Popen(["sh", "-c", script], stdout=writer):
            os.close(writer)
            assert Policy.load(f"/dev/fd/{reader}").audit == "denials"
        os.close(reader)

    def test_byte_order_mark(self, tmp_path: Path) -> None:
        """A byte order mark is no part of the policy."""
        (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfversion: 1\n")
        assert Policy.load(tmp_path / "x.yaml").version == 1
