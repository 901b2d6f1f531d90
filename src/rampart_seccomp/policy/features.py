"""Features: what no rule speaks about, or no name tells apart, opened by name for what it costs."""

from __future__ import annotations

from collections.abc import Iterable

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.walking import suggestion

__all__ = ["FEATURES", "LATER", "MEMFD_EXEC", "check_feature", "to_features"]

MEMFD_EXEC = "memfd-exec"

FEATURES = {
    "sysv-ipc": "System V IPC and POSIX message queues",
    MEMFD_EXEC: "executing memfds and deleted files",
    "namespaces": "user, pid, network, IPC, UTS and cgroup namespaces; not those of mounts",
}
"""What this version can open, in words; `rampart_seccomp.kernel.syscalls.FEATURES` has the calls, if any."""

LATER = ("ptrace", "io_uring")


def check_feature(name: str) -> None:
    """Check the name of a feature.

    Raises:
        PolicyError: There is none of this name, or this version does not have it.
    """
    if name in LATER:
        raise PolicyError(
            f"the feature {name!r} is not supported by this version", hint=f"it has {', '.join(FEATURES)}"
        )
    if name not in FEATURES:
        raise PolicyError(
            f"there is no feature {name!r}", hint=suggestion(name, (*FEATURES, *LATER), "features")
        )


def to_features(value: str | Iterable[str]) -> frozenset[str]:
    """Give the features that a name, or several, stand for.

    Raises:
        PolicyError: As `check_feature`.
    """
    names = frozenset({value} if isinstance(value, str) else value)
    for name in sorted(names):
        try:
            check_feature(name)
        except PolicyError as error:
            raise PolicyError(error.problem, key="features", hint=error.hint) from None
    return names
