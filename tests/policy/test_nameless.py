"""Images without a name (memfds, deleted files): who may execute them, and that they are nobody."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ExecEvent, FileEvent, Operation, Process, Program
from rampart_seccomp.policy import Exemption, Grant, Policy, Rule, allow, ask, check, deny, explain
from strategies import DIRECTORY, HOME

FEATURE = "memfd-exec"
MEMFD = ExecEvent(path=b"/memfd:tool (deleted)", argv=(b"tool", b"x"), named=b"/h/link", linked=False)
DELETED = ExecEvent(path=b"/h/p/bin/tool (deleted)", argv=(b"x",), named=b"/h/p/bin/tool", linked=False)
SYSTEM = ExecEvent(path=b"/usr/bin/git (deleted)", argv=(b"x",), named=b"/usr/bin/git", linked=False)
KEY = FileEvent(operation=Operation.READ, path=b"/h/.ssh/deploy")
BUILT_IN = "built-in: a program without a name (memfd or deleted file)"


def decide(event: Any, *rules: Rule, features: tuple[str, ...] = (FEATURE,), **options: Any) -> str:
    policy = Policy(rules=rules, features=features, **options)
    return policy.matcher(home=HOME, directory=DIRECTORY).decide(event).verdict


@pytest.mark.parametrize("event", [MEMFD, DELETED], ids=["memfd", "deleted"])
def test_denied_without_the_feature(event: ExecEvent) -> None:
    """Whatever allows it, or would ask."""
    granted = Grant(operation="exec", path=event.path, command=event.argv)
    for rules in (
        [],
        [allow("exec", name="a")],
        [ask("exec", name="a")],
        [allow("exec", name="a", paths=["/**"])],
    ):
        policy = Policy(rules=rules, default={"exec": "allow"}, grants=[granted])
        matcher = policy.matcher(home=HOME, directory=DIRECTORY)
        decision = matcher.decide(event)
        assert (decision.verdict, decision.reason, decision.rule) == ("deny", BUILT_IN, None)
        assert matcher.laxest(event).verdict == "deny"
        explanation = explain(matcher, event)
        assert explanation.decision == decision
        assert explanation.suggestion == "say `features: [memfd-exec]`: then the rules decide"


def test_with_the_feature_the_rules_decide() -> None:
    """Like every exec: rules without a matcher, the default, what allows and what asks."""
    for event in (MEMFD, DELETED):
        assert decide(event) == "deny"
        assert decide(event, default={"exec": "allow"}) == "allow"
        assert decide(event, allow("exec", name="a")) == "allow"
        assert decide(event, allow("exec", name="a"), ask("exec", name="b")) == "ask"
        assert decide(event, allow("exec", name="a"), deny("exec", name="b", commands=["* **"])) == "deny"


@pytest.mark.parametrize(
    ("event", "pattern", "allows", "denies"),
    [
        (MEMFD, "/memfd:*", True, True),
        (MEMFD, "/memfd:tool (deleted)", True, True),
        (MEMFD, "/memfd:other*", False, False),
        (MEMFD, "/memfd:tool", False, False),
        (MEMFD, "/tool", False, False),
        (MEMFD, "**/tool*", False, False),
        (MEMFD, "~/link", False, True),
        (MEMFD, "./**", False, False),
        (DELETED, "./**", True, True),
        (DELETED, "./bin/*", True, True),
        (DELETED, "./bin/tool", False, True),
        (DELETED, "**/tool", False, True),
        (DELETED, "./bin/tool (deleted)", True, True),
        (DELETED, "/memfd:*", False, False),
    ],
)
def test_paths(event: ExecEvent, pattern: str, allows: bool, denies: bool) -> None:
    """No pattern that names another file opens it; what restricts holds by the name that it had, too."""
    assert (decide(event, allow("exec", name="a", paths=[pattern])) == "allow") is allows
    everything = allow("exec", name="a")
    assert (decide(event, everything, deny("exec", name="d", paths=[pattern])) == "deny") is denies


def test_commands() -> None:
    """No command opens it that names another program, also not by a name in @system; what restricts holds."""
    for event, program in ((MEMFD, "link"), (DELETED, "tool"), (SYSTEM, "git"), (SYSTEM, "/usr/bin/git")):
        assert decide(event, allow("exec", name="a", commands=[f"{program} **"])) == "deny"
        everything = allow("exec", name="a")
        assert decide(event, everything, deny("exec", name="d", commands=[f"{program} **"])) == "deny"
    live = attrs.evolve(SYSTEM, path=b"/usr/bin/git")
    assert decide(live, allow("exec", name="a", commands=["/usr/bin/git **"])) == "deny"
    assert decide(attrs.evolve(live, linked=True), allow("exec", name="a", commands=["git **"])) == "allow"


def test_a_command_beneath_which_others_run() -> None:
    """A deleted script is no command that opens anything to what runs within it."""
    script = attrs.evolve(SYSTEM, path=b"/usr/bin/npm (deleted)", named=b"/usr/bin/npm")
    for pattern in ("npm **", "/usr/bin/npm **", "/usr/bin/npm* **", "npm* **"):
        rule = allow("read", name="a", within=[pattern])
        for each, verdict in (
            (script, "deny"),
            (attrs.evolve(script, path=b"/usr/bin/npm", linked=True), "allow"),
        ):
            program = Program(b"/usr/bin/node", (b"node",), clean=True, execs=(each,))
            process = Process(pid=1, tid=1, lineage=(program,))
            assert decide(attrs.evolve(KEY, process=process), rule) == verdict
            restricted = deny("read", name="d", within=[pattern])
            assert decide(attrs.evolve(KEY, process=process), allow("read", name="r"), restricted) == "deny"


def test_stack() -> None:
    """One layer cannot open what another keeps shut."""
    opened = Policy(rules=[allow("exec", name="a")], features=[FEATURE])
    shut = Policy(rules=[allow("exec", name="a")])
    place = {"home": HOME, "directory": DIRECTORY}
    assert Policy.stack(opened, opened).matcher(**place).decide(MEMFD).verdict == "allow"
    for layers in ((opened, shut), (shut, opened)):
        matcher = Policy.stack(*layers).matcher(**place)
        assert (matcher.decide(MEMFD).verdict, matcher.decide(MEMFD).reason) == ("deny", BUILT_IN)
        assert "`features: [memfd-exec]`" in explain(matcher, MEMFD).suggestion


def test_in_words() -> None:
    """Tests of a policy, and `explain`, ask about them by the spelling of the kernel."""
    text = """
