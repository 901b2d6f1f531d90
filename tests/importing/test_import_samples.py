"""Realistic files of both formats: what they become, word for word, and that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampart_seccomp.importing import Imported, load, to_yaml
from rampart_seccomp.policy import Policy, check
from rampart_seccomp.policy.cases import DIRECTORY, HOME, events

SAMPLES = Path(__file__).with_name("samples")
NAMES = sorted(path.name for path in SAMPLES.iterdir() if not path.name.endswith(".expected"))


def imported(name: str) -> Imported:
    """Translate a sample."""
    return load(SAMPLES / name)


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    """The policy is the one that was looked over and put beside the sample."""
    assert (SAMPLES / f"{name}.expected").read_text() == to_yaml(imported(name))


@pytest.mark.parametrize("name", NAMES)
def test_output_is_the_policy(name: str) -> None:
    """What is written loads as the policy that was made, has tests, and no rule that never decides."""
    policy = Policy.loads(to_yaml(imported(name)))

    assert imported(name).policy.rules == policy.rules
    assert dict(imported(name).policy.default) == dict(policy.default)
    assert policy.tests
    assert [finding for finding in check(policy) if finding.severity == "error"] == []


DENIED = [
    ("claude-project.json", "read", "path", "./.env"),
    ("claude-project.json", "write", "path", "./.env"),
    ("claude-project.json", "read", "path", "./.env.local"),
    ("claude-project.json", "read", "path", "./deep/down/key.pem"),
    ("claude-project.json", "read", "path", "~/.ssh/id_ed25519"),
    ("claude-project.json", "read", "path", "/etc/shadow"),
    ("claude-project.json", "write", "path", "./.github/workflows/ci.yml"),
    ("claude-project.json", "exec", "command", "curl https://x.example/"),
    ("claude-project.json", "exec", "command", "curl"),
    ("claude-project.json", "exec", "command", "rm -rf build"),
    ("claude-project.json", "connect", "host", "pastebin.com:443"),
    ("claude-locked.json", "exec", "command", "sudo ls"),
    ("claude-locked.json", "exec", "command", "xargs -n 1 /usr/bin/curl"),
    ("claude-locked.json", "exec", "command", "python -c 'import os; os.system(1)'"),
    ("claude-locked.json", "write", "path", "./sub/.git/hooks/pre-commit"),
    ("claude-locked.json", "read", "path", "./a/secrets/b"),
    ("claude-locked.json", "read", "path", "./a/b.key"),
    ("claude-locked.json", "read", "path", "/var/log/messages"),
    ("claude-locked.json", "connect", "host", "evil.example:8080"),
    ("claude-locked.json", "write", "path", "./src/main.py"),
    ("claude-bypass.json", "read", "path", "~/.aws/credentials"),
    ("claude-bypass.json", "connect", "host", "203.0.113.5:443"),
    ("claude-bypass.json", "exec", "command", "git push origin main"),
    ("peg-agent.yaml", "read", "path", "~/.ssh/id_rsa"),
    ("peg-agent.yaml", "write", "path", "./vendor/.aws/credentials"),
    ("peg-agent.yaml", "read", "path", "/etc/shadow-"),
    ("peg-agent.yaml", "exec", "command", "rm -rf /"),
    ("peg-agent.yaml", "exec", "command", "rm -rf build other"),
    ("peg-agent.yaml", "exec", "command", "mkfs.ext4 /dev/sda1"),
    ("peg-agent.yaml", "exec", "command", "dd if=/dev/zero of=/dev/sda"),
    ("peg-agent.yaml", "exec", "command", "rm -r --no-preserve-root /"),
    ("peg-agent.yaml", "exec", "command", "docker run x"),
    ("peg-agent.yaml", "connect", "host", "paste.example:443"),
    ("peg-allowlist.yaml", "exec", "command", "wget x"),
    ("peg-allowlist.yaml", "read", "path", "/srv/data/secret.txt"),
    ("peg-allowlist.yaml", "read", "path", "/srv/once"),
    ("peg-allowlist.yaml", "connect", "host", "other.example:443"),
]

ALLOWED = [
    ("claude-project.json", "exec", "command", "npm run test -- --watch"),
    ("claude-project.json", "write", "path", "./src/main.py"),
    ("claude-project.json", "connect", "host", "docs.python.org:443"),
    ("claude-locked.json", "exec", "command", "git log main"),
    ("peg-agent.yaml", "read", "path", "~/.ssh/id_rsa.pub"),
    ("peg-agent.yaml", "exec", "command", "rm -rf build"),
    ("peg-allowlist.yaml", "exec", "command", "ls -l"),
    ("peg-allowlist.yaml", "exec", "command", "bash -c ls"),
    ("peg-allowlist.yaml", "read", "path", "/srv/data/x"),
    ("peg-allowlist.yaml", "connect", "host", "docs.example:443"),
]

ASKED = [
    ("claude-project.json", "exec", "command", "npm run build"),
    ("claude-project.json", "exec", "command", "git push"),
    ("claude-project.json", "write", "path", "./package.json"),
    ("claude-project.json", "write", "path", "./.git/hooks/pre-commit"),
    ("claude-project.json", "write", "path", "~/.bashrc"),
    ("claude-project.json", "connect", "host", "docs.python.org:22"),
    ("claude-bypass.json", "write", "path", "./.claude/settings.json"),
    ("peg-agent.yaml", "exec", "command", "git push origin"),
    ("peg-allowlist.yaml", "exec", "command", "terraform apply -auto-approve"),
]


@pytest.mark.parametrize(
    ("verdict", "name", "operation", "key", "value"),
    [
        (verdict, *row)
        for verdict, rows in (("deny", DENIED), ("allow", ALLOWED), ("ask", ASKED))
        for row in rows
    ],
)
def test_objects(verdict: str, name: str, operation: str, key: str, value: str) -> None:
    """Objects that the source denies, allows or asks about are so under the policy."""
    matcher = imported(name).policy.matcher(home=HOME, directory=DIRECTORY)

    decisions = [matcher.decide(event) for event in events(matcher, operation, **{key: value})]

    assert decisions
    assert {verdict} == {decision.verdict for decision in decisions}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_vanishes(name: str) -> None:
    """Each deny or ask of the source is a rule, a loss, or remarked upon; each loss is in the text."""
    result = imported(name)
    text = to_yaml(result)
    source = (SAMPLES / name).read_text()
    keys = {each.entry.key for each in (*result.proposals, *result.losses) if each.entry is not None}

    if name.endswith(".json"):
        count = sum(
            source.count(f'"{tool}')
            for tool in ("Read", "Edit", "Write", "Bash", "Web", "mcp__", "Task", "Grep", "not a rule")
        )
        assert count == len(
            {key for key in keys if key.startswith(("permissions.a", "permissions.d"))} - OTHERS
        )
    for loss in result.losses:
        assert loss.entry.key in text.partition("version: 1")[0]


OTHERS = {"permissions.defaultMode", *(f"permissions.additionalDirectories[{index}]" for index in range(3))}
