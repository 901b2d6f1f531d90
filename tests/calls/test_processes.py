"""What a tree may do to processes, sockets and file systems beside the policy: real calls behind a broker."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from rampart_seccomp.broker import broker as brokers
from rampart_seccomp.kernel.filter import load_filter
from rampart_seccomp.launch import protocol

ACTING = Path(__file__).with_name("acting.py")
OUTSIDE = "built-in: a process outside of the tree"


@pytest.fixture(scope="module")
def outside() -> Iterator[int]:
    """A process of the same user that is not of the tree, in a group of its own; unharmed at the end."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        yield process.pid
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def act(project: Any, policy: Any, outside: int, *more: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Run the script behind a policy: its answers, and what was denied as (system call, reason)."""
    script = project.write("acting.py", ACTING.read_text())
    done = project.run([sys.executable, script, str(outside), *more], policy, timeout=20)
    assert done.returncode == 0, done.stderr
    denied = [
        (record["syscall"], record["where"]) for record in project.records() if record["verdict"] == "deny"
    ]
    return json.loads(done.stdout), denied


@pytest.fixture
def acted(project: Any, allow_all: Any, outside: int) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    return act(project, allow_all, outside)


def test_limits_and_scheduling_stay_within_the_tree(
    acted: tuple[dict[str, Any], list[tuple[str, str]]],
) -> None:
    """Own threads by their tid, children and their groups can be set; processes outside only looked at."""
    answers, denied = acted
    expected = {
        **dict.fromkeys(("limit outside", "affinity outside", "scheduler outside"), "EPERM"),
        **dict.fromkeys(("priority outside", "priority outside's group", "ioprio outside"), "EPERM"),
        **dict.fromkeys(("priority user", "ioprio user"), "EPERM"),
        **dict.fromkeys(("read limit outside", "limit child", "limit self"), "ok"),
        **dict.fromkeys(("affinity thread", "affinity child", "affinity self", "scheduler thread"), "ok"),
        **dict.fromkeys(("priority child", "priority thread", "priority self"), "ok"),
        **dict.fromkeys(("priority child's group", "ioprio child"), "ok"),
        "limit nobody": "ESRCH",
    }
    assert {name: answers[name] for name in expected} == expected
    assert Counter(name for name, where in denied if where == OUTSIDE) == Counter(
        ["prlimit64", "sched_setaffinity", "sched_setscheduler", "setpriority", "setpriority", "ioprio_set"]
    )


CONTROL = """
import os, resource, socket, sys
outside = int(sys.argv[1])
resource.prlimit(outside, resource.RLIMIT_NOFILE, resource.prlimit(outside, resource.RLIMIT_NOFILE))
os.sched_setaffinity(outside, os.sched_getaffinity(outside))
os.setpriority(os.PRIO_PROCESS, outside, os.getpriority(os.PRIO_PROCESS, outside))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IP, 4, bytes([131, 7, 4, 127, 0, 0, 9, 0]))
"""


def test_bare_the_same_succeeds(project: Any, outside: int) -> None:
    """The control: without Rampart other processes can be limited, and packets be routed by their sender."""
    script = project.write("control.py", CONTROL)
    assert project.bare([sys.executable, script, str(outside)]).stderr == ""


def test_packets_and_inodes_go_where_they_were_judged(
    acted: tuple[dict[str, Any], list[tuple[str, str]]],
) -> None:
    """Source routes, interface changes, inode flags and freezing are refused and recorded; reads work."""
    answers, denied = acted
    expected = {
        **dict.fromkeys(("IP_OPTIONS", "SO_MARK", "SIOCSIFMTU", "BTRFS_IOC_SUBVOL_CREATE"), "EPERM"),
        **dict.fromkeys(("IP_TOS", "SO_REUSEADDR", "SIOCGIFNAME", "interfaces"), "ok"),
        **dict.fromkeys(("FS_IOC_SETFLAGS", "FIFREEZE"), errno.errorcode[errno.EOPNOTSUPP]),
    }
    if "IPV6_RTHDR" in answers:
        expected |= {"IPV6_RTHDR": "EPERM", "IPV6_FLOWLABEL_MGR": "EPERM", "IPV6_2292RTHDR": "ok"}
    assert {name: answers[name] for name in expected} == expected
    assert answers["FS_IOC_GETFLAGS"] in ("ok", "ENOTTY")  # a file system without attributes says ENOTTY
    names = [name for name, _ in denied]
    assert names.count("setsockopt") == 2 + 2 * ("IPV6_RTHDR" in answers)
    assert names.count("ioctl") == 4


SENT = {
    **dict.fromkeys(("signal self", "raise", "signal self by pidfd", "signal child's group"), "ok"),
    "own self": "True",
    "caught": 3,
    "ended": signal.SIGTERM,
    "signal child by pidfd": signal.SIGUSR2,
    "signal child": signal.SIGKILL,
    "signal the dead": "ESRCH",
}
SIGNALLING = {"kill", "tkill", "pidfd_send_signal", "fcntl"}
KEPT_IN = (
    "signal outside",
    "signal outside's thread",
    "signal outside by pidfd",
    "signal outside's group",
)


def test_without_a_signal_scope_the_broker_keeps_signals_within_the_tree(
    project: Any, allow_all: Any, outside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a kernel that confines nothing, simulated: all ways of signalling work inside and fail outside."""
    start = protocol.Start

    def unscoped(program: bytes, flags: protocol.StartFlag, *rest: Any) -> protocol.Start:
        return start(program, flags & ~protocol.StartFlag.SCOPE, *rest)

    monkeypatch.setattr(protocol, "Start", unscoped)
    reached, _ = act(project, allow_all, outside)
    assert {reached[name] for name in KEPT_IN} == {"ok"}, "the control: nothing confines signals now"

    project.audit = project.audit.with_name("second.jsonl")
    monkeypatch.setattr(brokers, "load_filter", lambda traps: load_filter(attrs.evolve(traps, scoped=False)))
    answers, denied = act(project, allow_all, outside, "everybody")
    assert {name: answers[name] for name in SENT} == SENT
    refused = (*KEPT_IN, "own outside", "signal everybody")
    assert {name: answers[name] for name in refused} == dict.fromkeys(refused, "EPERM")
    assert answers["signal 0 outside"] == "ok"
    held = Counter(name for name, where in denied if where == OUTSIDE and name in SIGNALLING)
    assert held == Counter(kill=3, tkill=1, pidfd_send_signal=1, fcntl=1)


