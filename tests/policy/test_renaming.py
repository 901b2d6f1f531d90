"""Re-naming must not widen."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.events import ConnectEvent, ExecEvent, FileEvent, Operation, Process, Program
from rampart_seccomp.policy import Decision, Grant, Matcher, Policy, Rule, allow, ask, deny
from rampart_seccomp.policy.analysis import renamed
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS
from strategies import DIRECTORY, HOME


def matcher(*rules: object, default: dict[str, str] | None = None, **extra: object) -> Matcher:
    return Policy(rules=rules, default=default or {"read": "allow"}).matcher(
        home=HOME, directory=DIRECTORY, **extra
    )


def judged(
    bound: Matcher, path: bytes, argv: tuple[bytes, ...], process: Process | None, changed: frozenset[bytes]
) -> dict[str, int]:
    """Judge every operation on one path, as done by one process."""
    events = [FileEvent(operation=operation, path=path, process=process) for operation in FILE_OPERATIONS]
    decided = {str(event.operation): bound.decide(event).verdict for event in events}
    decided["read, shown"] = shown(
        bound.decide(FileEvent(operation=Operation.READ, path=path, process=process))
    )
    started = ExecEvent(path=path, argv=argv, process=process, changed=changed)
    decided["exec"] = bound.decide(started).verdict
    for in_tree in (False, True):
        event = ConnectEvent(protocol="unix", socket=path, in_tree=in_tree, process=process)
        decided[f"connect{in_tree:d}"] = bound.decide(event).verdict
    return {operation: LEVELS.index(verdict) for operation, verdict in decided.items()}


LEVELS = ("file", "masked", "nothing", *VERDICTS)


def shown(decision: Decision) -> str:
    """Say how much of a file is shown if it is read."""
    if decision.verdict == "deny":
        return "deny"
    return "file" if decision.redirect is None else "nothing" if decision.redirect.hides else "masked"


IMAGES = [b"/a/git", b"/h/p/a", b"/x"]
PROCESSES = [
    None,
    *(
        Process(pid=1, tid=1, lineage=tuple(Program(path, (b"git", b"push"), clean) for path in paths))
        for clean in (True, False)
        for paths in [*((image,) for image in IMAGES), (b"/x", b"/a/git"), (b"/a/git", b"/h/p/a")]
    ),
]
"""Who may act: nobody known, and every program of some policies, alone and beneath others, clean and not."""


ACTORS = [
    None,
    *(
        Process(pid=1, tid=1, lineage=lineage)
        for count in (1, 2)
        for lineage in itertools.product(
            [
                Program(path, argv, clean)
                for path, argv in (
                    (b"/a/git", (b"git", b"push")),
                    (b"/a/git", (b"git",)),
                    (b"/x", (b"x",)),
                    (b"/y", (b"y",)),
                    (b"/y", (b"git", b"push")),
                )
                for clean in (True, False)
            ],
            repeat=count,
        )
    ),
]
"""Everybody whom rules on these programs and commands tell apart."""

SUFFIXES = [path if path != b"/" else b"" for path in strategies.PATHS]
"""What may stand behind a name."""


def strictness(bound: Matcher, path: bytes, argv: tuple[bytes, ...]) -> dict[str, int]:
    """Judge every operation on one path, by whoever may do it and with any variables."""
    return {
        f"{operation} {number}": level
        for number, (process, changed) in enumerate(
            itertools.product(PROCESSES, [frozenset(), frozenset({b"LD_PRELOAD"}), frozenset({b"A"})])
        )
        for operation, level in judged(bound, path, argv, process, changed).items()
    }


class TestSound:
    @strategies.bounded
    @given(
        strategies.policies(),
        strategies.paths(3),
        strategies.paths(3),
        strategies.suffixes(),
        st.lists(st.sampled_from([b"x", b"push", b"a"]), max_size=3).map(tuple),
    )
    def test_directory(
        self, policy: Policy, old: bytes, new: bytes, suffix: bytes, argv: tuple[bytes, ...]
    ) -> None:
        """If a directory may be renamed, nothing beneath it is less restricted afterwards."""
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        if bound.widens(old, new, directory=True) is None:
            before = strictness(bound, old + suffix, argv)
            after = strictness(bound, new + suffix, argv)
            if not suffix:
                # A directory is never executed.
                before = {key: level for key, level in before.items() if not key.startswith("exec")}
            assert all(after[operation] >= before[operation] for operation in before)

    @strategies.bounded
    @given(
        strategies.policies(),
        strategies.paths(3),
        strategies.paths(3),
        st.lists(st.sampled_from([b"x", b"push", b"a"]), max_size=3).map(tuple),
    )
    def test_file(self, policy: Policy, old: bytes, new: bytes, argv: tuple[bytes, ...]) -> None:
        """If a file may be renamed, it is not less restricted afterwards."""
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        if bound.widens(old, new, directory=False) is None:
            before, after = strictness(bound, old, argv), strictness(bound, new, argv)
            assert all(after[operation] >= before[operation] for operation in before)

    @strategies.bounded
    @given(
        strategies.acting_policies(),
        st.sampled_from(
            [(b"/a", b"/b"), (b"/a/y", b"/b/y"), (b"/a/y", b"/c"), (b"/c", b"/b"), (b"/a/x", b"/c")]
        ),
        st.booleans(),
    )
    def test_whoever_acts(self, policy: Policy, names: tuple[bytes, bytes], directory: bool) -> None:
        """Nobody that acts later, alone or beneath others, clean or not, may do more under the new name."""
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        for old, new in (names, names[::-1]):
            if bound.widens(old, new, directory=directory) is not None:
                continue
            for suffix in (b"", b"/x", b"/z") if directory else (b"",):
                for process in PROCESSES:
                    before, after = (
                        bound.decide(FileEvent(operation=Operation.READ, path=name + suffix, process=process))
                        for name in (old, new)
                    )
                    assert VERDICTS.index(after.verdict) >= VERDICTS.index(before.verdict)
                    assert LEVELS.index(shown(after)) >= LEVELS.index(shown(before))

    @strategies.bounded
    @given(strategies.policies(), strategies.paths(3), st.booleans())
    @example(Policy(rules=[deny("read", paths=["/**"], name="r")]), b"/a", True)
    def test_not_vacuous(self, policy: Policy, path: bytes, directory: bool) -> None:
        """Keeping a name is always fine, so that the properties above judge something."""
        assert policy.matcher(home=HOME, directory=DIRECTORY).widens(path, path, directory=directory) is None

    @strategies.bounded
    @given(strategies.policies(), strategies.paths(3), strategies.paths(3))
    def test_file_exact_without_commands(self, policy: Policy, old: bytes, new: bytes) -> None:
        """For a file and path conditions the answer is exact on what rules deny: no needless refusal."""
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        if any(rule.commands for rule in policy.rules) or bound.needs_process or bound.needs_environment:
            return
        lost = bound.widens(old, new, directory=False)
        before, after = strictness(bound, old, ()), strictness(bound, new, ())
        if lost is not None:
            key = str(lost.operation)
            judged = [name for name in before if name.startswith(key)]
            assert any(after[name] < before[name] for name in judged)


class TestExact:
    """What is refused for files would widen: there are a name and somebody who may do more."""

    def less_restricted(
        self, bound: Matcher, names: tuple[bytes, bytes], suffixes: list[bytes], actors: list[Process | None]
    ) -> bool:
        for suffix, process in itertools.product(suffixes, actors):
            before, after = (
                bound.decide(FileEvent(operation=Operation.READ, path=name + suffix, process=process))
                for name in names
            )
            if VERDICTS.index(after.verdict) < VERDICTS.index(before.verdict):
                return True
        return False

    @strategies.bounded
    @given(
        strategies.reading_policies(),
        st.sampled_from([b"/a", b"/b", b"/c", b"/a/b", b"/a/c", b"/b/ab/a"]),
        st.sampled_from([b"/a", b"/b", b"/c", b"/a/b", b"/b/a", b"/c/c/c"]),
        st.booleans(),
    )
    def test_overlapping_rules(
        self, policies: tuple[Policy, Policy], old: bytes, new: bytes, directory: bool
    ) -> None:
        """Refused or not, it is right."""
        bound = policies[0].matcher(home=HOME, directory=DIRECTORY)
        lost = bound.widens(old, new, directory=directory, program=False)
        suffixes = SUFFIXES if directory else [b""]
        assert (lost is not None) == self.less_restricted(bound, (old, new), suffixes, [None])

    @strategies.bounded
    @given(
        strategies.acting_policies(),
        st.sampled_from(
            [(b"/a", b"/b"), (b"/a/y", b"/b/y"), (b"/a/y", b"/c"), (b"/c", b"/b"), (b"/a/x", b"/c")]
        ),
        st.booleans(),
    )
    def test_whoever_acts(self, policy: Policy, names: tuple[bytes, bytes], directory: bool) -> None:
        """So it is for rules on who acts."""
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        for old, new in (names, names[::-1]):
            lost = bound.widens(old, new, directory=directory, program=False)
            if lost is not None and lost.reason == "redirect":
                continue
            suffixes = [b"", b"/x", b"/z", b"/z/x"] if directory else [b""]
            assert (lost is not None) == self.less_restricted(bound, (old, new), suffixes, ACTORS)

    @pytest.mark.parametrize(
        ("rules", "kept"),
        [
            ([deny("read", paths=["/b/x*", "/b/[!x]*/**", "/b", "/b/x*/**"])], True),
            ([deny("read", paths=["/b/x*/**", "/b/[!x]*/**"])], False),
            ([deny("read", paths=["/b/**"], programs=["/p"]), deny("read", paths=["/b"])], False),
            (
                [
                    deny("read", paths=["/b/**"], programs=["/p"]),
                    ask("read", paths=["/b/**"], except_=[{"programs": ["/p"]}]),
                ],
                True,
            ),
        ],
    )
    def test_by_several(self, rules: list[Rule], kept: bool) -> None:
        """What one rule asks about may be covered by several elsewhere, if they leave nothing out."""
        bound = matcher(ask("read", paths=["/a/**"], name="asked"), *rules)
        assert (bound.widens(b"/a", b"/b", directory=True, program=False) is None) == kept

    def test_a_bound_is_no_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What would take too long is refused."""
        several = deny("read", paths=["/b/x*", "/b/[!x]*/**", "/b", "/b/x*/**"])

        def lost() -> bool:
            return (
                matcher(ask("read", paths=["/a/**"]), several).widens(b"/a", b"/b", directory=True)
                is not None
            )

        monkeypatch.setattr(renamed, "EVENTS_MAX", 1)
        assert lost()
        monkeypatch.setattr(renamed, "EVENTS_MAX", 100)
        assert not lost()
        monkeypatch.setattr(renamed, "WORK_MAX", 1)
        assert lost()


