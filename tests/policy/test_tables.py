"""The compiled form of a policy says what the reference says, or that it cannot decide."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import re
import runpy
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from compiled import UNDECIDED, Compiled, Verdict, load, walker
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from rampart_seccomp.calls.shim import ffi, lib
from rampart_seccomp.errors import SyscallError
from rampart_seccomp.events import (
    Address,
    ConnectEvent,
    Event,
    ExecEvent,
    FileEvent,
    ListenEvent,
    Operation,
    Process,
)
from rampart_seccomp.policy import AnyMatcher, Exemption, Grant, Policy, Rule, Stack, allow, ask, deny
from rampart_seccomp.policy.tables import compile_tables
from rampart_seccomp.policy.terms import FILE_OPERATIONS
from strategies import DIRECTORY, HOME

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples" / "policies").glob("*.yaml"))
TABLES = runpy.run_path(str(ROOT / "csrc" / "build_shim.py"))["TABLES"]

PLACE = {"home": HOME, "directory": DIRECTORY}


def agrees(matcher: AnyMatcher, compiled: Compiled, event: Event) -> Verdict:
    """Check one verdict against the reference's; give it."""
    said = compiled.decide(event)
    if said != UNDECIDED:
        assert Verdict.of(matcher.decide(event)) == said
    return said


# What the rules of `strategies` lack: errors, silent rules, and grants.
errors = st.sampled_from([None, "EPERM", "ENOENT"])


@st.composite
def details(draw: st.DrawFn, policy: Policy) -> Policy:
    """The same policy with errors, some rules that are not recorded, and grants."""
    rules = [
        attrs.evolve(
            rule,
            log=draw(st.booleans()),
            errno=draw(errors) if rule.verdict != "allow" else None,
        )
        for rule in policy.rules
    ]
    grants = draw(
        st.lists(
            st.builds(Grant, operation=strategies.file_operations, path=strategies.paths(3))
            | st.builds(Grant, operation=st.just("connect"), host=hosts_of_grants)
            | st.builds(Grant, operation=st.just("listen"), port=st.sampled_from(["80", "127.0.0.1:80"]))
            | st.builds(
                Grant,
                operation=st.just("exec"),
                path=strategies.paths(3),
                command=st.sampled_from([("git", "push"), ("a",)]),
            ),
            max_size=2,
        )
    )
    return attrs.evolve(policy, rules=rules, grants=grants)


hosts_of_grants = st.sampled_from(["a.example:80", "10.0.0.1:80", "[fd00::1]:443", "127.0.0.1:80"])
HOSTS = (
    *("a.example", "a.example:80", "b.example:443", "10.0.0.0/8", "10.0.0.1:80", "0.0.0.0/0:1-1024"),
    *("127.0.0.1:80,443", "0.0.0.0", "::1", "[fd00::/8]:443", "::/0", "10.0.0.0/9", "fd00::/9"),
    *("unix:/a/s", "unix:@a*", "::ffff:10.0.0.1", "10.0.0.1/32:0", "0.0.0.0/1", "*.example:80", "*:443"),
)
PORTS = (
    *("80", "0", "1-1024", "40000", "127.0.0.1:80", "[::1]:80", "[::]:80", "0.0.0.0:0", "10.0.0.0/8", "::/0"),
    *("127.0.0.1", "[::1]:40000"),
)
hosts, ports = st.sampled_from(HOSTS), st.sampled_from(PORTS)


