"""Patterns of other tools: ours restrict at least as much, and allow at most as much, as theirs."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rampart_seccomp.events import FileEvent, Operation
from rampart_seccomp.importing import convert, to_yaml
from rampart_seccomp.importing.commands import from_text
from rampart_seccomp.importing.draft import Untranslatable
from rampart_seccomp.importing.paths import from_gitignore, from_peg
from rampart_seccomp.policy import Policy, allow
from rampart_seccomp.policy.cases import DIRECTORY, HOME
from rampart_seccomp.policy.commands import parse_command

words = st.lists(st.sampled_from(["git", "push", "a", "*", "a*", "*b", "a*b", "*a*"]), min_size=1, max_size=4)
arguments = st.lists(
    st.sampled_from(["git", "push", "a", "b", "ab", "axb", "x", "bab"]), min_size=1, max_size=5
)


def textual(text: str, argv: list[str]) -> bool:
    """Match a command as Claude Code does: as text, with a star for anything; `` *`` at the end may lack."""
    pattern = ".*".join(re.escape(part) for part in re.split(r"\*+", text))
    if text.endswith(" *") and text != " *":
        pattern = pattern.removesuffix(r"\ .*") + "( .*)?"
    return re.fullmatch(pattern, " ".join(argv)) is not None


def ours(patterns: list[str], argv: list[str]) -> bool:
    """Match an argv, whose program is a base name."""
    parsed = [parse_command(pattern) for pattern in patterns]
    return any(
        each.base is not None
        and each.matches_base(argv[0].encode())
        and each.matches_arguments([argument.encode() for argument in argv[1:]])
        for each in parsed
    )


@settings(deadline=None)
@given(words=words, argv=arguments, restricts=st.booleans())
def test_commands(words: list[str], argv: list[str], restricts: bool) -> None:
    """A deny of ours matches what theirs does; an allow of ours matches nothing that theirs does not."""
    text = " ".join(words)
    try:
        patterns = from_text(text, restricts=restricts, tail=True)
    except Untranslatable:
        assume(False)
    if restricts:
        assert ours(patterns, argv) or not textual(text, argv)
    else:
        assert textual(text, argv) or not ours(patterns, argv)


def test_commands_reach_both() -> None:
    """The comparison above is about something: patterns with stars match, and fail to."""
    assert textual("git * a", ["git", "x", "b", "a"])
    assert ours(from_text("git * a", restricts=False), ["git", "x", "b", "a"])
    assert not ours(from_text("git * a", restricts=True), ["git", "x", "b"])


names = st.lists(st.sampled_from(["a", "*", "**", "a*", "**b", "a**b", ".x", "?"]), min_size=1, max_size=4)
starts = st.sampled_from(["/home/user/project/", "/", "**/", "", "./"])
places = st.lists(st.sampled_from(["a", "b", "ab", "aab", ".x", "x"]), min_size=1, max_size=5)


def globbed(pattern: str, path: str) -> bool:
    """Match as peg/rampart does: the absolute name, and the one relative to the working directory."""
    directory = DIRECTORY.decode() + "/"
    spellings = [path] + ([path[len(directory) :]] if path.startswith(directory) else [])
    readings = [pattern, directory + pattern.removeprefix("./")]
    if pattern.startswith("/"):
        readings = [pattern]
    readings += [reading[3:] for reading in readings if reading.startswith("**/")]
    # That a leading '*/' matched the root's own slash was nobody's intention.
    readings = [re.sub(r"^\*/", "?*/", reading) for reading in readings]
    return any(
        re.fullmatch(
            re.sub(
                r"\\\*\\\*|\\\*|\\\?",
                lambda found: {r"\*\*": ".*", r"\*": "[^/]*", r"\?": "[^/]"}[found[0]],
                re.escape(reading),
            ),
            spelling,
        )
        for reading in readings
        for spelling in spellings
    )


@settings(deadline=None)
@given(start=starts, names=names, place=places, inside=st.booleans(), restricts=st.booleans())
def test_paths_of_peg(start: str, names: list[str], place: list[str], inside: bool, restricts: bool) -> None:
    """Globs of peg/rampart: as for commands; a tree of ours includes its top, which theirs does not."""
    pattern = start + "/".join(names)
    path = (DIRECTORY.decode() if inside else "") + "/" + "/".join(place)
    try:
        patterns = from_peg(pattern, restricts=restricts, floating=True)
    except Untranslatable:
        assume(False)
    matcher = Policy(rules=[allow("read", name="x", paths=patterns)]).matcher(home=HOME, directory=DIRECTORY)
    decision = matcher.decide(FileEvent(operation=Operation.READ, path=path.encode()))
    theirs = globbed(pattern, path)

    if restricts:
        assert decision.verdict == "allow" or not theirs
    else:
        assert theirs or globbed(pattern, path + "/") or decision.verdict == "deny"


@pytest.mark.parametrize(
    ("text", "deny", "allow"),
    [
        (".env", ["./**/.env/**"], ["./**/.env"]),
        ("./.env", ["./.env/**"], ["./.env"]),
        ("//etc/passwd", ["/etc/passwd/**"], ["/etc/passwd"]),
        ("~/.ssh/**", ["~/.ssh/**"], ["~/.ssh/**"]),
        ("/src/**/*.ts", ["./src/**/*.ts/**"], ["./src/**/*.ts"]),
        ("src/*.ts", ["./src/*.ts/**"], ["./src/*.ts"]),
        ("secrets/", ["./**/secrets/**"], ["./**/secrets/**"]),
        ("**/.env", ["./**/.env/**"], ["./**/.env"]),
        ("**", ["./**"], ["./**"]),
        ("//**", ["/**"], ["/**"]),
        ("a**b", ["./**/a*b/**"], ["./**/a*b"]),
        ("x{1}", ["./**/x[{]1}/**"], ["./**/x[{]1}"]),
    ],
)
def test_gitignore(text: str, deny: list[str], allow: list[str]) -> None:
    """Anchors and depths of Claude Code's path patterns; a deny covers what is beneath."""
    assert deny == from_gitignore(text, restricts=True)
    assert allow == from_gitignore(text, restricts=False)


