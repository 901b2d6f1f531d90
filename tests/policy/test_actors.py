"""Who acts: `programs`, `within`, `env`, and exceptions with conditions."""

from __future__ import annotations

import ipaddress

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import (
    ConnectEvent,
    Event,
    ExecEvent,
    FileEvent,
    ListenEvent,
    Operation,
    Process,
    Program,
)
from rampart_seccomp.policy import Exemption, Matcher, Policy, Rule, allow, ask, check, deny, explain
from rampart_seccomp.policy.terms import VERDICTS
from strategies import DIRECTORY, HOME

KEY = FileEvent(operation=Operation.READ, path=b"/h/.ssh/deploy")
SITE = ConnectEvent(protocol="tcp", port=443, names=frozenset({"a.example"}))
RUN = ExecEvent(path=b"/usr/bin/x", argv=(b"x",))

SSH = Program(b"/usr/bin/ssh", (b"ssh", b"host"), clean=True)
CAT = Program(b"/usr/bin/cat", (b"cat",), clean=True)
PUBLISH = Program(
    b"/usr/bin/node",
    (b"node", b"/usr/bin/npm", b"publish"),
    clean=True,
    execs=(
        ExecEvent(
            path=b"/usr/lib/node_modules/npm/bin/npm-cli.js",
            argv=(b"npm", b"publish"),
            named=b"/usr/bin/npm",
        ),
        ExecEvent(path=b"/usr/bin/node", argv=(b"node", b"/usr/bin/npm", b"publish")),
    ),
)

PROCESSES = [
    Process(pid=1, tid=1, lineage=tuple(Program(path, (b"git", b"push"), clean) for path in paths))
    for clean in (True, False)
    for paths in ((b"/a/git",), (b"/x",), (b"/y",), (b"/x", b"/a/git"))
]


def bind(*rules: Rule, default: dict[str, str] | None = None) -> Matcher:
    return Policy(rules=rules, default=default or {}).matcher(home=HOME, directory=DIRECTORY)


def by(event: Event, *lineage: Program) -> Event:
    return attrs.evolve(event, process=Process(pid=1, tid=1, lineage=lineage))


def unknown(event: Event) -> Event:
    return attrs.evolve(event, process=Process(pid=1, tid=1, lineage=None))


def verdict(bound: Matcher, event: Event) -> str:
    return bound.decide(event).verdict


class TestPrograms:
    def test_allow(self) -> None:
        """An allow is for the acting image in a clean environment; for none other, nor an unknown one."""
        bound = bind(allow("read", paths=["~/.ssh/**"], programs=["/usr/bin/ssh", "/usr/bin/scp"]))
        assert verdict(bound, by(KEY, SSH)) == "allow"
        assert verdict(bound, by(KEY, SSH, CAT)) == "allow"
        assert verdict(bound, by(attrs.evolve(KEY, path=b"/h/x"), SSH)) == "deny"
        assert verdict(bound, by(KEY, CAT, SSH)) == "deny"
        assert verdict(bound, by(KEY, attrs.evolve(SSH, clean=False))) == "deny"
        assert verdict(bound, unknown(KEY)) == "deny"
        assert verdict(bound, by(KEY)) == "deny"
        assert verdict(bound, KEY) == "deny"

    @pytest.mark.parametrize("make", [deny, ask])
    def test_restricting(self, make: object) -> None:
        """What restricts a program counts for its image alone, and for a process that may be it."""
        bound = bind(make("read", programs=["/usr/bin/ssh"], name="r"), default={"read": "allow"})
        expected = make("read").verdict
        for event in (by(KEY, SSH), by(KEY, attrs.evolve(SSH, clean=False)), unknown(KEY), KEY):
            assert verdict(bound, event) == expected
        assert verdict(bound, by(KEY, CAT, SSH)) == "allow"

    def test_exception(self) -> None:
        """An exception of a deny opens as an allow does; one of an allow closes as a deny does."""
        opened = bind(
            deny(
                "read",
                paths=["~/.ssh/**"],
                except_=["~/.ssh/*.pub", {"paths": ["~/.ssh/deploy"], "programs": ["/usr/bin/ssh"]}],
            ),
            default={"read": "allow"},
        )
        assert verdict(opened, by(KEY, SSH)) == "allow"
        assert verdict(opened, by(attrs.evolve(KEY, path=b"/h/.ssh/other"), SSH)) == "deny"
        assert verdict(opened, by(attrs.evolve(KEY, path=b"/h/.ssh/x.pub"), CAT)) == "allow"
        for event in (by(KEY, CAT), by(KEY, attrs.evolve(SSH, clean=False)), unknown(KEY), KEY):
            assert verdict(opened, event) == "deny"
        closed = bind(allow("read", except_=Exemption(programs="/usr/bin/ssh")))
        for event in (by(KEY, SSH), by(KEY, attrs.evolve(SSH, clean=False)), unknown(KEY), KEY):
            assert verdict(closed, event) == "deny"
        assert verdict(closed, by(KEY, CAT)) == "allow"

    @pytest.mark.parametrize(
        "event",
        [KEY, SITE, RUN, ListenEvent(protocol="tcp", address=ipaddress.ip_address("::1"), port=1)],
        ids=lambda event: event.kind,
    )
    def test_every_operation(self, event: Event) -> None:
        """Any operation may be for some programs only."""
        bound = bind(allow(str(event.operation), programs=["/usr/bin/ssh"]))
        assert verdict(bound, by(event, SSH)) == "allow"
        assert verdict(bound, by(event, CAT)) == "deny"


