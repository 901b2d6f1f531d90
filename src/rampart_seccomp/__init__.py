"""Rampart: a firewall for AI agents at the system-call boundary, below the application and before the effect.

```python
import rampart_seccomp as rampart

policy = rampart.Policy.load("agent")
done = rampart.run(["npm", "test"], policy=policy, capture_output=True)
print(done.returncode, done.denials)
```
"""

from typing import TYPE_CHECKING, Any

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
from rampart_seccomp.launch import CompletedProcess, Popen, run
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
from rampart_seccomp.verdicts import Allow, Ask, Deny, Redirect, Verdict

if TYPE_CHECKING:
    from rampart_seccomp.launch import create_subprocess_exec

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
    "run",
]


def __getattr__(name: str) -> Any:
    """Import asyncio only for those who use it."""
    if name == "create_subprocess_exec":
        from rampart_seccomp.launch import create_subprocess_exec

        return create_subprocess_exec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