@st.composite
def address_rules(draw: st.DrawFn, name: str) -> Rule:
    operation, key, entries = draw(st.sampled_from([("connect", "hosts", hosts), ("listen", "ports", ports)]))
    actors = strategies.actors(frozenset())
    given = draw(actors)
    given[key] = draw(st.lists(entries, max_size=3))
    excepts: list[str | Exemption] = draw(st.lists(entries, max_size=2))
    exempted = draw(actors)
    if exempted:
        exempted[key] = draw(st.lists(entries, max_size=2))
        excepts.append(Exemption(**exempted))
    verdict = draw(strategies.verdicts)
    redirect = draw(strategies.redirecting(verdict, given))
    return Rule(name=name, verdict=verdict, operations=operation, except_=excepts, redirect=redirect, **given)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies on files, exec, addresses and ports."""
    kinds = st.sampled_from([strategies.rules, strategies.rules, address_rules])
    count = draw(st.integers(0, 5))
    default = draw(st.dictionaries(st.sampled_from([str(each) for each in Operation]), strategies.verdicts))
    policy = Policy(rules=[draw(draw(kinds)(name=f"r{number}")) for number in range(count)], default=default)
    return draw(details(policy))


ADDRESSES = tuple(
    ipaddress.ip_address(text)
    for text in (
        *("10.0.0.1", "10.128.0.1", "11.0.0.0", "127.0.0.1", "0.0.0.0", "255.255.255.255", "192.0.2.53"),
        *("::", "::1", "fd00::1", "fdff::1", "fe80::1", "2001:db8::53"),
    )
)
NUMBERS = (0, 53, 80, 443, 1024, 1025, 40000, 65535)
addresses, numbers = st.sampled_from(ADDRESSES), st.sampled_from(NUMBERS)
names_in_paths = strategies.names | strategies.any_names
spellings = st.builds(
    lambda names, slashes: slashes + slashes.join(names) + slashes[:-1],
    st.lists(names_in_paths, max_size=7),
    st.sampled_from([b"/", b"/", b"/", b"//"]),
)
processes = st.none() | strategies.processes()
file_events = st.builds(FileEvent, operation=strategies.file_operations, path=spellings, process=processes)
connect_events = st.builds(
    ConnectEvent,
    protocol=st.just("tcp"),
    address=addresses,
    port=numbers,
    names=st.frozensets(st.sampled_from(["a.example", "b.example"])),
    process=processes,
)
listen_events = st.builds(
    ListenEvent, protocol=st.just("tcp"), address=addresses, port=numbers, process=processes
)
# Of what an exec changes, the engine knows the most that it can be: all that it is started with.
exec_events = strategies.exec_events().filter(lambda event: event.changed is not None)
events = file_events | exec_events | connect_events | listen_events


def bind(policy: Policy | Stack) -> AnyMatcher:
    return policy.matcher(**PLACE, protected=[b"/a/b"], planted=[b"/h/p/.e"], substitutes=[b"/a/r"])


class TestLikeTheReference:
    @strategies.bounded
    @given(policies(), st.lists(events, min_size=1, max_size=20))
    def test_a_policy(self, policy: Policy, asked: list[Event]) -> None:
        """Whoever acts, and whatever an address is called, a verdict is the reference's."""
        matcher = bind(policy)
        compiled = Compiled(matcher)
        for event in asked:
            agrees(matcher, compiled, event)

    @strategies.bounded
    @given(st.lists(policies(), min_size=1, max_size=3), st.lists(events, min_size=1, max_size=20))
    def test_a_stack(self, layers: list[Policy], asked: list[Event]) -> None:
        """The strictest layer speaks, with its error."""
        matcher = bind(Policy.stack(*layers))
        compiled = Compiled(matcher)
        for event in asked:
            agrees(matcher, compiled, event)

    @pytest.mark.parametrize("verdict", ["allow", "deny"])
    @pytest.mark.parametrize("excepted", [False, True])
    def test_every_address(self, verdict: str, excepted: bool) -> None:
        """Each pattern on each address and port, where it restricts and where it allows."""
        default = "deny" if verdict == "allow" else "allow"
        for make, key, entries in ((ConnectEvent, "hosts", HOSTS), (ListenEvent, "ports", PORTS)):
            operation = "connect" if key == "hosts" else "listen"
            for entry in entries:
                given = {"except_": [entry]} if excepted else {key: [entry]}
                rule = Rule(name="r", verdict=verdict, operations=operation, **given)
                matcher = bind(Policy(rules=[rule], default={operation: default}))
                tables = Compiled(matcher)
                for address, port in itertools.product(ADDRESSES, NUMBERS):
                    said = agrees(matcher, tables, make(protocol="tcp", address=address, port=port))
                    assert said != UNDECIDED or ".example" in entry or "*:" in entry

    @pytest.mark.long
    @settings(max_examples=1_000, deadline=None)
    @given(
        st.lists(policies(), min_size=1, max_size=3),
        st.lists(spellings, min_size=6, max_size=6),
        st.lists(addresses, min_size=4, max_size=4),
        st.lists(processes, min_size=2, max_size=2),
        st.sampled_from([0, 4096, 1 << 16, 1 << 20]),
    )
    def test_100_000_cases(
        self,
        layers: list[Policy],
        paths: list[bytes],
        hosts: list[Address],
        actors: list[Process | None],
        memory: int,
    ) -> None:
        """The same for more than a hundred with each of a thousand policies and stacks, with any memory."""
        matcher = bind(layers[0] if len(layers) == 1 else Policy.stack(*layers))
        compiled = Compiled(matcher, memory)
        files = [
            FileEvent(operation=operation, path=path, process=process)
            for operation, path, process in itertools.product(FILE_OPERATIONS, paths, actors)
        ]
        sockets = [
            make(protocol="tcp", address=address, port=port, process=process)
            for make, address, port, process in itertools.product(
                (ConnectEvent, ListenEvent), hosts, (0, 53, 80, 443), actors
            )
        ]
        named = [
            attrs.evolve(event, names=frozenset({"a.example"}))
            for event in sockets
            if isinstance(event, ConnectEvent)
        ]
        assert len(files + sockets + named) > 100
        for event in files + sockets + named:
            agrees(matcher, compiled, event)


