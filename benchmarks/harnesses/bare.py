"""Runs commands with subprocess and nothing else."""

from __future__ import annotations

import argparse
import subprocess
from typing import BinaryIO

from benchmarks.harnesses import protocol


def prepare(_: argparse.Namespace) -> protocol.Run:
    """Return what runs a command bare."""
    return run


def run(argv: list[str], cwd: str, output: BinaryIO, timeout: float) -> int:
    """Run a command bare."""
    return subprocess.run(argv, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, timeout=timeout).returncode


if __name__ == "__main__":
    protocol.serve(protocol.arguments().parse_args(), prepare)
