"""Where no read is restricted and none recorded, opens that only read are left to the kernel; no others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from counting import PYTHON, count

import rampart_seccomp as rampart
from rampart_seccomp.calls import machine
from rampart_seccomp.errors import NotEnforceable
from rampart_seccomp.kernel.landlock import signal_scope

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(not signal_scope(), reason="without Landlock's signal scope every open is held"),
]

FILES = ("read", "create", "modify", "delete", "metadata", "exec")
NETWORK_ONLY = rampart.Policy(default=dict.fromkeys(FILES, "allow"))

MANY = """
for _ in range(1000):
    os.close(os.open(sys.argv[1], os.O_RDONLY))
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT, os.O_RDONLY | os.O_TRUNC):
    os.close(os.open(sys.argv[1], flags))
os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))
"""


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is as it is for a user who may read no disk, whoever runs this."""
    monkeypatch.setattr("rampart_seccomp.broker.broker.machine_is_closed", lambda: True)


def _held(tmp_path: Path, policy: rampart.Policy, **options: Any) -> int:
    """How many calls of a program that reads a file 1,000 times are held."""
    file = tmp_path / "file"
    file.write_text("x")
    with rampart.Broker(policy, **options) as broker:
        return sum(count(broker, tmp_path, MANY, file))


def test_reading_is_free(tmp_path: Path) -> None:
    """Under a policy about the network alone, reading is not held; what could write is."""
    assert 5 <= _held(tmp_path, NETWORK_ONLY) < 100


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        pytest.param(
            NETWORK_ONLY.with_rules(rampart.deny("read", paths=["/nowhere"], name="secret")), {}, id="denied"
        ),
        pytest.param(NETWORK_ONLY.with_rules(rampart.allow("read", name="all")), {}, id="recorded"),
        pytest.param(NETWORK_ONLY, {"may_restrict": {"read"}}, id="later"),
        pytest.param(NETWORK_ONLY, {"audit": "audit.jsonl"}, id="log"),
        pytest.param(
            NETWORK_ONLY.with_rules(rampart.allow("connect", hosts=["example.com:443"], name="site")),
            {},
            id="names",
        ),
    ],
)
def test_reading_is_held_where_somebody_wants_to_know(
    tmp_path: Path, policy: rampart.Policy, options: dict[str, Any]
) -> None:
    """With a rule about reading, one that records it, a log, or a rule to come, every open is held.

    With host names, too: resolvers then read another resolv.conf.
    """
    if "audit" in options:
        options = {"audit": tmp_path / options["audit"]}
    assert _held(tmp_path, policy, **options) >= 1000


def test_reading_is_held_where_the_machine_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody whom the kernel lets read disks is kept from it by the broker."""
    monkeypatch.setattr("rampart_seccomp.broker.broker.machine_is_closed", lambda: False)
    assert _held(tmp_path, NETWORK_ONLY) >= 1000


REACHING = """
import errno, os, sys
outside, code = sys.argv[1:]
reading = os.O_RDONLY
for path, flags in (
    (outside, reading),
    (code, os.O_WRONLY),
    (code, os.O_RDWR),
    (code, reading | os.O_TRUNC),
    (code + "x", reading | os.O_CREAT),
):
    try:
        print("open", os.open(path, flags))
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_what_is_built_in_stays(tmp_path: Path) -> None:
    """The environment of processes outside is not read, the harness's code not written, all the same."""
    environment = f"/proc/{os.getpid()}/environ"
    if os.geteuid() == 0:
        environment = "/dev/mem/none"  # root can (CAP_PERFMON), for whom opens are never free
    with rampart.Broker(NETWORK_ONLY) as broker:
        done = rampart.run(
            [*PYTHON, "-c", REACHING, environment, rampart.__file__],
            broker=broker,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.stderr == ""
    first, *others = done.stdout.split()
    assert first in ("EACCES", "ENOENT", "ENOTDIR")
    assert others == ["EACCES"] * 4
    assert len(done.denials) == 4, "the first is the kernel's"


def test_a_policy_that_restricts_reading_is_refused_later(tmp_path: Path) -> None:
    """A running tree whose reading is free does not get a policy about reading; one to come does."""
    stricter = NETWORK_ONLY.with_rules(rampart.deny("read", paths=["/nowhere"], name="secret"))
    with rampart.Broker(NETWORK_ONLY) as broker:
        with rampart.Popen(["sleep", "60"], broker=broker) as process:
            with pytest.raises(NotEnforceable, match="files are opened for reading without asking"):
                broker.update(stricter)
            process.kill()
        broker.update(stricter)


def test_the_kernel_is_asked_what_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine is closed to nobody who has capabilities, or may read one thing that is refused."""
    monkeypatch.setattr(machine, "_refused", lambda: iter(["/nowhere", "/proc/self/status"]))
    assert not machine.machine_is_closed()
    monkeypatch.setattr(machine, "_refused", lambda: iter(["/nowhere"]))
    assert machine.machine_is_closed() is (os.geteuid() != 0)
