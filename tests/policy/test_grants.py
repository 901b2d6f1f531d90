"""Grants: exact, stronger than a question, weaker than a deny."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent, ListenEvent, Operation
from rampart_seccomp.policy import Grant, Matcher, Policy, ask, deny
from rampart_seccomp.policy.grants import granted_events
from rampart_seccomp.policy.terms import VERDICTS
from strategies import DIRECTORY, HOME

V4, ANY = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("0.0.0.0")

CASES: list[tuple[Grant, Event, list[dict[str, object]]]] = [
    (
        Grant(operation="read", path="/a/x"),
        FileEvent(operation=Operation.READ, path=b"/a/x"),
        [{"path": b"/a/xy"}, {"path": b"/a"}, {"operation": Operation.MODIFY}],
    ),
    (
        Grant(operation="exec", path="/usr/bin/npm", command=["npm", "publish"]),
        ExecEvent(path=b"/usr/bin/npm", argv=(b"npm", b"publish"), named=b"/usr/bin/npm"),
        [{"argv": (b"npm", b"publish", b"x")}, {"argv": (b"npm",)}, {"path": b"/h/p/npm"}],
    ),
    (
        Grant(operation="connect", host="example.com:443"),
        ConnectEvent(protocol="tcp", address=V4, port=443, names=frozenset({"example.com"})),
        [{"port": 80}, {"names": frozenset()}, {"names": frozenset({"other.example.com"})}],
    ),
    (
        Grant(operation="connect", host="192.0.2.1:443"),
        ConnectEvent(protocol="tcp", address=V4, port=443),
        [{"address": ipaddress.ip_address("192.0.2.2")}, {"port": 444}],
    ),
    (
        Grant(operation="connect", host="unix:/run/x"),
        ConnectEvent(protocol="unix", socket=b"/run/x"),
        [{"socket": b"/run/xy"}, {"socket": b"@/run/x"}],
    ),
    (
        Grant(operation="connect", host="unix:@x*"),
        ConnectEvent(protocol="unix", socket=b"@x*"),
        [{"socket": b"@xy"}, {"socket": b"x*"}],
    ),
    (
        Grant(operation="listen", port="127.0.0.1:80"),
        ListenEvent(protocol="tcp", address=ipaddress.ip_address("127.0.0.1"), port=80),
        [{"address": ANY}, {"port": 81}],
    ),
    (
        Grant(operation="listen", port=80),
        ListenEvent(protocol="tcp", address=ANY, port=80),
        [{"address": V4}, {"port": 0}],
    ),
]


def bind(policy: Policy, **more: object) -> Matcher:
    return policy.matcher(home=HOME, directory=DIRECTORY, **more)


@pytest.mark.parametrize(("grant", "event", "changes"), CASES, ids=lambda value: getattr(value, "object", ""))
def test_exact(grant: Grant, event: Event, changes: list[dict[str, object]]) -> None:
    """A grant opens exactly one thing, against a question as against the default."""
    questions = ask(str(event.operation), name="question")
    for policy in (Policy(rules=[questions]), Policy()):
        before = bind(policy).decide(event)
        after = bind(policy.with_grants(grant))
        assert before.verdict in ("ask", "deny")
        assert (after.decide(event).verdict, after.decide(event).grant) == ("allow", grant)
        for change in changes:
            other = attrs.evolve(event, **change)
            if not isinstance(other, ConnectEvent) or other.socket != b"x*":
                assert after.decide(other) == bind(policy).decide(other)


@pytest.mark.parametrize(("grant", "event", "changes"), CASES, ids=lambda value: getattr(value, "object", ""))
def test_never_against_a_deny(grant: Grant, event: Event, changes: list[dict[str, object]]) -> None:
    """A deny rule stays, and so does what is built in."""
    operation = str(event.operation)
    policy = Policy(rules=[deny(operation, name="closed"), ask(operation, name="question")])
    assert bind(policy.with_grants(grant)).decide(event).rule.name == "closed"


def test_built_in_protection_stays() -> None:
    """Neither Rampart's own files nor the harness's code are opened by a grant."""
    policy = Policy().with_grants(
        Grant(operation="modify", path="/r/x"), Grant(operation="modify", path="/s/x")
    )
    matcher = bind(policy, protected=[b"/r"], planted=[b"/s"])
    for path, reason in ((b"/r/x", "Rampart's own files"), (b"/s/x", "code that the harness runs")):
        decision = matcher.decide(FileEvent(operation=Operation.MODIFY, path=path))
        assert (decision.verdict, decision.reason) == ("deny", f"built-in: {reason}")


def test_names_are_resolved() -> None:
    """The name of a grant is one of those that the broker resolves."""
    assert bind(Policy().with_grants(CASES[2][0])).host_names == {"example.com"}


class TestRenaming:
    def test_to_what_is_granted(self) -> None:
        """What is asked about does not become free under a name that a grant is for."""
        policy = Policy(rules=[ask("read", paths=["/a/**"])], default={"read": "allow"})
        assert bind(policy).widens(b"/a/b", b"/a/x", directory=False) is None
        granted = bind(policy.with_grants(Grant(operation="read", path="/a/x/y")))
        assert granted.widens(b"/a/b/y", b"/a/x/y", directory=False) is not None
        assert granted.widens(b"/a/b", b"/a/x", directory=True) is not None
        assert granted.widens(b"/a/b", b"/a/c", directory=True) is None
        assert granted.widens(b"/a/x/y", b"/a/z", directory=False) is None

    @strategies.bounded
    @given(
        strategies.policies(),
        st.lists(st.tuples(strategies.file_operations, strategies.paths(4)), max_size=3),
        strategies.paths(3),
        strategies.paths(3),
        strategies.suffixes(),
    )
    def test_sound(
        self,
        policy: Policy,
        granted: list[tuple[Operation, bytes]],
        old: bytes,
        new: bytes,
        suffix: bytes,
    ) -> None:
        """If a directory may be renamed, nothing beneath it is less restricted, whatever is granted."""
        grants = [Grant(operation=operation, path=path) for operation, path in granted]
        matcher = bind(policy.with_grants(*grants))
        if matcher.widens(old, new, directory=True) is None:
            for grant in grants:
                if grant.operation is Operation.EXEC:
                    continue
                (before,) = granted_events(grant, old + suffix)
                (after,) = granted_events(grant, new + suffix)
                levels = [VERDICTS.index(matcher.decide(event).verdict) for event in (before, after)]
                assert levels[0] <= levels[1]


class TestFiles:
    GRANTS = [case[0] for case in CASES] + [
        Grant(operation="read", path=b"/a\xff\n'\"", rule="true", by="x: y", at="2026-01-31T12:00:00Z"),
    ]

    def test_round_trip(self, tmp_path: Path) -> None:
        """An overrides file holds what was written to it, line by line, and says where each entry stands."""
        path = tmp_path / "overrides.yaml"
        path.write_text(Grant.dumps(self.GRANTS))
        assert Grant.load(path) == tuple(self.GRANTS)
        with path.open("a") as file:
            file.write(Grant.dumps([Grant(operation="read", path="/more")]))
        loaded = Grant.load(path)
        assert [grant.line for grant in loaded] == list(range(1, len(self.GRANTS) + 2))
        assert loaded[-1].where == f"grant (overrides.yaml:{len(loaded)})"
        assert str(path) in Policy().with_grants(*loaded).files

    def test_empty(self, tmp_path: Path) -> None:
        """A file in which nothing was granted yet has no grants."""
        path = tmp_path / "overrides.yaml"
        path.write_text("")
        assert Grant.load(path) == ()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "- {operation: read, path: /a}\n- {operation: read}\n",
                "overrides.yaml:2: grants[1]: a grant of",
            ),
            ("operation: read\n", "overrides.yaml:1: grants: `grants` is a mapping"),
            ("- {operation: read, path: /a/../b}\n", "overrides.yaml:1: grants[0].path: "),
            ("- {operation: read, path: /a, path: /b}\n", "the key 'path' is there twice"),
        ],
    )
    def test_strict(self, text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One bad entry and nothing is loaded; the error says where."""
        monkeypatch.chdir(tmp_path)
        Path("overrides.yaml").write_text(text)
        with pytest.raises(PolicyError) as caught:
            Grant.load("overrides.yaml")
        assert expected in str(caught.value)

    def test_key_of_a_policy(self) -> None:
        """A policy file may hold grants; they are part of its value."""
        text = "version: 1\ngrants:\n  - {operation: read, path: /a/x, rule: q, by: me}\n"
        policy = Policy.loads(text, source="p.yaml")
        assert policy == Policy(grants=[Grant(operation="read", path="/a/x", rule="q", by="me")])
        assert policy.fingerprint != Policy().fingerprint
        assert bind(policy).decide(CASES[0][1]).where == "grant (p.yaml:3)"
