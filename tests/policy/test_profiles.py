"""The shipped profiles: they load, their tests hold, and they say what they are for."""

from __future__ import annotations

import ipaddress
import itertools
from pathlib import Path

import pytest

from rampart_seccomp.events import ConnectEvent, FileEvent, Operation
from rampart_seccomp.policy import Matcher, Policy, allow, check
from rampart_seccomp.policy.loader import profiles
from rampart_seccomp.policy.secrets import SECRETS
from rampart_seccomp.policy.terms import FILE_OPERATIONS, WRITE

HOME = b"/home/u"
PROJECT = b"/home/u/p"


@pytest.fixture(scope="module")
def agent() -> Matcher:
    return Policy.load("agent").matcher(home=HOME, directory=PROJECT)


@pytest.fixture(scope="module")
def strict() -> Matcher:
    return Policy.load("strict").matcher(home=HOME, directory=PROJECT)


@pytest.mark.parametrize("name", ["agent", "ci", "observe", "strict"])
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


class TestStrict:
    def test_reads_are_closed(self, strict: Matcher, agent: Matcher) -> None:
        """What lies beside the project is not read; the other profile, as a control, reads it."""
        for path in (HOME + b"/notes", HOME + b"/q/main.c", b"/mnt/x", b"/home", b"/var/log/syslog", b"/"):
            event = FileEvent(operation=Operation.READ, path=path)
            assert (strict.decide(event).verdict, agent.decide(event).verdict) == ("deny", "allow")

    def test_no_network(self, strict: Matcher) -> None:
        """Nothing is connected to; sockets of its own are."""
        for event in (
            ConnectEvent(protocol="tcp", port=443, names=frozenset({"example.com"})),
            ConnectEvent(protocol="tcp", port=80, address=ipaddress.ip_address("127.0.0.1")),
            ConnectEvent(protocol="unix", socket=b"/run/docker.sock"),
        ):
            assert strict.decide(event).verdict == "deny"
        own = ConnectEvent(protocol="unix", socket=PROJECT + b"/s", in_tree=True)
        assert strict.decide(own).verdict == "allow"
        assert strict.host_names == frozenset()

    def test_never_wider_than_agent(self, strict: Matcher, agent: Matcher) -> None:
        """On files that the agent profile denies, strict does not allow either."""
        for name in SECRETS:
            path = {"~": HOME + name[1:].encode(), ".": PROJECT + name[1:].encode()}.get(
                name[0], name.encode()
            )
            for operation in FILE_OPERATIONS:
                event = FileEvent(operation=operation, path=path)
                assert agent.decide(event).verdict == strict.decide(event).verdict == "deny"

    def test_environment(self) -> None:
        """Only variables that say nothing secret are passed."""
        given = {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "MY_TOKEN": "y"}
        assert Policy.load("strict").environment.apply(given) == {"PATH": "/bin", "LC_ALL": "C"}


def test_ci_is_agent_and_registries() -> None:
    """Beyond what agent allows, ci allows connecting to registries, and nothing else."""
    agent, ci = Policy.load("agent"), Policy.load("ci")
    names = {rule.name for rule in agent.rules}
    more = [rule for rule in ci.rules if rule.name not in names]
    assert [rule.name for rule in more if rule.verdict == "allow"] == ["registries"]
    assert names < {rule.name for rule in ci.rules}
    assert agent.default == ci.default
    assert all(host.endswith(":443") for rule in more for host in rule.hosts)


def test_they_are_shipped() -> None:
    """The four profiles are there, and extend nothing but each other."""
    assert profiles() == ["agent", "ci", "observe", "strict"]
    for name in profiles():
        folder = {Path(file).parent.name for file in Policy.load(name).files}
        assert folder == {"profiles"}