def test_braces() -> None:
    """Braces, which gitignore has not, are expanded where that is stricter, and refused where it allows."""
    assert from_gitignore("*.{a,b}", restricts=True) == ["./**/*.a/**", "./**/*.b/**"]
    with pytest.raises(Untranslatable, match="braces"):
        from_gitignore("*.{a,b}", restricts=False)


def test_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user's settings a single leading slash begins in ~/.claude."""
    monkeypatch.setenv("HOME", "/home/someone")
    text = '{"permissions": {"deny": ["Read(/x)"]}}'

    assert convert(text, file="/home/someone/.claude/settings.json").policy.rules[0].paths == (
        "~/.claude/x/**",
    )
    assert convert(text, file="/p/.claude/settings.json").policy.rules[0].paths == ("./x/**",)


def test_floating() -> None:
    """A floating pattern of peg/rampart is anchored with a remark, or kept on demand."""
    text = "policies: [{name: n, rules: [{action: deny, when: {path_matches: ['**/.env']}}]}]"

    anchored, kept = (convert(text, file="f", form="peg", floating=floating) for floating in (False, True))

    assert anchored.policy.rules[0].paths == ("~/**/.env", "./**/.env")
    assert any("--floating" in remark for remark in anchored.remarks)
    assert kept.policy.rules[0].paths == ("**/.env",)
    assert not any("--floating" in remark for remark in kept.remarks)


specifiers = st.text(
    alphabet=st.sampled_from([*"ab*?/~.[]{},!:|&$ \"'\\\n#@-é\u202e"])
    | st.characters(exclude_categories=["Cs"]),
    max_size=12,
)
rules = st.builds(
    "{}({})".format, st.sampled_from(["Bash", "Read", "Edit", "WebFetch", "mcp__x", "Odd"]), specifiers
)


@settings(deadline=None)
@given(
    allowed=st.lists(rules, max_size=4),
    asked=st.lists(rules, max_size=4),
    denied=st.lists(rules, max_size=4),
    mode=st.sampled_from(["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"]),
)
def test_whatever_is_imported_loads(
    allowed: list[str], asked: list[str], denied: list[str], mode: str
) -> None:
    """Any settings become a policy that loads, in which every entry is named."""
    permissions = {"allow": allowed, "ask": asked, "deny": denied, "defaultMode": mode}
    result = convert(json.dumps({"permissions": permissions}), file="settings.json")
    text = to_yaml(result)

    for key, entries in (("allow", allowed), ("ask", asked), ("deny", denied)):
        for index in range(len(entries)):
            assert f"permissions.{key}[{index}]" in text


conditions = st.dictionaries(
    st.sampled_from(
        ["command_matches", "command_not_matches", "path_matches", "path_not_matches", "domain_matches"]
    ),
    st.lists(specifiers, min_size=1, max_size=3),
    max_size=2,
)


@settings(deadline=None)
@given(
    rules=st.lists(
        st.fixed_dictionaries(
            {"action": st.sampled_from(["allow", "deny", "ask", "watch"]), "when": conditions},
            optional={"message": specifiers},
        ),
        max_size=4,
    ),
    default=st.sampled_from(["allow", "deny", "ask"]),
    tool=st.sampled_from(["exec", "*", ["read", "edit"], ["fetch", "mcp"]]),
)
def test_whatever_peg_has_loads(rules: list[object], default: str, tool: object) -> None:
    """The same for policies of peg/rampart, written as YAML flow style."""
    policy = {"default_action": default, "policies": [{"name": "p", "match": {"tool": tool}, "rules": rules}]}
    text = json.dumps(policy)
    assume("\\ud" not in text)

    assert Policy.loads(to_yaml(convert(text, file="p.yaml", form="peg")))
