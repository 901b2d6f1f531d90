"""The policy reference: its examples load, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy import Policy
from rampart_seccomp.policy.features import FEATURES, LATER
from rampart_seccomp.policy.globs import SETS
from rampart_seccomp.policy.structure import RULE, TOP, TOP_LATER

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
FILES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", FILES, ids=range(len(FILES)))
def test_files(example: str) -> None:
    """Every YAML example is a whole policy whose tests hold."""
    assert Policy.loads(example).tests


def test_code() -> None:
    """The Python example runs and makes the policies it shows."""
    names: dict[str, object] = {}
    exec(CODE[0], names)
    assert [rule.name for rule in names["policy"].effective] == [
        "project",
        "keys",
        "publishing",
        "npmrc",
        "internal",
    ]
    assert "endpoints" not in {rule.name for rule in names["more"].rules}
    assert names["both"].layers == (names["policy"], names["more"])
    assert Policy.loads(names["text"]) == names["more"]


def test_every_word_is_there() -> None:
    """Every key, operation, feature and named set is documented; so is what is to come."""
    for word in (*TOP, *TOP_LATER, *RULE, *SETS, *Operation, *FEATURES, *LATER):
        assert f"`{word}`" in TEXT


def test_the_shown_error_is_real() -> None:
    """The error in the text is the error that such a file gives."""
    shown = re.search(r"\n    policy.yaml:7: (.*)\n", TEXT)[1]
    first = "  - {name: a, deny: read, paths: [/a]}\n"
    second = "  - name: b\n    allow: write\n\n    paths: [src/**]\n"
    with pytest.raises(PolicyError) as caught:
        Policy.loads(f"version: 1\nrules:\n{first}{second}", source="policy.yaml")
    assert str(caught.value) == f"policy.yaml:7: {shown}"
