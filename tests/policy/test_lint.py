"""`check`: what it remarks on is certain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ExecEvent, FileEvent, Operation
from rampart_seccomp.policy import Finding, Grant, Policy, Rule, allow, ask, check, deny
from rampart_seccomp.policy.analysis import exploring
from rampart_seccomp.policy.conditions import Match
from rampart_seccomp.policy.covering import covers
from rampart_seccomp.policy.globs import parse
from rampart_seccomp.policy.lint import disjoint
from rampart_seccomp.policy.secrets import SECRETS


def remarks(*rules: Rule, default: dict[str, str] | None = None) -> list[tuple[str, str]]:
    found = structural(Policy(rules=rules, default=default or {}))
    return [(each.severity, each.key or "") for each in found]


def structural(policy: Policy) -> list[Finding]:
    """What is said about rules, beside the secrets that these small policies leave readable."""
    return [found for found in check(policy) if "secrets" not in found.message]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([allow("write", paths=["./**"])], []),
        ([deny("read", paths=["~/**"]), allow("read", paths=["~/a/*"])], [("error", "rules[1]")]),
        ([deny("read"), ask("read", paths=["/a"])], [("error", "rules[1]")]),
        ([deny("read", paths=["~/**"], except_=["~/a/b"]), allow("read", paths=["~/a/*"])], []),
        ([deny("read", paths=["~/*"]), allow("read", paths=["~/**"])], []),
        ([deny("read"), allow(["read", "exec"], paths=["/a"])], []),
        ([deny("connect", hosts=["a:1", "b:1"]), allow("connect", hosts=["a:1"])], [("error", "rules[1]")]),
        ([allow("read", paths=["/a/**"]), allow("read", paths=["/a/b"])], [("warning", "rules[1]")]),
        ([allow("read", name="a"), allow("read", name="b")], [("warning", "rules[1]")]),
        ([deny("read", paths=["**/.env"])], [("warning", "rules[0]"), ("warning", "rules[0].paths[0]")]),
        ([allow("read", paths=["/**"])], [("warning", "rules[0].paths[0]")]),
        (
            [allow("write", paths=["./**"]), allow("exec", commands=["git **"])],
            [("warning", "rules[1].commands[0]")],
        ),
        ([allow("exec", commands=["git **"])], []),
    ],
)
def test_findings(rules: list[Rule], expected: list[tuple[str, str]]) -> None:
    """Unreachable is an error; redundant, floating, all-matching and weak are warnings."""
    assert expected == remarks(*rules)


def test_redundant_with_the_default() -> None:
    """A rule that says what the default says, against nothing, changes nothing."""
    assert remarks(allow("read", paths=["/a"]), default={"read": "allow"}) == [("warning", "rules[0]")]
    assert remarks(deny("read", paths=["/a"]), allow("read")) == []


def test_finding_as_text() -> None:
    """A finding reads as file, line, key and sentence."""
    policy = Policy.loads("version: 1\nrules:\n  - {name: a, allow: read, paths: [/**]}\n", source="x.yaml")
    (found,) = structural(policy)
    assert str(found).startswith("x.yaml:3: rules[0].paths[0]: warning: '/**' matches everything")


@strategies.bounded
@given(strategies.policies(), strategies.file_events() | strategies.exec_events())
def test_unreachable_never_decides(policy: Policy, event: FileEvent | ExecEvent) -> None:
    """A rule reported as unreachable decides about nothing; one reported as redundant changes no verdict."""
    decided = policy.matcher(home=b"/h", directory=b"/h/p").decide(event)
    for found in structural(policy):
        index = int(found.key[len("rules[") :].partition("]")[0])
        if found.severity == "error":
            assert decided.rule is not policy.rules[index]
        elif "changes nothing" in found.message:
            rest = [rule for rule in policy.rules if rule is not policy.rules[index]]
            other = Policy(rules=rest, default=policy.default).matcher(home=b"/h", directory=b"/h/p")
            assert decided.verdict == other.decide(event).verdict


class TestUnreachable:
    """A rule that nothing is left for, by however many others."""

    @pytest.mark.parametrize(
        ("rules", "paths", "by"),
        [
            ([deny("read", paths=["/a/*"], name="one")], ["/*/x", "/a/b*"], None),
            ([deny("read", paths=["/*/b*", "/a/x"], name="one")], ["/a/x", "/a/b*"], "'one'"),
            ([deny("read", paths=["/*/b*", "/a/[!y]"], name="one")], ["/a/x", "/a/bc"], "'one'"),
            (
                [deny("read", paths=["/a/**/x"], name="one"), deny("read", paths=["/a/b*/**"], name="two")],
                ["/a/x", "/a/b*/c"],
                "'one', 'two'",
            ),
            (
                [
                    deny("read", paths=["/a/b[!x]*"], name="one"),
                    deny("read", paths=["/a/bx?*", "/a/b"], name="two"),
                ],
                ["/a/b*"],
                None,
            ),
            (
                [
                    deny("read", paths=["/a/b[!x]*"], name="one"),
                    deny("read", paths=["/a/bx*", "/a/b"], name="two"),
                ],
                ["/a/b*"],
                "'one', 'two'",
            ),
            ([deny("read", paths=["/a/**"], except_=["/a/bc/d"], name="one")], ["/a/b*/**"], None),
            (
                [
                    deny("read", paths=["/a/**"], except_=["/a/bc/**"], name="one"),
                    deny("read", paths=["/a/bc/**"], name="two"),
                ],
                ["/a/b*/**"],
                "'one', 'two'",
            ),
            ([deny("read", paths=["/a/**"], programs=["/p"], name="one")], ["/a/b"], None),
            (
                [
                    deny("read", paths=["/a/**"], programs=["/p"], name="one"),
                    deny("read", paths=["/a/**"], except_=[{"programs": ["/p"]}], name="two"),
                ],
                ["/a/b"],
                "'one', 'two'",
            ),
        ],
    )
    def test_by_several(self, rules: list[Rule], paths: list[str], by: str | None) -> None:
        """All that together cover it are named; a gap is found, as small as it may be."""
        covered = allow("read", paths=paths, name="covered")
        said = [text for text in messages(Policy(rules=[*rules, covered])) if "unreachable" in text]
        assert said == (
            [] if by is None else [f"the rule 'covered' is unreachable: {by} always decides first"]
        )

    @pytest.mark.parametrize(
        ("one", "covered", "reachable"),
        [
            (
                deny("exec", commands=["git push", "git push * **"], name="one"),
                allow("exec", commands=["git push **"], name="covered"),
                False,
            ),
            (
                deny("exec", commands=["git push * **"], name="one"),
                allow("exec", commands=["git push **"], name="covered"),
                True,
            ),
            (
                deny("connect", hosts=["0.0.0.0/1", "128.0.0.0/1", "::/0"], name="one"),
                allow("connect", hosts=["a.example"], name="covered"),
                False,
            ),
            (
                deny("connect", hosts=["10.0.0.0/9", "10.128.0.0/10"], name="one"),
                allow("connect", hosts=["10.0.0.0/8"], name="covered"),
                True,
            ),
            (
                deny("listen", ports=["1-99", "101-200"], name="one"),
                allow("listen", ports=["90-110"], name="covered"),
                True,
            ),
            (
                deny("listen", ports=["1-99", "100-200"], name="one"),
                allow("listen", ports=["90-110"], name="covered"),
                False,
            ),
            (
                deny("read", paths=["~/**"], name="one"),
                allow("read", paths=["./x"], name="covered"),
                True,
            ),
            (
                deny("read", paths=["/*/*/**", "/x"], name="one"),
                allow("read", paths=["~/x"], name="covered"),
                False,
            ),
            (
                deny("read", paths=["/*/*"], name="one"),
                allow("read", paths=["~/x"], name="covered"),
                True,
            ),
            (
                deny("read", paths=["/tmp/**", "/var/tmp/**", "/dev/shm/**"], name="one"),
                allow("read", paths=["@tmp"], name="covered"),
                True,
            ),
            (
                deny("read", paths=["@tmp"], name="one"),
                allow("read", paths=["/tmp/x"], name="covered"),
                False,
            ),
            (
                deny("read", paths=["~/**"], except_=["/root/**"], name="one"),
                allow("read", paths=["~/x"], name="covered"),
                True,
            ),
        ],
    )
    def test_other_objects(self, one: Rule, covered: Rule, reachable: bool) -> None:
        """Commands, hosts and ports are covered in union, too; what depends on the home is not reported."""
        said = [text for text in messages(Policy(rules=[one, covered])) if "unreachable" in text]
        assert said == (
            [] if reachable else ["the rule 'covered' is unreachable: 'one' always decides first"]
        )

    @strategies.bounded
    @given(strategies.reading_policies())
    def test_exact(self, pair: tuple[Policy, Policy]) -> None:
        """On all paths of some names: just those rules are reported that decide about nothing they match."""
        policy = pair[0]
        matcher = policy.matcher(home=b"/h", directory=b"/h/p")
        never, silent = set(), set()
        for entry in matcher.entries[Operation.READ]:
            assert entry.rule is not None
            paths = [FileEvent(operation=Operation.READ, path=path) for path in strategies.PATHS]
            matching = [event for event in paths if entry.match(matcher.subject(event)) is Match.YES]
            if not matching:
                silent.add(entry.rule.name)
            elif all(matcher.decide(each).verdict != entry.rule.verdict for each in matching):
                never.add(entry.rule.name)
        reported = {
            policy.rules[int(found.key[len("rules[") : -1])].name
            for found in structural(policy)
            if found.severity == "error" and found.key is not None
        }
        assert never <= reported <= never | silent

    def test_answered_by_grants(self) -> None:
        """A question that a grant always answers is never put."""
        policy = Policy(
            rules=[ask("read", paths=["/a"], name="covered")], grants=[Grant(operation="read", path="/a")]
        )
        assert "the rule 'covered' is unreachable: grant always decides first" in messages(policy)

    def test_not_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is too large to tell is a warning, and no error."""
        policy = Policy(
            rules=[
                deny("read", paths=["/**/a", "/**/b*"], name="one"),
                allow("read", paths=["/a/*"], programs=["/x"], name="three"),
            ]
        )
        assert not [text for text in messages(policy) if "'three'" in text]
        monkeypatch.setattr(exploring, "WORK_MAX", 1)
        (found,) = [each for each in check(policy) if "'three'" in each.message]
        assert found.severity == "warning"
        assert found.message.startswith("whether the rule 'three' is reachable is not known: there are more")

    def test_in_a_file(self, tmp_path: Path) -> None:
        """A file with such a rule does not load; if an inherited rule is needed for it, that is a warning."""
        one = '  - {name: one, deny: read, paths: ["/a/**"], except: ["/a/b/**"]}\n'
        two = '  - {name: two, deny: read, paths: ["/a/b/**"]}\n'
        covered = '  - {name: covered, allow: read, paths: ["/a/*"]}\n'
        path = tmp_path / "own.yaml"
        path.write_text(f"version: 1\nrules:\n{one}{two}{covered}")
        with pytest.raises(PolicyError, match="'covered' is unreachable: 'one', 'two' always decides first"):
            Policy.load(path)
        (tmp_path / "base.yaml").write_text(f"version: 1\nrules:\n{one}")
        path.write_text(f"version: 1\nextends: [base.yaml]\nrules:\n{two}{covered}")
        (found,) = check(Policy.load(path))
        assert str(found) == (
            f"{path}:5: rules[1]: warning: "
            "the rule 'covered' is unreachable: 'one', 'two' always decides first"
        )


