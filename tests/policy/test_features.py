"""Features: what a policy opens by name, beside what its rules say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy import Policy, allow
from rampart_seccomp.policy.features import FEATURES, LATER

HEAD = "version: 1\n"


def test_none_unless_named() -> None:
    """A policy that says nothing opens nothing, in Python as in a file."""
    assert Policy().features == Policy.loads(HEAD).features == frozenset()


def test_the_same_in_python_and_in_a_file() -> None:
    """Order and repetition do not matter, one name may stand instead of a list, and it is written back."""
    policy = Policy.loads(HEAD + "features: [sysv-ipc, sysv-ipc]")
    assert policy.features == frozenset({"sysv-ipc"})
    assert Policy.loads(HEAD + "features: [sysv-ipc, memfd-exec, namespaces]").features == set(FEATURES)
    same = [
        Policy.loads(HEAD + "features: sysv-ipc"),
        Policy(features="sysv-ipc"),
        Policy(features=["sysv-ipc"]),
    ]
    assert same == [policy] * 3
    assert {each.fingerprint for each in same} == {policy.fingerprint}
    assert policy.fingerprint != Policy().fingerprint
    assert policy != Policy()
    assert Policy.loads(policy.dumps()) == policy
    assert policy.with_rules(allow("read", name="r")).features == policy.features


@pytest.mark.parametrize("name", LATER)
def test_what_comes_later_is_said(name: str) -> None:
    """The names of features to come are an error that says so, and not an unknown name."""
    with pytest.raises(PolicyError, match=f"'{name}' is not supported by this version") as caught:
        Policy(features=[name])
    assert (caught.value.key, name in FEATURES) == ("features", False)
    with pytest.raises(PolicyError, match=r"rules.yaml:2: features\[1\]: the feature"):
        Policy.loads(HEAD + f"features: [sysv-ipc, {name}]", source="rules.yaml")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sysv_ipc", "did you mean 'sysv-ipc'"),
        ("memfd", "did you mean 'memfd-exec'"),
        ("", "the features are"),
        ("x", "the features are"),
    ],
)
def test_an_unknown_name_is_an_error(name: str, hint: str) -> None:
    """It says what may have been meant."""
    with pytest.raises(PolicyError, match=hint):
        Policy(features=[name])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A file that opens a feature, and one that does not."""
    (tmp_path / "open.yaml").write_text(HEAD + "features: [sysv-ipc]\nrules: [{name: r, allow: read}]\n")
    (tmp_path / "plain.yaml").write_text(HEAD)
    return tmp_path


def extending(base: Path, *lines: str) -> Policy:
    (base / "own.yaml").write_text("\n".join([HEAD, *lines]))
    return Policy.load(base / "own.yaml")


def test_inheritance_unites(base: Path) -> None:
    """What one of the extended files opens is open, unless it is left out."""
    assert extending(base, "extends: [./open.yaml, ./plain.yaml]").features == {"sysv-ipc"}
    assert extending(base, "extends: [./plain.yaml]", "features: [sysv-ipc]").features == {"sysv-ipc"}
    left_out = "extends: [{file: ./open.yaml, without: [sysv-ipc]}]"
    assert extending(base, left_out).features == frozenset()
    assert [rule.name for rule in extending(base, left_out).rules] == ["r"]
    assert extending(base, left_out, "features: [sysv-ipc]").features == {"sysv-ipc"}


def test_what_is_left_out_must_be_there(base: Path) -> None:
    """A feature that is not open is no more left out than a rule that is not there."""
    with pytest.raises(PolicyError, match=r"there is no rule 'sysv-ipc'"):
        extending(base, "extends: [{file: ./plain.yaml, without: [sysv-ipc]}]")
    (base / "both.yaml").write_text(HEAD + "features: [sysv-ipc]\nrules: [{name: sysv-ipc, deny: read}]\n")
    with pytest.raises(PolicyError, match=r"is a rule and a feature of what is extended"):
        extending(base, "extends: [{file: ./both.yaml, without: [sysv-ipc]}]")


def test_a_stack_has_what_every_layer_has() -> None:
    """One layer cannot open what another keeps shut."""
    opened, shut = Policy(features=["sysv-ipc"]), Policy()
    assert Policy.stack(opened, opened).features == {"sysv-ipc"}
    assert Policy.stack(opened, shut).features == Policy.stack(shut, opened).features == frozenset()


def test_profiles() -> None:
    """Agents may use databases; who needs nothing but the project does without. None executes a memfd."""
    found = {name: set(Policy.load(name).features) for name in ("agent", "ci", "observe", "strict")}
    assert found == {"agent": {"sysv-ipc"}, "ci": {"sysv-ipc"}, "observe": {"sysv-ipc"}, "strict": set()}
