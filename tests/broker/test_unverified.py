"""Where ptrace(2) is refused: nothing is downgraded silently, and what goes on says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.core

REFUSE = """
import errno, runpy, sys
import pyseccomp
seccomp_filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
seccomp_filter.add_rule(pyseccomp.ERRNO(errno.EPERM), "ptrace")
seccomp_filter.load()
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    runpy.run_module("rampart_seccomp", run_name="__main__", alter_sys=True)
"""
RESTRICTED = """
version: 1
default: {read: allow, write: allow, exec: allow}
rules:
  - {name: secret, deny: exec, paths: ["/usr/bin/nothing"]}
"""
FREE = "version: 1\ndefault: {read: allow, write: allow, exec: allow, connect: deny, listen: deny}\n"


@pytest.fixture
def refused(project: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line, or with ``-c`` lines of Python, in a process for which ptrace gives EPERM."""

    def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
        import rampart_seccomp

        paths = [str(Path(rampart_seccomp.__file__).parent.parent), *(path for path in sys.path if path)]
        done: subprocess.CompletedProcess[str] = project.bare(
            [sys.executable, "-c", REFUSE, *argv], env={"PYTHONPATH": ":".join(paths)}
        )
        return done

    return run


def test_python(project: Any, refused: Any) -> None:
    """ExecUnverifiable, and nothing ran, for a policy that restricts exec, unless that was accepted."""
    project.write("restricted.yaml", RESTRICTED)
    code = """
import json, rampart_seccomp as rampart
policy = rampart.Policy.load("restricted.yaml")
with rampart.Broker(policy) as broker:
    try:
        rampart.run(["touch", "made"], broker=broker)
    except rampart.errors.ExecUnverifiable as error:
        print(type(error).__name__, error.errno, "allow_degraded={'exec'}" in str(error))
with rampart.Broker(policy, allow_degraded={"exec"}, audit="audit.jsonl") as broker:
    print(rampart.run(["sh", "-c", "/bin/true; exit 5"], broker=broker).returncode)
"""

    done = refused("-c", code)

    assert done.stderr == ""
    assert done.stdout == "ExecUnverifiable 1 True\n5\n"
    assert not (project.root / "made").exists()
    records = [json.loads(line) for line in (project.root / "audit.jsonl").read_text().splitlines()]
    ways = [record["enforced"] for record in records if record.get("operation") == "exec"]
    assert ways == ["unverified"] * len(ways) != []


def ways_of_execs(project: Any) -> set[str]:
    """How the recorded execs took effect."""
    return {record["enforced"] for record in project.records() if record["operation"] == "exec"}


def test_command_line(project: Any, refused: Any) -> None:
    """125 and the hint; with --allow-degraded exec, or a policy that restricts no exec, the command runs."""
    restricted = project.write("restricted.yaml", RESTRICTED)
    free = project.write("free.yaml", FREE)

    done = refused("run", "--policy", restricted, "--", "echo", "ran")
    accepted = refused("run", "--policy", restricted, "--allow-degraded", "exec", "--", "echo", "ran")
    unrestricted = refused("run", "--policy", free, "--audit", project.audit, "--", "echo", "ran")

    assert (done.returncode, done.stdout) == (125, "")
    assert "--allow-degraded exec" in done.stderr
    assert (accepted.returncode, accepted.stdout) == (0, "ran\n")
    assert (unrestricted.returncode, unrestricted.stdout) == (0, "ran\n")
    assert ways_of_execs(project) == {"unverified"}


def test_verified_where_it_is_not_refused(project: Any) -> None:
    """The control: here the same policy runs without further ado, and the records say so."""
    restricted = project.write("restricted.yaml", RESTRICTED)

    done = project.run_cli(["echo", "ran"], restricted)

    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert ways_of_execs(project) == {"verified"}


def test_doctor(project: Any, refused: Any) -> None:
    """The line about exec says whether it is verified here."""
    restricted = project.write("restricted.yaml", RESTRICTED)

    assert "not verified: ptrace is refused here" in refused("doctor", "--policy", restricted).stdout


def test_unknown_degradation(allow_all: Any) -> None:
    """What may be degraded is named in the error."""
    import rampart_seccomp as rampart

    with pytest.raises(ValueError, match="what may be degraded is: exec"):
        rampart.Broker(allow_all, allow_degraded={"read"})
