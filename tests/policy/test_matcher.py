"""The reference matcher: precedence, defaults, exceptions, anchors, symbolic links, what is built in."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import os
import timeit
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from rampart_seccomp.events import ConnectEvent, ExecEvent, FileEvent, ListenEvent, Operation
from rampart_seccomp.policy import Decision, Matcher, Policy, Rule, allow, ask, deny
from rampart_seccomp.policy.terms import VERDICTS
from strategies import DIRECTORY, HOME


def matcher(*rules: Rule, default: dict[str, str] | None = None, **place: object) -> Matcher:
    return Policy(rules=rules, default=default or {}).matcher(
        **{"home": HOME, "directory": DIRECTORY, **place}
    )


def file(bound: Matcher, operation: str, path: bytes) -> Decision:
    return bound.decide(FileEvent(operation=Operation(operation), path=path))


def run(bound: Matcher, path: bytes, *argv: bytes, named: bytes | None = None) -> str:
    return bound.decide(ExecEvent(path=path, argv=argv or (path,), named=named)).verdict


class TestPrecedence:
    @pytest.mark.parametrize("order", [*itertools.permutations([allow, ask, deny])])
    def test_the_stricter_rule_decides(self, order: tuple[object, ...]) -> None:
        """deny > ask > allow, whatever the order."""
        rules = [make("read", paths=["/a"]) for make in order]
        assert file(matcher(*rules), "read", b"/a").verdict == "deny"
        assert file(matcher(*(r for r in rules if r.verdict != "deny")), "read", b"/a").verdict == "ask"

    @strategies.bounded
    @given(strategies.policies(), strategies.file_events() | strategies.exec_events(), st.randoms())
    def test_order_never_matters(self, policy: Policy, event: FileEvent | ExecEvent, random: object) -> None:
        """Any order of the rules gives the same verdict."""
        rules = list(policy.rules)
        random.shuffle(rules)
        shuffled = attrs.evolve(policy, rules=rules)
        bound = policy.matcher(home=HOME, directory=DIRECTORY)
        assert (
            bound.decide(event).verdict
            == shuffled.matcher(home=HOME, directory=DIRECTORY).decide(event).verdict
        )

    @strategies.bounded
    @given(strategies.policies(), strategies.file_events())
    def test_united_from_single_rules(self, policy: Policy, event: FileEvent) -> None:
        """The verdict is the strictest of what each rule says alone, else the default."""
        said = []
        for rule in policy.rules:
            alone = Policy(rules=[rule]).matcher(home=HOME, directory=DIRECTORY).decide(event)
            if alone.rule is not None:
                said.append(VERDICTS.index(alone.verdict))
        expected = VERDICTS[max(said)] if said else policy.default[event.operation]
        assert expected == policy.matcher(home=HOME, directory=DIRECTORY).decide(event).verdict

    def test_without_conditions(self) -> None:
        """A rule without a matcher covers its whole operation, and no other."""
        bound = matcher(allow("read", name="all"))
        assert file(bound, "read", b"/x/y").verdict == "allow"
        assert file(bound, "create", b"/x/y").verdict == "deny"

    def test_conditions_and(self) -> None:
        """Keys are and-ed, entries or-ed."""
        bound = matcher(allow("exec", paths=["/a/**", "/b/**"], commands=["x go", "x run"], name="r"))
        assert run(bound, b"/a/x", b"x", b"go") == "allow"
        assert run(bound, b"/b/x", b"x", b"run") == "allow"
        assert run(bound, b"/c/x", b"x", b"run") == "deny"
        assert run(bound, b"/a/x", b"x", b"stop") == "deny"


class TestDefault:
    def test_unnamed_is_denied(self) -> None:
        """An operation named nowhere is denied; `write` stands for four, named ones beside it win."""
        bound = matcher(default={"create": "ask", "write": "allow", "read": "allow"})
        verdicts = {str(operation): bound.default(operation).verdict for operation in Operation}
        assert verdicts == {
            "read": "allow",
            "create": "ask",
            "modify": "allow",
            "delete": "allow",
            "metadata": "allow",
            "exec": "deny",
            "connect": "deny",
            "listen": "deny",
        }

    def test_where_and_errno(self) -> None:
        """A decision says where it is written and which error a denial gives."""
        bound = matcher(deny("read", paths=["/a"], errno="ENOENT", message="No.", name="r"))
        decision = file(bound, "read", b"/a")
        assert (decision.where, decision.errno, decision.message) == ("r", errno.ENOENT, "No.")
        decision = file(bound, "read", b"/b")
        assert (decision.where, decision.errno, decision.message) == (
            "default read: deny",
            errno.EACCES,
            None,
        )
        refused = bound.decide(ConnectEvent(protocol="tcp", port=1))
        assert refused.errno == errno.ECONNREFUSED


class TestExcept:
    def test_silence(self) -> None:
        """A rule is silent about what it excepts: other rules and the default speak."""
        bound = matcher(
            deny("read", paths=["~/.ssh/**"], except_=["~/.ssh/*.pub"], name="keys"),
            ask("read", paths=["~/.ssh/work.pub"], name="work"),
            default={"read": "allow"},
        )
        assert file(bound, "read", b"/h/.ssh/id").verdict == "deny"
        assert file(bound, "read", b"/h/.ssh/id.pub").where == "default read: allow"
        assert file(bound, "read", b"/h/.ssh/work.pub").where == "work"

    @strategies.bounded
    @given(strategies.policies(), strategies.rules(name="extra"), strategies.file_events())
    def test_excepting_everything_removes_a_rule(self, policy: Policy, rule: Rule, event: FileEvent) -> None:
        """A rule that excepts everything is as good as not there."""
        if rule.kind != "paths":
            return
        silent = attrs.evolve(rule, except_=["/**"])
        expected = policy.matcher(home=HOME, directory=DIRECTORY).decide(event)
        assert expected == policy.with_rules(silent).matcher(home=HOME, directory=DIRECTORY).decide(event)

    @strategies.bounded
    @given(
        strategies.policies(),
        strategies.verdicts,
        st.lists(strategies.patterns(), max_size=2),
        strategies.patterns(),
        strategies.file_events(),
    )
    def test_silent_about_what_it_excepts(
        self, policy: Policy, verdict: str, paths: list[str], excepted: str, event: FileEvent
    ) -> None:
        """A rule is silent about an excepted object; about any other the exception changes nothing."""
        rule = Rule(name="extra", verdict=verdict, operations=[event.operation], paths=paths)
        silent = attrs.evolve(rule, except_=[excepted])
        covered = file(matcher(allow("read", paths=[excepted])), "read", event.path).verdict == "allow"
        expected = policy if covered else policy.with_rules(rule)
        assert (
            expected.matcher(home=HOME, directory=DIRECTORY).decide(event).verdict
            == policy.with_rules(silent).matcher(home=HOME, directory=DIRECTORY).decide(event).verdict
        )

    def test_hosts_and_ports(self) -> None:
        """Exceptions of connect and listen rules are hosts and ports."""
        bound = matcher(
            deny("connect", hosts=["10.0.0.0/8"], except_=["10.0.0.1:80"], name="net"),
            allow("listen", except_=[22], name="ports"),
            default={"connect": "allow"},
        )
        address = ipaddress.ip_address
        one = ConnectEvent(protocol="tcp", address=address("10.0.0.1"), port=80)
        assert bound.decide(one).verdict == "allow"
        assert bound.decide(attrs.evolve(one, port=81)).verdict == "deny"
        assert bound.decide(ListenEvent(protocol="tcp", address=address("::"), port=23)).verdict == "allow"
        assert bound.decide(ListenEvent(protocol="tcp", address=address("::"), port=22)).verdict == "deny"


class TestAnchors:
    def test_home_directory_sets(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """`~`, `./` and the named sets mean the places the matcher is bound to."""
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        bound = matcher(allow("read", paths=["~/a", "./b", "@tmp", "@caches", "@system", "@project"]))
        for path in (b"/h/a", b"/h/p/b", b"/h/p/c/d", b"/tmp/x", b"/h/.cache/x", b"/usr/bin/x", b"/lib64/x"):
            assert file(bound, "read", path).verdict == "allow"
        assert file(bound, "read", os.path.realpath(os.fsencode(tmp_path)) + b"/x").verdict == "allow"
        for path in (b"/h/b", b"/a", b"/h", b"/var/x"):
            assert file(bound, "read", path).verdict == "deny"

    @pytest.mark.parametrize("temporary", ["/", "/h", "relative", ""])
    def test_temporary_never_opens_the_home(self, monkeypatch: pytest.MonkeyPatch, temporary: str) -> None:
        """A $TMPDIR that is the home, or above it, is not part of @tmp."""
        monkeypatch.setenv("TMPDIR", temporary)
        bound = matcher(allow("read", paths=["@tmp"]))
        assert file(bound, "read", b"/h/secret").verdict == "deny"
        assert file(bound, "read", b"/tmp/x").verdict == "allow"

    def test_root_as_directory(self) -> None:
        """The root as launch directory is no special case."""
        bound = matcher(allow("read", paths=["./a/**"]), directory=b"/")
        assert file(bound, "read", b"/a/b").verdict == "allow"
        assert file(bound, "read", b"/b").verdict == "deny"

    def test_home_and_directory_are_real(self, tmp_path: Path) -> None:
        """Home and launch directory given by a link are bound to what they are."""
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        link = os.fsencode(tmp_path / "link")
        real = os.path.realpath(link)
        bound = matcher(allow("read", paths=["~/a", "./b"]), home=link, directory=link)
        assert file(bound, "read", real + b"/a").verdict == "allow"
        assert file(bound, "read", real + b"/b").verdict == "allow"


class TestSymbolicLinks:
    """The literal beginning of a pattern may be a link; names in events are always real."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        (tmp_path / "data").mkdir()
        (tmp_path / "secrets").symlink_to("data")
        return Path(os.path.realpath(tmp_path))

    def test_deny_follows(self, home: Path) -> None:
        """A deny (or ask) covers what the link leads to, and the spelled place."""
        bound = matcher(
            deny("read", paths=["~/secrets/**"]), default={"read": "allow"}, home=os.fsencode(home)
        )
        assert file(bound, "read", os.fsencode(home / "data/x")).verdict == "deny"
        assert file(bound, "read", os.fsencode(home / "secrets/x")).verdict == "deny"
        assert file(bound, "read", os.fsencode(home / "other")).verdict == "allow"

    def test_allow_does_not_follow_a_planted_link(self, home: Path) -> None:
        """An allow does not cover what somebody's link leads to."""
        bound = matcher(allow("read", paths=["~/secrets/**"]), home=os.fsencode(home))
        assert file(bound, "read", os.fsencode(home / "data/x")).verdict == "deny"
        assert file(bound, "read", os.fsencode(home / "secrets/x")).verdict == "allow"

    def test_except_of_deny_does_not_follow(self, home: Path) -> None:
        """An exception of a deny opens something, so it follows as an allow does."""
        bound = matcher(
            deny("read", paths=["~/**"], except_=["~/secrets/**"]),
            default={"read": "allow"},
            home=os.fsencode(home),
        )
        assert file(bound, "read", os.fsencode(home / "data/x")).verdict == "deny"

    @pytest.mark.skipif(not os.path.islink("/bin"), reason="/bin is a directory here")
    def test_allow_follows_the_system_s_links(self) -> None:
        """Links in the root, and beneath /usr, are nobody's but root's."""
        bound = matcher(allow("exec", paths=["/bin/sh"]))
        assert run(bound, os.path.realpath(b"/bin/sh")) == "allow"