def compiled(*rules: Rule, **given: object) -> Compiled:
    return Compiled(bind(Policy(rules=rules, **given)))  # type: ignore[arg-type]


ALLOWED = Verdict("allow")
DENIED = Verdict("deny", errno.EACCES, True)


class TestUndecided:
    """What the tables cannot know makes no verdict, but only where it makes a difference."""

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            (deny("read", paths=["/x/**"], programs=["/a/git"]), UNDECIDED),
            (deny("read", paths=["/x/**"], within=["git push"]), UNDECIDED),
            (deny("read", paths=["/x/**"], except_=[Exemption(programs=["/a/git"])]), UNDECIDED),
            (deny("read", paths=["/y/**"], programs=["/a/git"]), ALLOWED),
            (deny("read", paths=["/x/**"], except_=[Exemption(paths=["/x/y"], within=["a"])]), DENIED),
            (deny("read", paths=["/x/**"], except_=["/x/b"]), ALLOWED),
            (ask("read", paths=["/x/**"]), UNDECIDED),
            (ask("read", paths=["/x/**"], decide=lambda event: None), UNDECIDED),  # type: ignore[arg-type,return-value]
            (allow("read", paths=["/x/**"], programs=["/a/git"], log=False), ALLOWED),
            (allow("read", paths=["/x/**"], programs=["/a/git"]), UNDECIDED),
        ],
    )
    def test_paths(self, rule: Rule, expected: Verdict) -> None:
        """Programs and questions matter where the paths of their rule match."""
        assert expected == compiled(rule, default={"read": "allow"}).path(Operation.READ, b"/x/b")

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            (deny("exec", paths=["/usr/bin/git"]), DENIED),
            (deny("exec", paths=["/usr/bin/git-real"]), DENIED),
            (deny("exec", paths=["/usr/bin/pull"]), ALLOWED),
            (deny("exec", except_=["/usr/bin/git-real"]), ALLOWED),
            (deny("exec", except_=["/usr/bin/git"]), DENIED),
            (deny("exec", commands=["git push **"]), UNDECIDED),
            (deny("exec", commands=["pull"]), UNDECIDED),
            (deny("exec", commands=["/usr/bin/git-real"]), UNDECIDED),
            (deny("exec", commands=["make **", "/usr/bin/make"]), ALLOWED),
            (deny("exec", env=["LD_*"]), UNDECIDED),
            (deny("exec", env=["PAGER"], except_=[Exemption(env=["PAGER"], programs=["/x"])]), ALLOWED),
            (deny("exec", paths=["/usr/bin/make"], env=["LD_*"]), ALLOWED),
            (deny("exec", programs=["/usr/bin/make"]), UNDECIDED),
            (deny("exec", paths=["/usr/bin/git"], within=["make"]), UNDECIDED),
            (ask("exec", commands=["git push"]), UNDECIDED),
            (ask("exec", commands=["make"]), ALLOWED),
        ],
    )
    def test_starts(self, rule: Rule, expected: Verdict) -> None:
        """Arguments, variables and actors matter where a program has one of the names of their rule."""
        event = ExecEvent(
            path=b"/usr/bin/git-real",
            named=b"/usr/bin/git",
            argv=(b"x/pull",),
            changed=frozenset({b"LD_PRELOAD", b"HOME"}),
        )
        assert expected == compiled(rule, default={"exec": "allow"}).start(event)

    def test_variables(self) -> None:
        """Names of variables are looked up as a whole, whatever is in them, and are no paths."""
        tables = compiled(
            deny("exec", env=["LD_*", "A"]), deny("exec", paths=["/A", "/x/**"]), deny("read", paths=["**/H"])
        )
        names = [b"LD_", b"LD_A/B", b"A", b"AA", b"LD", b"H", b"x/A", b"/A", b"", b"B" * 300, b"LD_" * 300]
        assert [tables.plants([name]) for name in names] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
        assert compiled(deny("exec", paths=["/A"])).plants([b"A"]) == 0

    def test_grants_of_starts(self) -> None:
        """A grant unsettles a default, and no rule."""
        grants = [Grant(operation="exec", path="/x/b", command=("b",))]
        tables = compiled(deny("exec", paths=["/x/c"]), grants=grants)
        assert tables.start(ExecEvent(path=b"/x/b", argv=(b"b",))) == UNDECIDED
        assert tables.start(ExecEvent(path=b"/x/c", argv=(b"b",))) == DENIED

    def test_behind_a_denial(self) -> None:
        """A rule that is not reached does not matter."""
        tables = compiled(deny("read", paths=["/x"]), ask("read"), allow("read", programs=["/a"], name="b"))
        assert tables.path(Operation.READ, b"/x") == DENIED

    def test_handlers(self) -> None:
        """What a registered function answers is undecided."""
        policy = Policy(default={"read": "allow"})
        policy.on("read", paths=["/x/**"])(lambda event: None)  # type: ignore[arg-type,return-value]
        tables = Compiled(bind(policy))
        assert tables.path(Operation.READ, b"/x/b") == UNDECIDED
        assert tables.path(Operation.READ, b"/y") == ALLOWED

    def test_grants(self) -> None:
        """A grant unsettles a default at its own path, and no rule."""
        grants = [Grant(operation="read", path="/x/b"), Grant(operation="read", path="/x/c")]
        tables = compiled(deny("read", paths=["/x/c"]), grants=grants)
        assert [tables.path(Operation.READ, path) for path in (b"/x/b", b"/x/bb", b"/x/c")] == [
            *(UNDECIDED, DENIED, DENIED)
        ]
        assert tables.path(Operation.MODIFY, b"/x/b") == DENIED

    def test_names(self) -> None:
        """A name unsettles its port, where no rule before it speaks."""
        tables = compiled(
            deny("connect", hosts=["10.0.0.0/8"], name="inside"),
            allow("connect", hosts=["a.example:443"], name="site"),
            allow("connect", hosts=["192.0.2.1"], name="address", log=False),
        )
        refused = Verdict("deny", errno.ECONNREFUSED, True)
        asked = [("10.0.0.1", 443), ("198.51.100.1", 443), ("198.51.100.1", 80), ("192.0.2.1", 80)]
        assert [refused, UNDECIDED, refused, ALLOWED] == [
            tables.address(Operation.CONNECT, ipaddress.ip_address(host).packed, port) for host, port in asked
        ]

    @pytest.mark.parametrize(
        ("rules", "expected"),
        [
            ([], ALLOWED),
            ([ask("connect")], ALLOWED),
            ([deny("connect", hosts=["10.0.0.0/8"])], Verdict("deny", errno.ECONNREFUSED, True)),
        ],
    )
    def test_grants_of_addresses(self, rules: list[Rule], expected: Verdict) -> None:
        """A grant answers a question and stands before the default; a rule that denies stands before it."""
        grants = [Grant(operation="connect", host=host) for host in ("10.0.0.1:80", "a.example:443")]
        tables = compiled(*rules, grants=grants)
        address = ipaddress.ip_address("10.0.0.1").packed
        assert tables.address(Operation.CONNECT, address, 80) == expected
        unsettled = UNDECIDED if expected == ALLOWED else expected
        assert tables.address(Operation.CONNECT, address, 443) == unsettled

    @pytest.mark.parametrize(
        "rules",
        [
            [allow("connect", hosts=["a.example:443"])],
            [allow("connect"), deny("connect", hosts=["*.example:443"], name="d")],
            [deny("connect"), allow("connect", hosts=["*:443"], name="a")],
        ],
    )
    def test_dns(self, rules: list[Rule]) -> None:
        """With names, DNS of whatever server is a question, whatever rules say about its address."""
        tables = compiled(*rules)
        for host in ("192.0.2.53", "127.0.0.1", "2001:db8::53"):
            said = tables.address(Operation.CONNECT, ipaddress.ip_address(host).packed, 53)
            assert said == UNDECIDED, host
            said = tables.address(Operation.CONNECT, ipaddress.ip_address(host).packed, 54)
            assert said != UNDECIDED, host
        assert compiled(deny("connect")).address(Operation.CONNECT, bytes(4), 53).answer == "deny"

    def test_substitutes(self) -> None:
        """With names, reading what the broker has its own version of is a question, changing it denied."""
        for hosts, expected in ((["a.example:443"], UNDECIDED), (["10.0.0.1:443"], ALLOWED)):
            tables = compiled(allow("connect", hosts=hosts), default={"read": "allow", "modify": "allow"})
            answers = [tables.path(Operation.READ, path).answer for path in (b"/a/r", b"/a/r/b", b"/a/s")]
            assert answers == [expected.answer, "allow", "allow"]
            changed = "deny" if expected is UNDECIDED else "allow"
            assert tables.path(Operation.MODIFY, b"/a/r").answer == changed

    @pytest.mark.parametrize("first", ["EPERM", "ENOENT"])
    def test_equally_strict_layers(self, first: str) -> None:
        """Of layers that deny by a rule the first one's error is given; a default gives way to a rule."""
        second = {"EPERM": "ENOENT", "ENOENT": "EPERM"}[first]
        layers = [Policy(rules=[deny("read", errno=each)]) for each in (first, second)]
        tables = Compiled(bind(Policy.stack(Policy(), *layers)))
        assert tables.path(Operation.READ, b"/x").error == getattr(errno, first)

    def test_a_denial_by_any_layer(self) -> None:
        """A layer that denies decides, whatever another one would ask."""
        asking = Policy(rules=[ask("read", paths=["/x/**"])], default={"read": "allow"})
        denying = Policy(rules=[deny("read", paths=["/x/b"], errno="EPERM")], default={"read": "allow"})
        tables = Compiled(bind(Policy.stack(asking, denying)))
        assert tables.path(Operation.READ, b"/x/b") == Verdict("deny", errno.EPERM, True)
        assert tables.path(Operation.READ, b"/x/c") == UNDECIDED
        assert tables.path(Operation.READ, b"/y") == ALLOWED