class TestWithin:
    def test_allow(self) -> None:
        """An allow is for whatever runs beneath a verified exec of the command, this one included."""
        bound = bind(allow("connect", hosts=["a.example:443"], within=["npm publish **"]))
        assert verdict(bound, by(SITE, PUBLISH)) == "allow"
        assert verdict(bound, by(SITE, CAT, PUBLISH)) == "allow"
        assert verdict(bound, by(SITE, CAT, CAT, PUBLISH, CAT)) == "allow"
        assert verdict(bound, by(attrs.evolve(SITE, port=80), PUBLISH)) == "deny"
        assert verdict(bound, by(SITE, CAT)) == "deny"
        assert verdict(bound, by(SITE, attrs.evolve(PUBLISH, clean=False))) == "deny"
        assert verdict(bound, unknown(SITE)) == "deny"

    def test_strictness_is_that_of_commands(self) -> None:
        """An allow looks at the image and at names in @system; a deny at argv[0] too."""
        forged = Program(b"/h/evil", (b"npm", b"publish"), clean=True)
        assert verdict(bind(allow("connect", within=["npm publish"])), by(SITE, forged)) == "deny"
        bound = bind(deny("connect", within=["npm publish"]), default={"connect": "allow"})
        assert verdict(bound, by(SITE, forged)) == "deny"
        assert verdict(bound, by(SITE, CAT)) == "allow"
        named = ExecEvent(path=b"/h/evil", argv=(b"x", b"publish"), named=b"/h/npm")
        forged = attrs.evolve(forged, execs=(named,))
        assert verdict(bind(allow("connect", within=["npm publish"])), by(SITE, forged)) == "deny"
        assert verdict(bound, by(SITE, forged)) == "deny"

    def test_unknown(self) -> None:
        """What restricts beneath a command holds for a process of which nothing is known."""
        bound = bind(deny("connect", within=["npm install **"]), default={"connect": "allow"})
        assert verdict(bound, unknown(SITE)) == "deny"
        assert verdict(bound, by(SITE, PUBLISH)) == "allow"

    def test_both(self) -> None:
        """Keys are and-ed: the program itself, beneath the command."""
        bound = bind(allow("connect", programs=["/usr/bin/ssh"], within=["npm publish", "git push"]))
        assert verdict(bound, by(SITE, SSH, PUBLISH)) == "allow"
        assert verdict(bound, by(SITE, PUBLISH, SSH)) == "deny"
        assert verdict(bound, by(SITE, SSH, CAT)) == "deny"