SECRETS = deny(["read", "write"], paths=["~/.ssh/**", "./**/.env"], except_=["~/.ssh/*.pub"], name="secrets")
PROJECT = allow("write", paths=["./**", "@tmp"], name="project")


class TestDirectories:
    @pytest.mark.parametrize(
        ("old", "new", "lost"),
        [
            (b"/h/.ssh", b"/h/x", "secrets"),
            (b"/h/.ssh", b"/h/p/x", "secrets"),
            (b"/h", b"/h2", "secrets"),
            (b"/h/p/a", b"/h/p/b", None),
            (b"/h/p/a", b"/h/p/b/c/d", None),
            (b"/tmp/a", b"/h/p/b", None),
            (b"/h/p/a", b"/tmp/b", "secrets"),
            (b"/h/p/.env", b"/h/p/env", "secrets"),
            (b"/h/x", b"/h/p/x", "default create: deny"),
            (b"/h/x", b"/h/y", None),
            (b"/h/x", b"/h/.ssh/y", None),
        ],
    )
    def test_moves(self, old: bytes, new: bytes, lost: str | None) -> None:
        """A move is refused by the rule (or the default) whose protection would be lost."""
        decision = matcher(SECRETS, PROJECT).widens(old, new, directory=True)
        assert lost == (None if decision is None else decision.where)
        assert decision is None or decision.verdict == "deny"

    def test_exceptions_count(self) -> None:
        """A place that the rule excepts does not take what the rule covered elsewhere."""
        bound = matcher(deny("read", paths=["./**/.env"], except_=["./vendor/**"], name="r"))
        assert bound.widens(b"/h/p/a", b"/h/p/b", directory=True) is None
        assert bound.widens(b"/h/p/vendor/a", b"/h/p/vendor/b", directory=True) is None
        assert bound.widens(b"/h/p/vendor/a", b"/h/p/b", directory=True) is None
        lost = bound.widens(b"/h/p/a", b"/h/p/vendor/a", directory=True)
        assert lost is not None
        assert lost.rule is not None
        assert lost.rule.name == "r"

    def test_asked_is_kept(self) -> None:
        """What is asked stays asked, or becomes denied."""
        bound = matcher(
            ask("read", paths=["/a/**"], name="asked"),
            ask("read", paths=["/b/**"], name="asked-too"),
            deny("read", paths=["/c/**"], name="denied"),
        )
        assert bound.widens(b"/a/x", b"/b/x", directory=True) is None
        assert bound.widens(b"/a/x", b"/c/x", directory=True) is None
        lost = bound.widens(b"/a/x", b"/d", directory=True)
        assert lost is not None
        assert lost.where == "asked"

    def test_protected(self) -> None:
        """Rampart's own files are not moved away, nor any directory above them, nor opened elsewhere."""
        bound = matcher(allow("write", name="all"), protected=[b"/r/audit"])
        for old in (b"/r/audit", b"/r", b"/r/audit/x"):
            lost = bound.widens(old, b"/x", directory=True)
            assert lost is not None
            assert lost.where == "built-in: Rampart's own files"
        assert bound.widens(b"/r/other", b"/x", directory=True) is None

    def test_unix_sockets(self) -> None:
        """A directory is not moved to where a rule opens unix sockets."""
        bound = matcher(allow("write", name="all"), allow("connect", hosts=["unix:./run/**"], name="sockets"))
        assert bound.widens(b"/h/p/a", b"/h/p/b", directory=True) is None
        assert bound.widens(b"/h/p/a", b"/h/p/run/a", directory=True) is not None


