"""`explain` and its suggestions: following a suggestion really allows."""

from __future__ import annotations

import ipaddress
import re

import attrs
import pytest

from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, FileEvent, ListenEvent, Operation
from rampart_seccomp.policy import Grant, Matcher, Policy, Rule, allow, ask, deny, explain, suggest

HOME = b"/h"
DIRECTORY = b"/h/p"


def bind(policy: Policy) -> Matcher:
    return policy.matcher(home=HOME, directory=DIRECTORY, protected=[b"/rampart"])


def address(text: str, port: int, *names: str) -> ConnectEvent:
    host = ipaddress.ip_address(text)
    return ConnectEvent(protocol="tcp", address=host, port=port, names=frozenset(names))


EVENTS = [
    FileEvent(operation=Operation.READ, path=b"/h/.ssh/id"),
    FileEvent(operation=Operation.CREATE, path=b"/h/p/odd [*] {name}?\\"),
    FileEvent(operation=Operation.DELETE, path=b"/h/p/a\n\xff"),
    FileEvent(operation=Operation.METADATA, path=b"/h"),
    FileEvent(operation=Operation.MODIFY, path=b"/"),
    ExecEvent(path=b"/usr/bin/git", argv=(b"git", b"push", b"a b"), named=b"/usr/bin/git"),
    ExecEvent(path=b"/h/p/x", argv=(b"x", b"*"), named=None),
    ExecEvent(path=b"/h/p/x"),
    address("1.2.3.4", 443),
    address("1.2.3.4", 443, "b.example", "a.example"),
    address("fd00::1", 80),
    ConnectEvent(protocol="unix", socket=b"/run/x.sock"),
    ConnectEvent(protocol="unix", socket=b"@name"),
    ListenEvent(protocol="tcp", address=ipaddress.ip_address("::"), port=80),
    ListenEvent(protocol="tcp", address=ipaddress.ip_address("127.0.0.1"), port=80),
]


def suggested_rule(text: str) -> Rule:
    """Load the rule that a suggestion spells out."""
    written = re.search(r"\{name: …, .*\}$", text)[0].replace("…", "suggested")
    return Policy.loads(f"version: 1\nrules:\n  - {written}\n").rules[0]


class TestSuggestions:
    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.object)
    def test_from_nothing(self, event: Event) -> None:
        """Under a policy that denies everything, adding the suggested rule allows exactly this."""
        policy = Policy()
        suggestion = explain(bind(policy), event).suggestion
        if isinstance(event, FileEvent) and b"\n" in event.path:
            return
        opened = bind(policy.with_rules(suggested_rule(suggestion)))
        assert opened.decide(event).verdict == "allow"
        if isinstance(event, FileEvent):
            assert opened.decide(attrs.evolve(event, path=event.path + b"x")).verdict == "deny"

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.object)
    def test_against_a_rule(self, event: Event) -> None:
        """Against a deny rule, the suggested exception makes the rule silent."""
        key = {"exec": "commands", "connect": "hosts", "listen": "ports"}.get(str(event.operation), "paths")
        if key == "commands" and event.argv[-1:] in ((b"*",), ()):
            key = "paths"
        everything = {"commands": ["* **"], "paths": ["/**"], "ports": ["0-65535"]}
        hosts = ["0.0.0.0/0", "::/0", "unix:/**", "unix:@*"]
        rule = deny(str(event.operation), name="closed", **{key: everything.get(key, hosts)})
        policy = Policy(rules=[rule, allow(str(event.operation), name="open")])
        explanation = explain(bind(policy), event)
        assert "`except` of rule 'closed'" in explanation.suggestion
        pattern = re.search(r'add "(.*)" to', explanation.suggestion, re.DOTALL)[1]
        pattern = pattern.replace('\\"', '"').replace("\\\\", "\\")
        opened = policy.with_rules()
        opened = attrs.evolve(opened, rules=[attrs.evolve(rule, except_=[pattern]), *policy.rules[1:]])
        assert bind(opened).decide(event).verdict == "allow"

    def test_allowed_needs_none(self) -> None:
        """What is allowed needs no change to be allowed."""
        matcher = bind(Policy(rules=[allow("read")]))
        assert suggest(matcher, EVENTS[0], matcher.decide(EVENTS[0])) is None

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.object)
    def test_flipping_what_is_allowed(self, event: Event) -> None:
        """Under a policy that allows everything, adding the suggested rule denies this."""
        policy = Policy.load("observe")
        explanation = explain(bind(policy), event)
        assert explanation.flip == "to deny it"
        if isinstance(event, FileEvent) and b"\n" in event.path:
            return
        closed = bind(policy.with_rules(suggested_rule(explanation.suggestion)))
        assert closed.decide(event).verdict == "deny"

    def test_options(self) -> None:
        """Writes and hosts have an option on the command line, quoted for a shell."""
        matcher = bind(Policy())
        written = explain(matcher, FileEvent(operation=Operation.CREATE, path=b"/h/p/a b")).suggestion
        assert written.startswith("--allow-write './a b', or the rule")
        assert explain(matcher, EVENTS[9]).suggestion.startswith("--allow-host a.example:443, or")

    def test_built_in(self) -> None:
        """Nothing opens Rampart's own files, and the text says so."""
        event = FileEvent(operation=Operation.DELETE, path=b"/rampart/audit")
        assert (
            "out of reach under every policy"
            in explain(bind(Policy(rules=[allow("write")])), event).suggestion
        )

    def test_all_that_is_needed(self) -> None:
        """Several rules in the way, and a default behind them, are all named."""
        policy = Policy(
            rules=[deny("create", paths=["/a/**"], name="one"), ask("create", paths=["/a/*"], name="two")]
        )
        text = explain(bind(policy), FileEvent(operation=Operation.CREATE, path=b"/a/x")).suggestion
        assert "rule 'one'" in text
        assert "rule 'two', which says ask" in text

    def test_renaming(self) -> None:
        """What a rename would lift out of a rule is not helped by an exception for the new name."""
        rule = deny("read", paths=["./.env"], name="secrets")
        matcher = bind(Policy(rules=[rule, allow("write")], default={"read": "allow"}))
        lost = matcher.widens(b"/h/p/.env", b"/h/p/x", directory=False)
        text = suggest(matcher, FileEvent(operation=Operation.CREATE, path=b"/h/p/x"), lost)
        assert text == "copy instead what may be read: under the new name secrets would no longer hold"

    def test_profile(self) -> None:
        """A shipped profile is not edited but extended, and doing so allows."""
        text = explain(bind(Policy.load("agent")), EVENTS[0]).suggestion
        extends = re.match(r"write a policy that says (extends: .*)$", text)[1]
        assert extends == 'extends: [{profile: agent, except: {ssh-keys: ["~/.ssh/id"]}}]'
        amended = Policy.loads(f"version: 1\n{extends}\n")
        assert bind(amended).decide(EVENTS[0]).verdict == "allow"

    def test_inherited(self) -> None:
        """A rule that is inherited is amended where it is extended."""
        policy = Policy.loads("version: 1\nextends: [agent]\n")
        text = explain(bind(policy), EVENTS[0]).suggestion
        assert re.match(r"amend rule 'ssh-keys' \(agent.yaml:\d+\) in `extends` by", text)
        assert text.endswith('except: {ssh-keys: ["~/.ssh/id"]}')


