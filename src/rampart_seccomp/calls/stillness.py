"""Holding names still: the one lock under which the trees of a broker change names."""

from __future__ import annotations

from types import TracebackType

from rampart_seccomp.calls.shim import checked, ffi, lib

__all__ = ["Stillness"]


class Stillness:
    """A context manager: inside, nobody else changes a name.

    The engine's threads take the same lock, together, while they add or remove single entries of directories;
    whoever enters here is alone. It is not reentrant.

    Attributes:
        raw: ``struct rs_names *``, for the engine.
    """

    def __init__(self) -> None:
        made = ffi.new("struct rs_names **")
        checked(lib.rs_names_new(made), "pthread_rwlock_init")
        self.raw = ffi.gc(made[0], lib.rs_names_free)

    def __enter__(self) -> None:
        checked(lib.rs_names_hold(self.raw), "pthread_rwlock_wrlock")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        checked(lib.rs_names_release(self.raw), "pthread_rwlock_unlock")
