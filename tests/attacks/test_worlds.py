"""Row 11: nothing gives names another meaning: roots, mounts, namespaces, by old and new calls."""

from __future__ import annotations

import os
import platform
from typing import Any

import pytest

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64"),
]

NAMESPACES = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
OLD_AND_NEW = {
    "chroot": "chroot,.",
    "pivot_root": "raw,155,@.,@.",
    "mount": "raw,165,@none,@.,@tmpfs,0,0",
    "mount: bind": "raw,165,@open,@vault,0,0x1000,0",
    "mount: move": "raw,165,@open,@vault,0,0x2000,0",
    "mount: propagation": "raw,165,0,@/,0,0x44000,0",
    "umount2": "raw,166,@.,2",
    "open_tree": "raw,428,-100,@.,1",
    "move_mount": "raw,429,-100,@open,-100,@vault,0",
    "fsopen": "raw,430,@tmpfs,0",
    "fsconfig": "raw,431,0,6,0,0,0",
    "fsmount": "raw,432,0,0,0",
    "fspick": "raw,433,-100,@.,0",
    "mount_setattr": "raw,442,-100,@.,0,B,32",
    "open_tree_attr": "raw,467,-100,@.,1,B,32",
    **{f"unshare {name}": f"raw,272,{flag:#x}" for name, flag in NAMESPACES.items()},
    **{f"clone {name}": f"clone,{flag:#x}" for name, flag in NAMESPACES.items() if name != "time"},
    "unshare among harmless flags": "raw,272,0x10000600",
    "unshare with garbage": "raw,272,0xdeadbeef10000000",
    "clone3": "raw,435,B,88",
}


@pytest.mark.parametrize("call", OLD_AND_NEW)
def test_names_keep_their_meaning(
    call: str, project: Any, deny_rule: Any, allow_all: Any, calls: Any
) -> None:
    """Refused whatever the policy, on record, and what was denied before is denied after."""
    project.write("vault/key", "SECRET\n")
    project.write("open/f", "public\n")
    steps = [OLD_AND_NEW[call], "open,open/f,r", "read", "clone,0", "raw,272,0x600"]

    for policy in (deny_rule(["read"], paths=["./vault/**"]), allow_all):
        done = calls([*steps, "open,vault/key,r"], policy)
        absent = call in {"clone3", "open_tree_attr"}
        assert done.answers[0] == ("ENOSYS" if absent else "EPERM")
        assert done.answers[1:5] == ["ok", "public", "0", "0"]
        assert done.answers[5] == ("ok" if policy is allow_all else "EACCES")
        name = {"raw,272": "unshare", "raw,165": "mount"}.get(OLD_AND_NEW[call][:7], call.split(" ")[0])
        refused = {record["syscall"] for record in project.records() if record["rule"] is None}
        assert absent or name in refused


@pytest.mark.parametrize("name", ["mnt", "user", "pid", "net", "uts", "ipc", "cgroup"])
def test_entering_a_namespace(name: str, project: Any, allow_all: Any, calls: Any) -> None:
    """setns is refused, with the descriptor of a namespace and with a pidfd, of one's own even."""
    done = calls(
        [f"open,/proc/self/ns/{name},r", "raw,308,$,0", "raw,434,%,0", "raw,308,$,0x20000"], allow_all
    )

    assert done.answers[1] == "EPERM"
    assert int(done.answers[2]) > 0
    assert done.answers[3] == "EPERM"


def test_worlds_are_made_bare(project: Any, calls: Any) -> None:
    """Control: bare, root makes namespaces and roots, and a plain user is told what the kernel says."""
    steps = ["unshare uts", "clone uts", "chroot"]
    answers = [calls([OLD_AND_NEW[call]], None).answers[0] for call in steps]

    assert answers == (["0", "0", "0"] if os.geteuid() == 0 else ["EPERM", "EPERM", "EPERM"])
