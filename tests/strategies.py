"""Hypothesis strategies that several tests share: names, paths, patterns, rules, policies, events.

Everything is drawn from a few short names, so that patterns and paths meet often.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from rampart_seccomp.events import ExecEvent, FileEvent, Operation, Process, Program
from rampart_seccomp.policy import Exemption, Policy, Rule
from rampart_seccomp.policy.rules import KINDS
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS
from rampart_seccomp.verdicts import Redirect

bounded = settings(deadline=None)
"""For properties: as many examples as the profile says, and no failure because a machine is busy."""

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


redirects = st.sampled_from([Redirect(mask="values"), Redirect(to="/dev/null"), Redirect(to="~/a")])

_programs = ["git", "a", "*", "/a/git", "/h/p/*"]
commands = st.builds(
    lambda program, rest: " ".join([program, *rest]),
    st.sampled_from(_programs),
    st.lists(st.sampled_from(["push", "a*", "*", "**"]), max_size=3),
)


program_patterns = st.sampled_from(["/a/git", "/a/*", "/h/p/**", "~/p/a", "**/git"])
variables = st.sampled_from(["LD_PRELOAD", "LD_*", "A"])


@st.composite
def actors(draw: st.DrawFn, operations: frozenset[Operation]) -> dict[str, list[str]]:
    """Conditions on who acts and, for exec, on variables; mostly none."""
    given: dict[str, list[str]] = {}
    if draw(st.integers(0, 2)) == 0:
        given["programs"] = draw(st.lists(program_patterns, max_size=2))
        given["within"] = draw(st.lists(commands, max_size=1))
        if operations == {Operation.EXEC}:
            given["env"] = draw(st.lists(variables, max_size=1))
    return {key: entries for key, entries in given.items() if entries}


@st.composite
def rules(draw: st.DrawFn, name: str = "rule") -> Rule:
    """Rules on files and exec, with and without conditions and exceptions, some for some programs only."""
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
            except_=[*draw(sockets), *draw(_exemptions(frozenset(), sockets, "hosts"))],
            **draw(actors(frozenset())),
        )
    given = {"paths": draw(st.lists(patterns(), max_size=2))}
    if operations == {Operation.EXEC} and draw(st.booleans()):
        given = {"commands": draw(st.lists(commands, max_size=2))}
        excepts = draw(st.lists(commands, max_size=1)) if given["commands"] else []
    else:
        excepts = draw(st.lists(patterns(), max_size=2))
    excepts += draw(_exemptions(operations, st.lists(patterns(), max_size=1), "paths"))
    given.update(draw(actors(operations)))
    verdict = draw(verdicts)
    if draw(st.integers(0, 4)) == 0 and not given.get("commands"):
        verdict, operations = "allow", frozenset({Operation.READ})
        given = {key: entries for key, entries in given.items() if key != "env"}
        excepts = [each for each in excepts if isinstance(each, str)]
        given["redirect"] = draw(redirects)
    return Rule(name=name, verdict=verdict, operations=operations, except_=excepts, **given)


@st.composite
def _exemptions(
    draw: st.DrawFn, operations: frozenset[Operation], objects: st.SearchStrategy[list[str]], key: str
) -> list[Exemption]:
    given = draw(actors(operations))
    if not given:
        return []
    given[key] = draw(objects)
    if operations == {Operation.EXEC}:
        given["commands"] = draw(st.lists(commands, max_size=1))
    return [Exemption(**given)]


_who = st.sampled_from(
    [
        {},
        {},
        {"programs": ["/a/git"]},
        {"programs": ["/a/git", "/x"]},
        {"within": ["git push"]},
        {"programs": ["/x"], "within": ["git push"]},
    ]
)


@st.composite
def _acting_rules(draw: st.DrawFn, name: str) -> Rule:
    places = st.sampled_from([[], ["/a/**"], ["/b/**"], ["/a/**", "/b/**"], ["/*/x"]])
    excepts = [
        Exemption(**given)
        for given in draw(
            st.lists(st.tuples(places, _who).map(lambda both: {"paths": both[0], **both[1]}), max_size=2)
        )
        if any(given.values())
    ]
    verdict = draw(verdicts)
    return Rule(
        name=name,
        verdict=verdict,
        operations="read",
        redirect=draw(st.none() | redirects) if verdict == "allow" else None,
        paths=draw(places),
        except_=excepts,
        **draw(_who),
    )


@st.composite
def acting_policies(draw: st.DrawFn) -> Policy:
    """Policies on reading in two directories, `/a` and `/b`, where who acts matters often."""
    count = draw(st.integers(1, 3))
    return Policy(
        rules=[draw(_acting_rules(name=f"r{number}")) for number in range(count)],
        default={"read": draw(verdicts), "write": "allow"},
    )


@st.composite
def processes(draw: st.DrawFn) -> Process:
    """Processes that run one of a few programs, perhaps beneath others, or are unknown."""
    programs = st.builds(
        Program,
        path=st.sampled_from([b"/a/git", b"/a/b", b"/h/p/a", b"/x"]),
        argv=st.sampled_from([(b"git", b"push"), (b"a",), (b"git",), ()]),
        clean=st.booleans(),
    )
    return Process(pid=1, tid=1, lineage=draw(st.none() | st.lists(programs, max_size=2).map(tuple)))


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
    return FileEvent(
        operation=draw(file_operations), path=draw(paths()), process=draw(st.none() | processes())
    )


changes = st.sampled_from([None, frozenset(), frozenset({b"LD_PRELOAD"}), frozenset({b"A", b"LD_AUDIT"})])
"""What an exec changes in the environment."""


@st.composite
def exec_events(draw: st.DrawFn) -> ExecEvent:
    argv = draw(st.lists(st.sampled_from([b"git", b"a", b"push", b"/x/git"]), max_size=3))
    return ExecEvent(
        path=draw(paths()),
        argv=tuple(argv),
        named=draw(st.none() | paths()),
        changed=draw(changes),
        process=draw(st.none() | processes()),
    )
