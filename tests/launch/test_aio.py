"""create_subprocess_exec is asyncio's, with a policy."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from fake_broker import FakeBroker
from launching import gone

from rampart_seccomp.launch import Process, create_subprocess_exec

T = TypeVar("T")
PIPE = asyncio.subprocess.PIPE


def go(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 30))


def test_communicates(broker: FakeBroker) -> None:
    """Streams, status and both pids, as of an asyncio process."""

    async def main() -> None:
        process = await create_subprocess_exec(
            "sh", "-c", "cat; echo $$ >&2; exit 3", broker=broker, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        output, errors = await process.communicate(b"x" * 100_000)
        assert (len(output), int(errors), process.returncode) == (100_000, process.command_pid, 3)
        assert isinstance(process, asyncio.subprocess.Process)
        assert isinstance(process, Process)

    go(main())


@pytest.mark.parametrize("name", ["nosuch", "/etc/passwd", ""])
def test_start_errors(name: str, broker: FakeBroker) -> None:
    """The error that asyncio raises, with the same errno and file name, before it returns."""

    async def attempt(start: Any, **options: Any) -> Any:
        try:
            await start(name, "x", **options)
        except OSError as error:
            return type(error), error.errno, error.filename
        return None

    bare = go(attempt(asyncio.create_subprocess_exec))
    assert bare is not None
    assert bare == go(attempt(create_subprocess_exec, broker=broker))


def test_denied_start() -> None:
    """A start that is answered with an error raises it."""
    with pytest.raises(PermissionError):
        go(create_subprocess_exec("true", broker=FakeBroker(lambda pid, number: errno.EACCES)))


def test_the_loop_goes_on_while_the_start_is_held() -> None:
    """A question about the command can be answered by the loop that starts it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def answer() -> int:
            await asyncio.sleep(0)
            return 0

        def ask(pid: int, number: int) -> int:
            return asyncio.run_coroutine_threadsafe(answer(), loop).result(10)

        process = await create_subprocess_exec("true", broker=FakeBroker(ask))
        assert await process.wait() == 0

    go(main())


@pytest.mark.parametrize(
    ("method", "ended_by"),
    [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM), ("send_signal", signal.SIGHUP)],
)
def test_signals(method: str, ended_by: signal.Signals, broker: FakeBroker) -> None:
    """kill and terminate end the tree, send_signal reaches the command; afterwards ProcessLookupError."""

    async def main() -> None:
        process = await create_subprocess_exec(
            "sh", "-c", "sleep 876 & echo $!; wait", broker=broker, stdout=PIPE
        )
        assert process.stdout is not None
        background = int(await process.stdout.readline())
        arguments = (signal.SIGHUP,) if method == "send_signal" else ()
        getattr(process, method)(*arguments)
        assert await process.wait() == -ended_by
        assert gone(background)
        with pytest.raises(ProcessLookupError):
            process.kill()

    go(main())


def test_cancelled_start_leaves_nothing() -> None:
    """Cancelling the start while it is held ends what was begun."""
    held: list[int] = []

    def hold(pid: int, number: int) -> int:
        held.append(pid)
        time.sleep(0.3)
        return 0

    async def main() -> None:
        start = asyncio.ensure_future(create_subprocess_exec("sleep", "876", broker=FakeBroker(hold)))
        while not held:
            await asyncio.sleep(0.01)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert gone(*held)

    go(main())


def test_passed_descriptors(broker: FakeBroker) -> None:
    """pass_fds reach the command beside the control socket."""

    async def main() -> bytes:
        reader, writer = os.pipe()
        process = await create_subprocess_exec(
            "sh", "-c", f"echo x >/proc/self/fd/{writer}", broker=broker, pass_fds=[writer]
        )
        os.close(writer)
        assert await process.wait() == 0
        with open(reader, "rb") as pipe:
            return pipe.read()

    assert go(main()) == b"x\n"


def test_preexec_fn_is_refused(broker: FakeBroker) -> None:
    """As by Popen."""
    with pytest.raises(ValueError, match="preexec_fn is not supported"):
        go(create_subprocess_exec("true", broker=broker, preexec_fn=os.getpid))
