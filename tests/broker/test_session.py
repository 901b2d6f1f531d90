"""A launched tree, from its start to its end, through the public interface."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.errors import BrokerClosed, CommandDenied, ListenerBusy

pytestmark = pytest.mark.core

EVERYTHING = ["read", "write", "exec", "connect", "listen"]
CAT = ["/bin/cat"]


def _asking(paths: list[str], **options: Any) -> rampart.Policy:
    return rampart.Policy(
        rules=[
            rampart.allow(EVERYTHING, name="everything"),
            rampart.ask("read", paths=paths, name="question", **options),
        ]
    )


def test_command_denied_is_a_start_error(tmp_path: Path, allow_all: rampart.Policy) -> None:
    """A denied command raises what subprocess raises, and nothing of it runs."""
    policy = allow_all.with_rules(rampart.deny("exec", commands=["touch **"], name="no-touch"))
    mark = tmp_path / "mark"

    with pytest.raises(CommandDenied) as caught:
        rampart.run(["touch", str(mark)], policy=policy)

    assert isinstance(caught.value, PermissionError)
    assert caught.value.errno == errno.EACCES
    assert "no-touch" in str(caught.value)
    assert not mark.exists()
    assert rampart.run(["touch", str(mark)], policy=allow_all).returncode == 0
    assert mark.exists()


def test_unknown_command(allow_all: rampart.Policy) -> None:
    """A command that is not there raises FileNotFoundError, as bare."""
    with pytest.raises(FileNotFoundError):
        rampart.run(["no-such-command-anywhere"], policy=allow_all)


def test_second_listener_is_refused(allow_all: rampart.Policy) -> None:
    """Rampart inside Rampart cannot listen: a typed error says so, and the command is not started."""
    script = (
        "import rampart_seccomp as r, sys\n"
        "try: r.run(['/bin/echo', 'ran'], policy=r.Policy.load('observe'))\n"
        "except r.errors.ListenerBusy as error: print('busy', error.errno)\n"
    )

    done = rampart.run(
        [sys.executable, "-c", "import rampart_seccomp.errors\n" + script],
        policy=allow_all,
        capture_output=True,
        text=True,
    )

    assert done.stdout == f"busy {errno.EBUSY}\n", done.stderr
    assert issubclass(ListenerBusy, OSError)


def test_a_closed_broker_wraps_nothing(allow_all: rampart.Policy) -> None:
    """A closed broker says so instead of starting something that nobody judges."""
    broker = rampart.Broker(allow_all)
    broker.close()

    with pytest.raises(BrokerClosed):
        broker.wrap(["true"])


def test_closing_the_broker_ends_its_trees(allow_all: rampart.Policy) -> None:
    """Leaving the broker ends what it launched, at once."""
    with rampart.Broker(allow_all) as broker:
        process = rampart.Popen(["sleep", "60"], broker=broker)
        began = time.monotonic()

    assert process.wait(5) != 0
    assert time.monotonic() - began < 5


def test_one_broker_many_commands(tmp_path: Path, allow_all: rampart.Policy) -> None:
    """Trees of one broker are apart: each has its own denials."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    policy = allow_all.with_rules(rampart.deny("read", paths=[str(secret)], name="secret"))

    with rampart.Broker(policy) as broker:
        guilty = rampart.run(["cat", str(secret)], broker=broker, capture_output=True)
        innocent = rampart.run(["true"], broker=broker)

    assert [denial.rule for denial in guilty.denials] == ["secret"]
    assert innocent.denials == []


def test_any_spawner_can_start_a_wrapped_command(allow_all: rampart.Policy) -> None:
    """`Broker.wrap` works with plain subprocess."""
    with rampart.Broker(allow_all) as broker, broker.wrap(["echo", "hello"]) as command:
        done = subprocess.run(command.argv, pass_fds=command.pass_fds, stdout=subprocess.PIPE)

    assert done.stdout == b"hello\n"


def test_asked_and_allowed(tmp_path: Path) -> None:
    """A question reaches the approver with the event and the process; its yes lets the call happen."""
    file = tmp_path / "file"
    file.write_text("content")
    asked: list[rampart.Event] = []

    def approve(event: rampart.Event) -> rampart.Verdict:
        asked.append(event)
        return rampart.Allow()

    done = rampart.run([*CAT, str(file)], policy=_asking([str(file)]), on_ask=approve, capture_output=True)

    assert done.stdout == b"content"
    (event,) = asked
    assert isinstance(event, rampart.FileEvent)
    assert event.path == os.fsencode(file)
    assert event.process is not None
    assert event.process.argv == (b"/bin/cat", os.fsencode(file))


def test_asynchronous_approver(tmp_path: Path) -> None:
    """An approver may be a coroutine function."""
    file = tmp_path / "file"
    file.write_text("content")

    async def approve(event: rampart.Event) -> rampart.Verdict:
        await asyncio.sleep(0)
        return rampart.Allow()

    done = rampart.run([*CAT, str(file)], policy=_asking([str(file)]), on_ask=approve, capture_output=True)

    assert done.stdout == b"content"


def _raises(event: rampart.Event) -> rampart.Verdict:
    raise ValueError("boom")


@pytest.mark.parametrize(
    ("approver", "said"),
    [
        (None, "nobody could be asked"),
        (_raises, "ValueError: boom"),
        (lambda event: True, "bool"),
        (lambda event: None, "NoneType"),
        (lambda event: rampart.Allow, "type"),
        (lambda event: rampart.Ask(), "passed the question on"),
        (lambda event: rampart.Deny(message="no"), "no"),
    ],
)
def test_whatever_is_no_yes_is_a_denial(tmp_path: Path, approver: Any, said: str) -> None:
    """Exceptions, truthy values, the wrong type and the lack of an approver deny, and say why."""
    file = tmp_path / "file"
    file.write_text("content")

    done = rampart.run([*CAT, str(file)], policy=_asking([str(file)]), on_ask=approver, capture_output=True)

    assert done.stdout == b""
    assert b"Permission denied" in done.stderr
    (denial,) = done.denials
    assert denial.rule == "question"
    assert denial.message is not None
    assert said in denial.message


