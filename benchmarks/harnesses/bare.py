"""Runs commands with subprocess and nothing else."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from typing import BinaryIO

from benchmarks.harnesses import protocol


def prepare(_: argparse.Namespace) -> protocol.Run:
    """Return what runs a command bare."""
    return run


def run(argv: list[str], cwd: str, output: BinaryIO, timeout: float) -> int:
    """Run a command bare; what takes too long is killed with all that it started."""
    process = subprocess.Popen(argv, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


if __name__ == "__main__":
    protocol.serve(protocol.arguments().parse_args(), prepare)
