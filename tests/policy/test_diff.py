"""`diff`: every difference is one, and none is missed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rampart_seccomp as rampart
import strategies
from rampart_seccomp.events import Event, FileEvent, Operation, Process, Program
from rampart_seccomp.policy import (
    AnyPolicy,
    Comparison,
    Decision,
    Environment,
    Grant,
    Limits,
    Policy,
    Rule,
    allow,
    ask,
    deny,
    diff,
)
from rampart_seccomp.policy.analysis import exploring, witnesses
from rampart_seccomp.policy.analysis.witnesses import Witnesses
from rampart_seccomp.policy.exemptions import Exemption
from rampart_seccomp.verdicts import Redirect
from strategies import DIRECTORY, HOME

Pair = tuple[AnyPolicy, AnyPolicy]

events = (
    strategies.file_events()
    | strategies.exec_events()
    | strategies.network_events()
    | strategies.nameless_events()
)


PROCESSES = [
    None,
    *(
        Process(pid=1, tid=1, lineage=tuple(Program(path, argv, clean) for path in paths))
        for paths in ((b"/a/git",), (b"/x",), (b"/y",), (b"/x", b"/a/git"), (b"/y", b"/a/git", b"/x"))
        for argv in ((b"git", b"push"), (b"git",))
        for clean in (True, False)
    ),
]


def met(decision: Decision) -> tuple[str, Redirect | None]:
    """What a program meets: whether it may, and what is shown instead of the file."""
    return decision.verdict, None if decision.verdict == "deny" else decision.redirect


def compared(a: AnyPolicy, b: AnyPolicy) -> Comparison:
    return diff(a, b, home=HOME, directory=DIRECTORY)


def check(pair: Pair, tried: list[Event]) -> None:
    """Check what is said about a pair against the reference, and against some events."""
    found = compared(*pair)
    assert not found.unfinished
    bound = [each.matcher(home=HOME, directory=DIRECTORY) for each in pair]
    for each in found.differences:
        assert [each.a, each.b] == [matcher.decide(each.event) for matcher in bound]
        assert met(each.a) != met(each.b)
    shown = {(each.operation, met(each.a), met(each.b)) for each in found.differences}
    for event in tried:
        a, b = (met(matcher.decide(event)) for matcher in bound)
        assert a == b or (event.operation, a, b) in shown


class TestExact:
    @strategies.bounded
    @given(strategies.changed_policies(), st.lists(events, min_size=1, max_size=12))
    def test_some(self, pair: Pair, tried: list[Event]) -> None:
        """Each witness is confirmed by the reference matcher; what is decided differently has a witness."""
        check(pair, tried)

    @pytest.mark.long
    @settings(max_examples=5_000, deadline=None)
    @given(strategies.changed_policies(), st.lists(events, min_size=20, max_size=20))
    def test_100000(self, pair: Pair, tried: list[Event]) -> None:
        """The same for 100,000 events, twenty for each pair of policies."""
        check(pair, tried)

    @strategies.bounded
    @given(strategies.reading_policies())
    def test_all_paths(self, pair: tuple[Policy, Policy]) -> None:
        """For rules that overlap a lot, every path of some names is looked at."""
        check(pair, [FileEvent(operation=Operation.READ, path=path) for path in strategies.PATHS])

    @strategies.bounded
    @given(strategies.running_policies())
    def test_all_starts(self, pair: tuple[Policy, Policy]) -> None:
        """So are, for rules on exec, images, names they are started under, and arguments."""
        check(pair, [*strategies.STARTS])

    @strategies.bounded
    @given(strategies.acting_policies(), strategies.acting_policies())
    def test_whoever_acts(self, one: Policy, other: Policy) -> None:
        """For rules on who acts, every process of some kinds is looked at."""
        places = (b"/a", b"/b", b"/a/x", b"/b/x", b"/c/x")
        check(
            (one, other),
            [
                FileEvent(operation=Operation.READ, path=path, process=process)
                for path, process in itertools.product(places, PROCESSES)
            ],
        )

    @strategies.bounded
    @given(strategies.stacks())
    def test_itself(self, policy: AnyPolicy) -> None:
        """A policy allows what it allows."""
        assert compared(policy, policy).equal

    @strategies.bounded
    @given(strategies.changed_policies())
    def test_reverse(self, pair: Pair) -> None:
        """The reverse shows the same verdicts, exchanged."""
        one, other = compared(*pair), compared(*pair[::-1])
        assert {(each.operation, met(each.a), met(each.b)) for each in one.differences} == {
            (each.operation, met(each.b), met(each.a)) for each in other.differences
        }


def shown(a: Policy, b: AnyPolicy) -> list[str]:
    """What is said, in the order in which it is found."""
    return [
        f"{each.operation} {each.object}: {each.a.verdict} to {each.b.verdict}"
        for each in compared(a, b).differences
    ]


READS = {"read": "allow"}


def test_what_is_shown() -> None:
    """A redirect is stricter than an allow and laxer than a question; hiding is stricter than masking."""
    rules = [
        None,
        allow("read", paths=["/x"], name="mask", redirect=Redirect(mask="values")),
        allow("read", paths=["/x"], name="hide", redirect=Redirect(to="/dev/null")),
        ask("read", paths=["/x"], name="ask"),
        deny("read", paths=["/x"], name="deny"),
    ]
    policies = [Policy(rules=[rule] if rule else [], default=READS) for rule in rules]
    for (place, one), (other_place, other) in itertools.permutations(enumerate(policies), 2):
        (difference,) = compared(one, other).differences
        assert difference.event.path == b"/x"
        assert difference.laxer == (other_place < place)


RUNS = {"exec": "allow"}


class TestWitnesses:
    @pytest.mark.parametrize(
        ("default", "before", "after", "expected"),
        [
            (READS, [deny("read", paths=["~/.ssh/**"])], [], ["read /h/.ssh: deny to allow"]),
            (READS, [], [ask("read", paths=["/a/*.pem"])], ["read /a/.pem: allow to ask"]),
            (
                READS,
                [deny("read", paths=["/a/**"], name="r")],
                [deny("read", paths=["/a/**"], except_=["/a/b/**"], name="r")],
                ["read /a/b: deny to allow"],
            ),
            (
                READS,
                [deny("read", paths=["/k"])],
                [deny("read", paths=["/k"], except_=[{"programs": ["/bin/ssh"]}])],
                ["read /k, by /bin/ssh: deny to allow"],
            ),
            (
                {},
                [],
                [allow("connect", hosts=["a.example:443"], within=["npm publish **"])],
                ["connect 203.0.113.1:443 (a.example), by /x, within /npm publish: deny to allow"],
            ),
            ({}, [], [allow("connect", hosts=["10.0.0.0/8:22"])], ["connect 10.0.0.0:22: deny to allow"]),
            ({}, [], [allow("listen", ports=["8000"])], ["listen 203.0.113.1:8000: deny to allow"]),
            ({}, [], [allow("connect", hosts=["unix:@a*"])], ["connect unix:@a: deny to allow"]),
            ({}, [], [allow("connect", hosts=["unix:/run/s"])], ["connect unix:/run/s: deny to allow"]),
            (
                RUNS,
                [ask("exec", commands=["git ** push **"])],
                [ask("exec", commands=["git push **"])],
                ["exec /git x push: ask to allow"],
            ),
            (
                RUNS,
                [],
                [deny("exec", env=["LD_*"])],
                ["exec /x, changing LD_: allow to deny"],
            ),
            (
                RUNS,
                [deny("exec", commands=["git"])],
                [deny("exec", paths=["**/git"])],
                ["exec /git x: allow to deny", "exec git, the image is /x: deny to allow"],
            ),
        ],
    )
    def test_shortest(
        self, default: dict[str, str], before: list[Rule], after: list[Rule], expected: list[str]
    ) -> None:
        """A witness is short, and says who acts, with which name and variables, where that matters."""
        found = shown(Policy(rules=before, default=default), Policy(rules=after, default=default))
        assert [line for line in expected if line in found] == expected

    def test_rules_that_decide(self) -> None:
        """Both sides say what decides; each pair of rules is shown once for an operation."""
        a = Policy(rules=[deny("read", paths=["/a/**", "/b"], name="x")], default=READS)
        b = Policy(rules=[ask("read", paths=["/a/**", "/c/**"], name="y")], default=READS)
        found = compared(a, b)
        assert [(each.a.where, each.b.where, each.laxer) for each in found.differences] == [
            ("x", "y", True),
            ("x", "default read: allow", True),
            ("default read: allow", "y", False),
        ]
        assert not found.equal

    def test_an_unknown_program(self) -> None:
        """What is decided differently for an unknown program alone is said to be so."""
        no_program = "/" + "x" * 256
        a = Policy(rules=[deny("read", paths=["/k"], programs=[no_program])], default=READS)
        assert shown(a, Policy(default=READS)) == ["read /k, by an unknown program: deny to allow"]

    def test_grants(self) -> None:
        """A grant is a difference of just what it is for."""
        a = Policy(rules=[ask("exec", commands=["npm publish **"])], default=RUNS)
        grant = Grant(operation="exec", path="/usr/bin/npm", command=["npm", "publish"])
        (found,) = compared(a, a.with_grants(grant)).differences
        assert (found.event.path, found.event.argv) == (b"/usr/bin/npm", (b"npm", b"publish"))  # type: ignore[attr-defined]

    def test_an_image_that_is_excepted(self) -> None:
        """An exception for an image counts where the rule matches by the name that it was started under."""
        question = ask("exec", paths=["/usr/bin/**"], except_=[Exemption(paths=["/a/*"])], name="question")
        a = Policy(rules=[question], default=RUNS)
        b = a.with_rules(ask("exec", paths=["/usr/bin/**"], name="more"))
        (found,) = compared(a, b).differences
        assert (found.event.path, found.a.verdict, found.b.verdict) == (b"/a/x", "allow", "ask")  # type: ignore[attr-defined]

    def test_stacks(self) -> None:
        """A layer more can only be stricter; what it does not tighten is alike."""
        a = Policy(rules=[allow("read", paths=["/a/**"], name="r")])
        more = Policy(default=READS, rules=[deny("read", paths=["/a/b", "/c"], name="s")])
        assert shown(a, Policy.stack(a, more)) == ["read /a/b: allow to deny"]
        assert compared(Policy.stack(a, more), Policy.stack(more, a)).equal
        assert compared(Policy.stack(a, a), a).equal

    def test_names_and_orders_do_not_matter(self) -> None:
        """Rules that say the same in another order, or under another name, are no difference."""
        a = Policy(rules=[deny("read", paths=["/a", "/b"], name="x"), allow("read", name="y")])
        b = Policy(rules=[allow("read", name="z"), deny("read", paths=["/b", "/a"], name="x")])
        c = Policy(
            rules=[deny("read", paths=["/a"], name="p"), deny("read", paths=["/b"], name="q")], default=READS
        )
        assert compared(a, b).equal
        assert compared(a, c).equal

    def test_face(self) -> None:
        """The package has it, too."""
        assert rampart.diff is diff


class TestSettings:
    def test_all(self) -> None:
        """Whatever else leaves a command more or less is named, and which of the two it is."""
        a = Policy(limits=Limits(processes=5, memory="1k"), audit="all", features=["sysv-ipc"])
        b = Policy(limits=Limits(memory=10), linger=True, audit="denials", features=["memfd-exec"])
        b_drops = Policy(environment=Environment(drop=["AWS_*"], pass_=["AWS_REGION"]))
        found = [(each.key, each.a, each.b, each.laxer) for each in compared(a, b).settings]
        assert found == [
            ("feature memfd-exec", "refused", "open", True),
            ("feature sysv-ipc", "open", "refused", False),
            ("limits.processes", "5", "none", True),
            ("limits.memory", "1024", "10", False),
            ("linger", "false", "true", True),
            ("audit", "all", "denials", True),
        ]
        (found,) = compared(Policy(), b_drops).settings
        assert (found.key, found.b, found.laxer) == ("variable AWS_", "dropped", False)
        assert not compared(Policy(), b_drops).equal


class TestTooLarge:
    """Where there is too much to try out, nobody is told that there is no difference."""

    A = Policy(rules=[deny("read", paths=["**/a/**", "**/b/*", "/*/*/c"], name="r")], default=READS)

    @pytest.mark.parametrize(("module", "limit"), [(exploring, "WORK_MAX"), (witnesses, "EVENTS_MAX")])
    def test_said(self, monkeypatch: pytest.MonkeyPatch, module: object, limit: str) -> None:
        """Each limit ends in an answer that is not `equal`."""
        monkeypatch.setattr(module, limit, 1)
        same = Policy(
            rules=[
                deny("read", paths=["**/a/**", "**/b/*"], name="r"),
                deny("read", paths=["/*/*/c"], name="s"),
            ],
            default=READS,
        )
        found = compared(self.A, same)
        assert not found.equal
        assert not found.differences
        ((operation, why),) = found.unfinished
        assert operation is Operation.READ
        assert why.startswith("more than ")

    def test_what_was_found_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A difference that was found before is reported."""
        monkeypatch.setattr(witnesses, "EVENTS_MAX", 1)
        found = compared(self.A, Policy(default={"read": "deny"}))
        assert found.unfinished
        assert found.differences


def test_several_names_of_one_address() -> None:
    """An address that has several names is what the rules on any of them are about."""
    denied = deny("connect", hosts=["a.example"], except_=["b.example"], name="d")
    one = Policy(rules=[denied, allow("connect", hosts=["a.example"], name="y")])
    two = Policy(rules=[denied, allow("connect", hosts=["c.example"], name="y")])
    assert "connect 203.0.113.1:443 (a.example, b.example): allow to deny" in shown(one, two)


def test_the_events_are_few() -> None:
    """The shipped profile is told apart by less than a thousand events."""
    matcher = Policy.load("agent").matcher(home=HOME, directory=DIRECTORY)
    made = Witnesses([matcher])
    assert sum(1 for operation in Operation for _ in made.events(operation)) < 1000