class TestEnvironment:
    def test_changes(self) -> None:
        """A rule on variables is about what the exec adds or changes; unknown is as bad as changed."""
        bound = bind(deny("exec", env=["LD_*", "BASH_ENV"]), default={"exec": "allow"})
        assert verdict(bound, attrs.evolve(RUN, changed=frozenset({b"PATH", b"LD_AUDIT"}))) == "deny"
        assert verdict(bound, attrs.evolve(RUN, changed=None)) == "deny"
        assert (
            verdict(bound, attrs.evolve(RUN, changed=frozenset({b"PATH", b"XLD_A", b"BASH_ENV2"}))) == "allow"
        )
        assert verdict(bound, RUN) == "allow"

    def test_allow(self) -> None:
        """An allow needs a change that is known."""
        bound = bind(allow("exec", env=["A"]))
        assert verdict(bound, attrs.evolve(RUN, changed=frozenset({b"A"}))) == "allow"
        assert verdict(bound, attrs.evolve(RUN, changed=None)) == "deny"
        assert verdict(bound, RUN) == "deny"

    def test_exception(self) -> None:
        """Some programs may set what others may not."""
        bound = bind(
            deny(
                "exec",
                env=["LD_PRELOAD", "LD_AUDIT"],
                except_=[{"env": "LD_PRELOAD", "programs": "/usr/bin/ssh"}],
            ),
            default={"exec": "allow"},
        )
        preload, audit = (
            attrs.evolve(RUN, changed=frozenset({name})) for name in (b"LD_PRELOAD", b"LD_AUDIT")
        )
        assert verdict(bound, by(preload, SSH)) == "allow"
        assert verdict(bound, by(preload, CAT)) == "deny"
        assert verdict(bound, by(audit, SSH)) == "deny"


class TestExemptions:
    def test_and_across_keys_or_across_entries(self) -> None:
        """Within one exception all keys must hold; any exception will do."""
        bound = bind(
            deny(
                "exec",
                commands=["x **"],
                except_=[
                    {"commands": ["x go **", "x run"], "paths": ["/usr/bin/*"]},
                    "x stop",
                ],
            ),
            default={"exec": "allow"},
        )
        event = attrs.evolve(RUN, argv=(b"x", b"go", b"1"))
        assert verdict(bound, event) == "allow"
        assert verdict(bound, attrs.evolve(event, path=b"/opt/x")) == "deny"
        assert verdict(bound, attrs.evolve(event, argv=(b"x", b"wait"))) == "deny"
        assert verdict(bound, attrs.evolve(event, path=b"/opt/x", argv=(b"x", b"stop"))) == "allow"

    def test_of_several_operations(self) -> None:
        """Where plain patterns would be ambiguous, a mapping says which key it means."""
        rule = deny(["read", "connect"], except_=[{"programs": ["/usr/bin/ssh"]}])
        bound = bind(rule, default={"read": "allow", "connect": "allow"})
        assert verdict(bound, by(KEY, SSH)) == verdict(bound, by(SITE, SSH)) == "allow"
        assert verdict(bound, by(KEY, CAT)) == verdict(bound, by(SITE, CAT)) == "deny"

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: Exemption(), "no conditions"),
            (lambda: deny("read", except_=[{}]), "no conditions"),
            (lambda: deny("read", except_={"programs": []}), "`programs` of an exception is empty"),
            (lambda: deny("read", except_={"program": "/a"}), "no key 'program'"),
            (lambda: deny("read", except_={"hosts": "a"}), "`hosts` does not apply to read"),
            (lambda: deny("read", except_={"env": "A"}), "`env` does not apply to read"),
            (lambda: deny("read", except_={"programs": "ssh"}), "starts nowhere"),
            (lambda: deny("read", programs=["ssh"]), "starts nowhere"),
            (lambda: deny("read", within=["bin/x"]), "neither a base name nor an absolute path"),
            (lambda: deny("exec", env=["A=1"]), "not the name of a variable"),
            (lambda: deny("read", env=["A"]), "`env` does not apply to read"),
            (lambda: allow("read", programs=[]), "`programs` is empty"),
        ],
    )
    def test_refused(self, make: object, expected: str) -> None:
        """What is no condition is an error that says so."""
        with pytest.raises(PolicyError) as caught:
            make()
        assert expected in str(caught.value)


