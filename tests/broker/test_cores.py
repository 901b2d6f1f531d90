"""A core dump is a file that no file call makes."""

from __future__ import annotations

import rampart_seccomp as rampart

PROGRAM = ["/bin/sh", "-c", "ulimit -H -c"]


def _limit(policy: rampart.Policy) -> str:
    done = rampart.run(PROGRAM, policy=policy, capture_output=True, text=True)
    return str(done.stdout).strip()


def test_no_core_dumps_where_creating_is_restricted(allow_all: rampart.Policy) -> None:
    """The hard limit is 0 if any rule or default restricts creating, and untouched otherwise."""
    import subprocess

    bare = subprocess.run(PROGRAM, capture_output=True, text=True).stdout.strip()

    assert _limit(rampart.Policy.load("agent")) == "0"
    assert _limit(allow_all.with_rules(rampart.deny("create", paths=["/x"], name="x"))) == "0"
    assert _limit(allow_all) == bare
