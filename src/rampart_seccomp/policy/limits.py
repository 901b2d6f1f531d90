"""How much a tree may use up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.terms import to_seconds

__all__ = ["KEYS", "Limits"]

KEYS = ("processes", "open-files", "cpu-seconds", "memory", "wall-time")
"""As a file has them; an attribute has an underscore for the hyphen."""

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_COUNT_MAX = 2**31 - 1
_BYTES_MAX = 2**53


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _COUNT_MAX:
        raise PolicyError(
            f"{value!r} is not a number of at least 1", hint="write a whole number, such as 100"
        )
    return value


def _bytes(value: Any) -> int | None:
    if value is None:
        return None
    size = 0
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,16}) ?([kKmMgG]?)", value, re.ASCII)
        size = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    if not 0 < size <= _BYTES_MAX:
        raise PolicyError(f"{value!r} is not a size", hint="write bytes, or '512k', '512M', '2G'")
    return size


@attrs.frozen(kw_only=True)
class Limits:
    """What a tree may use up; None: as much as it gets.

    Attributes:
        processes: Of the tree; counted from time to time, and the tree is ended if there are more.
        open_files: Descriptors of each process (RLIMIT_NOFILE).
        cpu_seconds: CPU time of each process (RLIMIT_CPU).
        memory: Bytes of private writable memory of each process (RLIMIT_DATA); also as ``"512M"``.
        wall_time: Seconds, also as ``"10m"``, after which the tree is ended.
    """

    processes: int | None = attrs.field(default=None, converter=_count)
    open_files: int | None = attrs.field(default=None, converter=_count)
    cpu_seconds: int | None = attrs.field(default=None, converter=_count)
    memory: int | None = attrs.field(default=None, converter=_bytes)
    wall_time: float | None = attrs.field(default=None, converter=to_seconds)

    @classmethod
    def lowest(cls, several: Iterable[Limits]) -> Limits:
        """Give what keeps all of several limits."""
        all_ = list(several)
        found: dict[str, Any] = {}
        for field in attrs.fields(cls):
            values = [value for each in all_ if (value := getattr(each, field.name)) is not None]
            found[field.name] = min(values, default=None)
        return cls(**found)
