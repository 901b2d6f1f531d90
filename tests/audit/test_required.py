"""`audit: required`: what is not on record does not happen."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp import Broker, Policy
from rampart_seccomp.errors import AuditError

EVERYTHING = dict.fromkeys(("read", "write", "exec", "connect", "listen"), "allow")

FLOOD = """
import os
done = denied = 0
for turn in range({count}):
    try:
        os.close(os.open("/etc/passwd", os.O_RDONLY))
        done += 1
    except PermissionError:
        denied += 1
print(done, denied)
"""

COUNT = 12_000
"""Records of so many calls take more than the journal's 4 MiB."""


def _hold_interpreter(seconds: float) -> None:
    """Keep the interpreter lock, so that no thread of the harness comes to write."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def _flood(project: Any, audit: str, hold: float) -> tuple[int, int]:
    policy = Policy(default=EVERYTHING, audit=audit)
    with Broker(policy, audit=project.audit) as broker:
        argv = ["python3", "-c", FLOOD.format(count=COUNT)]
        process = rampart.Popen(argv, broker=broker, cwd=project.root, stdout=-1, text=True)
        _hold_interpreter(hold)
        said, _ = process.communicate(timeout=120)
    done, denied = map(int, said.split())
    return done, denied


def test_nothing_runs_without_a_log() -> None:
    """A broker without a log does not start, and a policy that requires one is not put in force."""
    with pytest.raises(AuditError, match="required"):
        Broker(Policy(default=EVERYTHING, audit="required"))
    with Broker(Policy(default=EVERYTHING)) as broker, pytest.raises(AuditError, match="required"):
        broker.update(Policy(default=EVERYTHING, audit="required"))
    assert broker.policy.audit == "all"


def test_stack_is_as_strict_as_its_strictest_layer() -> None:
    """One layer that requires a log is enough."""
    layers = [Policy(default=EVERYTHING, audit=audit) for audit in ("denials", "required", "all")]
    assert Policy.stack(*layers).audit == "required"


@pytest.mark.parametrize("audit", ["required", "all"])
def test_full_journal(project: Any, audit: str) -> None:
    """While the harness is kept from writing: denied if required, held up otherwise; all is told."""
    done, denied = _flood(project, audit, hold=2.5)
    records = [json.loads(line) for line in Path(project.audit).read_text().splitlines()]
    opened = [r for r in records if r.get("path") == "/etc/passwd" and r.get("verdict") == "allow"]
    unrecorded = sum(r["count"] for r in records if r.get("record") == "unrecorded")
    assert done + denied == COUNT
    assert len(opened) == done
    assert unrecorded == denied
    assert (denied > 0) == (audit == "required")