@strategies.bounded
@given(strategies.patterns(), strategies.patterns(), strategies.paths())
def test_covers_is_sound(large: str, small: str, path: bytes) -> None:
    """If one pattern covers another, it matches whatever the other does."""
    if covers(parse(large), parse(small)):
        policy = Policy(
            rules=[allow("read", paths=[small], name="small"), deny("read", paths=[large], name="large")]
        )
        event = FileEvent(operation="read", path=path)
        assert policy.matcher(home=b"/h", directory=b"/h/p").decide(event).verdict == "deny"


def messages(policy: Policy) -> list[str]:
    return [found.message for found in check(policy)]


class TestSecrets:
    def test_by_what_allows_them(self) -> None:
        """Secrets that may be read are named, with the default or the rule that lets them be."""
        text = "version: 1\n\ndefault: {read: allow}\nrules:\n  - {name: no, deny: read, paths: [~/**]}\n"
        (found,) = check(Policy.loads(text, source="p.yaml"))
        assert str(found) == (
            "p.yaml:3: default.read: warning: well-known secrets can be read: "
            "/etc/shadow, /etc/ssh/ssh_host_ed25519_key, /run/secrets/token"
        )
        (found,) = check(Policy(rules=[allow("read", paths=["~/.ssh/*"], name="r")]))
        assert (found.key, found.message.endswith(": ~/.ssh/id_ed25519, ~/.ssh/id_rsa")) == ("rule 'r'", True)

    def test_by_an_exception(self) -> None:
        """A secret that an `except` lets be read is reported where that is written."""
        text = 'version: 1\nextends: [{profile: agent, except: {ssh-keys: ["~/.ssh/id_rsa"]}}]\n'
        (found,) = check(Policy.loads(text, source="p.yaml"))
        assert str(found) == (
            "p.yaml: `except` of rule 'ssh-keys': warning: well-known secrets can be read: ~/.ssh/id_rsa"
        )

    def test_none(self) -> None:
        """Asked about or denied is not readable; the shipped profiles for agents leave nothing readable."""
        assert check(Policy(default={"read": "ask"})) == []
        for name in ("agent", "ci", "strict"):
            assert check(Policy.load(name)) == []

    def test_every_one_exists_in_agent(self) -> None:
        """Each well-known secret is one that the agent profile names in a rule."""
        matcher = Policy.load("agent").matcher(home=b"/h", directory=b"/h/p")
        for name in SECRETS:
            path = name.replace("~", "/h").replace("./", "/h/p/").encode()
            assert matcher.decide(FileEvent(operation="read", path=path)).rule is not None


