"""Who is who in a tree: what each process was verified to run, and beneath whose exec it runs.

Every exec is verified, so a process that has executed something is known by it. One that has not since it was
forked is what its parent was at that moment. Whom a process had forked before an exec is listed while it
stands there (`Executed.children`); whoever is its child later was forked after it. All other ways to a parent
are closed or lead to nobody: ``CLONE_PARENT`` is refused, and an orphan that was adopted, by the launcher or
by another process, the first one of a pid namespace, say, is unknown for good.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

import attrs

from rampart_seccomp.broker.records import Acting
from rampart_seccomp.calls.shim import ffi, lib
from rampart_seccomp.events import Program
from rampart_seccomp.launch.protocol import Child

__all__ = ["Lineage", "Standing"]

_DEPTH_MAX = 64
"""Execs beneath each other that are remembered; what runs deeper is unknown."""

_FORKS_MAX = 256
"""Forks without an exec between a process and one that is known."""

_SWEEP = 4096
"""Processes that are remembered before the dead are looked for."""

Identity = tuple[int, int]
"""Pid, and start in clock ticks since boot: tells a number apart that is used again."""


class Started(Protocol):
    """An exec that was verified. What that makes of the process takes time to say, and few are asked."""

    @property
    def program(self) -> Program:
        """What runs."""
        ...


@attrs.frozen(eq=False, repr=False)
class Standing:
    """What a process is known to be.

    Attributes:
        started: How what it runs was started; None before the first exec of the tree.
        image: Device and inode of that.
        environment: What it was started with: ``NAME=value``, each with its NUL.
        beneath: What it, or the process that forked it, was before.
        depth: How many there are beneath each other.
    """

    started: Started | None
    image: tuple[int, int] | None
    environment: bytes
    beneath: Standing | None
    depth: int

    @property
    def lineage(self) -> tuple[Program, ...]:
        """Its program, and those before it, the nearest first."""
        found = []
        at: Standing | None = self
        while at is not None and at.started is not None:
            found.append(at.started.program)
            at = at.beneath
        return tuple(found)


_START = Standing(None, None, b"", None, 0)


class Lineage:
    """The processes of one tree. Safe to use from several threads.

    Args:
        command: Pid of the command, before its exec.
        adopters: Processes that adopt orphans; others add to it.
    """

    def __init__(self, command: int, adopters: set[int]) -> None:
        self._adopters = adopters
        self._lock = threading.Lock()
        self._known: dict[Identity, Standing | None] = {}
        self._launched_with: bytes | None = None
        start, _ = _stat(command)
        if start is not None:
            self._known[command, start] = _START
        self._sweep_at = _SWEEP

    def standing(self, pid: int) -> Standing | None:
        """Say what a process is; None if that is not known."""
        with self._lock:
            return self._find(pid)

    def standing_then(self, processes: Sequence[Acting]) -> Standing | None:
        """Say what a process was when it, and its ancestors, were looked at; None if that is not known.

        Args:
            processes: The process, and its ancestors, the nearest first. What it has executed since is
                looked through, back to the image that it had.
        """
        climbed: list[Acting] = []
        found: Standing | None = None
        with self._lock:
            for process in processes:
                if (process.pid, process.start_time) in self._known:
                    found = self._known[process.pid, process.start_time]
                    break
                climbed.append(process)
                if len(climbed) > _FORKS_MAX:
                    break
            parents = [process.pid for process in processes[1 : len(climbed) + 1]]
            if found is None or any(parent in self._adopters for parent in parents):
                return None
        image = processes[0].image
        while not climbed and found is not None and found.image not in (image, None):
            found = found.beneath  # it has become something else since
        return found if found and all(process.image == found.image for process in climbed) else None

    def executed(
        self,
        pid: int,
        start_time: int,
        was: Standing | None,
        started: Started,
        image: tuple[int, int],
        environment: bytes,
        children: Iterable[Child] | None,
    ) -> None:
        """Note a verified exec, before the program runs.

        Args:
            pid: Process, by its thread group.
            start_time: Its start, in clock ticks since boot.
            was: What it was before; None if that was not known.
            started: What it is now.
            image: Device and inode of that.
            environment: What it was started with.
            children: Whom it had forked; None if they could not be listed.
        """
        now = None
        if was is not None and was.depth < _DEPTH_MAX:
            now = Standing(started, image, environment, was, was.depth + 1)
        with self._lock:
            if self._launched_with is None:
                self._launched_with = environment
            for child in children or ():
                adopted = pid in self._adopters
                self._known.setdefault((child.pid, child.start_time), None if adopted else was)
            if children is None:
                self._adopters.add(pid)  # which of its children are whose cannot be told any more
            self._known[pid, start_time] = now
            if len(self._known) > self._sweep_at:
                self._sweep()

    def descent(self, processes: Sequence[Identity]) -> Standing | None:
        """Say what a process was when it executed something; None if that is not known.

        Args:
            processes: The process, and whom it descended from then, the nearest first. None of those that
                are not known has executed anything by then: whoever does is known before what comes later.
        """
        with self._lock:
            for place, identity in enumerate(processes):
                if identity in self._known:
                    return self._known[identity]
                if any(pid in self._adopters for pid, _ in processes[place + 1 : place + 2]):
                    return None
        return None

    def changed_variables(self, pid: int, environment: bytes) -> frozenset[bytes] | None:
        """Name the variables that an exec would add or change.

        Args:
            pid: The process, by its thread group. One that is not known is measured by what the command was
                started with.
            environment: What the next program would be started with: ``NAME=value``, each with its NUL.

        Returns:
            The names; None if there is nothing to measure by. The command itself changes none: what it is
            started with is the harness's choice.
        """
        with self._lock:
            standing = self._find(pid)
            before = self._launched_with if standing is None else standing.environment
        if standing is _START:
            return frozenset()
        if before is None:
            return None
        new = set(environment.split(b"\0")) - set(before.split(b"\0"))
        return frozenset(variable.partition(b"=")[0] for variable in new)

    def lost(self, pid: int) -> None:
        """Forget who a process is: it may execute something that nobody verifies."""
        start, _ = _stat(pid)
        if start is not None:
            with self._lock:
                self._known[pid, start] = None

    def _find(self, pid: int) -> Standing | None:
        """Climb to the next process that is known, and note what that says about all on the way."""
        climbed: list[Identity] = []
        found: Standing | None = None
        at = pid
        while True:
            start, parent = _stat(at)
            if start is None or parent is None:
                break
            if (at, start) in self._known:
                found = self._known[at, start]
                break
            climbed.append((at, start))
            if parent in self._adopters or len(climbed) > _FORKS_MAX:
                break
            at = parent
        for child, start in reversed(climbed):
            if found is None or not _runs(child, start, found.image):
                found = None
            self._known[child, start] = found
        return found

    def _sweep(self) -> None:
        self._known = {key: value for key, value in self._known.items() if _stat(key[0])[0] == key[1]}
        self._sweep_at = max(_SWEEP, 2 * len(self._known))


def _stat(pid: int) -> tuple[int | None, int | None]:
    """Start in clock ticks since boot, and parent (proc_pid_stat(5)); None where there is no such process."""
    parent, start = ffi.new("pid_t *"), ffi.new("uint64_t *")
    if lib.rs_stat(pid, parent, start) < 0:
        return None, None
    return int(start[0]), int(parent[0])


def _runs(pid: int, start: int, image: tuple[int, int] | None) -> bool:
    """Tell whether a process runs an image, and is still the one that it was."""
    try:
        about = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return False
    return (about.st_dev, about.st_ino) == image and _stat(pid)[0] == start
