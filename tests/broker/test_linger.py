"""`linger`: what a command leaves running lives as long as its broker, and no longer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

EVERYTHING = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
LINGERING = rampart.Policy(rules=[EVERYTHING], linger=True)
# Leaves a daemon behind, says its pid, and ends.
LEAVE = (
    "said=$(mktemp -u); setsid sh -c 'echo $$; : > '$said'; exec sleep 876 >&- 2>&-' & "
    "until [ -e $said ]; do sleep 0.01; done; rm $said; exit 3"
)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0] not in b"ZX"
    except OSError:
        return False


def soon_gone(pid: int) -> bool:
    """Wait for the end of a process."""
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


@pytest.fixture
def broker() -> Iterator[rampart.Broker]:
    with rampart.Broker(LINGERING) as made:
        yield made


def leave(broker: rampart.Broker) -> tuple[rampart.Popen[str], int]:
    process: rampart.Popen[str] = rampart.Popen(
        ["sh", "-c", LEAVE], broker=broker, stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate(timeout=20)
    return process, int(output)


def test_lives_until_the_broker_closes(broker: rampart.Broker) -> None:
    """wait() and communicate() return with the command's status; the daemon ends with the broker."""
    process, daemon = leave(broker)
    assert (process.returncode, process.wait(), process.poll(), alive(daemon)) == (3, 3, 3, True)
    assert not process.session.finished.is_set()
    assert rampart.run(["true"], broker=broker).returncode == 0
    assert alive(daemon)
    broker.close()
    assert soon_gone(daemon)
    assert soon_gone(process.pid)


def test_ends_with_the_command_without_it() -> None:
    """The control: a policy that does not say so ends what is left, and so does a broker for one command."""
    with rampart.Broker(rampart.Policy(rules=[EVERYTHING])) as broker:
        assert not alive(leave(broker)[1])
    done = rampart.run(["sh", "-c", LEAVE], policy=LINGERING, capture_output=True, text=True)
    assert done.returncode == 3
    assert not alive(int(done.stdout))


def test_is_still_judged(broker: rampart.Broker, tmp_path: Path) -> None:
    """What lingers makes calls as before, and they are decided and recorded."""
    policy = rampart.Policy(
        rules=[EVERYTHING, rampart.deny("write", paths=[f"{tmp_path}/denied"], name="secret")], linger=True
    )
    script = f"(sleep 0.3; echo x > {tmp_path}/allowed; echo x > {tmp_path}/denied) > /dev/null 2>&1 & exit 0"
    with rampart.Broker(policy) as judging:
        process: rampart.Popen[bytes] = rampart.Popen(["sh", "-c", script], broker=judging)
        assert process.wait(20) == 0
        assert process.session.wait_finished(20)
        assert [denial.rule for denial in process.denials] == ["secret"]
    assert (tmp_path / "allowed").exists()
    assert not (tmp_path / "denied").exists()


def test_session_ends_with_the_last_daemon(broker: rampart.Broker) -> None:
    """When nothing of the tree is left, the launcher ends, is reaped, and leaves no zombie."""
    process: rampart.Popen[bytes] = rampart.Popen(["sh", "-c", "sleep 0.3 & exit 4"], broker=broker)
    assert process.wait(20) == 4
    assert process.session.wait_finished(20)
    end = time.monotonic() + 5
    while Path(f"/proc/{process.pid}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{process.pid}").exists()


def test_kill_tree_ends_what_lingers(broker: rampart.Broker) -> None:
    """The session can be ended alone."""
    process, daemon = leave(broker)
    process.kill()  # nothing: this object's command has ended
    assert alive(daemon)
    process.session.kill_tree()
    assert soon_gone(daemon)
    assert process.session.wait_finished(20)


def test_other_spawners(broker: rampart.Broker) -> None:
    """To them the launcher is the command, and lives until the tree has ended; SIGTERM ends it then."""
    with broker.wrap(["sh", "-c", LEAVE]) as wrapped:
        process = subprocess.Popen(wrapped.argv, pass_fds=wrapped.pass_fds, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    daemon = int(process.stdout.readline())
    assert wrapped.session.command_ended.wait(20)
    assert (wrapped.session.command_status, process.poll(), alive(daemon)) == (3, None, True)
    process.terminate()
    assert process.wait(20) == 3
    assert not alive(daemon)
    process.stdout.close()


def test_asyncio(broker: rampart.Broker) -> None:
    """wait(), communicate() and returncode of an asyncio process behave alike."""

    async def main() -> None:
        process = await rampart.create_subprocess_exec(
            "sh", "-c", LEAVE, broker=broker, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        daemon = int(output)
        assert (await process.wait(), process.returncode, alive(daemon)) == (3, 3, True)
        process.session.kill_tree()
        # asyncio still watches the launcher, and warns if the loop is closed before its end.
        while process._launcher.get_returncode() is None:
            await asyncio.sleep(0.01)
        assert (process.returncode, alive(daemon)) == (3, False)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_ends_with_a_killed_harness() -> None:
    """SIGKILL of the harness takes along what lingers."""
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
import test_linger, rampart_seccomp as rampart
with rampart.Broker(test_linger.LINGERING) as broker:
    print(test_linger.leave(broker)[1], flush=True)
    time.sleep(876)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    harness = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert harness.stdout is not None
    daemon = int(harness.stdout.readline())
    assert alive(daemon)
    harness.send_signal(signal.SIGKILL)
    harness.communicate()
    assert soon_gone(daemon)


def test_command_line_ends_with_its_command(project: Any) -> None:
    """`run` is the broker of one command: nothing lingers."""
    policy = project.base / "policy.yaml"
    policy.write_text(
        "version: 1\ndefault: {read: allow, write: allow, exec: allow, connect: allow, listen: allow}\n"
        "rules: []\nlinger: true\n"
    )
    done = project.run_cli(["sh", "-c", LEAVE], policy)
    assert done.returncode == 3, done.stderr
    assert not alive(int(done.stdout))
