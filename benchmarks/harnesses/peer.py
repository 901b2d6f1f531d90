"""Runs commands in sandlock, with what of the profile `agent` it can say, with or without its callback.

It reads everything but credentials, writes the project, temporary files and devices, and reaches the loopback
interface. Its deny list names files, not patterns, so it gets the ones that exist or may exist in the home.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import sandlock

from benchmarks.harnesses import protocol

CREDENTIALS = (
    ".ssh", ".aws", ".azure", ".gnupg", ".kube", ".netrc", ".git-credentials", ".npmrc", ".pypirc", ".pgpass",
    ".docker/config.json", ".config/gcloud", ".config/gh/hosts.yml", ".mozilla", ".bash_history",
)  # fmt: skip
SECRETS = ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssl/private")


def decide(event: Any, context: Any) -> bool:
    """Deny what the callback can: connections elsewhere. It is told no paths."""
    return event.category == "network" and event.host not in (None, "127.0.0.1")


def prepare(options: argparse.Namespace) -> protocol.Run:
    """Return what runs a command in a sandbox."""
    home = os.path.expanduser("~")

    def run(argv: list[str], cwd: str, output: BinaryIO, timeout: float) -> protocol.Ran:
        sandbox = sandlock.Sandbox(
            fs_readable=["/"],
            fs_writable=[cwd, "/tmp", "/var/tmp", "/dev"],
            fs_denied=[f"{cwd}/.env", *(f"{home}/{name}" for name in CREDENTIALS), *SECRETS],
            net_allow=["127.0.0.1:*"],
            net_allow_bind=["*"],
            cwd=cwd,
            policy_fn=decide if options.callback else None,
        )
        with onto_standard_output(output):
            process = sandbox.popen(argv)
        with process:
            result = process.wait(timeout)
        if result.error:
            raise RuntimeError(result.error)
        if result.reason.name == "TIMEOUT":
            raise TimeoutError(f"killed after {timeout:g} s")
        return protocol.Ran(int(result.exit_code))

    return run


@contextlib.contextmanager
def onto_standard_output(output: BinaryIO) -> Iterator[None]:
    """While inside, what is started inherits the file as standard output and error."""
    saved = [os.dup(fd) for fd in (1, 2)]
    try:
        for fd in (1, 2):
            os.dup2(output.fileno(), fd)
        yield
    finally:
        for fd, before in zip((1, 2), saved, strict=True):
            os.dup2(before, fd)
            os.close(before)


if __name__ == "__main__":
    parser = protocol.arguments()
    parser.add_argument("--callback", action="store_true", help="with its Python policy callback")
    protocol.serve(parser.parse_args(), prepare)
