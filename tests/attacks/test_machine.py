"""Row 9: objects without a name, and what belongs to the whole machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp

SOURCES = Path(__file__).with_name("src")
X86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")

HANDLES = {
    "name_to_handle_at": "raw,303,-100,@open/f,B,B,0",
    "name_to_handle_at of a descriptor": "raw,303,0,@,B,B,0x1000",
    "open_by_handle_at": "raw,304,-100,B,0",
    "BTRFS_IOC_SNAP_CREATE": "raw,16,$,0x50009401,B",
    "BTRFS_IOC_SUBVOL_CREATE": "raw,16,$,0x5000940e,B",
    "BTRFS_IOC_SNAP_DESTROY": "raw,16,$,0x5000940f,B",
    "BTRFS_IOC_TREE_SEARCH": "raw,16,$,0xd0009411,B",
    "BTRFS_IOC_SNAP_CREATE_V2": "raw,16,$,0x50009417,B",
    "XFS_IOC_OPEN_BY_HANDLE": "raw,16,$,0xc038586b,B",
}


@X86_64
@pytest.mark.core
@pytest.mark.parametrize("call", HANDLES)
def test_objects_without_a_name(call: str, project: Any, allow_all: Any, calls: Any) -> None:
    """What opens or makes files without a name is refused whatever the policy, and on record."""
    project.write("open/f", "public\n")

    done = calls(["open,open/f,r", HANDLES[call], "read"], allow_all)

    assert done.answers[0] == "ok"
    assert done.answers[1] in {"EPERM", "EOPNOTSUPP"}
    assert done.answers[2] == "public"
    refused = [record["syscall"] for record in project.records() if record["verdict"] == "deny"]
    assert refused == ["ioctl" if HANDLES[call].startswith("raw,16,") else call.split()[0]]


MUST_BE_DENIED = """
    disk|mem|kmem|port|kmsg|sg|msr|snapshot|link|hard|disk by descriptor|/dev/loop0|core_pattern
    core_pattern by descriptor|truncate core_pattern|drop_caches|kcore|pm_freeze_timeout|profiling|second proc
    second proc by descriptor|part of proc|one file of proc|binfmt_misc|second sys|release_agent
    cgroup procs|cgroup directory|cgroup2 procs|cgroup2 directory
"""
MUST_WORK = """
    null|zero|core_pattern, to read|own comm|own oom_score_adj|meminfo|sys, to read|second proc, own
    cgroup procs, to read|cgroup2 procs, to read
"""


def names(text: str) -> set[str]:
    """Split a table of names."""
    return {name.strip() for line in text.split("\n") for name in line.split("|") if name.strip()}


@pytest.mark.skipif(os.geteuid() != 0, reason="root only: the kernel denies all of it to everybody else")
def test_what_belongs_to_the_whole_machine(tmp_path: Path) -> None:
    """Disks, memory and machine-wide kernel files: refused by any name and mount, whatever the policy.

    Control: bare most of them open, and what stands beside them (null, a process's own entries, reading)
    works behind the policy as well.
    """
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    path = [str(Path(rampart_seccomp.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        ["unshare", "-pfm", "--mount-proc", sys.executable, str(SOURCES / "machine.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(part for part in path if part)},
    )
    if done.stderr.startswith("unshare:"):
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    bare, judged = answers["bare"], answers["judged"]

    tried = set(judged)
    assert tried == set(bare)
    assert tried <= names(MUST_BE_DENIED) | names(MUST_WORK)
    assert {name: judged[name] for name in tried & names(MUST_BE_DENIED) if judged[name] != "EACCES"} == {}
    assert {name: judged[name] for name in tried & names(MUST_WORK)} == {
        name: bare[name] for name in tried & names(MUST_WORK)
    }
    opened = {name for name in tried & names(MUST_BE_DENIED) if bare[name] == "ok"}
    assert {
        "disk",
        "link",
        "hard",
        "core_pattern",
        "second proc",
        "part of proc",
        "one file of proc",
    } <= opened
    assert len(answers["denied"]) == len(tried & names(MUST_BE_DENIED))
