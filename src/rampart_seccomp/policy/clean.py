"""Which variables make a program run other code than its own."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["clean"]


def clean(path: bytes, variables: Iterable[bytes]) -> bool:
    """Tell whether a program is started without variables that make it run other code.

    Args:
        path: Real path of its image.
        variables: ``NAME=value`` each.
    """
    return not any(
        variable.startswith((b"LD_", b"GLIBC_TUNABLES=", b"GCONV_PATH=")) for variable in variables
    )
