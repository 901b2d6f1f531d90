"""What the kernel is found to offer, and what is said about it."""

from __future__ import annotations

import os

import attrs
import pytest

from rampart_seccomp.kernel.probes import Features, probe

FULL = Features(
    machine="x86_64",
    release="6.18.1",
    architecture=True,
    notification_sizes=(80, 24, 64),
    wait_killable=True,
    sync_wake_up=True,
    landlock_abi=7,
    openat2=True,
    pidfd_getfd=True,
    pidfd_thread=True,
    ptrace=True,
    yama_scope=1,
    unshare_fs=True,
    seccomp_mode=0,
    libseccomp="2.5.4",
)


def states(features: Features) -> dict[str, str]:
    return {finding.name: finding.state for finding in features.findings()}


def test_a_full_kernel_has_nothing_to_complain_about() -> None:
    """With everything there every finding is ok, and no hint is given."""
    assert set(states(FULL).values()) == {"ok"}
    assert all(not finding.hint for finding in FULL.findings())
    assert FULL.usable


@pytest.mark.parametrize(
    ("change", "name", "state"),
    [
        ({"architecture": False, "machine": "mips"}, "machine", "missing"),
        ({"libseccomp": None}, "libseccomp", "missing"),
        ({"libseccomp": "2.4.4"}, "libseccomp", "missing"),
        ({"notification_sizes": None}, "user notification", "missing"),
        ({"wait_killable": False, "release": "5.15.0"}, "WAIT_KILLABLE_RECV", "missing"),
        ({"openat2": False}, "openat2", "missing"),
        ({"pidfd_getfd": False}, "pidfd_getfd", "degraded"),
        ({"landlock_abi": 0}, "Landlock", "degraded"),
        ({"landlock_abi": 4}, "Landlock", "degraded"),
        ({"ptrace": False, "yama_scope": 3}, "ptrace", "degraded"),
        ({"unshare_fs": False}, "unshare(CLONE_FS)", "degraded"),
        ({"sync_wake_up": False}, "SYNC_WAKE_UP", "degraded"),
        ({"pidfd_thread": False}, "PIDFD_THREAD", "degraded"),
        ({"seccomp_mode": 2}, "outer filter", "degraded"),
    ],
)
def test_each_missing_feature_is_one_finding_with_a_hint(
    change: dict[str, object], name: str, state: str
) -> None:
    """Masking one feature changes exactly one finding, which says what to do; missing ones stop a start."""
    features = attrs.evolve(FULL, **change)
    assert {key for key, value in states(features).items() if value != "ok"} == {name}
    (finding,) = [finding for finding in features.findings() if finding.name == name]
    assert finding.state == state
    assert finding.hint
    assert features.usable == (state != "missing")


def test_probing_this_machine() -> None:
    """The probe finds what the test session needs, and changes nothing: umask, directory, fds, filters."""

    def shape() -> tuple[object, ...]:
        old = os.umask(0o22)
        os.umask(old)
        return old, os.getcwd(), sorted(os.listdir("/proc/self/fd")), probe().seccomp_mode

    before = shape()
    features = probe()
    assert shape() == before
    assert features.machine == os.uname().machine
    assert features.notification_sizes is not None
    assert features.notification_sizes[1] == 24
    assert features.wait_killable
    assert features.openat2
    assert features.libseccomp is not None
