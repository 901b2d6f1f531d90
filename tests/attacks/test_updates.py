"""Row 52: a policy changed under a tree whose filter lets pass what the new one restricts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

WAYS = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for line in sys.stdin:
    try:
        if line == "attribute\\n":
            print(os.getxattr("vault/key", "user.mark").decode(), flush=True)
        elif line == "semaphore\\n":
            print("ok" if libc.semget(0, 1, 0o600) >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
        elif line == "core\\n":
            import resource
            print(resource.getrlimit(resource.RLIMIT_CORE)[1], flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


class Tree:
    """An attacker that does on demand what its filter was not made to hold."""

    def __init__(self, broker: rampart.Broker, project: Any) -> None:
        self.process = rampart.Popen(
            [sys.executable, "-c", WAYS],
            broker=broker,
            cwd=project.root,
            env=project.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, way: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(way + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def secret(project: Any) -> Path:
    path: Path = project.write("vault/key", "SECRET\n")
    try:
        os.setxattr(path, "user.mark", b"MARK")
    except OSError as error:
        pytest.skip(f"no user attributes here: {error}")
    return path


def restricting(allow_all: Any, way: str) -> Any:
    """Give the policy that would have to hold this way."""
    if way == "semaphore":
        return attrs.evolve(allow_all, features=())
    operation = {"attribute": "read", "core": "create"}[way]
    return allow_all.with_rules(rampart.deny(operation, paths=["./vault/**"], name="secret"))


@pytest.mark.parametrize(
    ("way", "named"), [("attribute", "secret"), ("core", "secret"), ("semaphore", "features")]
)
def test_what_the_filter_lets_pass_is_not_said_to_be_restricted(
    way: str, named: str, project: Any, secret: Path, allow_all: Any
) -> None:
    """The update fails, names what cannot be enforced, and changes nothing: no policy is in force in part."""
    policy = restricting(allow_all, way)
    with rampart.Broker(allow_all) as broker, Tree(broker, project) as tree:
        before = tree(way)
        if way == "core" and before == "0":
            pytest.skip("no core dumps here anyway")
        assert before not in ("EACCES", "ENOSYS", "0")

        with pytest.raises(rampart.NotEnforceable) as caught:
            broker.update(policy)

        assert named in (caught.value.rule, caught.value.key)
        assert broker.policy is allow_all
        assert tree(way) == before


@pytest.mark.parametrize(
    ("way", "in_advance", "answer"),
    [("attribute", "read", "EACCES"), ("core", "create", "0"), ("semaphore", "sysv-ipc", "ENOSYS")],
)
def test_paid_in_advance_it_is_restricted_at_once(
    way: str, in_advance: str, answer: str, project: Any, secret: Path, allow_all: Any
) -> None:
    """A tree launched for it is denied from the next call on, and until then as free as the policy says."""
    policy = restricting(allow_all, way)
    with (
        rampart.Broker(allow_all, may_restrict={in_advance}, audit=project.audit) as broker,
        Tree(broker, project) as tree,
    ):
        if way != "core":
            assert tree(way) not in (answer, "EACCES", "ENOSYS")
        broker.update(policy)
        assert tree(way) == answer
        assert tree.process.returncode is None
    if way == "attribute":
        assert project.denials("secret")


def test_trees_launched_later_have_what_the_new_policy_needs(
    project: Any, secret: Path, allow_all: Any
) -> None:
    """Only what runs holds an update back: afterwards it is in force, for every way at once."""
    policy = attrs.evolve(restricting(allow_all, "attribute"), features=())
    policy = policy.with_rules(rampart.deny("create", paths=["./vault/**"], name="more"))
    with rampart.Broker(allow_all) as broker:
        with Tree(broker, project) as tree, pytest.raises(rampart.NotEnforceable):
            broker.update(policy)
        tree.process.session.wait_finished(10)
        broker.update(policy)
        with Tree(broker, project) as tree:
            assert [tree(way) for way in ("attribute", "semaphore", "core")] == ["EACCES", "ENOSYS", "0"]
