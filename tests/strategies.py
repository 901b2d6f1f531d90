"""Hypothesis strategies that several tests share: names, paths, patterns, rules, policies, events.

Everything is drawn from a few short names, so that patterns and paths meet often.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from rampart_seccomp.events import ExecEvent, FileEvent, Operation
from rampart_seccomp.policy import Policy, Rule
from rampart_seccomp.policy.rules import KINDS
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS

bounded = settings(max_examples=100, deadline=None)
"""For properties: enough examples for the quick suite, and no failure because a machine is busy."""

HOME = b"/h"
DIRECTORY = b"/h/p"

names = st.sampled_from([b"a", b"b", b"ab", b".e", b"h", b"p", b"git", b"\xff"])
any_names = st.binary(min_size=1, max_size=4).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
verdicts = st.sampled_from(VERDICTS)
file_operations = st.sampled_from(sorted(FILE_OPERATIONS, key=str))

_components = st.sampled_from(
    ["a", "b", "ab", ".e", "h", "p", "git", "*", "a*", "*b", "?", "[ab]", "[!a]", "**"]
)


@st.composite
def paths(draw: st.DrawFn, max_depth: int = 5) -> bytes:
    """Real absolute paths."""
    return b"/" + b"/".join(draw(st.lists(names, min_size=1, max_size=max_depth)))


@st.composite
def suffixes(draw: st.DrawFn) -> bytes:
    """What stands behind a directory: nothing, or some components each with a slash before it."""
    return b"".join(b"/" + name for name in draw(st.lists(names, max_size=3)))


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """Path patterns with every anchor but the named sets."""
    anchor = draw(st.sampled_from(["/", "~/", "./", "**/"]))
    return anchor + "/".join(draw(st.lists(_components, min_size=1, max_size=4)))


_programs = ["git", "a", "*", "/a/git", "/h/p/*"]
commands = st.builds(
    lambda program, rest: " ".join([program, *rest]),
    st.sampled_from(_programs),
    st.lists(st.sampled_from(["push", "a*", "*", "**"]), max_size=3),
)


@st.composite
def rules(draw: st.DrawFn, name: str = "rule") -> Rule:
    """Rules on files and exec, with and without conditions and exceptions."""
    operations = draw(
        st.frozensets(st.sampled_from(sorted(KINDS["paths"][0], key=str)), min_size=1, max_size=3)
    )
    if draw(st.integers(0, 4)) == 0:
        sockets = st.lists(patterns().map("unix:{}".format), max_size=2)
        return Rule(
            name=name,
            verdict=draw(verdicts),
            operations="connect",
            hosts=draw(sockets),
            except_=draw(sockets),
        )
    given = {"paths": draw(st.lists(patterns(), max_size=2))}
    if operations == {Operation.EXEC} and draw(st.booleans()):
        given = {"commands": draw(st.lists(commands, max_size=2))}
        excepts = draw(st.lists(commands, max_size=1)) if given["commands"] else []
    else:
        excepts = draw(st.lists(patterns(), max_size=2))
    return Rule(name=name, verdict=draw(verdicts), operations=operations, except_=excepts, **given)


@st.composite
def policies(draw: st.DrawFn, max_rules: int = 4) -> Policy:
    """Small policies on files and exec."""
    count = draw(st.integers(0, max_rules))
    return Policy(
        rules=[draw(rules(name=f"r{number}")) for number in range(count)],
        default=draw(st.dictionaries(st.sampled_from([str(each) for each in Operation]), verdicts)),
    )


@st.composite
def file_events(draw: st.DrawFn) -> FileEvent:
    return FileEvent(operation=draw(file_operations), path=draw(paths()))


@st.composite
def exec_events(draw: st.DrawFn) -> ExecEvent:
    argv = draw(st.lists(st.sampled_from([b"git", b"a", b"push", b"/x/git"]), max_size=3))
    return ExecEvent(path=draw(paths()), argv=tuple(argv), named=draw(st.none() | paths()))
