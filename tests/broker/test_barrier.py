"""What the tree may not reach of processes outside, with and without the kernel's signal scope."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.kernel.probes import probe
from rampart_seccomp.launch import handover, protocol

SCRIPT = """
import os, sys
def reach(path):
    try:
        held = os.open(path, os.O_PATH)
        os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
        return "reached"
    except OSError as error:
        return "refused"
own = os.pipe()
print(reach(f"/proc/self/fd/{own[1]}"), reach(sys.argv[1]))
"""


@pytest.mark.skipif(not probe().landlock_abi, reason="needs Landlock")
@pytest.mark.parametrize("scope", [protocol.StartFlag.SCOPE, protocol.StartFlag(0)])
def test_pipes_of_the_harness_are_out_of_reach(
    scope: protocol.StartFlag, allow_all: rampart.Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own pipe a program reopens; one of the harness it cannot, however old the Landlock."""

    class Start(protocol.Start):
        def __init__(self, program: bytes, flags: Any, filter_flags: int, limits: Any) -> None:
            super().__init__(program, scope, filter_flags, limits)

    monkeypatch.setattr(handover.protocol, "Start", Start)
    reader, writer = os.pipe()
    try:
        done = rampart.run(
            [sys.executable, "-c", SCRIPT, f"/proc/{os.getpid()}/fd/{writer}"],
            policy=allow_all,
            capture_output=True,
            text=True,
        )
    finally:
        os.close(reader)
        os.close(writer)

    assert done.stdout == "reached refused\n", done.stderr
