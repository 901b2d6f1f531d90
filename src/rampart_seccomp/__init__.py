"""Rampart: a firewall for AI agents at the system-call boundary, below the application and before the effect.

```python
import rampart_seccomp as rampart

policy = rampart.Policy.load("agent")
done = rampart.run(["npm", "test"], policy=policy, capture_output=True)
print(done.returncode, done.denials)
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rampart_seccomp.broker import Broker, Decided, Denial, Granted, Session, Wrapped
    from rampart_seccomp.errors import NotEnforceable, RampartError
    from rampart_seccomp.events import (
        ConnectEvent,
        Event,
        ExecEvent,
        FileEvent,
        ListenEvent,
        Operation,
        Process,
        RefusedEvent,
    )
    from rampart_seccomp.launch import CompletedProcess, Popen, create_subprocess_exec, run
    from rampart_seccomp.policy import (
        Decision,
        Environment,
        Grant,
        Limits,
        Policy,
        Rule,
        Stack,
        allow,
        ask,
        deny,
    )
    from rampart_seccomp.policy.analysis import diff
    from rampart_seccomp.verdicts import Allow, Ask, Deny, Redirect, Verdict

__version__ = "0.1.0"

__all__ = [
    "Allow",
    "Ask",
    "Broker",
    "CompletedProcess",
    "ConnectEvent",
    "Decided",
    "Decision",
    "Denial",
    "Deny",
    "Environment",
    "Event",
    "ExecEvent",
    "FileEvent",
    "Grant",
    "Granted",
    "Limits",
    "ListenEvent",
    "NotEnforceable",
    "Operation",
    "Policy",
    "Popen",
    "Process",
    "RampartError",
    "Redirect",
    "RefusedEvent",
    "Rule",
    "Session",
    "Stack",
    "Verdict",
    "Wrapped",
    "allow",
    "ask",
    "create_subprocess_exec",
    "deny",
    "diff",
    "run",
]

_HOMES = ("broker", "errors", "events", "launch", "policy", "verdicts")
"""Modules of this package that the names come from: of two that have one, the first."""

_LATER = {"create_subprocess_exec": "launch", "diff": "policy.analysis"}
"""Names that cost much more, for those who use them, and where they are."""


def __getattr__(name: str) -> Any:
    """Import everything with the first name: no tree is there yet that could leave a module for us to find.

    Not earlier, since the command line has this package imported before it can do anything about the time
    that this takes.
    """
    if name not in __all__ and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for home in _HOMES:
        module = import_module(f"{__name__}.{home}")
        for each in set(module.__all__).intersection(__all__) - _LATER.keys() - globals().keys():
            globals()[each] = getattr(module, each)
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