class TestCommands:
    def test_strict_names(self) -> None:
        """A deny by base name matches the image, the name it was started under, and argv[0]."""
        bound = matcher(deny("exec", commands=["git push **"]), default={"exec": "allow"})
        assert run(bound, b"/usr/bin/git", b"git", b"push") == "deny"
        assert run(bound, b"/usr/bin/git", b"innocent", b"push", b"x") == "deny"
        assert run(bound, b"/opt/x", b"x", b"push", named=b"/usr/bin/git") == "deny"
        assert run(bound, b"/opt/x", b"/y/git", b"push") == "deny"
        assert run(bound, b"/usr/bin/git", b"git", b"pull") == "allow"
        assert run(bound, b"/usr/bin/gitk", b"gitk", b"push") == "allow"

    def test_lax_names(self) -> None:
        """An allow by base name matches the image, or a name under @system; never argv[0] alone."""
        bound = matcher(allow("exec", commands=["npm **"]))
        cli = b"/usr/lib/node_modules/npm/bin/npm-cli.js"
        assert run(bound, b"/x/npm", b"whatever") == "allow"
        assert run(bound, cli, b"npm", named=b"/usr/bin/npm") == "allow"
        assert run(bound, b"/h/evil", b"npm", named=b"/h/bin/npm") == "deny"
        assert run(bound, b"/h/evil", b"npm") == "deny"

    def test_absolute_program(self) -> None:
        """An absolute program is compared with the image; a deny also with the name it was started under."""
        allowed = matcher(allow("exec", commands=["/opt/x/* go"]))
        assert run(allowed, b"/opt/x/tool", b"tool", b"go") == "allow"
        assert run(allowed, b"/opt/y/tool", b"tool", b"go", named=b"/opt/x/tool") == "deny"
        denied = matcher(deny("exec", commands=["/opt/x/* go"]), default={"exec": "allow"})
        assert run(denied, b"/opt/y/tool", b"tool", b"go", named=b"/opt/x/tool") == "deny"
        assert run(denied, b"/opt/y/tool", b"tool", b"go") == "allow"

    def test_excepted_command(self) -> None:
        """A command can be excepted; an exception of a deny is as narrow as an allow."""
        bound = matcher(
            deny("exec", commands=["git ** push **"], except_=["git push origin"]), default={"exec": "allow"}
        )
        assert run(bound, b"/usr/bin/git", b"git", b"push", b"origin") == "allow"
        assert run(bound, b"/usr/bin/git", b"git", b"push", b"other") == "deny"
        assert run(bound, b"/h/evil", b"git", b"push", b"origin", named=b"/h/git") == "deny"