class TestPrograms:
    def test_a_denied_command_keeps_its_name(self) -> None:
        """A program that a rule judges by base name cannot be renamed out of the rule."""
        bound = matcher(
            deny("exec", commands=["git push **"], name="push"), default={"exec": "allow", "read": "allow"}
        )
        assert bound.widens(b"/h/git", b"/h/x/git", directory=False) is None
        assert bound.widens(b"/h/git", b"/h/gat", directory=False) is not None
        assert bound.widens(b"/h/gat", b"/h/git", directory=False) is None
        assert bound.widens(b"/h/bin", b"/h/bin2", directory=True) is None
        assert bound.widens(b"/h/git", b"/h/git2", directory=True) is None

    def test_an_allowed_command_is_not_taken_over(self) -> None:
        """Where exec is denied by default, nothing is renamed to a name that a rule allows."""
        bound = matcher(allow("exec", commands=["git **"], name="git"))
        assert bound.widens(b"/h/evil", b"/h/git", directory=False) is not None
        assert bound.widens(b"/h/evil", b"/h/good", directory=False) is None


class TestActors:
    def test_a_named_program_keeps_its_name(self) -> None:
        """A program that a rule restricts is not renamed out of the rule; other names are free."""
        bound = matcher(deny("connect", programs=["/t/curl"], name="curl"), default={"connect": "allow"})
        lost = bound.widens(b"/t/curl", b"/t/c", directory=False)
        assert lost is not None
        assert lost.where == "curl"
        assert bound.widens(b"/t", b"/u", directory=True) is not None
        assert bound.widens(b"/t/a", b"/t/b", directory=False) is None
        assert bound.widens(b"/t/a", b"/t/curl", directory=False) is None
        assert bound.widens(b"/t/curl", b"/t/c", directory=False, program=False) is None

    def test_a_named_program_is_not_taken_over(self) -> None:
        """Nothing gets the name of a program that a rule, or an exception of one, opens something for."""
        for rule in (
            allow("connect", programs=["/t/ssh"]),
            allow("listen", within=["/t/ssh **"]),
            deny("read", paths=["/k"], except_=[{"programs": ["/t/ssh"]}]),
        ):
            bound = matcher(rule)
            assert bound.widens(b"/t/evil", b"/t/ssh", directory=False) is not None
            assert bound.widens(b"/u", b"/t", directory=True) is not None
            assert bound.widens(b"/t/evil", b"/t/good", directory=False) is None
            assert bound.widens(b"/t/ssh", b"/t/x", directory=False) is None

    def test_an_opening_for_one_program_widens(self) -> None:
        """What one program may do more under the new name is widening, whoever renames."""
        bound = matcher(
            deny("read", paths=["/a/**"], name="r"),
            deny("read", paths=["/b/**"], except_=[{"programs": ["/t/ssh"]}], name="s"),
        )
        assert bound.widens(b"/a/x", b"/b/x", directory=False) is not None
        assert bound.widens(b"/b/x", b"/a/x", directory=False) is None
        bound = matcher(
            deny("read", paths=["/a/**"], programs=["/t/ssh"], name="r"),
            deny("read", paths=["/b/**"], programs=["/t/ssh", "/t/scp"], name="s"),
        )
        assert bound.widens(b"/a/x", b"/b/x", directory=False) is None
        assert bound.widens(b"/b/x", b"/a/x", directory=False) is not None

    def test_grants(self) -> None:
        """A grant for the new name widens if some program could use it there and not at the old one."""
        policy = Policy(
            rules=[deny("read", paths=["/b/**"], programs=["/t/curl"])],
            grants=[Grant(operation="read", path="/b/x")],
        )
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        assert bound.widens(b"/a/x", b"/b/x", directory=False) is not None
        assert bound.widens(b"/a/x", b"/b/y", directory=False) is None