def test_losers() -> None:
    """Every other rule on the operation is there, with why it did not decide; those that match first."""
    policy = Policy(
        rules=[
            allow("read", paths=["/b"], name="elsewhere"),
            ask("read", paths=["/a/**"], except_=["/a/x"], name="silent"),
            allow("read", name="weak"),
            deny("read", paths=["/a/*"], name="strong", reason="It is so.", message="No."),
            deny("read", paths=["/a/**"], name="second"),
            deny("exec", name="unrelated"),
        ]
    )
    explanation = explain(bind(policy), FileEvent(operation=Operation.READ, path=b"/a/x"))
    assert explanation.decision.where == "strong"
    assert [(loser.name, loser.why) for loser in explanation.losers] == [
        ("second", "it says the same, and stands further down"),
        ("weak", "deny is stronger than allow"),
        ("silent", "excepted by its `except`"),
        ("elsewhere", "no match in its `paths`"),
    ]
    text = str(explanation)
    assert text.splitlines()[:4] == [
        "deny: read /a/x",
        "  decided by strong",
        "  reason: It is so.",
        "  message: No.",
    ]


class TestStacks:
    def test_every_layer_in_the_way(self) -> None:
        """Who decided, what the other layers say, and all the changes that are needed."""
        above = Policy.loads("version: 1\ndefault: {read: ask}\n", source="above.yaml")
        below = Policy(rules=[deny("read", paths=["/a/**"], name="closed")])
        matcher = Policy.stack(above, below).matcher(home=HOME, directory=DIRECTORY)
        explanation = explain(matcher, FileEvent(operation=Operation.READ, path=b"/a/x"))
        assert explanation.decision.where == "closed"
        (loser,) = explanation.losers
        assert (loser.name, loser.verdict) == ("default read: ask (above.yaml)", "ask")
        assert loser.why == "deny of another layer is stronger than ask"
        assert "in above.yaml: the rule {name: …, allow: read" in explanation.suggestion
        assert "; and in its layer: add \"/a/x\" to `except` of rule 'closed'" in explanation.suggestion
        assert explanation.suggestion.count("--allow-read") == 1, "options amend the last layer only"

    def test_allowed_by_all(self) -> None:
        """What every layer allows can be denied by one."""
        matcher = Policy.stack(Policy.load("observe"), Policy.load("observe")).matcher()
        explanation = explain(matcher, FileEvent(operation=Operation.READ, path=b"/a/x"))
        assert explanation.flip == "to deny it"
        assert [loser.why for loser in explanation.losers] == ["this layer says the same"]


class TestGrants:
    EVENT = FileEvent(operation=Operation.READ, path=b"/a/x")
    GRANT = Grant(operation="read", path="/a/x", by="someone")

    def test_deciding(self) -> None:
        """The grant is named, what it answered is a loser, and taking it out is the change."""
        policy = Policy(rules=[ask("read", name="question")]).with_grants(self.GRANT)
        explanation = explain(bind(policy), self.EVENT)
        assert explanation.decision.where == "grant by someone"
        assert [(loser.name, loser.why) for loser in explanation.losers] == [
            ("question", "answered by the grant")
        ]
        assert explanation.suggestion.startswith("take the grant by someone out, or the rule")

    def test_against_a_deny(self) -> None:
        """A grant that a deny overrules is there among the losers."""
        policy = Policy(rules=[deny("read", name="closed")]).with_grants(self.GRANT)
        (loser,) = explain(bind(policy), self.EVENT).losers
        assert (loser.name, loser.why) == ("grant", "a grant answers questions, and no deny")