def test_with_a_signal_scope_nothing_is_asked_about_signals(
    acted: tuple[dict[str, Any], list[tuple[str, str]]],
) -> None:
    """The kernel gives the same answers by itself."""
    answers, denied = acted
    assert {name: answers[name] for name in SENT} == SENT
    assert not SIGNALLING & {name for name, _ in denied}


CONFIGURE = """
import json, os, socket, struct, sys
def request(kind, flags, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        assert not os.get_inheritable(netlink.fileno()) and netlink.gettimeout() is None
        os.write(netlink.fileno(), struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = os.read(netlink.fileno(), 65536)
    kind, = struct.unpack_from("=H", answer, 4)
    return -struct.unpack_from("=i", answer, 16)[0] if kind == 2 else "data"
link = struct.pack("=BxHiII", 0, 0, 1, 0, 0)
print(json.dumps([request(18, 0x301, link), request(16, 5, link)]))  # RTM_GETLINK dump, RTM_NEWLINK
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a process that may configure the network")
def test_even_root_cannot_configure_the_network(project: Any, allow_all: Any) -> None:
    """Route netlink answers questions, and refuses changes: it was made without the right to configure."""
    script = project.write("configure.py", CONFIGURE)
    assert json.loads(project.bare([sys.executable, script]).stdout) == ["data", 0]
    done = project.run([sys.executable, script], allow_all)
    assert done.stdout == '["data", 1]\n', done.stderr