class TestUnixSockets:
    def test_defaults(self) -> None:
        """A socket made outside the tree needs a rule, whatever the default; the tree's own does not."""
        foreign = ConnectEvent(protocol="unix", socket=b"/run/docker.sock")
        own = attrs.evolve(foreign, in_tree=True)
        bound = matcher(default={"connect": "allow"})
        assert bound.decide(foreign).verdict == "deny"
        assert bound.decide(foreign).reason.startswith("built-in: ")
        assert bound.decide(own).verdict == "allow"
        assert matcher(allow("connect")).decide(foreign).verdict == "allow"
        assert matcher(deny("connect")).decide(own).verdict == "deny"
        assert matcher(allow("connect", hosts=["unix:/run/*.sock"])).decide(foreign).verdict == "allow"
        assert matcher(allow("connect", hosts=["example.com"])).decide(foreign).verdict == "deny"

    def test_abstract(self) -> None:
        """Abstract names are matched as a whole; `*` matches any bytes."""
        event = ConnectEvent(protocol="unix", socket=b"@/tmp/.X11-unix/X0")
        assert matcher(allow("connect", hosts=["unix:@/tmp/*"])).decide(event).verdict == "allow"
        assert matcher(allow("connect", hosts=["unix:@/tmp"])).decide(event).verdict == "deny"
        assert matcher(allow("connect", hosts=["unix:/tmp/**"])).decide(event).verdict == "deny"


