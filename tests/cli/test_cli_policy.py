"""``check``, ``explain`` and ``doctor``: what is said about policies and the machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from rampart_seccomp.cli import main
from rampart_seccomp.kernel import probes
from rampart_seccomp.policy.analysis import exploring

POLICY = """\
version: 1
default: {read: allow, exec: allow}
rules:
  - name: secrets
    deny: [read, write]
    paths: ["./secret/**"]
    message: Keep out.
  - name: project
    allow: write
    paths: ["./**"]
  - name: publishing
    ask: exec
    commands: ["npm publish **"]
tests:
  - {deny: read, path: "./secret/x", by: secrets}
"""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy file, and a project directory to stand in."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return path


def test_check_accepts(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound file, and the shipped profiles."""
    assert main(["check", str(policy), "agent", "observe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{policy}:2: warning: default.read: well-known secrets can be read: ")
    assert lines[1] == f"{policy}: ok, 3 rules, 1 tests"
    assert lines[2].startswith("agent: ok, ")
    assert lines[3].startswith("observe.yaml:5: warning: rule 'everything': well-known secrets")
    assert lines[4].startswith("observe: ok, ")


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("deny: [read, write]", "denny: [read, write]", 5, "denny"),
        ("by: secrets", "by: project", 15, "the test fails"),
        ('paths: ["./**"]', 'paths: ["foo"]', 10, "foo"),
        ("name: project", "name: secrets", 8, "twice"),
        ("version: 1", "version: 1\nredact: {}", 2, "not supported by this version"),
    ],
)
def test_check_finds_errors(
    policy: Path, old: str, new: str, line: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 and one line with file, line and severity; the other files are checked, too."""
    policy.write_text(POLICY.replace(old, new))
    assert main(["check", str(policy), "agent"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{policy}:{line}: error: ")
    assert problem in first
    assert second.startswith("agent: ok")


def test_check_warns(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is valid but probably not meant is said, and is no failure."""
    policy.write_text(POLICY.replace('"./secret/**"', '"**/secret/**", "./secret/**"'))
    assert main(["check", str(policy)]) == 0
    warning, _, ok = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{policy}:4: warning: rules[0].paths[0]: ")
    assert ok.startswith(f"{policy}: ok")


def test_check_of_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is an error of that file."""
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: error: " in capsys.readouterr().out


def test_explain_a_denial(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The deciding rule with its line, its message, how to allow it, and the rules that did not decide."""
    assert main(["explain", "--policy", str(policy), "write", "secret/key"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"deny: create, modify, delete, metadata {policy.parent}/project/secret/key"
    assert lines[1] == "  decided by   secrets (policy.yaml:4)"
    assert lines[2] == "  message      Keep out."
    assert lines[3].startswith("  to allow it  ")
    assert lines[4:] == ["  not by", "    project (policy.yaml:8)  allow  deny is stronger than allow"]


@pytest.mark.parametrize(
    ("question", "answer", "by"),
    [
        (["read", "other"], "allow: read ", "the default, which says allow (policy.yaml:2)"),
        (["write", "other"], "allow: create, modify, delete, metadata ", "project (policy.yaml:8)"),
        (
            ["delete", "/etc/passwd"],
            "deny: delete /etc/passwd",
            "the default, which says deny (policy.yaml does not name it)",
        ),
        (
            ["exec", "npm", "publish", "--tag", "x"],
            "ask: exec npm publish --tag x",
            "publishing (policy.yaml:11)",
        ),
        (["exec", "--", "true"], "allow: exec true", "the default, which says allow (policy.yaml:2)"),
        (
            ["connect", "example.com:443"],
            "deny: connect example.com:443",
            "the default, which says deny (policy.yaml does not name it)",
        ),
        (
            ["connect", "[::1]:80"],
            "deny: connect [::1]:80",
            "the default, which says deny (policy.yaml does not name it)",
        ),
        (
            ["listen", "127.0.0.1:80"],
            "deny: listen 127.0.0.1:80",
            "the default, which says deny (policy.yaml does not name it)",
        ),
        (
            ["listen", "80"],
            "deny: listen 0.0.0.0:80",
            "the default, which says deny (policy.yaml does not name it)",
        ),
    ],
)
def test_explain_every_operation(
    policy: Path, question: list[str], answer: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdict and what decided, for each kind of object."""
    assert main(["explain", "--policy", str(policy), *question]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(answer)
    assert second == f"  decided by   {by}"


SECRET = """\
deny: read {home}/.netrc
  decided by   registry-credentials (agent.yaml:{line})
  reason       Logins to code hosts and package registries publish in your name.
  message      Logins to code hosts and registries are off limits.
  to allow it  in above.yaml: amend rule 'registry-credentials' (agent.yaml:{line}) in `extends` by except: \
{{registry-credentials: ["~/.netrc"]}}; and in below.yaml: --allow-read '~/.netrc', or the rule \
{{name: …, allow: read, paths: ["~/.netrc"]}}
  not by
    default read: deny (below.yaml)  deny   this layer says the same
    no match in its `paths`: {others}
"""


def test_explain_a_stack_over_a_profile(
    project: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole answer: what does not match is one list, and options are offered for the last layer only."""
    monkeypatch.chdir(project.root)
    Path("above.yaml").write_text("version: 1\nextends: [agent]\n")
    Path("below.yaml").write_text("version: 1\n")
    assert main(["explain", "--policy", "above.yaml", "--policy", "below.yaml", "read", "~/.netrc"]) == 0
    out = capsys.readouterr().out
    line = re.search(r"agent.yaml:(\d+)", out)[1]
    others = out.partition("no match in its `paths`: ")[2].rstrip("\n")
    assert out == SECRET.format(home=project.home, line=line, others=others)
    assert all(len(row) <= 100 for row in others.splitlines())
    assert {"ssh-keys", "browsers", "wallets"} <= set(re.split(r",\s+", others))


def test_explain_of_a_program_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that PATH does not have is judged as one of the system, and that is said."""
    assert main(["explain", "exec", "no-such-program"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("allow: exec no-such-program\n")
    assert said.err == "note: 'no-such-program' is not in PATH, and judged as if it lay in /usr/bin\n"


def test_explain_what_has_no_name(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A memfd by the kernel's spelling: what denies it, and what opens it."""
    argv = ["explain", "--policy", str(policy), "exec", "/memfd:tool (deleted)", "x"]
    assert main(argv) == 0
    said = capsys.readouterr()
    assert said.out.startswith(
        "deny: exec /memfd:tool (deleted) x\n"
        "  decided by   built-in: a program without a name (memfd or deleted file)\n"
        "  to allow it  say `features: [memfd-exec]`: then the rules decide\n"
    )
    assert said.err == ""
    policy.write_text(POLICY + "features: [memfd-exec]\n")
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith(
        "allow: exec /memfd:tool (deleted) x\n"
        "  decided by   the default, which says allow (policy.yaml:2)\n"
        '  to deny it   the rule {name: …, deny: exec, paths: ["/memfd:tool (deleted)"]}\n'
    )


def test_doctor_says_what_is_opened(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The features of the policy; of a stack, those that every layer has."""
    policy.write_text(POLICY + "features: [memfd-exec, sysv-ipc]\n")
    main(["doctor", "--policy", str(policy)])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "opened by `features: [sysv-ipc]`: System V IPC and POSIX message queues",
        "opened by `features: [memfd-exec]`: executing memfds and deleted files",
    ]
    main(["doctor", "--policy", "strict", "--policy", str(policy)])
    assert "opened by" not in capsys.readouterr().out


def test_explain_shows_the_real_name_escaped(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A symbolic link is judged by what it leads to, and no name reaches the terminal raw."""
    Path("link").symlink_to("secret/\x1b[2J")
    assert main(["explain", "--policy", str(policy), "read", "link"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"deny: read {policy.parent}/project/secret/\\x1b[2J\n")
    assert "\x1b" not in out


def test_doctor_says_what_enforces_what(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings about the machine, and every rule of the policy under what enforces it."""
    status = main(["doctor", "--policy", str(policy)])
    out = capsys.readouterr().out
    findings, _, rules = out.partition("\n\nthe rules of ")
    states = {line.split()[0] for line in findings.split("\n\n")[0].splitlines()}
    assert states <= {"ok", "degraded", "missing"}
    assert status == ("missing" in states)
    assert rules.splitlines()[0] == f"{policy} are"
    assert "performed by the broker on the object it judged:\n  secrets, project\n" in rules
    assert "verified by the launcher at the commit:\n  publishing\n" in rules


def test_doctor_fails_if_something_necessary_is_missing(
    policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without user notification nothing can be started: status 1, the hint, and the loss is named."""
    masked = attrs.evolve(probes.probe(), notification_sizes=None, pidfd_getfd=False)
    monkeypatch.setattr(probes, "probe", lambda: masked)
    policy.write_text(POLICY)
    assert main(["doctor", "--policy", str(policy)]) == 1
    out = capsys.readouterr().out
    assert "missing   user notification" in out
    assert "degraded  pidfd_getfd" in out
    assert "what to do:\n" in out


def test_doctor_takes_a_stack(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each policy of a stack is shown with its own rules, in the order given."""
    main(["doctor", "--policy", "observe", "--policy", str(policy)])
    _, observe, own = capsys.readouterr().out.split("\n\nthe rules of ")
    assert observe.startswith("profile:observe are\n")
    assert "on the object it judged:\n  everything (read, write)" in observe
    assert "on a copy of the socket:\n  everything (connect, listen)\n" in observe
    assert own.startswith(f"{policy} are\n")
    assert "  secrets, project\n" in own


def test_doctor_says_what_degrades_which_operations(
    policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a feature, exactly the operations that need it are shown as enforced with less."""
    masked = attrs.evolve(probes.probe(), pidfd_getfd=False, unshare_fs=False)
    monkeypatch.setattr(probes, "probe", lambda: masked)
    main(["doctor", "--policy", str(policy), "--policy", "observe"])
    out = capsys.readouterr().out
    assert "all such calls are denied:\n  everything (connect, listen)\n" in out
    assert "created closed, the mode set afterwards:\n  secrets (create), project (create)\n" in out
    assert "  secrets (read, modify, delete, metadata), project (modify, delete, metadata)\n" in out


def test_doctor_names_a_missing_launcher(
    policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An installation without its launcher is found, and named as such."""
    from rampart_seccomp.launch import locate

    monkeypatch.setattr(locate, "_PACKAGE", "/nowhere")
    assert main(["doctor", "--policy", str(policy)]) == 1
    assert "missing  launcher" in capsys.readouterr().out


def test_explain_who_acts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The acting program, the command beneath which it runs, and the variables that change, can be named."""
    policy = tmp_path / "who.yaml"
    policy.write_text(
        "version: 1\ndefault: {exec: allow}\nrules:\n"
        "  - {name: key, allow: read, paths: [/k], programs: [/x/ssh]}\n"
        "  - {name: site, allow: connect, within: ['/x/publish **']}\n"
        "  - {name: planted, deny: exec, env: [LD_PRELOAD]}\n"
    )
    expected = [
        (["--program", "/x/ssh", "read", "/k"], "allow", "key"),
        (["--program", "/x/cat", "read", "/k"], "deny", "another program"),
        (["read", "/k"], "deny", "the program is not known"),
        (["--within", "/x/publish now", "connect", "a.example:443"], "allow", "site"),
        (["--within", "/x/other", "connect", "a.example:443"], "deny", "not within /x/publish **"),
        (["--env", "LD_PRELOAD", "exec", "/x/y"], "deny", "planted"),
        (["--env", "A", "exec", "/x/y"], "allow", "no variable of its `env` changes"),
    ]
    for question, verdict, why in expected:
        assert main(["explain", "--policy", str(policy), *question]) == 0
        said = capsys.readouterr().out
        assert (said.startswith(f"{verdict}: "), why in said) == (True, True), said


class TestDiff:
    """``diff``: what is said about two policies, and the status."""

    LAXER = POLICY.replace("deny: [read, write]", "deny: write").replace(
        "npm publish **", "npm publish --dry-run **"
    )

    def test_laxer(self, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Each difference with an example and with what decides on both sides; status 1."""
        other = policy.parent / "b.yaml"
        other.write_text(self.LAXER.partition("tests:")[0])
        assert main(["diff", str(policy), str(other)]) == 1
        width = max(len(str(policy)), len(str(other)))
        assert capsys.readouterr().out.splitlines() == [
            f"{other} is laxer than {policy}:",
            f"  read {policy.parent}/project/secret",
            f"    {policy!s:<{width}}  deny   secrets (policy.yaml:4)",
            f"    {other!s:<{width}}  allow  default",
            "  exec /npm publish",
            f"    {policy!s:<{width}}  ask    publishing (policy.yaml:11)",
            f"    {other!s:<{width}}  allow  default",
        ]

    def test_the_reverse(self, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The other way round it is stricter; operations that are decided alike share their lines."""
        other = policy.parent / "b.yaml"
        other.write_text("version: 1\ndefault: {read: allow, exec: allow}\nlinger: true\n")
        assert main(["diff", str(other), str(policy)]) == 1
        out = capsys.readouterr().out
        assert f"{policy} is stricter than {other}:\n  read {policy.parent}/project/secret\n" in out
        assert f"\n  create, modify, delete, metadata {policy.parent}/project\n" in out
        assert out.endswith("\n  linger: true, then false\n")

    def test_equal(self, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Status 0; so it is for a stack of the same two in another order."""
        assert main(["diff", str(policy), str(policy)]) == 0
        assert capsys.readouterr().out == f"{policy} allows what {policy} allows, and nothing else\n"
        assert main(["diff", f"agent+{policy}", f"{policy}+agent"]) == 0

    def test_a_plus_in_a_name(self, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A doubled '+' is that character of a name; a single one joins, whatever files there are."""
        odd = policy.parent / "a+b.yaml"
        odd.write_text(POLICY)
        assert main(["diff", str(policy), str(odd).replace("+", "++")]) == 0
        assert main(["diff", str(policy), str(odd)]) == 125
        assert f"{policy.parent}/a: cannot be read" in capsys.readouterr().err

    def test_errors(self, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What cannot be loaded, or compared to the end, is said on standard error; status 125."""
        assert main(["diff", str(policy), "nobody"]) == 125
        assert "there is no profile 'nobody'" in capsys.readouterr().err

    def test_too_large(
        self, policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without a difference found, and more that may be, the status is not that of equal ones."""
        other = policy.parent / "b.yaml"
        other.write_text(POLICY.replace('["./secret/**"]', '["./secret/**", "./secret/x"]'))
        assert main(["diff", str(policy), str(other)]) == 0
        assert "nothing else" in capsys.readouterr().out
        monkeypatch.setattr(exploring, "WORK_MAX", 1)
        assert main(["diff", str(policy), str(other)]) == 125
        out, err = capsys.readouterr()
        assert out == ""
        assert "too large: read is not compared to the end" in err


def test_redirected_connections(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` says that the substitute is out of reach, `explain` and `diff` say what is reached."""
    rule = 'version: 1\nrules:\n  - {name: site, allow: connect, hosts: ["site.example:443"]REDIRECT}\n'
    plain = policy.with_name("plain.yaml")
    plain.write_text(rule.replace("REDIRECT", ""))
    policy.write_text(rule.replace("REDIRECT", ', redirect: {to: "127.0.0.1:8443"}'))
    assert main(["check", str(policy)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        f"{policy}:3: warning: rules[0].redirect: 127.0.0.1:8443, to which 'site' redirects, "
        "may not be reached itself, by default connect: deny: allow to connect there"
    )
    assert main(["explain", "--policy", str(policy), "connect", "site.example:443"]) == 0
    assert "  reached      127.0.0.1:8443 instead, by site (policy.yaml:3)\n" in capsys.readouterr().out
    assert main(["diff", str(plain), str(policy)]) == 1
    shown = capsys.readouterr().out
    assert "is stricter than" in shown
    assert "site (policy.yaml:3); reached: to 127.0.0.1:8443\n" in shown