class TestBounds:
    """The strictest and the laxest case, between which every process lies."""

    @strategies.bounded
    @given(
        strategies.policies() | strategies.acting_policies(),
        strategies.file_events() | strategies.exec_events(),
        strategies.processes(),
    )
    def test_between(self, policy: Policy, event: FileEvent | ExecEvent, process: Process) -> None:
        """Whoever acts gets no more than `laxest` says, and what restricts holds for an unknown process."""
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        nobody = attrs.evolve(event, process=None)
        if isinstance(nobody, ExecEvent):
            nobody = attrs.evolve(nobody, changed=None)
        decided = VERDICTS.index(bound.decide(attrs.evolve(event, process=process)).verdict)
        assert VERDICTS.index(bound.laxest(event).verdict) <= decided
        strictest = bound.decide(nobody)
        # A question is put for an unknown process, too, where the default would deny.
        assert strictest.verdict == "ask" or decided <= VERDICTS.index(strictest.verdict)

    @strategies.bounded
    @given(strategies.acting_policies(), strategies.acting_policies(), st.permutations([*PROCESSES, None]))
    def test_nothing_leaks(self, policy: Policy, other: Policy, order: list[Process | None]) -> None:
        """What one process was told is never what another is told."""
        for judged in (policy, Policy.stack(policy, other)):
            bound = judged.matcher(home=HOME, directory=DIRECTORY)
            for path in (b"/a/x", b"/b/y", b"/c"):
                events = [
                    FileEvent(operation=Operation.READ, path=path, process=process) for process in order
                ]
                alone = [judged.matcher(home=HOME, directory=DIRECTORY).decide(event) for event in events]
                for _ in range(2):
                    assert alone == [bound.decide(event) for event in events]

    def test_needs(self) -> None:
        """A matcher says what it needs to be told; without such rules it needs nothing, and remembers."""
        bound = bind(deny("read", paths=["/a/**"]), allow("exec", commands=["x"]))
        assert (bound.needs_process, bound.needs_environment) == (False, False)
        assert not bound.varies(Operation.READ, b"/a")
        bound = bind(deny(["read", "exec"], except_=[{"programs": "/a"}]), deny("exec", env=["A"]))
        assert (bound.needs_process, bound.needs_environment) == (True, True)
        assert bound.process_operations == {Operation.READ, Operation.EXEC}
        stacked = Policy.stack(Policy(), bound.policy).matcher()
        assert (stacked.needs_process, stacked.needs_environment) == (True, True)
        assert stacked.process_operations == {Operation.READ, Operation.EXEC}

    def test_only_what_varies_is_judged_again(self) -> None:
        """Beside the subtree that a program is named for, what is decided is remembered for everybody."""
        bound = bind(deny("read", paths=["/a/**"], programs=["/usr/bin/ssh"]), default={"read": "allow"})
        assert bound.varies(Operation.READ, b"/a/b")
        assert not bound.varies(Operation.READ, b"/b")
        assert not bound.varies(Operation.CREATE, b"/a/b")