class TestWhatIsAsked:
    @pytest.mark.parametrize("path", [b"", b"x", b"./x"])
    def test_relative_paths(self, path: bytes) -> None:
        """A path that is not absolute is an error, and denied."""
        tables = compiled(default={"read": "allow"})
        with pytest.raises(SyscallError) as caught:
            tables.path(Operation.READ, path)
        assert caught.value.errno == errno.EINVAL
        assert tables._out.answer == lib.RS_DENY

    @pytest.mark.parametrize("names", [(b"x", b"/x"), (b"/x", b"x"), (b"", b"/x")])
    def test_relative_programs(self, names: tuple[bytes, bytes]) -> None:
        """A program without an absolute name is an error, and denied."""
        tables = compiled(default={"exec": "allow"})
        with pytest.raises(SyscallError) as caught:
            tables.start(ExecEvent(path=names[0], named=names[1], argv=(b"x",)))
        assert caught.value.errno == errno.EINVAL
        assert tables._out.answer == lib.RS_DENY

    @pytest.mark.parametrize("operation", [Operation.EXEC, Operation.CONNECT, Operation.LISTEN])
    def test_other_operations(self, operation: Operation) -> None:
        """Paths are asked about for operations on files only."""
        with pytest.raises(SyscallError):
            compiled(default={str(operation): "allow"}).path(operation, b"/x")

    @pytest.mark.parametrize(
        ("operation", "address", "port"),
        [
            (Operation.READ, bytes(4), 80),
            (Operation.EXEC, bytes(4), 80),
            (Operation.CONNECT, bytes(5), 80),
            (Operation.CONNECT, b"", 80),
            (Operation.CONNECT, bytes(4), 65536),
        ],
    )
    def test_other_addresses(self, operation: Operation, address: bytes, port: int) -> None:
        """What is no address and port is an error, and denied."""
        tables = compiled(default={"connect": "allow", "read": "allow", "exec": "allow"})
        with pytest.raises(SyscallError):
            tables.address(operation, address, port)
        assert tables._out.answer == lib.RS_DENY

    def test_mapped_addresses(self) -> None:
        """A v4-mapped address is the IPv4 address that it reaches."""
        tables = compiled(deny("connect", hosts=["10.0.0.0/8"]), default={"connect": "allow"})
        mapped = ipaddress.ip_address("::ffff:10.0.0.1").packed
        assert tables.address(Operation.CONNECT, mapped, 80).answer == "deny"

    @pytest.mark.parametrize("length", [55, 56, 255, 4000])
    def test_long_names(self, length: int) -> None:
        """Names are told apart to their last byte, however long they are."""
        name = b"n" * length
        tables = compiled(deny("read", paths=["/" + name.decode()]), default={"read": "allow"})
        for _ in range(2):
            assert tables.path(Operation.READ, b"/" + name) == DENIED
            assert tables.path(Operation.READ, b"/" + name[:-1]) == ALLOWED
            assert tables.path(Operation.READ, b"/" + name + b"n") == ALLOWED

    def test_other_tables(self) -> None:
        """A walker that meets other tables has forgotten the old ones."""
        one, two = compiled(default={"read": "allow"}), compiled(default={"read": "deny"})
        two.walker = one.walker
        assert one.path(Operation.READ, b"/x") == ALLOWED
        assert two.path(Operation.READ, b"/x") == DENIED
        assert one.path(Operation.READ, b"/x") == ALLOWED

    def test_the_serial(self) -> None:
        assert lib.rs_tables_serial(load(compile_tables(bind(Policy())), 2**63)) == 2**63


