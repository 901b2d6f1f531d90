"""What is shown in place of a file, beside whether it may be read."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import FileEvent, Operation, Process, Program
from rampart_seccomp.policy import Decision, Grant, Matcher, Policy, Stack, allow, ask, check, deny, explain
from rampart_seccomp.policy.secrets import readable
from rampart_seccomp.verdicts import Redirect
from strategies import DIRECTORY, HOME

MASKED = Redirect(mask="values")
NOTHING = Redirect(to="/dev/null")
ENV = allow("read", paths=["./.env"], name="env", redirect=MASKED)


def bind(*rules: Any, default: str = "allow", **extra: Any) -> Matcher:
    return Policy(rules=rules, default={"read": default}, **extra).matcher(home=HOME, directory=DIRECTORY)


def read(matcher: Any, name: str = ".env", process: Process | None = None) -> Decision:
    path = DIRECTORY + b"/" + name.encode()
    return matcher.decide(FileEvent(operation=Operation.READ, path=path, process=process))


def acting(path: bytes) -> Process:
    return Process(pid=1, tid=1, lineage=(Program(path, (path,), True),))


class TestDecision:
    @pytest.mark.parametrize("default", ["allow", "ask", "deny"])
    def test_the_rule_allows(self, default: str) -> None:
        """The rule allows what it redirects, and redirects nothing else."""
        bound = bind(ENV, default=default)
        assert (read(bound).verdict, read(bound).redirect) == ("allow", MASKED)
        assert (read(bound, "x").verdict, read(bound, "x").redirect) == (default, None)

    def test_an_allow_does_not_lift_it(self) -> None:
        """Neither another rule, in whatever order, nor a grant shows what is redirected."""
        everything = allow("read", name="everything")
        for rules in ((everything, ENV), (ENV, everything)):
            assert (read(bind(*rules)).rule, read(bind(*rules)).redirect) == (ENV, MASKED)
        grant = Grant(operation="read", path=DIRECTORY + b"/.env")
        asking = bind(ENV, ask("read", name="question"), grants=[grant])
        assert (read(asking).verdict, read(asking).grant, read(asking).redirect) == ("allow", grant, MASKED)

    def test_a_grant_against_the_default_does_not_lift_it(self) -> None:
        """What only a grant allows, as the rule is for another program, is redirected for an unknown one."""
        rule = attrs.evolve(ENV, programs=("/a/git",))
        grant = Grant(operation="read", path=DIRECTORY + b"/.env")
        assert read(bind(rule, default="deny")).verdict == "deny"
        granted = read(bind(rule, default="deny", grants=[grant]))
        assert (granted.verdict, granted.redirect) == ("allow", MASKED)

    def test_a_question_and_a_denial_stand(self) -> None:
        """What asks still asks, and the answer shows no more; what denies still denies."""
        asked = read(bind(ENV, ask("read", name="question")))
        assert (asked.verdict, asked.redirect) == ("ask", MASKED)
        assert read(bind(ENV, deny("read", name="never"))).verdict == "deny"

    def test_an_exception(self) -> None:
        """`except` shows the file as it is, where something else allows it."""
        rule = allow("read", paths=["./**"], except_=["./.env.example"], name="env", redirect=MASKED)
        assert read(bind(rule), ".env.example").redirect is None
        assert read(bind(rule, default="deny"), ".env.example").verdict == "deny"
        assert read(bind(rule), ".env").redirect == MASKED

    def test_who_acts(self) -> None:
        """For an unknown program it neither allows nor shows; for the one named, both."""
        rule = attrs.evolve(ENV, programs=("/a/git",))
        assert read(bind(rule), process=acting(b"/a/git")).redirect == MASKED
        assert read(bind(rule), process=acting(b"/x")).redirect is None
        assert (read(bind(rule)).verdict, read(bind(rule)).redirect) == ("allow", MASKED)
        assert read(bind(rule, default="deny")).verdict == "deny"

    def test_nothing_is_stricter_than_masked(self) -> None:
        """Of several rules the one that shows less holds; of two alike the first."""
        hiding = allow("read", paths=["./**"], name="hide", redirect=NOTHING)
        other = allow("read", paths=["./**"], name="other", redirect=Redirect(to="/x"))
        for rules in ((ENV, hiding), (hiding, ENV), (ENV, hiding, other)):
            assert read(bind(*rules)).redirect == NOTHING

    def test_other_operations(self) -> None:
        """Only reading is redirected."""
        event = FileEvent(operation=Operation.MODIFY, path=DIRECTORY + b"/.env")
        assert bind(ENV).decide(event).redirect is None

    def test_stack(self) -> None:
        """Any layer's redirect holds, also where another one asks; the strictest, whatever the order."""
        masking, open_ = Policy(rules=[ENV]), Policy(default={"read": "allow"})
        asking = Policy(default={"read": "ask"})
        hiding = Policy(rules=[allow("read", paths=["./**"], name="hide", redirect=NOTHING)])
        place = {"home": HOME, "directory": DIRECTORY}
        for layers, verdict, redirect in (
            ((open_, masking), "allow", MASKED),
            ((masking, open_), "allow", MASKED),
            ((masking, asking), "ask", MASKED),
            ((masking, hiding), "allow", NOTHING),
            ((hiding, masking), "allow", NOTHING),
            ((masking, Policy()), "deny", MASKED),
        ):
            said = read(Stack(layers).matcher(**place))
            assert (said.verdict, said.redirect) == (verdict, redirect)