class TestLint:
    @pytest.mark.parametrize(
        "condition", [{"programs": ["/usr/bin/ssh"]}, {"within": ["/usr/bin/x **"]}, {"env": ["A"]}]
    )
    def test_a_narrower_rule_hides_nothing(self, condition: dict[str, list[str]]) -> None:
        """A rule for some programs or variables only does not make another unreachable or redundant."""
        for first, second in ((deny, allow), (allow, allow), (ask, allow)):
            rules = [first("exec", name="a", **condition), second("exec", name="b", paths=["/x/**"])]
            assert check(Policy(rules=rules, default={"exec": "ask"})) == []
        rules = [deny("exec", name="a"), allow("exec", name="b", **condition)]
        (found,) = check(Policy(rules=rules))
        assert (found.severity, "unreachable" in found.message) == ("error", True)
        rules = [deny("exec", name="a", **condition), allow("exec", name="b", **condition)]
        (found,) = check(Policy(rules=rules))
        assert (found.severity, "unreachable" in found.message) == ("error", True)

    @pytest.mark.parametrize(
        ("rule", "key"),
        [
            (allow("connect", programs=["**/curl"]), ".programs[0]"),
            (allow("connect", programs=["./bin/*"]), ".programs[0]"),
            (allow("connect", programs=["/usr/bin/node"]), ".programs[0]"),
            (allow("connect", within=["/usr/bin/a", "npm publish"]), ".within[1]"),
            (deny("connect", except_=[{"programs": ["@tmp"]}]), ".except[0].programs[0]"),
            (deny("connect", except_=["a.example", {"within": ["npm x"]}]), ".except[1].within[0]"),
        ],
    )
    def test_weak_names(self, rule: Rule, key: str) -> None:
        """A name that opens something is weak where the agent may write a program of that name."""
        policy = Policy(rules=[rule, allow("write", paths=["@tmp", "./**"])])
        assert [f"rules[0]{key}"] == [found.key for found in check(policy)]

    @pytest.mark.parametrize(
        "rule",
        [
            allow("connect", programs=["/usr/bin/ssh"]),
            allow("connect", programs=["/usr/bin/node"], within=["/usr/bin/npm publish **"]),
            deny("connect", hosts=["a.example"], programs=["**/curl"], within=["npm install **"]),
        ],
    )
    def test_sound_names(self, rule: Rule) -> None:
        """Absolute programs, narrowed interpreters, and whatever restricts are not remarked on."""
        assert (
            check(Policy(rules=[rule, allow("write", paths=["@tmp"]), allow("connect", hosts=["a.example"])]))
            == []
        )


class TestExplain:
    RULES = (
        allow("read", paths=["~/.ssh/**"], programs=["/usr/bin/ssh"], name="ssh"),
        allow("read", within=["git push **"], name="push"),
        allow("read", paths=["/x"], programs=["/usr/bin/ssh"], name="elsewhere"),
    )

    @pytest.mark.parametrize(
        ("event", "expected"),
        [
            (by(KEY, CAT), ["another program", "not within git push **"]),
            (
                by(KEY, attrs.evolve(SSH, clean=False)),
                ["the program was started with variables that plant code", "not within git push **"],
            ),
            (unknown(KEY), ["the program is not known", "the program is not known"]),
        ],
    )
    def test_why(self, event: Event, expected: list[str]) -> None:
        """A rule that matches but for who acts says so; one on other objects names its objects."""
        losers = explain(bind(*self.RULES), event).losers
        assert [*expected, "no match in its `paths`"] == [loser.why for loser in losers]

    def test_why_not_the_variables(self) -> None:
        """A rule on variables says that none changes."""
        (loser,) = explain(bind(deny("exec", env=["A"])), RUN).losers
        assert loser.why == "no variable of its `env` changes"

    def test_nearly(self) -> None:
        """If only the program is another one, adding it to the rule is the smallest change, and it allows."""
        suggestion = explain(bind(*self.RULES), by(KEY, CAT)).suggestion
        assert suggestion.startswith("add \"/usr/bin/cat\" to `programs` of rule 'ssh', or ")
        added = attrs.evolve(self.RULES[0], programs=["/usr/bin/ssh", "/usr/bin/cat"])
        assert verdict(bind(added), by(KEY, CAT)) == "allow"

    def test_an_exception_for_the_program(self) -> None:
        """Where exceptions are for programs, the one that is suggested is for the acting one only."""
        rule = deny("read", paths=["~/**"], except_=[{"programs": ["/usr/bin/ssh"]}], name="home")
        suggestion = explain(bind(rule, default={"read": "allow"}), by(KEY, CAT)).suggestion
        entry = '{paths: ["~/.ssh/deploy"], programs: ["/usr/bin/cat"]}'
        assert suggestion == f"add {entry} to `except` of rule 'home'"
        text = f"version: 1\nrules:\n  - {{name: home, deny: read, except: [{entry}]}}\n"
        (amended,) = Policy.loads(text).rules
        bound = bind(amended, default={"read": "allow"})
        assert (verdict(bound, by(KEY, CAT)), verdict(bound, by(KEY, SSH))) == ("allow", "deny")
