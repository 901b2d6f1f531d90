"""The broker and what it hands to its harness."""

from rampart_seccomp.broker.broker import Broker
from rampart_seccomp.broker.denials import Decided, Denial
from rampart_seccomp.broker.granting import Granted
from rampart_seccomp.broker.questions import Approver
from rampart_seccomp.broker.session import Session
from rampart_seccomp.broker.wrapping import Wrapped

__all__ = ["Approver", "Broker", "Decided", "Denial", "Granted", "Session", "Wrapped"]
