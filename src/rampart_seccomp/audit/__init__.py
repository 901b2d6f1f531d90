"""The record of every decision: hash-chained JSON lines, their redaction and their verification."""

from rampart_seccomp.audit.log import AuditLog
from rampart_seccomp.audit.record import make_change, make_record
from rampart_seccomp.audit.redact import redacted, redacted_argv
from rampart_seccomp.audit.verify import Verified, verify

__all__ = ["AuditLog", "Verified", "make_change", "make_record", "redacted", "redacted_argv", "verify"]