class TestInherited:
    BASE = "version: 1\nrules:\n  - {name: base, deny: read, paths: [~/**]}\n"

    def test_redundant_is_a_warning(self, tmp_path: Path) -> None:
        """Against an inherited rule, an unreachable rule is a warning that says where it stands."""
        (tmp_path / "base.yaml").write_text(self.BASE)
        path = tmp_path / "own.yaml"
        path.write_text(
            "version: 1\nextends: [base.yaml]\nrules:\n  - {name: own, allow: read, paths: [~/x]}\n"
        )
        (found,) = check(Policy.load(path))
        assert str(found) == (
            f"{path}:4: rules[0]: warning: the rule 'own' is unreachable: 'base' always decides first"
        )
        path.write_text(self.BASE + "  - {name: own, allow: read, paths: [~/x]}\n")
        with pytest.raises(PolicyError, match="unreachable"):
            Policy.load(path)

    def test_links_are_reported(self, tmp_path: Path) -> None:
        """A file that is reached through a symbolic link is named with where it leads."""
        (tmp_path / "real.yaml").write_text(self.BASE)
        (tmp_path / "link.yaml").symlink_to("real.yaml")
        (tmp_path / "own.yaml").write_text("version: 1\nextends: [link.yaml]\n")
        policy = Policy.load(tmp_path / "own.yaml")
        assert (
            f"{tmp_path}/link.yaml leads through a symbolic link: what is read is {tmp_path}/real.yaml"
            in (messages(policy))
        )
        assert policy.rules[0].place == f"{tmp_path}/real.yaml:3"


