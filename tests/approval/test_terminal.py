"""The prompt on a real terminal: a child with a pty of its own, and a person who types."""

from __future__ import annotations

import os
import pty
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rampart_seccomp.approval import Question, headless_approver, terminal_approver
from rampart_seccomp.events import ConnectEvent, ExecEvent, FileEvent, Operation, Process
from rampart_seccomp.verdicts import Allow, Deny, Verdict

PROMPT = "[y/N]"
EVENT = ExecEvent(
    path=b"/usr/bin/git",
    argv=(b"git", b"push", b"a b", b"\x1b[2J"),
    process=Process(pid=42, tid=42, executable=b"/bin/bash", ancestry=(b"/usr/bin/node",)),
)
QUESTION = Question(EVENT, rule="publishing (rampart.yaml:12)", message="Ask first.", timeout=20.0)


def say(text: str) -> None:
    """Write to the terminal of the child; sys.stdout is still pytest's there."""
    os.write(1, f"{text}\n".encode())


class Person:
    """A child in a session of its own on a pty, and this side of it."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.pid, self.tty = pty.fork()
        if not self.pid:
            try:
                say(f"\nresult: {act()!r}.")
            except BaseException as error:
                say(f"\nresult: raised {error!r}.")
            os._exit(0)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.tty, text.encode())

    def read_until(self, expected: str, count: int = 1, seconds: float = 20.0) -> str:
        """Return all that the terminal has shown once `expected` stands there `count` times."""
        deadline = time.monotonic() + seconds
        while self.seen.count(expected) < count:
            ready, _, _ = select.select([self.tty], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {expected!r} in {self.seen!r}"
            self.seen += os.read(self.tty, 4096).decode()
        return self.seen

    def result(self) -> str:
        """Return the repr of what the child's function returned."""
        self.read_until("result: ")
        while not self.seen.rstrip().endswith("."):
            self.seen += os.read(self.tty, 4096).decode()
        return self.seen.rpartition("result: ")[2].rstrip()[:-1]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.tty)


@pytest.fixture
def person() -> Iterator[Callable[[Callable[[], object]], Person]]:
    people: list[Person] = []

    def make(act: Callable[[], object]) -> Person:
        people.append(Person(act))
        return people[-1]

    yield make
    for each in people:
        each.close()


Make = Callable[[Callable[[], object]], Person]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("y\n", Allow()),
        ("YES\n", Allow()),
        ("n\n", Deny(message="refused at the terminal")),
        ("\n", Deny(message="refused at the terminal")),
        ("yy\n", Deny(message="refused at the terminal")),
        ("\x04", Deny(message="refused at the terminal")),
    ],
)
def test_only_yes_allows(person: Make, typed: str, expected: object) -> None:
    """`y` or `yes` allows; anything else, an empty line and end of file deny."""
    child = person(lambda: terminal_approver().answer(QUESTION))
    child.read_until(PROMPT)
    child.type(typed)
    assert child.result() == repr(expected)


def test_the_prompt_says_what_who_and_why(person: Make) -> None:
    """Operation, program, process with its ancestry, rule and message, safe to print."""
    child = person(lambda: terminal_approver().answer(QUESTION))
    shown = child.read_until(PROMPT).replace("\r", "")
    assert shown.splitlines() == [
        "",
        "rampart: the policy asks",
        "  exec      git push 'a b' \\x1b[2J",
        "  program   /usr/bin/git",
        "  by        /bin/bash < /usr/bin/node (pid 42)",
        "  rule      publishing (rampart.yaml:12)",
        "  note      Ask first.",
        "Allow this once? [y/N] (20 s) ",
    ]


def test_text_typed_ahead_does_not_answer(person: Make) -> None:
    """A `y` that was there before the question is thrown away; the one after it counts."""

    def act() -> object:
        say("type now")
        select.select([0], [], [])  # it has arrived
        return terminal_approver().answer(QUESTION)

    child = person(act)
    child.read_until("type now")
    child.type("y\n")
    child.read_until(PROMPT)
    child.type("n\n")
    assert child.result() == repr(Deny(message="refused at the terminal"))


def test_silence_is_a_denial(person: Make) -> None:
    """After the timeout of the question, or of the approver, the answer is no."""
    child = person(
        lambda: (
            terminal_approver().answer(Question(EVENT, timeout=0.2)),
            terminal_approver(timeout=0.3)(EVENT),
        )
    )
    assert child.result() == repr(
        (Deny(message="not answered within 0.2 s"), Deny(message="not answered within 0.3 s"))
    )


