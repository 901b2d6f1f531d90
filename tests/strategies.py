"""Hypothesis strategies that several tests share: names, paths, patterns, rules, policies, events.

Everything is drawn from a few short names, so that patterns and paths meet often.
"""

from __future__ import annotations

import ipaddress
import itertools

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from rampart_seccomp.events import (
    ConnectEvent,
    ExecEvent,
    FileEvent,
    ListenEvent,
    Operation,
    Process,
    Program,
)
from rampart_seccomp.policy import AnyPolicy, Exemption, Grant, Policy, Rule
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
elsewhere = st.sampled_from([Redirect(to="127.0.0.1:8443"), Redirect(to="[::1]:80")])

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


_sites = st.sampled_from(["a.example", "b.example"])
_networks = st.sampled_from(
    ["0.0.0.0/0", "127.0.0.0/8", "10.0.0.0/8", "10.1.0.0/16", "[::]", "[fd00::/8]", "[::1]"]
)
_ports = st.sampled_from(["", ":443", ":1-100", ":80,443", ":0"])
_destinations = st.one_of(
    st.tuples(_sites | _networks, _ports).map("".join),
    st.sampled_from(["unix:@a", "unix:@a*", "unix:@*", "unix:/a/*", "unix:/h/**"]),
)
_locals = st.sampled_from(["0", "80", "1-100", "33000", "127.0.0.1", "127.0.0.0/8:80", "[::1]:1-100", "[::]"])


@st.composite
def redirecting(draw: st.DrawFn, verdict: str, given: dict[str, list[str]]) -> Redirect | None:
    """Where a rule leads connections, if it can lead them anywhere; often nowhere else."""
    hosts = given.get("hosts")
    if verdict != "allow" or not hosts or any(host.startswith("unix:") for host in hosts):
        return None
    return draw(st.none() | elsewhere)


@st.composite
def _network_rules(draw: st.DrawFn, name: str) -> Rule:
    operation, key, entries = draw(
        st.sampled_from([("connect", "hosts", _destinations), ("listen", "ports", _locals)])
    )
    several = st.lists(entries, max_size=2)
    excepts = [*draw(several)]
    who = draw(actors(frozenset()))
    if draw(st.booleans()) and who:
        excepts.append(Exemption(**{key: draw(several)}, **who))
        who = {}
    given = {key: draw(several)}
    verdict = draw(verdicts)
    return Rule(
        name=name,
        verdict=verdict,
        operations=operation,
        except_=excepts,
        redirect=draw(redirecting(verdict, given)),
        **given,
        **who,
    )


_grants = st.sampled_from(
    [
        Grant(operation="read", path="/a/b"),
        Grant(operation="create", path="/h/p"),
        Grant(operation="exec", path="/a/git", command=["git", "push"]),
        Grant(operation="exec", path="/a", command=["/a"]),
        Grant(operation="connect", host="a.example:443"),
        Grant(operation="connect", host="10.1.0.1:80"),
        Grant(operation="connect", host="unix:/a/b"),
        Grant(operation="connect", host="unix:@a"),
        Grant(operation="listen", port="80"),
        Grant(operation="listen", port="127.0.0.1:80"),
    ]
)


@st.composite
def whole_policies(draw: st.DrawFn, max_rules: int = 4) -> Policy:
    """Small policies on everything, with grants and features."""
    count = draw(st.integers(0, max_rules))
    return Policy(
        rules=[draw(rules(name=f"r{number}") | _network_rules(f"r{number}")) for number in range(count)],
        default=draw(st.dictionaries(st.sampled_from([str(each) for each in Operation]), verdicts)),
        grants=draw(st.lists(_grants, max_size=2)),
        features=draw(st.sampled_from([(), ("memfd-exec",)])),
    )


@st.composite
def stacks(draw: st.DrawFn) -> AnyPolicy:
    """Policies, and stacks of two."""
    policy = draw(whole_policies())
    return Policy.stack(policy, draw(whole_policies(2))) if draw(st.integers(0, 3)) == 0 else policy


@st.composite
def _amended(draw: st.DrawFn, rule: Rule) -> Rule:
    """The same rule; or with another verdict, or with an exception more, or less."""
    what = draw(st.sampled_from(["nothing", "nothing", "verdict", "except", "no except"]))
    if what == "verdict":
        verdict = draw(verdicts)
        return attrs.evolve(rule, verdict=verdict, redirect=rule.redirect if verdict == "allow" else None)
    if what == "no except":
        return attrs.evolve(rule, except_=())
    if what == "except" and rule.operations <= KINDS["paths"][0]:
        more = Exemption(paths=draw(st.lists(patterns(), min_size=1, max_size=2)))
        return attrs.evolve(rule, except_=(*rule.except_, more))
    return rule