class TestBuiltIn:
    def test_protected(self, tmp_path: Path) -> None:
        """Rampart's own files are not written, whatever the rules say, under either of their names."""
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        real = os.fsencode(Path(os.path.realpath(tmp_path)) / "real")
        bound = matcher(allow(["read", "write"]), protected=[os.fsencode(tmp_path / "link")])
        for operation in ("create", "modify", "delete", "metadata"):
            for path in (real, real + b"/x/y"):
                decision = file(bound, operation, path)
                assert (decision.verdict, decision.rule) == ("deny", None)
                assert decision.where == "built-in: Rampart's own files"
        assert file(bound, "read", real).verdict == "allow"
        assert file(bound, "create", real + b"2").verdict == "allow"


class TestMatcher:
    def test_strangers_are_refused(self) -> None:
        """What is not an event of its operation is an error, never an allow."""
        bound = matcher(allow(["read", "write", "exec", "connect", "listen"]))
        with pytest.raises(TypeError):
            bound.decide(FileEvent(operation=Operation.CONNECT, path=b"/a"))
        with pytest.raises(TypeError):
            bound.decide(ExecEvent(operation=Operation.READ, path=b"/a"))
        with pytest.raises(TypeError):
            bound.decide(object())
        with pytest.raises(ValueError, match="absolute"):
            bound.decide(FileEvent(operation=Operation.READ, path=b"a"))

    def test_host_names(self) -> None:
        """The broker learns every exact name, those of exceptions included."""
        bound = matcher(
            allow("connect", hosts=["A.example:443", "10.0.0.1"], except_=["b.example"], name="x"),
            deny("connect", hosts=["c.example."], name="y"),
        )
        assert bound.host_names == {"a.example", "b.example", "c.example"}

    def test_snapshot(self) -> None:
        """A matcher does not see what is registered after it was made."""
        policy = Policy(default={"read": "allow"})
        before = policy.matcher(home=HOME, directory=DIRECTORY)
        policy.on("read", paths=["/a"])(lambda event: None)
        after = policy.matcher(home=HOME, directory=DIRECTORY)
        assert file(before, "read", b"/a").verdict == "allow"
        assert file(after, "read", b"/a").verdict == "ask"

    def test_fast_enough(self) -> None:
        """Under the largest shipped profile a file is judged in microseconds (bounds are generous)."""
        bound = Policy.load("agent").matcher(home=HOME, directory=DIRECTORY)
        seen = FileEvent(operation=Operation.READ, path=b"/usr/lib/python3/dist-packages/a/b.py")
        assert min(timeit.repeat(lambda: bound.decide(seen), number=1000, repeat=5)) / 1000 < 30e-6
        fresh = iter(
            FileEvent(operation=Operation.READ, path=b"/h/p/node_modules/d%d/lib/f%d.js" % (n % 50, n))
            for n in itertools.count()
        )
        assert min(timeit.repeat(lambda: bound.decide(next(fresh)), number=500, repeat=5)) / 500 < 600e-6
