"""Files that are not what they should be: one error each, with file, line and key, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.importing import convert, load, to_yaml

CLAUDE = [
    ("", 1, None, "it ends in the middle|a value is expected"),
    ("nonsense", 1, None, "not valid JSON"),
    ("[1]", 1, None, "is a list, and not a mapping"),
    ('{"a": 1}', 1, None, "no `permissions`"),
    ('{"permissions": []}', 1, "permissions", "not a mapping"),
    ('{\n"permissions": {"deny": "Read"}}', 2, "permissions.deny", "not a list"),
    ('{"permissions": {"deny": [\n\n7]}}', 3, "permissions.deny[0]", "not text"),
    ('{"permissions": {"deny": [null]}}', 1, "permissions.deny[0]", "not text"),
    ('{"permissions": {"defaultMode": "yolo"}}', 1, "permissions.defaultMode", "no mode 'yolo'"),
    (
        '{"permissions": {"denyInsteadOfPrompting": 1}}',
        1,
        "permissions.denyInsteadOfPrompting",
        "true or false",
    ),
    ('{"permissions": {"allow": [],\n"allow": []}}', 2, "permissions.allow", "is there twice"),
    ('{"permissions": {"allow": [],}}', 1, "permissions", "double quotes"),
    ('{"permissions": {"allow": ["a" "b"]}}', 1, "permissions.allow", "',' or ']'"),
    ('{"permissions": {} // comment\n}', 1, None, "',' or '}'"),
    ('{"permissions": {}} x', 1, None, "follows the end"),
    ('{"permissions": {"deny": ["a\nb"]}}', 1, "permissions.deny[0]", "control character"),
    ('{"permissions": {"deny": ["\\ud800"]}}', 1, "permissions.deny[0]", "surrogate"),
    ('{"permissions": {"deny": ["a', 1, "permissions.deny[0]", "unterminated"),
    ('{"a": ' + "[" * 200, 1, None, "nested too deeply"),
    ('{"a": ' + "9" * 5000 + "}", 1, "a", "number that long"),
    ('{"a": NaN}', 1, "a", "a value is expected"),
]

PEG = [
    ("", None, None, "empty"),
    ("- a", 1, None, "not a mapping"),
    ("a: 1", 1, None, "neither `policies` nor"),
    ("version: 2\ndefault_action: deny", 1, "version", "only version 1"),
    ("default_action: maybe", 1, "default_action", "no action"),
    ("default_action: [deny]", 1, "default_action", "not text"),
    ("policies: {}", 1, "policies", "not a list"),
    ("policies:\n- rules: []", 2, "policies[0]", "no `name`"),
    ("policies:\n- name: a\n- name: a", 3, "policies[1].name", "used twice"),
    ("policies:\n- name: a\n  name: b", 3, "policies[0].name", "there twice"),
    ("policies:\n- name: a\n  rules: [{when: {}}]", 3, "policies[0].rules[0]", "no `action`"),
    ("policies:\n- name: a\n  rules:\n  - action: explode", 4, "policies[0].rules[0].action", "no action"),
    ("policies:\n- name: a\n  enabled: maybe", 3, "policies[0].enabled", "true or false"),
    ("policies:\n- &a {name: a}\n- *a", 2, None, "anchor"),
    ("policies:\n- !!python/object:os.system {}", 2, None, "tag"),
    ("policies: [{name: a, match: {tool: 7}}]", 1, "policies[0].match.tool", "not text"),
    (
        "policies: [{name: a, rules: [{action: deny, when: {path_matches: [{}]}}]}]",
        1,
        "policies[0].rules[0].when.path_matches[0]",
        "not text",
    ),
    ("a: b: c", 1, None, "not valid YAML"),
    ("a: 1\n---\nb: 2", 2, None, "second document"),
]


@pytest.mark.parametrize(
    ("form", "text", "line", "key", "problem"),
    [("claude", *row) for row in CLAUDE] + [("peg", *row) for row in PEG],
)
def test_one_error(form: str, text: str, line: int | None, key: str | None, problem: str) -> None:
    """It names the file, the line and the key."""
    with pytest.raises(PolicyError, match=problem) as caught:
        convert(text, file="some.file", form=form)

    assert caught.value.file == "some.file"
    assert line == caught.value.line
    if key is not None:
        assert key == caught.value.key


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        (b"{" + b" " * 300_000, "larger than 256 KiB"),
        (b'{"permissions": {"deny": ["\xff"]}}', "not UTF-8"),
    ],
)
def test_files(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """Files that are missing, large, or not text."""
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(PolicyError, match=problem) as caught:
        load(path)

    assert caught.value.file == str(path)


@pytest.mark.parametrize("entry", ["Bash(x{}:*)", "Read(./x{}/**)"])
def test_many_rules(entry: str) -> None:
    """More rules than a policy can sensibly have are an error, soon."""
    entries = ", ".join(f'"{entry.format(number)}"' for number in range(5000))
    start = time.monotonic()

    with pytest.raises(PolicyError, match="more than 1000 rules"):
        to_yaml(convert(f'{{"permissions": {{"deny": [{entries}]}}}}', file="f"))

    assert time.monotonic() - start < 10


def test_unknown_format() -> None:
    """A format that there is not."""
    with pytest.raises(PolicyError, match="the formats are claude, peg"):
        convert("{}", file="f", form="toml")


def test_nothing_in_the_source_becomes_yaml() -> None:
    """Line ends, quotes and escapes of the source stay inside strings and comments of the result."""
    entries = '"Bash(x\\nversion: 2\\nrules: [])", "Read(./\\"\\n- name: evil\\u001b[2J/**)", "Odd\\n  (x)"'
    text = to_yaml(convert(f'{{"permissions": {{"deny": [{entries}]}}}}', file="a\nb: c"))

    assert "\x1b" not in text
    assert not any(line.startswith(("version: 2", "- name: evil", "b: c")) for line in text.splitlines())
