"""``extends``: rules unite, defaults merge, amendments amend, and files are found where they really are."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
from hypothesis import given

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import FileEvent, Operation
from rampart_seccomp.policy import Policy, allow
from strategies import DIRECTORY, HOME

BASE = """\
version: 1
default: {read: allow, write: ask}
audit: denials
environment: {drop: ["AWS_*"]}
grants:
  - {operation: read, path: /granted}
rules:
  - {name: keys, deny: read, paths: ["~/.ssh/**"]}
  - {name: coins, deny: read, paths: ["~/.coins/**"]}
tests:
  - {deny: read, path: ~/.coins/x, by: coins}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def extend(base: Path, text: str, name: str = "own.yaml") -> Policy:
    """Load a file beside the base that begins with what is given."""
    path = base.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"version: 1\n{text}\n")
    return Policy.load(path)


def verdict(policy: Policy, path: bytes, operation: Operation = Operation.READ) -> str:
    matcher = policy.matcher(home=HOME, directory=DIRECTORY)
    return matcher.decide(FileEvent(operation=operation, path=path)).verdict


class TestUniting:
    def test_everything_is_inherited(self, base: Path) -> None:
        """A file that only extends says what the other says; tests stay with the file they are in."""
        policy, original = extend(base, "extends: [base.yaml]"), Policy.load(base)
        assert policy.rules == original.rules
        assert (policy.default, policy.audit) == (original.default, "denials")
        assert (policy.environment, policy.grants) == (original.environment, original.grants)
        assert policy.tests == ()
        assert policy.source == str(base.with_name("own.yaml"))

    def test_nearest_wins(self, base: Path) -> None:
        """A default is merged by operation, and the nearer file wins; a later entry is nearer."""
        base.with_name("other.yaml").write_text(
            "version: 1\ndefault: {create: deny, exec: allow}\naudit: all\n"
        )
        policy = extend(base, "extends: [base.yaml, other.yaml]\ndefault: {read: ask}")
        said = {str(operation): verdict for operation, verdict in policy.default.items()}
        expected = {"read": "ask", "create": "deny", "modify": "ask", "exec": "allow", "connect": "deny"}
        assert expected == {key: said[key] for key in expected}
        assert policy.audit == "all"
        assert policy.places["default.modify"] == f"{base}:2"
        assert policy.places["default.read"].endswith("own.yaml:3")

    def test_without(self, base: Path) -> None:
        """A rule that is left out speaks no more; the others do."""
        policy = extend(base, "extends: [{file: base.yaml, without: coins}]")
        assert verdict(policy, b"/h/.coins/x") == "allow"
        assert verdict(policy, b"/h/.ssh/x") == "deny"

    def test_except(self, base: Path) -> None:
        """An amended rule is silent about what is excepted, beside its own exceptions, and only there."""
        policy = extend(base, 'extends: [{file: base.yaml, except: {keys: ["~/.ssh/*.pub"]}}]')
        assert verdict(policy, b"/h/.ssh/id.pub") == "allow"
        assert verdict(policy, b"/h/.ssh/id") == "deny"
        assert policy.rules[0].place == f"{base}:8"

    def test_environment_and_grants_unite(self, base: Path) -> None:
        """What is dropped, passed and granted in both files counts."""
        policy = extend(
            base,
            "extends: [base.yaml]\nenvironment: {pass: [AWS_REGION]}\n"
            "grants: [{operation: read, path: /more}]",
        )
        given = {"AWS_REGION": "x", "AWS_SECRET": "y", "HOME": "/h"}
        assert policy.environment.apply(given) == {"AWS_REGION": "x", "HOME": "/h"}
        assert [grant.path for grant in policy.grants] == [b"/granted", b"/more"]

    def test_the_same_rule_by_two_ways(self, base: Path) -> None:
        """What two files extend comes once; amended on one of the ways, it is two rules of one name."""
        for name in ("a", "b"):
            base.with_name(f"{name}.yaml").write_text("version: 1\nextends: [base.yaml]\n")
        assert len(extend(base, "extends: [a.yaml, b.yaml]").rules) == 2
        amended = 'version: 1\nextends: [{file: base.yaml, except: {keys: ["~/.ssh/x"]}}]\n'
        base.with_name("b.yaml").write_text(amended)
        with pytest.raises(PolicyError, match="'keys' is used twice"):
            extend(base, "extends: [a.yaml, b.yaml]")

    def test_own_tests_see_what_is_united(self, base: Path) -> None:
        """A test of the extending file asks the united policy, and may name an inherited rule."""
        test = "tests: [{deny: read, path: ~/.ssh/x, by: keys}]"
        assert extend(base, f"extends: [base.yaml]\n{test}").tests
        with pytest.raises(PolicyError, match="there is no rule 'keys'"):
            extend(base, f"extends: [{{file: base.yaml, without: keys}}]\ndefault: {{read: deny}}\n{test}")


