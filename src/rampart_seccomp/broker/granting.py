"""Grants for a while: given by the harness to the trees of a broker, and taken back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import ConnectEvent, Event, Operation
from rampart_seccomp.policy import AnyMatcher, AnyPolicy, Grant, Stack
from rampart_seccomp.policy.grants import granted_events
from rampart_seccomp.policy.terms import FILE_OPERATIONS, to_operations

__all__ = ["Granted", "grants_for", "overruled", "with_grants"]


class Granted:
    """Grants in force until they are revoked; a context manager. Made by `Broker.grant`.

    Attributes:
        grants: What is granted.
        layer: The layer of a stack whose questions they answer.
        overruled: What still stands against them when they are given, in words: a deny, or another layer;
            None if they have their effect.
    """

    def __init__(
        self, grants: tuple[Grant, ...], layer: int, seconds: float | None, revoke: Callable[[Granted], None]
    ) -> None:
        self.grants = grants
        self.layer = layer
        self.overruled: str | None = None
        self._revoke = revoke
        self._timer = None if seconds is None else threading.Timer(seconds, self.revoke)

    def start(self) -> None:
        """Let the time run. To be called before they are in force: without an end they must not begin.

        Raises:
            RuntimeError: There can be no thread for it.
        """
        if self._timer is not None:
            self._timer.name = "rampart-grant"
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """Stop the time; to be called where the grants are not in force."""
        if self._timer is not None:
            self._timer.cancel()

    def revoke(self) -> None:
        """Take the grants back: from the next call on they do not count. May be called again."""
        self.cancel()
        self._revoke(self)

    @property
    def on_record(self) -> dict[str, Any]:
        """What a record says about them: the operations and the one object."""
        first = self.grants[0]
        shown = first.object
        if first.command is not None:
            from rampart_seccomp.audit import redacted_argv

            shown = " ".join(redacted_argv(first.command))
        return {
            "operation": " ".join(str(grant.operation) for grant in self.grants),
            "object": shown,
            "layer": self.layer,
        }

    def __repr__(self) -> str:
        granted = ", ".join(f"{grant.operation} {grant.object}" for grant in self.grants)
        return f"<Granted {granted!r}, overruled={self.overruled!r}>"

    def __enter__(self) -> Granted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.revoke()


def grants_for(given: Mapping[str, Any], path: Any, by: str) -> tuple[Grant, ...]:
    """Make the grants that keywords stand for.

    Args:
        given: Operation, or ``write`` for its four, and its object; all but one are None.
        path: The real image, for exec; None else.
        by: Who grants.

    Raises:
        PolicyError: None is given, or several, or what is given is not one object exactly.
    """
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise PolicyError(
            f"a grant is for one operation, and {' and '.join(chosen) or 'none'} is given",
            hint=f"name one of {', '.join(given)}",
        )
    (name,) = chosen
    operations = to_operations(name)
    fields: dict[str, Any] = {"by": by, "at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())}
    if path is not None and name != "exec":
        raise PolicyError("`path` goes with exec", key="path", hint=f"write {name}=... alone")
    if operations <= FILE_OPERATIONS:
        fields["path"] = given[name]
    elif name == "exec":
        fields |= {"command": given[name], "path": path}
    else:
        fields["host" if name == "connect" else "port"] = given[name]
    made = tuple(Grant(operation=each, **fields) for each in Operation if each in operations)
    _ensure_real(made[0], "path" if name == "exec" else name)
    return made


def _ensure_real(grant: Grant, key: str) -> None:
    """Refuse a name that leads elsewhere: the real one is judged, so it would grant nothing.

    The name is not followed here: whoever may make a link in the tree would choose what is granted.
    """
    path = grant.path
    if path is not None and (real := os.path.realpath(path)) != path:
        raise PolicyError(
            f"{os.fsdecode(path)!r} is really {os.fsdecode(real)!r}",
            key=key,
            hint="a grant names the object itself: grant the real name, if that is what you mean",
        )


def with_grants(policy: AnyPolicy, given: Iterable[Granted]) -> AnyPolicy:
    """Give the policy with the grants in force.

    Raises:
        PolicyError: A grant is for a layer that it does not have.
    """
    for each in given:
        count = len(policy.layers)
        if not -count <= each.layer < count:
            raise PolicyError(
                f"there is no layer {each.layer}: the policy has {count}",
                key="layer",
                hint="layers count from 0, and -1 is the last; revoke grants for layers that go",
            )
        if isinstance(policy, Stack):
            policy = policy.with_grants(*each.grants, layer=each.layer)
        else:
            policy = policy.with_grants(*each.grants)
    return policy


def overruled(matcher: AnyMatcher, grants: Iterable[Grant]) -> str | None:
    """Say what still denies, or asks about, what is granted; None if nothing does."""
    for grant in grants:
        for event in _events(matcher, grant):
            decision = matcher.decide(event)
            if decision.verdict != "allow":
                return f"{decision.operation} {grant.object}: {decision.verdict} by {decision.where}"
    return None


def _events(matcher: AnyMatcher, grant: Grant) -> list[Event]:
    from rampart_seccomp.policy.cases import events

    if grant.port is not None:
        return list(events(matcher, "listen", port=grant.port))
    if grant.path is not None:
        return granted_events(grant, grant.path)
    assert grant.host is not None
    if grant.host.startswith("unix:"):
        return [ConnectEvent(protocol="unix", socket=os.fsencode(grant.host[len("unix:") :]))]
    return list(events(matcher, "connect", host=grant.host))
