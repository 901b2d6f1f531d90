"""Row 37: policy files that want to exhaust, confuse or loosen: nothing is started, and soon."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.errors import PolicyError

pytestmark = pytest.mark.core

RULE = "rules: [{name: n, deny: read, paths: [./x]}]\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
)
REFUSED = {
    "duplicate key": "version: 1\ndefault: {read: deny}\ndefault: {read: allow}\n",
    "duplicate key in a rule": "version: 1\nrules: [{name: n, deny: read, paths: [./x], paths: [./y]}]\n",
    "duplicate name": "version: 1\nrules: [{name: n, deny: read, paths: [./x]}, "
    "{name: n, allow: read, paths: [./y]}]\n",
    "no as a verdict": "version: 1\ndefault: {read: no}\n",
    "on as an operation": "version: 1\nrules: [{name: n, allow: on, paths: [./x]}]\n",
    "anchor": "version: 1\ndefault: &d {read: allow}\n",
    "alias": "version: 1\nrules: [{name: n, deny: read, paths: [*x]}]\n",
    "merge key": "version: 1\ndefault: {<<: {read: allow}}\n",
    "billion laughs": "version: 1\n" + LAUGHS,
    "tag": "version: 1\nrules: !!python/object/apply:os.system ['touch started']\n",
    "deep": "version: 1\nrules: " + "[" * 5000 + "]" * 5000 + "\n",
    "huge key": "version: 1\n? " + "k" * 100_000 + "\n: 1\n",
    "huge number": "version: " + "9" * 5000 + "\n",
    "two documents": "version: 1\n---\nversion: 1\n",
    "unknown key": "version: 1\nallow_everything: true\n",
    "not text": "version: 1\n\udcff\udcfe",
    "NUL": "version: 1\n\0",
    "cycle": "version: 1\nextends: [./policy.yaml]\n",
    "cycle of two": "version: 1\nextends: [./other.yaml]\n",
    "extends a device": "version: 1\nextends: [/dev/zero]\n",
    "extends a FIFO": "version: 1\nextends: [./fifo]\n",
    "extends by a link into a cycle": "version: 1\nextends: [./link.yaml]\n",
    "relative pattern": "version: 1\nrules: [{name: n, deny: read, paths: [x]}]\n",
}
HUGE = {
    "stars": "/" + "*a" * 2000 + "b",
    "double stars": "**/" * 1000 + "b",
    "alternating": "/" + "**/*a*/" * 300 + "b",
    "classes": "/" + "[a-z]" * 800,
    "question marks": "/" + "?" * 4000 + "*",
}


@pytest.fixture
def run(project: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Start `touch started` behind policy files of the base directory, through the command line."""
    path = os.pathsep.join([str(Path(rampart.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])

    def start(
        *policies: str, argv: tuple[str, ...] = ("touch", "started")
    ) -> subprocess.CompletedProcess[str]:
        flags = [word for policy in policies for word in ("--policy", str(project.base / policy))]
        return subprocess.run(
            [sys.executable, "-m", "rampart_seccomp", "run", *flags, "--", *argv],
            cwd=project.root,
            env=project.environment | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return start


def seconds_to_load(path: Path) -> float:
    """Processor time, in seconds, that reading a policy takes."""
    begin = time.process_time()
    with contextlib.suppress(PolicyError, OSError):
        rampart.Policy.load(path)
    return time.process_time() - begin


@pytest.mark.parametrize("case", REFUSED)
def test_broken_policies_start_nothing(case: str, project: Any, run: Any) -> None:
    """An error that names the file, exit status 125, no command, within a second."""
    path = project.base / "policy.yaml"
    path.write_text(REFUSED[case], errors="surrogateescape")
    (project.base / "other.yaml").write_text("version: 1\nextends: [./policy.yaml]\n")
    (project.base / "link.yaml").symlink_to("policy.yaml")
    os.mkfifo(project.base / "fifo")

    done = run("policy.yaml")

    assert done.returncode == 125, done.stdout
    assert not (project.root / "started").exists()
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 2000
    assert ".yaml" in done.stderr or "/dev/zero" in done.stderr or "fifo" in done.stderr
    assert seconds_to_load(path) < 1
    path.write_text("version: 1\ndefault: {read: allow, write: allow, exec: allow}\n")
    assert run("policy.yaml").returncode == 0
    assert (project.root / "started").exists()


@pytest.mark.parametrize("case", HUGE)
def test_huge_patterns(case: str, project: Any, run: Any) -> None:
    """A pattern made to backtrack is refused, or decides, soon; it never lets the denied thing through."""
    path = project.base / "policy.yaml"
    path.write_text(
        "version: 1\ndefault: {read: allow, write: allow, exec: allow}\n"
        f'rules: [{{name: huge, deny: read, paths: ["{HUGE[case]}"]}}, '
        "{name: n, deny: write, paths: [./started]}]\n"
    )

    begin = time.monotonic()
    done = run("policy.yaml")
    assert time.monotonic() - begin < 20

    assert done.returncode in {1, 125}, done.stderr
    assert not (project.root / "started").exists()
    assert seconds_to_load(path) < 1


def test_symlinked_include(project: Any, run: Any) -> None:
    """An extended file is protected by its real name: the tree cannot loosen it through link or target."""
    real = project.write(
        "rules/real.yaml", "version: 1\nrules: [{name: base, deny: read, paths: [./vault/**]}]\n"
    )
    (project.base / "link.yaml").symlink_to(real)
    (project.base / "policy.yaml").write_text(
        "version: 1\nextends: [./link.yaml]\ndefault: {read: allow, write: allow, exec: allow}\n"
    )
    project.write("vault/key", "SECRET\n")
    script = "echo > rules/real.yaml; mv rules/real.yaml x; mv rules y; "
    script += "rm ../link.yaml; cat vault/key; touch started"

    done = run("policy.yaml", argv=("sh", "-c", script))

    assert done.stdout == ""
    assert real.read_text().startswith("version: 1\nrules")
    assert (project.base / "link.yaml").is_symlink()
    assert (project.root / "started").exists()


def test_a_layer_cannot_loosen(project: Any, run: Any) -> None:
    """What one policy of a stack denies stays denied, whatever another allows, and in either order."""
    project.write("vault/key", "SECRET\n")
    project.write("open", "public\n")
    (project.base / "org.yaml").write_text(
        "version: 1\ndefault: {read: allow, write: allow, exec: allow}\n"
        "rules: [{name: vault, deny: read, paths: [./vault/**]}]\n"
    )
    (project.base / "mine.yaml").write_text(
        "version: 1\ndefault: {read: allow, write: allow, exec: allow}\n"
        "rules: [{name: all, allow: [read, write, exec], paths: [/**]}]\n"
        f"grants: [{{operation: read, path: {project.root}/vault/key}}]\n"
    )
    cat = ("cat", "open", "vault/key")
    for order in (("org.yaml", "mine.yaml"), ("mine.yaml", "org.yaml"), ("org.yaml",)):
        done = run(*order, argv=cat)
        assert (done.returncode, done.stdout) == (1, "public\n"), done.stderr
    assert not (project.root / "started").exists()
