"""Starting commands: the launcher, its control protocol, and what stands in for subprocess and asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rampart_seccomp.launch.locate import launcher_path

if TYPE_CHECKING:
    from rampart_seccomp.launch.aio import Process, create_subprocess_exec
    from rampart_seccomp.launch.popen import CompletedProcess, Popen, run

__all__ = ["CompletedProcess", "Popen", "Process", "create_subprocess_exec", "launcher_path", "run"]


def __getattr__(name: str) -> Any:
    """Import asyncio only for those who use it, and subprocess only for those who start something with it."""
    if name in ("Process", "create_subprocess_exec"):
        from rampart_seccomp.launch import aio

        return getattr(aio, name)
    if name in ("CompletedProcess", "Popen", "run"):
        from rampart_seccomp.launch import popen

        return getattr(popen, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