class TestPatterns:
    """Patterns that meet often: which rule speaks is seen by its error."""

    parts = st.sampled_from(["a", "b", "*", "**", "**", "[ab]", "a*", "?"])
    patterns = st.lists(parts, min_size=1, max_size=5).map(lambda names: "/" + "/".join(names))
    paths = st.lists(st.sampled_from([b"a", b"b", b"ab", b"c"]), max_size=7).map(
        lambda names: b"/" + b"/".join(names)
    )

    @strategies.bounded
    @given(
        st.lists(st.tuples(patterns, st.lists(patterns, max_size=1)), min_size=1, max_size=6),
        st.lists(paths, min_size=20, max_size=20),
    )
    def test_against_the_automaton(self, given: list[tuple[str, list[str]]], asked: list[bytes]) -> None:
        rules = [
            deny("read", paths=[pattern], except_=excepted or None, name=f"r{place}", errno=place + 1)
            for place, (pattern, excepted) in enumerate(given)
        ]
        matcher = bind(Policy(rules=rules, default={"read": "allow"}))
        tables = Compiled(matcher)
        for path in asked:
            event = FileEvent(operation=Operation.READ, path=path)
            assert Verdict.of(matcher.decide(event)) == tables.decide(event)


class TestWildcards:
    """Components with wildcards mean what the reference's expressions mean."""

    patterns = st.lists(
        st.sampled_from(["a", "b", "ab", "*", "?", "[ab]", "[!a]", "[]-]", "[a-c]", "é", "\udcff", "."]),
        min_size=1,
        max_size=6,
    ).map(lambda parts: re.sub(r"\*+", "*", "".join(parts)))
    components = st.text("abcd*?[]-\n.é", min_size=1, max_size=8).map(str.encode) | strategies.any_names

    @strategies.bounded
    @given(st.lists(patterns, min_size=1, max_size=8), st.lists(components, min_size=1, max_size=20))
    def test_against_expressions(self, texts: list[str], names: list[bytes]) -> None:
        rules = [
            deny("read", paths=[f"/{text}"], name=f"r{place}", errno=place + 1)
            for place, text in enumerate(texts)
            if text not in (".", "..")
        ]
        matcher = bind(Policy(rules=rules, default={"read": "allow"}))
        tables = Compiled(matcher)
        for name in names:
            event = FileEvent(operation=Operation.READ, path=b"/" + name)
            assert Verdict.of(matcher.decide(event)) == tables.decide(event)

    def test_time(self) -> None:
        """Stars do not multiply: the worst case is over at once."""
        tables = compiled(deny("read", paths=["/" + "a*" * 100 + "b"]), default={"read": "allow"})
        assert tables.path(Operation.READ, b"/" + b"a" * 255) == ALLOWED


