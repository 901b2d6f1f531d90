"""Stacks: each layer is judged alone, and the strictest verdict wins."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ConnectEvent, Event, FileEvent, Operation
from rampart_seccomp.policy import Grant, Policy, Stack, StackMatcher, allow, ask, deny
from rampart_seccomp.policy.terms import VERDICTS
from strategies import DIRECTORY, HOME

EVENT = FileEvent(operation=Operation.READ, path=b"/a/x")


def bind(*layers: Policy | Stack) -> StackMatcher:
    return Policy.stack(*layers).matcher(home=HOME, directory=DIRECTORY)


class TestNeverWidens:
    @strategies.bounded
    @given(
        st.lists(strategies.policies(), min_size=1, max_size=3),
        strategies.file_events() | strategies.exec_events(),
    )
    def test_decisions(self, layers: list[Policy], event: Event) -> None:
        """A stack says the strictest of what its layers say alone, and so never more than any of them."""
        alone = [layer.matcher(home=HOME, directory=DIRECTORY).decide(event) for layer in layers]
        strictest = max(VERDICTS.index(each.verdict) for each in alone)
        decision = bind(*layers).decide(event)
        assert VERDICTS[strictest] == decision.verdict
        plain = attrs.evolve(decision, layer=0, source=None, others=(), redirecting=None)
        assert attrs.evolve(alone[decision.layer], redirecting=None) == plain
        shown = [each.redirect for each in alone if each.redirect is not None]
        assert decision.redirect in (shown or [None])
        assert any(each.hides for each in shown) == bool(decision.redirect and decision.redirect.hides)
        restricting = sum(each.verdict != "allow" for each in alone)
        assert len(decision.others) == max(0, restricting - 1)

    @strategies.bounded
    @given(
        st.lists(strategies.policies(), min_size=1, max_size=3),
        strategies.paths(3),
        strategies.paths(3),
        st.booleans(),
    )
    def test_renames(self, layers: list[Policy], old: bytes, new: bytes, directory: bool) -> None:
        """A rename that widens under one layer alone widens under the stack."""
        alone = [
            layer.matcher(home=HOME, directory=DIRECTORY).widens(old, new, directory=directory)
            for layer in layers
        ]
        lost = bind(*layers).widens(old, new, directory=directory)
        assert (lost is None) == all(each is None for each in alone)

    def test_own_defaults(self) -> None:
        """A rule of one layer does not speak for another layer's default."""
        above = Policy(default={"read": "allow"})
        below = Policy(rules=[allow("read", paths=["/b/**"])])
        matcher = bind(above, below)
        assert matcher.decide(EVENT).verdict == "deny"
        assert matcher.decide(FileEvent(operation=Operation.READ, path=b"/b/x")).verdict == "allow"


class TestWhoSpeaks:
    def test_asks_are_answered_one_by_one(self) -> None:
        """Each layer that asks is there with its rule: one approval is not the answer to both."""
        above = Policy(rules=[ask("read", name="theirs")])
        below = Policy(rules=[ask("read", name="ours")])
        decision = bind(above, Policy.load("observe"), below).decide(EVENT)
        assert (decision.verdict, decision.rule.name, decision.layer) == ("ask", "theirs", 0)
        assert [(other.rule.name, other.layer) for other in decision.others] == [("ours", 2)]

    def test_a_rule_before_a_default(self) -> None:
        """Of layers that are equally strict, one with a rule speaks: it can say why. Else the first does."""
        silent = Policy(source="silent.yaml")
        closed = Policy(rules=[deny("read", name="closed")], source="closed.yaml")
        assert bind(silent, closed).decide(EVENT).where == "closed"
        assert bind(silent, Policy()).decide(EVENT).where == "default read: deny (silent.yaml)"

    def test_host_names(self) -> None:
        """Names of any layer count, and no layer without names opens what it does not allow."""
        import ipaddress

        server = ipaddress.ip_address("192.0.2.53")
        event = ConnectEvent(protocol="udp", address=server, port=53)
        named = Policy(rules=[allow("connect", hosts=["example.com:443", "*.example.org"])])
        for stack, verdict in (
            ((named,), "deny"),
            ((named, Policy.load("observe")), "deny"),
            ((Policy(), named), "deny"),
        ):
            matcher = Policy.stack(*stack).matcher(home=HOME, directory=DIRECTORY, substitutes=[b"/r"])
            assert matcher.host_names == {"example.com"}
            assert [pattern.text for pattern in matcher.host_patterns] == ["example.com:443", "*.example.org"]
            assert matcher.judges_names
            assert matcher.substitutes == {b"/r"}
            assert matcher.decide(event).verdict == verdict
        nameless = Policy.stack(Policy(), Policy.load("observe")).matcher(substitutes=[b"/r"])
        assert not nameless.judges_names
        assert nameless.substitutes == frozenset()


class TestGrants:
    GRANT = Grant(operation="read", path="/a/x")

    def test_answer_their_own_layer(self) -> None:
        """A grant in one layer does not answer the question of another."""
        above, below = (Policy(rules=[ask("read", name=name)]) for name in ("above", "below"))
        granted = Policy.stack(above, below).with_grants(self.GRANT)
        decision = granted.matcher().decide(EVENT)
        assert (decision.verdict, decision.rule.name, decision.others) == ("ask", "above", ())
        both = granted.with_grants(self.GRANT, layer=decision.layer)
        assert both.matcher().decide(EVENT).verdict == "allow"


class TestFace:
    def test_what_a_broker_uses(self) -> None:
        """Sources, files, defaults, audit and fingerprint are those of all layers together."""
        agent, other = Policy.load("agent"), Policy(default={"connect": "allow"}, audit="denials")
        stack = Policy.stack(agent, Policy.stack(other))
        assert stack.layers == (agent, other)
        assert stack.rules == agent.rules
        assert stack.files == agent.files
        assert (stack.audit, stack.source) == ("all", "profile:agent + (Python)")
        assert set(stack.default.values()) == {"deny"}
        assert stack == Policy.stack(agent, other)
        prints = {each.fingerprint for each in (stack, agent, other, Policy.stack(other, agent))}
        assert len(prints) == 4

    def test_flags_amend_the_last(self) -> None:
        """Rules that are added count for the last layer only."""
        stack = Policy.stack(Policy(), Policy()).with_rules(allow("read", name="more"))
        assert [len(layer.rules) for layer in stack.layers] == [0, 1]
        assert stack.matcher().decide(EVENT).verdict == "deny"

    def test_unrestricted(self) -> None:
        """An operation is unrestricted only if it is so in every layer."""
        observe = Policy.load("observe")
        assert Policy.stack(observe, observe).unrestricted(Operation.CREATE)
        assert not Policy.stack(observe, Policy()).unrestricted(Operation.CREATE)
        assert not Policy.load("agent").unrestricted(Operation.CREATE)

    def test_no_layers(self) -> None:
        """A stack of nothing would say nothing."""
        with pytest.raises(PolicyError, match="no layers"):
            Policy.stack()