class TestRenaming:
    @pytest.mark.parametrize("directory", [False, True])
    def test_out_of_it(self, directory: bool) -> None:
        """What is redirected gets no name under which it is shown."""
        rule = allow("read", paths=["./vault/**"], name="vault", redirect=MASKED)
        old = DIRECTORY + (b"/vault" if directory else b"/vault/key")
        for bound in (bind(rule), bind(rule, allow("read", name="everything"), default="deny")):
            assert bound.widens(old, DIRECTORY + b"/x", directory=directory).rule == rule
            assert bound.widens(DIRECTORY + b"/vault/a", DIRECTORY + b"/vault/b", directory=False) is None

    def test_to_where_it_is_denied_or_hidden(self) -> None:
        """It may get one under which it is denied, or nothing of it is shown; not the other way."""
        hiding = allow("read", paths=["./hidden/**"], name="hide", redirect=NOTHING)
        never = deny("read", paths=["./never/**"], name="never")
        questions = ask("read", paths=["./ask/**"], name="ask")
        bound = bind(ENV, hiding, never, questions)
        old, hidden = DIRECTORY + b"/.env", DIRECTORY + b"/hidden/x"
        assert bound.widens(old, hidden, directory=False) is None
        assert bound.widens(old, DIRECTORY + b"/never/x", directory=False) is None
        assert bound.widens(hidden, old, directory=False).rule == hiding
        assert bound.widens(old, DIRECTORY + b"/ask/x", directory=False).rule == ENV
        assert bound.widens(DIRECTORY + b"/ask/x", old, directory=False).rule == questions

    def test_to_a_granted_name(self) -> None:
        """A denied place with a grant in it is no safe place."""
        grant = Grant(operation="read", path=DIRECTORY + b"/x")
        bound = bind(ENV, default="deny", grants=[grant])
        assert bound.widens(DIRECTORY + b"/.env", DIRECTORY + b"/x", directory=False) is not None

    def test_a_program_that_it_is_for(self) -> None:
        """A program to which something else is shown keeps its name."""
        rule = attrs.evolve(ENV, programs=("./tool",))
        assert bind(rule).widens(DIRECTORY + b"/tool", DIRECTORY + b"/x", directory=False) is not None


class TestPolicy:
    def test_restricted(self) -> None:
        """Reading is restricted, so that the calls which read are held."""
        everything = allow(["read", "write"], name="everything")
        assert Policy(rules=[everything]).unrestricted(Operation.READ)
        assert not Policy(rules=[everything, ENV]).unrestricted(Operation.READ)
        assert Policy(rules=[everything, ENV]).unrestricted(Operation.MODIFY)

    def test_written_and_read(self) -> None:
        """`dumps` and `loads` keep it, and the fingerprint tells it; bytes cannot be written."""
        prints = set()
        for redirect in (None, MASKED, NOTHING, Redirect(to="~/a b")):
            policy = Policy(rules=[attrs.evolve(ENV, redirect=redirect)])
            assert Policy.loads(policy.dumps()) == policy
            prints.add(policy.fingerprint)
        shown = [Policy(rules=[attrs.evolve(ENV, redirect=Redirect(content=raw))]) for raw in (b"a", b"b")]
        assert len({*prints, *(policy.fingerprint for policy in shown)}) == 6
        with pytest.raises(PolicyError, match="bytes of this process"):
            shown[0].dumps()

    def test_in_python(self) -> None:
        """What is no redirect, or has no place, is an error."""
        for given in (
            {},
            {"to": "x"},
            {"to": "/a\0b"},
            {"mask": "keys"},
            {"to": "/x", "content": b""},
            {"content": "text"},
        ):
            with pytest.raises(PolicyError):
                Redirect(**given)
        with pytest.raises(PolicyError, match="only reading"):
            allow(["read", "modify"], redirect=MASKED)
        with pytest.raises(TypeError):
            allow("read", redirect={"to": "/x"})

    def test_explained(self) -> None:
        """The explanation says what is shown, and by which rule."""
        event = FileEvent(operation=Operation.READ, path=DIRECTORY + b"/.env")
        text = str(explain(bind(ENV), event))
        assert "allow: read" in text
        assert "shown: *** in place of its values, by env" in text
        asked = str(explain(bind(ENV, ask("read", name="question")), event))
        assert "not by env, which says allow: it says what is shown" in asked
        assert "shown:" not in str(explain(bind(deny("read", name="no"), ENV), event))


class TestLint:
    def messages(self, *rules: Any, **default: str) -> list[str]:
        return [
            finding.message for finding in check(Policy(rules=rules, default={"read": "allow", **default}))
        ]

    def test_what_may_be_written_back(self) -> None:
        """A file that is redirected and may be written is pointed out; one that is guarded is not."""
        back = "a program that edits such a file writes back"
        project = allow("write", paths=["./**"], name="project")
        assert any(back in each for each in self.messages(ENV, project))
        assert any(back in each for each in self.messages(ENV, modify="allow"))
        assert not any(back in each for each in self.messages(ENV))
        guard = deny("write", paths=["./.env"], name="guard")
        assert not any(back in each for each in self.messages(ENV, project, guard))

    def test_unreachable_or_redundant(self) -> None:
        """Only a denial, or a rule that shows the same, leaves nothing to say."""
        assert any("unreachable" in each for each in self.messages(ENV, deny("read", name="no")))
        assert not any("unreachable" in each for each in self.messages(ENV, ask("read", name="ask")))
        wide = allow("read", paths=["./**"], name="wide", redirect=MASKED)
        assert any("changes nothing" in each for each in self.messages(wide, ENV))
        plain = self.messages(allow("read", name="all"), ENV, read="deny")
        assert not any("changes nothing" in each for each in plain)

    def test_secrets(self) -> None:
        """A masked secret is none that can be read."""
        for rules, found in (((), True), ((ENV,), False)):
            policy = Policy(rules=rules, default={"read": "allow"})
            assert any("./.env" in names for _, _, names in readable(policy)) == found