class TestShipped:
    """Plain rules are decided: the shipped profiles leave nothing about files to the interpreter."""

    ASKED = (
        (Operation.READ, b"/usr/lib/x/y.so", "allow"),
        (Operation.READ, b"/etc/passwd", "allow"),
        (Operation.MODIFY, b"/h/p/src/main.c", "allow"),
        (Operation.CREATE, b"/h/p/build/x/y.o", "allow"),
        (Operation.DELETE, b"/tmp/x", "allow"),
        (Operation.READ, b"/h/.ssh/id_rsa", "deny"),
        (Operation.CREATE, b"/h/p/.git/hooks/pre-commit", "deny"),
        (Operation.MODIFY, b"/etc/passwd", "deny"),
    )

    @pytest.mark.parametrize("name", ["agent", "ci", "strict"])
    def test_profiles(self, name: str) -> None:
        tables = Compiled(Policy.load(name).matcher(**PLACE))
        assert list(self.ASKED) == [
            (each, path, tables.path(each, path).answer) for each, path, _ in self.ASKED
        ]

    @pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
    def test_examples(self, file: Path) -> None:
        """The example policies, too, and as the reference decides."""
        matcher = Policy.load(file).matcher(**PLACE)
        tables = Compiled(matcher)
        for operation in FILE_OPERATIONS:
            for _, path, _ in self.ASKED:
                event = FileEvent(operation=operation, path=path)
                assert Verdict.of(matcher.decide(event)) == tables.decide(event)