class TestNothingAndEverything:
    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            (deny("read", paths=["~/.ssh/**"], except_=["~/.aws/x"]), "excepts nothing"),
            (deny("read", paths=["~/.ssh/*.pub"], except_=["~/.ssh/a/b"]), "excepts nothing"),
            (deny("read", paths=["~/.ssh/**"], except_=["~/.ssh/*.pub"]), None),
            (deny("read", paths=["~/**/.env"], except_=["~/x/**"]), None),
            (deny("read", paths=["/home/**"], except_=["~/x"]), None),
            (allow("read", paths=["~/a/b"], except_=["~/a/**"]), "excepts everything"),
            (allow("read", paths=["~/" + "x" * 256]), "matches nothing"),
            (allow("exec", commands=["* **"]), "matches everything"),
            (allow("listen", ports=["0-65535"]), "matches every port"),
            (allow("listen", ports=["127.0.0.1:0-65535"]), None),
            (allow("connect", hosts=["0.0.0.0/0"]), "matches every IPv4 address"),
            (allow("connect", hosts=["a.example", "[::/0]:0-65535"]), "matches every IPv6 address"),
            (allow("connect", hosts=["unix:/**"]), "matches every unix socket with a path"),
            (allow("connect", hosts=["0.0.0.0/0:443", "10.0.0.0/8", "unix:/run/**"]), None),
        ],
    )
    def test_rules(self, rule: Rule, expected: str | None) -> None:
        """A pattern or exception that does nothing, or all, is named; one that may do something is not."""
        said = [text for text in messages(Policy(rules=[rule])) if re.search("excepts|matches", text)]
        assert (expected is None) == (said == [])
        assert expected is None or expected in said[0]

    @pytest.mark.parametrize("default", ["allow", "ask", "deny"])
    @pytest.mark.parametrize("verdict", ["allow", "ask", "deny"])
    def test_names_that_have_no_addresses_yet(self, default: str, verdict: str) -> None:
        """What restricts names that nobody can resolve beforehand is weak where addresses are allowed."""
        rule = Rule(name="r", verdict=verdict, operations="connect", hosts=["a.example", "*.b.example"])
        said = messages(Policy(rules=[rule], default={"connect": default}))
        weak = [text for text in said if "'*.b.example' is known by name only" in text]
        assert len(weak) == (1 if default == "allow" and verdict != "allow" else 0)

    @strategies.bounded
    @given(strategies.patterns(), strategies.patterns(), strategies.paths())
    def test_disjoint_is_sound(self, one: str, other: str, path: bytes) -> None:
        """No path matches two patterns that are said to be disjoint."""
        if parse(one).anchor == parse(other).anchor and disjoint(
            parse(one).components, parse(other).components
        ):
            rules = [allow("read", paths=[one], name="one"), deny("read", paths=[other], name="other")]
            alone = Policy(rules=rules[:1]).matcher(home=b"/h", directory=b"/h/p")
            both = Policy(rules=rules).matcher(home=b"/h", directory=b"/h/p")
            event = FileEvent(operation="read", path=path)
            assert alone.decide(event).verdict == both.decide(event).verdict


def test_grants() -> None:
    """A grant for a rule that is gone, and one that looks like a pattern, are remarked on."""
    grants = [Grant(operation="read", path="/a/*", rule="gone"), Grant(operation="read", path="/b")]
    first, second = messages(Policy(grants=grants))
    assert "'gone', which there is no more" in first
    assert "the '*' in '/a/*' is that character" in second