version: 1
features: [memfd-exec]
rules:
  - {name: tools, allow: exec, paths: ["/memfd:jit*", "./out/**"]}
  - {name: never, deny: exec, paths: ["./out/never"]}
tests:
  - {allow: exec, path: "/memfd:jit-1 (deleted)", by: tools}
  - {allow: exec, path: "/memfd:jit/../of-git (deleted)", by: tools}
  - {deny: exec, path: "/memfd:other (deleted)"}
  - {allow: exec, command: "'./out/tool (deleted)' x", by: tools}
  - {deny: exec, path: "./out/never (deleted)", by: never}
"""
    assert Policy.loads(text).features == {FEATURE}
    with pytest.raises(PolicyError, match="'/memfd:jit-1 \\(deleted\\)' is deny, by built-in: a program"):
        Policy.loads(text.replace("features: [memfd-exec]\n", ""))


def test_check_finds_what_does_nothing() -> None:
    """Patterns of memfds where none can be executed, and a feature that no rule makes use of."""
    rules = [
        allow("exec", name="a", paths=["/memfd:*", "/usr/**"], except_=[Exemption(paths=["/memfd:x*"])]),
        allow("read", name="r", paths=["/memfd:*"]),
    ]
    found = {finding.key: finding.message for finding in check(Policy(rules=rules))}
    nothing = "matches nothing without `features: [memfd-exec]`"
    assert found["rules[0].paths[0]"] == f"'/memfd:*' {nothing}"
    assert found["rules[0].except[0].paths[0]"] == f"'/memfd:x*' {nothing}"
    assert "rules[1].paths[0]" not in found
    opened = check(Policy(rules=rules, features=[FEATURE]))
    assert [each.message for each in opened if "memfd" in each.message] == []
    slash = check(Policy(rules=[allow("exec", name="a", paths=["/memfd:a/b"])], features=[FEATURE]))
    assert [each.message for each in slash if "memfd" in each.message] == [
        "'/memfd:a/b' matches nothing: for a '/' in the name of a memfd write ':'"
    ]

    useless = check(Policy(rules=[allow("read", name="r")], features=[FEATURE]))
    assert [(each.key, each.message) for each in useless if each.key == "features"] == [
        ("features", "`memfd-exec` changes nothing: no rule allows an exec, or asks about one")
    ]
    for makes in ({"default": {"exec": "ask"}}, {"rules": rules}):
        used = check(Policy(features=[FEATURE], **makes))
        assert [each for each in used if each.key == "features"] == []
