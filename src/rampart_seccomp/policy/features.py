"""Features: families of system calls that no rule speaks about, opened by name for what they cost."""

from __future__ import annotations

from collections.abc import Iterable

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.walking import suggestion

__all__ = ["FEATURES", "LATER", "check_feature", "to_features"]

FEATURES = ("sysv-ipc",)
"""What this version can open; `rampart_seccomp.kernel.syscalls.FEATURES` has the calls."""

LATER = ("ptrace", "io_uring", "namespaces", "memfd-exec")


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
