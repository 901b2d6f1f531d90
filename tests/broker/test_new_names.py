"""Re-naming neither lifts a restriction nor plants what could not have been created."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

RENAME = "import os, sys; os.rename(sys.argv[1], sys.argv[2])"


def _policy() -> rampart.Policy:
    return rampart.Policy(
        default={"read": "allow", "exec": "allow"},
        rules=[
            rampart.allow("write", paths=["./**"], name="project"),
            rampart.deny(["read", "write"], paths=["./**/.env", "./vault/**"], name="secrets"),
            rampart.deny("write", paths=["./**/.git/hooks/*"], name="hooks"),
        ],
    )


def _rename(root: Path, old: str, new: str) -> rampart.CompletedProcess[bytes]:
    return rampart.run(
        [sys.executable, "-c", RENAME, old, new], policy=_policy(), cwd=root, capture_output=True
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = (tmp_path / "root").resolve()
    for name in ("plain", "with-env", "payload/hooks", "repo/.git"):
        (root / name).mkdir(parents=True)
    (root / "plain/file").write_text("x")
    (root / "with-env/.env").write_text("secret")
    (root / "payload/hooks/post-checkout").write_text("#!/bin/sh\n")
    (root / "vault").mkdir()
    (root / "vault/key").write_text("key")
    return root


def test_a_directory_that_hides_nothing_moves(root: Path) -> None:
    """mv of an ordinary directory works, though secrets could be in it by pattern."""
    done = _rename(root, "plain", "moved")

    assert done.returncode == 0, done.stderr
    assert (root / "moved/file").exists()


def test_a_directory_with_a_protected_file_moves_where_it_stays_protected(root: Path) -> None:
    """A file that is denied at the old and at the new name may move along."""
    assert _rename(root, "with-env", "elsewhere").returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("vault", "open", "secrets"),
        ("vault/key", "key", "secrets"),
        ("with-env/.env", "env.txt", "secrets"),
        ("payload/hooks", "repo/.git/hooks", "hooks"),
        ("payload/hooks/post-checkout", "repo/.git/hooks/post-checkout", "hooks"),
    ],
)
def test_what_would_lift_or_plant_is_denied(root: Path, old: str, new: str, rule: str) -> None:
    """Out of a protected place, or into one, nothing moves; the denial names the rule."""
    (root / "repo/.git/hooks").mkdir() if old.endswith("post-checkout") else None

    done = _rename(root, old, new)

    assert done.returncode != 0
    assert (root / old).exists()
    assert not (root / new).exists()
    assert [denial.rule for denial in done.denials] == [rule]


def test_planting_through_a_parent_is_denied(root: Path) -> None:
    """A repository with a hook in it does not become one of the project by a new name."""
    (root / "tree/x").mkdir(parents=True)
    (root / "tree/x/hooks").mkdir()
    (root / "tree/x/hooks/pre-commit").write_text("#!/bin/sh\n")

    denied = _rename(root, "tree/x", "tree/.git")
    (root / "tree/x/hooks/pre-commit").unlink()
    allowed = _rename(root, "tree/x", "tree/.git")

    assert denied.returncode != 0
    assert [denial.rule for denial in denied.denials] == ["hooks"]
    assert allowed.returncode == 0, allowed.stderr


LINK = "import os, sys; os.symlink(sys.argv[1], sys.argv[2])"


def _link(root: Path, text: str, name: str) -> rampart.CompletedProcess[bytes]:
    return rampart.run(
        [sys.executable, "-c", LINK, text, name], policy=_policy(), cwd=root, capture_output=True
    )


def test_a_link_does_not_lead_around_what_is_watched(root: Path) -> None:
    """A link named .git, to a directory where hooks could be made, is denied; any other link is not."""
    for text, name in (
        ("payload", ".git"),
        ("../payload", "plain/.git"),
        ("missing", ".git"),
        ("/tmp", ".git"),
    ):
        done = _link(root, text, name)
        assert done.returncode != 0 or text == "/tmp", (text, name)
        if text != "/tmp":
            assert [denial.rule for denial in done.denials] == ["hooks"]
            assert not (root / name).is_symlink()

    for text, name in (("payload", "link"), ("/usr/lib", "lib"), ("nowhere", "dangling")):
        assert _link(root, text, name).returncode == 0


def test_a_link_is_judged_again_at_its_new_name(root: Path) -> None:
    """A link made under a harmless name does not get a watched one by renaming or linking."""
    (root / "link").symlink_to("payload")

    renamed = _rename(root, "link", ".git")
    linked = rampart.run(
        [sys.executable, "-c", "import os; os.link('link', '.git', follow_symlinks=False)"],
        policy=_policy(),
        cwd=root,
        capture_output=True,
    )

    assert renamed.returncode != 0
    assert linked.returncode != 0
    assert not (root / ".git").is_symlink()
    assert _rename(root, "link", "other").returncode == 0
