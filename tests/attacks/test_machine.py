"""Row 9: objects without a name, and what belongs to the whole machine."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rampart_seccomp.errors import LibraryMissing

SOURCES = Path(__file__).with_name("src")
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root only: the kernel denies it to everybody else")

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


@x86_64
@pytest.mark.core
@pytest.mark.parametrize("call", HANDLES)
def test_objects_without_a_name(call: str, project: Any, allow_all: Any, calls: Any) -> None:
    """What opens or makes files without a name is refused whatever the policy, and on record."""
    project.write("open/f", "public\n")

    done = calls(["open,open/f,r", HANDLES[call], "read"], allow_all)

    assert done.answers[0] == "ok"
    assert done.answers[1] in {"EPERM", "EOPNOTSUPP"}
    assert done.answers[2] == "public"
    refused = [record for record in project.records() if record["verdict"] == "deny"]
    assert [record["syscall"] for record in refused] == [HANDLES[call].startswith("raw,16") and "ioctl" or call.split()[0]]


@pytest.fixture
def world() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run src/machine.py in a mount and pid namespace of its own, where nodes and mounts harm nobody."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        import rampart_seccomp

        path = [str(Path(rampart_seccomp.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        command = ["unshare", "-pfm", "--mount-proc", sys.executable, str(SOURCES / "machine.py"), *words]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(part for part in path if part)},
        )
        if "unshare failed" in done.stderr or "unshare:" in done.stderr:
            pytest.skip(f"no namespaces here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return done

    return run
