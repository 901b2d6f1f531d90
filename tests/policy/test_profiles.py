"""The shipped profiles: they load, their tests hold, and they say what they are for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rampart_seccomp.events import ConnectEvent, FileEvent, Operation
from rampart_seccomp.policy import Matcher, Policy, allow, check
from rampart_seccomp.policy.terms import WRITE

HOME = b"/home/u"
PROJECT = b"/home/u/p"


@pytest.fixture(scope="module")
def agent() -> Matcher:
    return Policy.load("agent").matcher(home=HOME, directory=PROJECT)


@pytest.mark.parametrize("name", ["agent", "observe"])
def test_sound(name: str) -> None:
    """A profile has tests, a reason for every rule, and nothing that `check` remarks on."""
    policy = Policy.load(name)
    assert policy.tests
    assert all(rule.reason for rule in policy.rules)
    remarks = check(policy)
    if name == "observe":
        assert "well-known secrets can be read" in remarks.pop().message
    assert remarks == []


def test_observe_allows_everything() -> None:
    """Unix sockets made outside the tree are allowed too: the rule has no conditions."""
    matcher = Policy.load("observe").matcher(home=HOME, directory=PROJECT)
    event = ConnectEvent(protocol="unix", socket=b"/run/docker.sock")
    assert matcher.decide(event).verdict == "allow"
    assert set(Policy.load("observe").rules[0].operations) == set(Operation)


@pytest.mark.parametrize(
    ("old", "new", "directory", "fine"),
    [
        (PROJECT + b"/src", PROJECT + b"/lib", True, True),
        (PROJECT + b"/a", PROJECT + b"/b/c", True, True),
        (b"/tmp/build", PROJECT + b"/build", True, True),
        (PROJECT + b"/node_modules/.x-1", PROJECT + b"/node_modules/x", True, True),
        (HOME + b"/.cache/uv/.tmp1", HOME + b"/.cache/uv/archive/1", True, True),
        (PROJECT + b"/.git/index.lock", PROJECT + b"/.git/index", False, True),
        (PROJECT + b"/.git/config.lock", PROJECT + b"/.git/config", False, True),
        (PROJECT + b"/sedXYZ", PROJECT + b"/main.c", False, True),
        (PROJECT + b"/.env", PROJECT + b"/env", False, False),
        (PROJECT + b"/conf", b"/tmp/conf", True, False),
        (HOME + b"/.ssh", PROJECT + b"/x", True, False),
        (HOME, b"/tmp/x", True, False),
        (PROJECT + b"/.vscode", PROJECT + b"/v", True, False),
        (PROJECT + b"/repo/.git", PROJECT + b"/repo/git", True, False),
        (PROJECT + b"/hook", PROJECT + b"/.git/hooks/pre-commit", False, True),
    ],
)
def test_renames(agent: Matcher, old: bytes, new: bytes, directory: bool, fine: bool) -> None:
    """Honest renames do not widen; those that would take something out of a rule do.

    The last one does not widen either: it is refused because creating the new name is denied.
    """
    assert fine == (agent.widens(old, new, directory=directory) is None)
    created = FileEvent(operation=Operation.CREATE, path=PROJECT + b"/.git/hooks/pre-commit")
    assert agent.decide(created).verdict == "deny"


@pytest.mark.parametrize(
    "path",
    [
        b".git",
        b".git/hooks",
        b".git/hooks/update.sample",
        b".git/config",
        b".git/HEAD",
        b"a/.git/hooks",
        b".venv/x",
    ],
)
def test_git_init_works(agent: Matcher, path: bytes) -> None:
    """What git init, clone and commit write in a project may be written."""
    for operation in WRITE:
        assert agent.decide(FileEvent(operation=operation, path=PROJECT + b"/" + path)).verdict == "allow"


def test_nothing_outside_is_written(agent: Matcher) -> None:
    """Neither the home nor the system is written."""
    for operation, path in itertools.product(
        WRITE, [HOME + b"/x", HOME + b"/.bashrc", b"/etc/x", b"/usr/bin/x"]
    ):
        assert agent.decide(FileEvent(operation=operation, path=path)).verdict == "deny"


def test_started_in_the_home() -> None:
    """Even with the home as project, secrets and startup files are out of reach."""
    matcher = Policy.load("agent").matcher(home=HOME, directory=HOME)
    denied = [
        b".bashrc",
        b".ssh/authorized_keys",
        b".config/autostart/x.desktop",
        b".local/bin/git",
        b".aws/config",
    ]
    for name in denied:
        event = FileEvent(operation=Operation.CREATE, path=HOME + b"/" + name)
        assert matcher.decide(event).verdict == "deny"
    assert matcher.decide(FileEvent(operation=Operation.CREATE, path=HOME + b"/notes")).verdict == "allow"


def test_hosts_can_be_added(agent: Matcher) -> None:
    """No network until it is named."""
    event = ConnectEvent(protocol="tcp", port=443, names=frozenset({"api.example.com"}))
    assert agent.decide(event).verdict == "deny"
    opened = agent.policy.with_rules(allow("connect", hosts=["api.example.com:443"]))
    assert opened.matcher(home=HOME, directory=PROJECT).decide(event).verdict == "allow"


def test_files_are_shipped() -> None:
    """Profiles are complete files, without `extends`."""
    import rampart_seccomp.policy

    folder = Path(rampart_seccomp.policy.__file__).with_name("profiles")
    for path in folder.glob("*.yaml"):
        assert "extends:" not in path.read_text()