class TestManyRules:
    def test_all_of_them_speak(self) -> None:
        """Of thousands of rules each is found, and names that none speaks about are."""
        kinds = ("/s{0}/**", "**/x{0}", "/srv/*/d{0}/*.k{0}", "./**/*.e{0}", "/w/pre{0}*")
        names = ("/s{0}/a/b", "/y/z/x{0}", "/srv/v/d{0}/n.k{0}", "/h/p/y/n.e{0}", "/w/pre{0}.end")
        count = 2_000
        rules = [
            deny("read", paths=[kinds[n % 5].format(n)], name=f"r{n}", except_=[f"/srv/v/d{n}/x{n}.k{n}"])
            for n in range(count)
        ]
        tables = compiled(*rules, default={"read": "allow"})
        for number in range(count):
            path = names[number % 5].format(number).encode()
            assert tables.path(Operation.READ, path) == DENIED
            assert tables.path(Operation.READ, path + b"~") == (DENIED if number % 5 in (0, 4) else ALLOWED)


class TestMemory:
    @pytest.mark.parametrize("memory", [0, 1, 256, 4096, 1 << 16])
    def test_answers_are_the_same(self, memory: int) -> None:
        """However little a walker may remember, it answers as one that remembers everything."""
        rules = [
            deny("read", paths=[f"/**/{name}/*{name}?/**"], name=name)
            for name in ("aa", "ab", "ba", "bb", "c")
        ]
        matcher = bind(Policy(rules=rules, default={"read": "allow"}))
        small, large = Compiled(matcher, memory), Compiled(matcher)
        said = set()
        names = [b"aa", b"ab", b"ba", b"bb", b"c", b"xaay", b"xaby", b"x", b"cc", b"xcc"]
        for place in range(2000):
            path = b"".join(b"/" + names[place * (step + 3) // 7 % len(names)] for step in range(6))
            answer = large.path(Operation.READ, path)
            assert answer == small.path(Operation.READ, path)
            said.add(answer)
        assert said == {ALLOWED, DENIED}


RULES = (
    deny("write", paths=["/a/**", "**/*.e[a-c]", "/b?"], except_=[Exemption(programs=["/x"])], name="r0"),
    allow("read", paths=["./**"], except_=["./b"], name="r1"),
    allow("connect", hosts=["10.0.0.0/8:80", "a.example:443", "[fd00::/8]"], name="r2"),
    deny("listen", ports=["127.0.0.1:80", "1-1024"], name="r3"),
)


@pytest.fixture(scope="module")
def blob() -> bytes:
    """Tables in which every section has something."""
    policy = Policy(rules=RULES, grants=[Grant(operation="read", path="/x")])
    return compile_tables(bind(Policy.stack(policy, Policy(default={"read": "ask"}))))


class TestLoading:
    def test_truncations(self, blob: bytes) -> None:
        """Tables that end anywhere too early, or too late, are none."""
        for size in range(len(blob)):
            with pytest.raises(SyscallError) as caught:
                load(blob[:size])
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(SyscallError):
            load(blob + b"\0")

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_flips(self, blob: bytes, data: st.DataObject) -> None:
        """Changed bytes give an error or some verdict, never harm."""
        raw = bytearray(blob)
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            tables = load(bytes(raw))
        except SyscallError as error:
            assert error.errno == errno.EINVAL
            return
        out, walking = ffi.new("struct rs_verdict *"), walker()
        for path in (b"/a/b/c.ea", b"/h/p/b", b"/x", b"/b1"):
            for operation in range(5):
                assert lib.rs_decide_path(tables, walking, operation, path, len(path), out) == 0
        for size in (4, 16):
            for operation in (lib.RS_CONNECT, lib.RS_LISTEN):
                assert lib.rs_decide_address(tables, operation, bytes(size), size, 80, out) == 0

    @pytest.mark.parametrize("level", [3, 128, 2**32 - 1])
    def test_defaults_that_are_no_verdicts(self, blob: bytes, level: int) -> None:
        """A default that is none of the three is refused, not taken for something else."""
        counts = struct.unpack_from("=13I", blob, 12)
        sizes = (8, 8, 4, 32, 16, 12, 4)
        layers = 4 * 16 + sum(count * size for count, size in zip(counts, sizes, strict=False))
        for operation in range(8):
            raw = bytearray(blob)
            struct.pack_into("=I", raw, layers + 4 + 4 * operation, level)
            with pytest.raises(SyscallError):
                load(bytes(raw))

    def test_rules_without_conditions(self, blob: bytes) -> None:
        """A rule has its own conditions at least: one without would borrow another's."""
        counts = struct.unpack_from("=13I", blob, 12)
        sizes = (8, 8, 4, 32, 16, 12, 4, 36)
        entries = 4 * 16 + sum(count * size for count, size in zip(counts, sizes, strict=False))
        raw = bytearray(blob)
        own, following = (struct.unpack_from("=I", raw, entries + 20 * n + 16)[0] for n in range(2))
        struct.pack_into("=I", raw, entries + 16, own + following)
        struct.pack_into("=I", raw, entries + 20 + 16, 0)
        with pytest.raises(SyscallError):
            load(bytes(raw))


@pytest.fixture
def spoiler(fuzzer: Callable[..., Path]) -> Path:
    """The driver that spoils tables."""
    return fuzzer("tables", TABLES)


class TestSpoiled:
    """Whatever the loader is fed, memory is safe, and what it takes can be asked."""

    def spoil(self, spoiler: Path, blobs: list[bytes], directory: Path, seed: int, count: int) -> None:
        for place, raw in enumerate(blobs):
            (directory / str(place)).write_bytes(raw)
        argv = [str(spoiler), str(seed), str(count), *map(str, sorted(directory.iterdir()))]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert 0 < int(done.stdout) < count * len(blobs)

    def test_a_little(self, spoiler: Path, blob: bytes, tmp_path: Path) -> None:
        self.spoil(spoiler, [blob], tmp_path, 1, 5_000)

    @pytest.mark.long
    def test_a_lot(self, spoiler: Path, blob: bytes, tmp_path: Path) -> None:
        agent = compile_tables(Policy.load("agent").matcher(**PLACE))
        self.spoil(spoiler, [blob, agent], tmp_path, 2, 300_000)
