"""Runs commands with subprocess and nothing else."""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
from typing import BinaryIO

from benchmarks.harnesses import protocol


def prepare(_: argparse.Namespace) -> protocol.Run:
    """Return what runs a command bare."""
    return run


def run(argv: list[str], cwd: str, output: BinaryIO, timeout: float) -> protocol.Ran:
    """Run a command bare; what takes too long is killed with all that it started."""
    process = subprocess.Popen(argv, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    # `wait` with a timeout looks every 50 ms at last, which would be measured instead of the command.
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            os.killpg(process.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(argv, timeout)
    finally:
        os.close(pidfd)
        status = process.wait()
    return protocol.Ran(status)


if __name__ == "__main__":
    protocol.serve(protocol.arguments().parse_args(), prepare)