class TestFinding:
    def test_relative_to_the_extending_file(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither the working directory nor the home is looked in."""
        elsewhere = base.with_name("elsewhere")
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        assert len(extend(base, "extends: [../base.yaml]", "sub/own.yaml").rules) == 2
        with pytest.raises(PolicyError, match=r"base\.yaml cannot be read"):
            extend(base, "extends: [base.yaml]", "sub/own.yaml")

    def test_relative_to_where_a_link_leads(self, base: Path) -> None:
        """A policy that is itself a link extends what lies beside the real file."""
        extend(base, "extends: [base.yaml]")
        link = base.with_name("sub") / "link.yaml"
        link.parent.mkdir()
        link.symlink_to("../own.yaml")
        policy = Policy.load(link)
        assert {rule.file for rule in policy.rules} == {str(base)}

    def test_files(self, base: Path) -> None:
        """All files are named, as named and as they really are, so that a broker can protect them."""
        link = base.with_name("link.yaml")
        link.symlink_to("base.yaml")
        policy = extend(base, "extends: [link.yaml, agent]")
        assert {str(link), str(base), str(base.with_name("own.yaml"))} < set(policy.files)
        assert any(name.endswith("profiles/agent.yaml") for name in policy.files)
        assert all(map(os.path.isabs, policy.files))

    def test_home(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """``~/`` is the home of who starts Rampart."""
        monkeypatch.setenv("HOME", str(base.parent))
        assert len(extend(base, "extends: [~/base.yaml]", "sub/own.yaml").rules) == 2

    def test_a_pipe_is_not_waited_for(self, base: Path) -> None:
        """Only regular files are extended."""
        os.mkfifo(base.with_name("pipe.yaml"))
        with pytest.raises(PolicyError, match="is no regular file"):
            extend(base, "extends: [pipe.yaml]")

    def test_bounded(self, base: Path) -> None:
        """Files that extend each other in every combination are each read once, and not too many of them."""
        names = [f"f{number}.yaml" for number in range(6)]
        for number, name in enumerate(names):
            below = ", ".join(names[number + 1 :])
            base.with_name(name).write_text(f"version: 1\nextends: [{below}]\n")
        assert len(extend(base, f"extends: [{', '.join(names)}]").files) == 7
        many = [f"g{number}.yaml" for number in range(40)]
        for name in many:
            base.with_name(name).write_text("version: 1\n")
        with pytest.raises(PolicyError, match="more than 32 files"):
            extend(base, f"extends: [{', '.join(many)}]")


@strategies.bounded
@given(strategies.policies(), strategies.file_events(), strategies.patterns())
def test_an_excepted_object_is_one_the_rule_is_silent_about(
    policy: Policy, event: FileEvent, pattern: str
) -> None:
    """With an exception added, a rule speaks about what the exception does not match, and no more."""
    for rule in policy.rules:
        if event.operation not in rule.operations or (rule.kind != "paths"):
            continue
        matching = Policy(rules=[allow(str(event.operation), paths=[pattern])])
        excepted = verdict(matching, event.path, event.operation) == "allow"
        silent = attrs.evolve(rule, except_=(*rule.except_, pattern))
        alone = Policy(rules=[silent]).matcher(home=HOME, directory=DIRECTORY).decide(event)
        before = Policy(rules=[rule]).matcher(home=HOME, directory=DIRECTORY).decide(event)
        assert (alone.rule is not None) == (before.rule is not None and not excepted)