def test_a_raw_terminal_is_asked_in_lines_and_put_back(person: Make) -> None:
    """A command may have switched echo and line mode off: the question works, and they stay off after it."""

    def act() -> object:
        import termios
        import tty

        tty.setraw(0)
        before = termios.tcgetattr(0)
        answer = terminal_approver().answer(QUESTION)
        return answer, termios.tcgetattr(0) == before

    child = person(act)
    child.read_until(PROMPT)
    child.type("y\r")
    assert child.result() == repr((Allow(), True))


def test_standard_input_is_not_read(person: Make) -> None:
    """The answer comes from the terminal, and standard input stays the command's."""

    def act() -> object:
        reader, writer = os.pipe()
        os.write(writer, b"y\n")
        os.dup2(reader, 0)
        return terminal_approver().answer(QUESTION), os.read(0, 10)

    child = person(act)
    child.read_until(PROMPT)
    child.type("n\n")
    assert child.result() == repr((Deny(message="refused at the terminal"), b"y\n"))


def test_in_the_background_nobody_is_asked(person: Make) -> None:
    """Reading the terminal would stop a background process (SIGTTIN): it denies instead, and says why."""

    def act() -> object:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            os.write(writer, repr(terminal_approver().answer(QUESTION)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        return os.read(reader, 1000).decode()

    child = person(act)
    expected = "Rampart is not in the foreground of its terminal; rule publishing (rampart.yaml:12) asks"
    assert expected in child.result()


def test_without_a_terminal_nobody_is_asked() -> None:
    """A session without a controlling terminal denies at once; so does the headless approver."""
    expected = Deny(message="nobody could be asked: no terminal; rule publishing (rampart.yaml:12) asks")
    assert headless_approver().answer(QUESTION) == expected  # type: ignore[attr-defined]
    assert headless_approver()(EVENT) == Deny(message="nobody could be asked: no terminal")
    child = os.fork()
    if not child:
        os.setsid()
        os._exit(0 if terminal_approver().answer(QUESTION) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_questions_are_put_one_at_a_time(person: Make) -> None:
    """The second one stands there only after the first was answered, and each gets its own answer."""

    def act() -> object:
        from concurrent.futures import ThreadPoolExecutor

        approver = terminal_approver()
        events = [FileEvent(operation=Operation.READ, path=b"/%d" % n) for n in range(2)]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(approver, events))
        return [type(answer).__name__ for answer in answers]

    child = person(act)
    first = child.read_until(PROMPT)
    assert first.count(PROMPT) == 1
    child.type("y\n")
    child.read_until(PROMPT, count=2)
    child.type("n\n")
    asked_first = "/0" if "/0" in first else "/1"
    expected = ["Allow", "Deny"] if asked_first == "/0" else ["Deny", "Allow"]
    assert child.result() == repr(expected)


def test_closing_withdraws_the_question(person: Make) -> None:
    """The end of the run does not wait for an answer; later questions are not put."""

    def act() -> object:
        approver = terminal_approver()
        answers: list[Verdict] = []
        thread = threading.Thread(target=lambda: answers.append(approver.answer(QUESTION)))
        thread.start()
        signal.sigwait({signal.SIGUSR1})
        approver.close()
        thread.join()
        approver.close()
        return [*answers, approver(EVENT)]

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        child = person(act)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    child.read_until(PROMPT)
    os.kill(child.pid, signal.SIGUSR1)
    withdrawn = (
        "nobody could be asked: the run, or the process, has ended; rule publishing (rampart.yaml:12) asks"
    )
    ended = "nobody could be asked: the run has ended"
    assert child.result() == repr([Deny(message=withdrawn), Deny(message=ended)])


def test_a_question_that_nobody_waits_for_is_withdrawn(person: Make) -> None:
    """When the asking process has died, the prompt goes away."""
    calls = iter([False, True])
    question = Question(EVENT, timeout=20.0, withdrawn=lambda: next(calls))
    child = person(lambda: terminal_approver().answer(question))
    assert child.result() == repr(Deny(message="nobody could be asked: the run, or the process, has ended"))
    assert "rampart: withdrawn" in child.seen


def test_untrusted_names_in_every_field_are_escaped() -> None:
    """Paths, hosts, rules and messages of any content make one visible line each, of bounded length."""
    evil = "\x1b[1A\u202e\n" * 3
    process = Process(pid=1, tid=1, executable=evil.encode(), ancestry=(evil.encode(),))
    events = [
        FileEvent(operation=Operation.CREATE, path=evil.encode() * 1000, process=process),
        ExecEvent(path=evil.encode(), argv=(evil.encode(),) * 1000, process=process),
        ConnectEvent(protocol="unix", socket=evil.encode(), process=process),
    ]
    for event in events:
        for heading, text in Question(event, rule=evil, message=evil).lines():
            assert heading.isalpha()
            assert text.isprintable()
            assert len(text) < 2100