def test_unanswered_is_denied_in_time(tmp_path: Path) -> None:
    """A question that nobody answers is a denial when its time is over."""
    file = tmp_path / "file"
    file.write_text("content")
    answer = threading.Event()

    def slow(event: rampart.Event) -> rampart.Verdict:
        answer.wait(30)
        return rampart.Allow()

    began = time.monotonic()
    policy = _asking([str(file)], timeout=0.3)
    done = rampart.run([*CAT, str(file)], policy=policy, on_ask=slow, capture_output=True)
    answer.set()

    assert done.stdout == b""
    assert time.monotonic() - began < 15


def test_a_slow_answer_stops_nobody_else(tmp_path: Path) -> None:
    """While one call waits for an answer, the rest of the tree goes on."""
    file = tmp_path / "file"
    file.write_text("content")
    mark = tmp_path / "mark"
    release = threading.Event()

    def slow(event: rampart.Event) -> rampart.Verdict:
        release.wait(30)
        return rampart.Allow()

    with rampart.Broker(_asking([str(file)]), on_ask=slow) as broker:
        script = f"cat {file} & touch {mark}; wait"
        process = rampart.Popen(["sh", "-c", script], broker=broker, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 10
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mark.exists()
        assert process.poll() is None
        release.set()
        assert process.communicate(timeout=10)[0] == b"content"


def test_a_question_dies_with_its_process(tmp_path: Path) -> None:
    """A process that is killed while it waits for an answer takes its question with it."""
    file = tmp_path / "file"
    file.write_text("content")
    asked, release = threading.Event(), threading.Event()

    def slow(event: rampart.Event) -> rampart.Verdict:
        asked.set()
        release.wait(30)
        return rampart.Allow()

    with rampart.Broker(_asking([str(file)]), on_ask=slow) as broker:
        process = rampart.Popen([*CAT, str(file)], broker=broker, stdout=subprocess.PIPE)
        assert asked.wait(10)
        process.kill()
        assert process.wait(5) == -9
        release.set()
        assert process.stdout is not None
        assert process.stdout.read() == b""
        process.stdout.close()


def test_a_rule_can_be_answered_by_code(tmp_path: Path) -> None:
    """A callable of the rule decides; it can pass the question on to a person."""
    for name in ("yes", "no", "person"):
        (tmp_path / name).write_text(name)

    def decide(event: rampart.Event) -> rampart.Verdict:
        assert isinstance(event, rampart.FileEvent)
        name = Path(os.fsdecode(event.path)).name
        return {"yes": rampart.Allow(), "no": rampart.Deny()}.get(name, rampart.Ask())

    policy = _asking([f"{tmp_path}/*"], decide=decide)
    answers = {
        name: rampart.run(
            [*CAT, str(tmp_path / name)],
            policy=policy,
            on_ask=lambda event: rampart.Allow(),
            capture_output=True,
        ).stdout
        for name in ("yes", "no", "person")
    }

    assert answers == {"yes": b"yes", "no": b"", "person": b"person"}


def test_no_callable_overrules_a_deny(tmp_path: Path) -> None:
    """A deny beats what code would allow."""
    file = tmp_path / "file"
    file.write_text("content")
    policy = _asking([str(file)], decide=lambda event: rampart.Allow()).with_rules(
        rampart.deny("read", paths=[str(file)], name="never")
    )

    done = rampart.run([*CAT, str(file)], policy=policy, capture_output=True)

    assert [denial.rule for denial in done.denials] == ["never"]


def test_descriptors_and_threads_do_not_grow(tmp_path: Path, allow_all: rampart.Policy) -> None:
    """Thousands of calls, performed and denied, leave nothing behind in the harness."""
    script = (
        "import os\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "open('x', 'w').close()\n"
        "for i in range(1500):\n"
        "    os.close(os.open('x', os.O_RDONLY)); os.rename('x', 'y'); os.rename('y', 'x')\n"
        "    try: os.open('denied', os.O_RDWR | os.O_CREAT)\n"
        "    except PermissionError: pass\n"
    )
    policy = allow_all.with_rules(rampart.deny("write", paths=[f"{tmp_path}/denied"], name="denied"))
    with rampart.Broker(policy) as broker:
        rampart.run(["true"], broker=broker)
        before = len(os.listdir("/proc/self/fd"))
        done = rampart.run([sys.executable, "-c", script], broker=broker)
        after = len(os.listdir("/proc/self/fd"))

    assert done.returncode == 0
    assert len(done.denials) == 1500
    assert after <= before


def test_audit_that_cannot_be_written_denies(tmp_path: Path, allow_all: rampart.Policy) -> None:
    """Once a record cannot be written, nothing is allowed any more."""
    from rampart_seccomp.audit import AuditLog

    file = tmp_path / "file"
    file.write_text("content")
    log = AuditLog(tmp_path / "audit.jsonl")

    with rampart.Broker(allow_all, audit=log) as broker:
        assert rampart.run([*CAT, str(file)], broker=broker, capture_output=True).stdout == b"content"
        log.close()
        script = f"for i in 1 2 3; do read line < {file} && echo got; done"
        try:
            done = rampart.run(["/bin/sh", "-c", script], broker=broker, capture_output=True)
            assert b"got\ngot\ngot" not in done.stdout
        except PermissionError:
            pass
