"""One launched tree: from the hand-over of its listener to the end of its last process."""

from __future__ import annotations

import errno
import itertools
import os
import select
import signal
import socket
import threading
from typing import TYPE_CHECKING

from rampart_seccomp.broker import forks
from rampart_seccomp.broker.answering import Answering
from rampart_seccomp.broker.control import NUDGE_SECONDS, Control
from rampart_seccomp.broker.deciding import Deciding
from rampart_seccomp.broker.denials import Decided, Denial
from rampart_seccomp.broker.engine import Engine, Tables
from rampart_seccomp.broker.judge import Judge
from rampart_seccomp.broker.ledger import Ledger
from rampart_seccomp.broker.lineage import Lineage
from rampart_seccomp.broker.verifying import Verifying
from rampart_seccomp.calls.call import Setting
from rampart_seccomp.calls.notification import Listener, Notification
from rampart_seccomp.calls.stillness import Stillness
from rampart_seccomp.errors import BrokerClosed, KernelSupportError, LimitExceeded
from rampart_seccomp.events import Operation
from rampart_seccomp.kernel.landlock import SCOPE_ABI
from rampart_seccomp.kernel.traps import Traps
from rampart_seccomp.launch import protocol
from rampart_seccomp.launch.handover import accept, start_error
from rampart_seccomp.network.names import HostNames
from rampart_seccomp.policy import AnyMatcher, Limits

if TYPE_CHECKING:
    from rampart_seccomp.broker.broker import Broker

__all__ = ["Session"]

_LAST_WORDS = 5.0
"""Seconds that the end of a session waits for calls still at work."""

_TURN = 64
"""Calls that are taken at a time, before the session looks for other things."""

_EXECS = frozenset(["execve", "execveat"])


