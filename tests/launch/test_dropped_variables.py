"""What a policy's `environment:` drops does not reach the command, whoever starts the launcher."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

POLICY = """
version: 1
default: {read: allow, exec: allow, create: allow, modify: allow}
environment: {drop: ["SECRET_*", "TOKEN"], pass: ["SECRET_NOT"]}
"""
GIVEN = {"PATH": "/usr/bin:/bin", "SECRET_A": "1", "SECRET_NOT": "2", "TOKEN": "3", "TOKENS": "4"}
LEFT = {"PATH=/usr/bin:/bin", "SECRET_NOT=2", "TOKENS=4"}


def test_dropped_for_every_spawner() -> None:
    """run, create_subprocess_exec and a wrapped command all start without the dropped variables."""
    policy = rampart.Policy.loads(POLICY)

    async def asynchronous() -> str:
        process = await rampart.create_subprocess_exec(
            "env", policy=policy, env=GIVEN, stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0].decode()

    seen = [
        rampart.run(["env"], policy=policy, env=GIVEN, capture_output=True, text=True).stdout,
        asyncio.run(asynchronous()),
    ]
    with rampart.Broker(policy) as broker, broker.wrap(["env"]) as command:
        done = subprocess.run(
            command.argv, pass_fds=command.pass_fds, env=GIVEN, stdout=subprocess.PIPE, text=True
        )
        seen.append(done.stdout)

    assert [set(text.split()) for text in seen] == [LEFT, LEFT, LEFT]