@st.composite
def changed_policies(draw: st.DrawFn) -> tuple[AnyPolicy, AnyPolicy]:
    """Two policies; often the second one is the first one with a rule or default changed."""
    first = draw(stacks())
    if not isinstance(first, Policy) or draw(st.integers(0, 3)) == 0:
        return first, draw(stacks())
    kept = [draw(_amended(rule)) for rule in first.rules if draw(st.integers(0, 3))]
    more = draw(st.lists(rules(name="more") | _network_rules("more"), max_size=1))
    default = {str(operation): verdict for operation, verdict in first.default.items()}
    default.update(
        draw(st.dictionaries(st.sampled_from([str(each) for each in Operation]), verdicts, max_size=1))
    )
    return first, Policy(rules=[*kept, *more], default=default, grants=first.grants, features=first.features)


_addresses = st.sampled_from(
    [
        "0.0.0.0",
        "127.0.0.1",
        "10.1.2.3",
        "10.1.0.1",
        "10.9.9.9",
        "192.0.2.7",
        "::",
        "::1",
        "fd00::5",
        "2001:db8::9",
    ]
).map(ipaddress.ip_address)
_numbers = st.sampled_from([0, 1, 53, 80, 99, 443, 8000, 33000, 65535])


@st.composite
def network_events(draw: st.DrawFn) -> ConnectEvent | ListenEvent:
    """Connections to addresses with and without names, to unix sockets, and local ports."""
    process = draw(st.none() | processes())
    kind = draw(st.sampled_from(["address", "address", "unix", "listen"]))
    if kind == "listen":
        return ListenEvent(protocol="tcp", address=draw(_addresses), port=draw(_numbers), process=process)
    if kind == "unix":
        socket = draw(paths() | st.sampled_from([b"@a", b"@ab", b"@x"]))
        return ConnectEvent(protocol="unix", socket=socket, in_tree=draw(st.booleans()), process=process)
    return ConnectEvent(
        protocol="tcp",
        address=draw(_addresses),
        port=draw(_numbers),
        names=draw(st.frozensets(_sites, max_size=2)),
        process=process,
    )


@st.composite
def nameless_events(draw: st.DrawFn) -> ExecEvent:
    """Execs of memfds and deleted files."""
    event = draw(exec_events())
    return attrs.evolve(event, path=event.path + b" (deleted)", linked=False)


_few = st.lists(st.sampled_from(["a", "b", "*", "a*", "**"]), min_size=1, max_size=3).map("/".join)
_few_patterns = st.lists(_few.map("/{}".format), min_size=1, max_size=2)


@st.composite
def reading_rules(draw: st.DrawFn, name: str) -> Rule:
    """Rules on reading whose patterns and exceptions are made of very little, so that they overlap."""
    excepts = draw(st.lists(_few.map("/{}".format), max_size=2))
    return Rule(
        name=name, verdict=draw(verdicts), operations="read", paths=draw(_few_patterns), except_=excepts
    )


@st.composite
def reading_policies(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """Two policies of such rules, of which they share most."""
    shared = [draw(reading_rules(f"r{number}")) for number in range(draw(st.integers(0, 3)))]
    default = draw(verdicts)
    own = [[draw(reading_rules("own"))], [draw(reading_rules("own"))] if draw(st.booleans()) else []]
    if len(own[1]) == 1 and draw(st.booleans()):
        own[1] = [attrs.evolve(own[0][0], except_=own[1][0].except_)]
    first, second = (Policy(rules=[*shared, *more], default={"read": default}) for more in own)
    return first, second


_run = st.sampled_from(["git push", "git **", "git", "a", "/a/git **", "/*/a", "g*", "a a*"])
_images = st.sampled_from(["/a/*", "/a/git", "/usr/bin/**", "/*", "**/a"])


@st.composite
def running_rules(draw: st.DrawFn, name: str) -> Rule:
    """Rules on exec, by commands or by images, that overlap a lot."""
    key, entries = draw(st.sampled_from([("commands", _run), ("paths", _images)]))
    several = st.lists(entries, min_size=1, max_size=2)
    excepts = [Exemption(**{key: each}) for each in draw(st.lists(several, max_size=1))]
    return Rule(name=name, verdict=draw(verdicts), operations="exec", except_=excepts, **{key: draw(several)})


@st.composite
def running_policies(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """Two policies of such rules, of which they share most."""
    shared = [draw(running_rules(f"r{number}")) for number in range(draw(st.integers(0, 2)))]
    default = draw(verdicts)
    own = [[draw(running_rules(name)) for name in draw(st.sampled_from([[], ["own"]]))] for _ in range(2)]
    first, second = (Policy(rules=[*shared, *more], default={"exec": default}) for more in own)
    return first, second


STARTS = [
    ExecEvent(path=path, argv=argv, named=named)
    for path in (b"/a/git", b"/a/a", b"/x", b"/usr/bin/git", b"/b/b/a")
    for argv in ((b"x",), (b"git", b"push"), (b"/a",), (b"git",), (b"a", b"ab"), ())
    for named in (None, b"/a/git", b"/usr/bin/a", b"/x", b"/b/git", b"/usr/bin/git")
]
"""Execs of every kind that these rules tell apart, and more."""

PATHS = [
    b"/" + b"/".join(each)
    for depth in range(5)
    for each in itertools.product((b"a", b"b", b"c", b"ab"), repeat=depth)
]
"""Every path that the patterns of these rules tell apart, and more."""
