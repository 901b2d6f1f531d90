"""The words of the policy language: operations, verdicts, errors and durations as people write them."""

from __future__ import annotations

import errno
import re
from typing import Any

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation

__all__ = ["FILE_OPERATIONS", "VERDICTS", "WRITE", "to_errno", "to_operations", "to_seconds"]

VERDICTS = ("allow", "ask", "deny")
"""From the laxest to the strictest."""

WRITE = frozenset({Operation.CREATE, Operation.MODIFY, Operation.DELETE, Operation.METADATA})
FILE_OPERATIONS = WRITE | {Operation.READ}


def to_operations(value: Any) -> frozenset[Operation]:
    """Give the operations that a name, or several, stand for; ``write`` stands for four.

    Raises:
        PolicyError: There is no such operation, or none is given.
    """
    if isinstance(value, str):
        if value == "write":
            return WRITE
        try:
            return frozenset({Operation(value)})
        except ValueError:
            raise PolicyError(
                f"there is no operation {str(value)!r}",
                hint=f"the operations are {', '.join(map(str, Operation))}, and write for create to metadata",
            ) from None
    found = frozenset[Operation]().union(*(to_operations(each) for each in value))
    if not found:
        raise PolicyError("no operation is named", hint="name one, or a list of them")
    return found


def to_errno(value: int | str | None) -> int | None:
    """Give the number of an error name such as ``EPERM``.

    Raises:
        PolicyError: There is no such error.
    """
    if value is None:
        return None
    number = getattr(errno, value, None) if isinstance(value, str) and value.startswith("E") else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in errno.errorcode:
        raise PolicyError(f"there is no error {value!r}", hint="write a name of errno(3), such as EPERM")
    return number


def to_seconds(value: float | str | None) -> float | None:
    """Give the seconds of a duration: a number of seconds, ``90s``, ``2m`` or ``1h``.

    Raises:
        PolicyError: It is not a duration.
    """
    if value is None:
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([smh]?)", value, re.ASCII)
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else -1.0
    else:
        seconds = -1.0 if isinstance(value, bool) else float(value)
    if not 0 < seconds <= 7 * 86400:
        raise PolicyError(
            f"{value!r} is not a duration", hint="write '120s', '2m' or '1h'; at most seven days"
        )
    return seconds