class Session:
    """The broker's side of one launched tree. Made by `Broker.wrap`.

    Attributes:
        command_pid: Pid of the command; None until its listener has arrived.
        scoped: True if the kernel confines signals of the tree to the tree.
        traps: What the filter of the tree holds; fixed at its launch.
        finished: Set when no process of the tree is left.
        lingers: True if what the command leaves running lives until the broker is closed.
        command_ended: Set when the command has ended; if its tree lingers, that can be long before.
        command_status: Exit status of a command whose tree lingers, negative for a signal; None otherwise.
    """

    def __init__(
        self,
        broker: Broker,
        judge: Judge,
        names: Stillness,
        control: socket.socket,
        name: bytes,
        traps: Traps,
        features: frozenset[str],
        *,
        lingers: bool,
        limits: Limits,
        tables: Tables | None,
    ) -> None:
        self.command_pid: int | None = None
        self.scoped = False
        self.traps = traps
        self.finished = threading.Event()
        self.lingers = lingers
        self.command_ended = threading.Event()
        self.command_status: int | None = None
        self._broker = broker
        self._limits = limits
        self._control = Control(control)
        self._name = name
        self._listener: Listener | None = None
        self._verifying: Verifying | None = None
        self._crew = broker._crews.take()
        lend = self._crew.pool.lending
        self._setting = Setting(names=names, vigil=self._crew.vigil, lend=lend, features=features)
        self._ledger = Ledger(broker._telling)
        self._deciding = Deciding(
            judge, tables, self._setting, self._ledger, broker._telling, self._crew.pool, broker._upstream
        )
        self._answering = Answering(
            self._deciding, self._setting, self._crew.pool, self._ledger, broker._telling, self._fail
        )
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        forks.enroll(self)
        self._thread: int | None = None
        self._crew.lead(self._run)

    # For the harness

    @property
    def counts(self) -> tuple[int, int]:
        """How many held calls the engine has answered, and how many were for Python."""
        return self._deciding.answered, self._answering.taken

    @property
    def denials(self) -> list[Denial]:
        """What was denied, oldest first; the latest 10,000."""
        self._catch_up()
        return self._ledger.denials

    @property
    def events(self) -> list[Decided]:
        """What was decided, oldest first; the latest 10,000."""
        self._catch_up()
        return self._ledger.events

    def _catch_up(self) -> None:
        if self._thread != threading.get_ident():
            self._deciding.catch_up()

    @property
    def started(self) -> bool:
        """True once the command runs."""
        return self._settled.is_set() and self._error is None

    def wait_started(self, timeout: float | None = None) -> None:
        """Wait until the command runs.

        Args:
            timeout: Seconds; None for as long as it takes.

        Raises:
            OSError: The command could not be started, as subprocess has it: FileNotFoundError and the like.
            CommandDenied: The policy denies the command.
            ListenerBusy, TargetUnreadable, KernelSupportError: The kernel or a sandbox does not let us.
            BrokerClosed: The broker was closed meanwhile.
            TimeoutError: Neither came in time.
        """
        if not self._settled.wait(timeout):
            raise TimeoutError("the command has not started yet")
        if self._error is not None:
            raise self._error

    def wait_finished(self, timeout: float | None = None) -> bool:
        """Wait, at most ``timeout`` seconds, until nothing of the tree is left; tell whether that is so."""
        return self.finished.wait(timeout)

    def wait_written(self, patience: float) -> None:
        """Wait until all is over and on record, or nothing has happened for ``patience`` seconds."""
        while not self.finished.is_set():
            before = self._ledger.entered
            if not self.finished.wait(patience) and self._ledger.entered == before:
                return

    def signal(self, signo: int, *, tree: bool = False) -> None:
        """Send a signal to the command, or to every process of the tree; nothing once it has ended."""
        try:
            self._control.send(protocol.Signal(signo, tree))
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN):
                raise

    def kill_tree(self) -> None:
        """SIGKILL to every process of the tree."""
        self.signal(signal.SIGKILL, tree=True)
        self._control.wake()

    def close(self) -> None:
        """End the tree: the launcher kills it when the control socket closes."""
        self._fail(BrokerClosed())
        try:
            os.write(self._woken, b"x")
        except (BlockingIOError, OSError):
            return

    # For the broker

    @property
    def native(self) -> bool:
        """True if an engine answers what the policy decides without asking anybody."""
        return self._deciding.native

    @property
    def matcher(self) -> AnyMatcher:
        """What the judge applies."""
        return self._deciding.judge.matcher

    def judge_under(
        self, matcher: AnyMatcher, names: HostNames, features: frozenset[str], tables: Tables | None
    ) -> None:
        """Judge by another policy from the next call on; ``tables`` are those of the policy, if `native`."""
        self._deciding.exchange(matcher, names, features, tables)

    def question_everything(self) -> None:
        """Have the engine decide nothing from here on, whatever policy comes: Python knows more than it."""
        self._deciding.question_everything()

    def forsake(self) -> None:
        """In a forked child: close what is the parent's, who alone answers for the tree."""
        self._control.forsake()
        for fd in (self._wake, self._woken):
            if fd >= 0:
                os.close(fd)
        self._wake = self._woken = -1
        if self._listener is not None:
            self._listener.close()
        self._deciding.forsake()
        self._setting.sockets.forsake()
        self._ledger.forsake()
        # Whoever would have set an event is not here.
        self._settled, self.finished, self.command_ended = (threading.Event() for _ in range(3))
        self._fail(BrokerClosed())
        self.finished.set()
        self.command_ended.set()

    @property
    def _judge(self) -> Judge:
        return self._deciding.judge

    @property
    def _lineage(self) -> Lineage | None:
        return self._deciding.lineage

    @property
    def _engine(self) -> Engine | None:
        return self._deciding.engine

    # The thread that leads the crew

    def _run(self) -> None:
        self._thread = threading.get_ident()
        try:
            if self._hand_over():
                self._serve()
        except BaseException as error:
            self._fail(error)
        finally:
            self._fail(BrokerClosed())
            self._end()

    def _fail(self, error: BaseException) -> None:
        if not self._settled.is_set():
            self._error = error
            self._settled.set()

    def _end(self) -> None:
        self._control.see_off()
        if self._verifying is not None:
            self._verifying.land(self._deciding.take_landed())
        # The last calls are recorded, and use the listener, before it is gone; a stuck one is not waited for.
        idle = self._answering.wait_quiet(_LAST_WORDS)
        stopped = self._deciding.end()
        self._deciding.dns.close()
        if self._listener is not None and idle and stopped:
            with forks.excluded:
                self._listener.close()
        self._setting.sockets.close()
        wake, woken = self._wake, self._woken
        self._wake = self._woken = -1
        os.close(wake)
        os.close(woken)
        forks.leave(self)
        self._broker._forget(self)
        self._thread = None
        self._broker._crews.give_back(self._crew, idle=idle)
        self.finished.set()
        self.command_ended.set()

    def _hand_over(self) -> bool:
        """Receive the listener and let the command go; False if the session was closed first."""
        self._broker._verify(self)  # takes about as long as the launcher needs until it has something to say
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        if any(fd == self._wake for fd, _ in poll.poll()):
            return False
        with forks.excluded:
            taken = accept(self._control.end, self._name)
            self._listener = taken.listener
            self._control.meet(taken.listener.launcher)
        self.command_pid = taken.command_pid
        self.scoped = taken.scoped
        if self._broker._scoped and taken.landlock_abi < SCOPE_ABI:
            raise KernelSupportError(
                "the launcher cannot confine signals to the tree, and the filter relies on it",
                hint="start the broker outside of other sandboxes, or as the user who started them",
            )
        self._setting.adopters.add(taken.listener.launcher)
        lineage = Lineage(taken.command_pid, self._setting.adopters)
        self._setting.verifier = self._verifying = Verifying(
            self._control.send,
            self._crew.pool.lending,
            lineage,
            self._answering.note_tampering,
            self._control.nudge,
            self._deciding,
            degraded=lambda: not self._judge.relies_on_execs or self._broker.degraded(Operation.EXEC),
        )
        self._judge.questions.bounce = self._verifying.bounce
        with forks.excluded:
            channel = self._control.lend(taken.listener.fd) if self.native else None
            # It comes as far as its execve, which waits for an answer: whoever answers gets ready meanwhile.
            self._control.send(protocol.Go())
            self._deciding.begin(lineage, taken.listener, taken.command_pid, self._control.launcher, channel)
        return True

    def _serve(self) -> None:
        """Take notifications until nobody can make one, and follow what the launcher says."""
        assert self._listener is not None
        launcher_there = True
        listener_there = True
        while listener_there or launcher_there:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            if launcher_there:
                poll.register(self._control, select.POLLIN)
                # A process that was forked while it started may hold a copy of its end.
                poll.register(self._control.launcher, select.POLLIN)
            if listener_there:
                # Whoever receives has to know of calls; the end of all callers is always told.
                poll.register(self._listener, select.POLLIN if self._engine is None else 0)
            if self._engine is not None:
                poll.register(self._engine, select.POLLIN)
            verifying = self._verifying is not None and self._verifying.busy
            ready = poll.poll(NUDGE_SECONDS * 1000 if verifying or self._control.stopped else None)
            if not ready:
                self._control.look_after(self.command_pid, needed=verifying)
                self._ledger.write()
            for fd, happened in ready:
                if fd == self._wake:
                    return
                if fd == self._control.fileno():
                    launcher_there = self._hear() and launcher_there
                elif fd == self._control.launcher:
                    launcher_there = self._hear_out() and self._heed(None)
                elif self._engine is not None and fd == self._engine.fileno():
                    launcher_there = self._take_questions(self._engine) and launcher_there
                elif happened & select.POLLIN:
                    launcher_there = self._take() and launcher_there
                else:
                    listener_there = False
            if not launcher_there and listener_there and not self._answering.orphaned:
                self._answering.orphaned = True
                self.question_everything()
            if not launcher_there and self._verifying is not None:
                self._verifying.close()

    def _hear(self) -> bool:
        """Take one message of the launcher; False at its end."""
        return self._heed(self._control.hear())

    def _heed(self, message: protocol.Message | None) -> bool:
        """Act on what the launcher said; False if that is its end."""
        if isinstance(message, protocol.Started):
            self._settled.set()
        elif isinstance(message, protocol.Stopping):
            self._control.stopped = True
        elif isinstance(message, protocol.Traced | protocol.Executed):
            if self._verifying is not None:
                self._verifying.hear(message)
        elif isinstance(message, protocol.Ended):
            self.command_status = os.waitstatus_to_exitcode(message.status)
            self.command_ended.set()
        elif isinstance(message, protocol.Exceeded):
            self._exceed(message.limit)
        elif isinstance(message, protocol.Failed) or message is None:
            denied = [denial.where for denial in self.denials if denial.operation == str(Operation.EXEC)]
            self._fail(start_error(message, self._name, denied[0] if denied else None))
        return message is not None

    def _exceed(self, limit: protocol.Limit) -> None:
        """Note that the launcher ends the tree because of a limit."""
        key = "processes" if limit is protocol.Limit.PROCESSES else "wall-time"
        value = getattr(self._limits, key.replace("-", "_"))
        shown = f"{value:g}s" if limit is protocol.Limit.WALL_TIME else str(value)
        denial = Denial(
            operation="limit",
            object=f"{key} {shown}",
            rule=None,
            message="the tree was ended",
            suggestion=f"raise `limits: {{{key}: {shown}}}`",
            errno=errno.ETIMEDOUT if limit is protocol.Limit.WALL_TIME else errno.EAGAIN,
            where=f"limits.{key}",
        )
        self._ledger.deny(denial)
        self._broker._telling.limit(denial)
        self._fail(LimitExceeded(denial.errno, f"{denial.object}: the tree was ended before it started"))

    def _take(self) -> bool:
        """Take one call; False if the launcher's end was met on the way."""
        assert self._listener is not None
        try:
            notification = self._listener.receive()
        except InterruptedError:
            return True
        return True if notification is None else self._submit(notification)

    def _take_questions(self, engine: Engine) -> bool:
        """Take what the engine has to say; False if the launcher's end was met on the way."""
        asked_for = self._deciding.asked_for
        engine.clear()
        # Not for as long as there are any: others have to be heard, too, the end of the session above all.
        asked = list(itertools.islice(engine.questions(), _TURN))
        if len(asked) == _TURN:
            engine.wake()
        # Whoever decided something may have become another program just before, which is said by then; and
        # those who want to become one wait until what they did before is entered.
        taken = self._ledger.take()
        there = self._hear_out()
        execs = [notification for notification in asked if notification.syscall in _EXECS]
        for notification in asked:
            if notification.syscall not in _EXECS:
                there = self._submit(notification) and there
        self._ledger.enter(taken)
        for notification in execs:
            there = self._submit(notification) and there
        self._deciding.collected(asked_for)
        return there

    def _hear_out(self) -> bool:
        """Hear what the launcher has said so far; False at its end.

        Whoever makes a call may have become another program: that is said before it can make one.
        """
        # Read before what is said to us, and taken after it (`Verifying.land`).
        landed = self._deciding.take_landed()
        there = True
        while there and self._control.readable:
            there = self._hear()
        if landed and self._verifying is not None:
            self._verifying.land(landed)
        return there

    def _submit(self, notification: Notification) -> bool:
        """Have a call answered; False if the launcher's end was met on the way."""
        there = self._hear_out()
        self._answering.submit(notification)
        return there
