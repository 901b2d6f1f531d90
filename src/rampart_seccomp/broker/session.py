"""One launched tree: from the hand-over of its listener to the end of its last process."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import select
import signal
import socket
import threading
import time
import traceback
from typing import TYPE_CHECKING

import attrs

from rampart_seccomp.broker import forks
from rampart_seccomp.broker.denials import Decided, Denial
from rampart_seccomp.broker.engine import Engine, Tables
from rampart_seccomp.broker.judge import Judge, Judgement
from rampart_seccomp.broker.ledger import Ledger
from rampart_seccomp.broker.lineage import Lineage
from rampart_seccomp.broker.names import HostNames
from rampart_seccomp.broker.pool import Pool
from rampart_seccomp.broker.processes import describe, is_stopped
from rampart_seccomp.broker.questions import Bounced
from rampart_seccomp.broker.verifying import Stage, Verifying
from rampart_seccomp.calls.call import CallChanged, Setting, Vigil, Withheld
from rampart_seccomp.calls.decode import decode
from rampart_seccomp.calls.notification import Listener, Notification
from rampart_seccomp.calls.shim import lib
from rampart_seccomp.calls.starting import ExecCall
from rampart_seccomp.calls.stillness import Stillness
from rampart_seccomp.errors import (
    BrokerClosed,
    ExecUnverifiable,
    KernelSupportError,
    LimitExceeded,
    TargetGone,
)
from rampart_seccomp.events import Event, Operation, RefusedEvent
from rampart_seccomp.kernel.probes import SCOPE_ABI
from rampart_seccomp.kernel.traps import Traps
from rampart_seccomp.launch import protocol
from rampart_seccomp.launch.handover import accept, receive, start_error
from rampart_seccomp.policy import AnyMatcher, Limits

if TYPE_CHECKING:
    from rampart_seccomp.broker.broker import Broker

__all__ = ["Session"]

_LAST_WORDS = 5.0
"""Seconds that the end of a session waits for calls still at work."""

_NUDGE = 0.2
"""Seconds between two looks at a launcher that may have been stopped along with its command."""

_TURN = 64
"""Calls that are taken at a time, before the session looks for other things."""

_EXECS = frozenset(["execve", "execveat"])

_RETRIES = 16
"""How often a call is decoded again because names changed beneath it."""


_stuck: list[Engine] = []
"""Engines with a thread that hangs in the kernel: what it uses stays for as long as the process does."""


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
        self._ledger = Ledger(broker)
        self.finished = threading.Event()
        self.lingers = lingers
        self._limits = limits
        self.command_ended = threading.Event()
        self.command_status: int | None = None
        self._broker = broker
        self._judge = judge
        # All threads that must be there are there before the tree is: it may use up what the user may have.
        self._pool = Pool()
        self._vigil = Vigil(_waiting_max(), self._pool.lending)
        self._setting = Setting(names=names, vigil=self._vigil, lend=self._pool.lending, features=features)
        self._control = control
        self._name = name
        self._listener: Listener | None = None
        self._lineage: Lineage | None = None
        self._verifying: Verifying | None = None
        self._changing = threading.Lock()
        self._names = names
        self._tables = tables
        self._engine: Engine | None = None
        self._caught_up = threading.Condition()
        self._asked_for = self._collected = 0
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._launcher = -1
        self._launcher_stopped = False
        self._orphaned = False
        self._questioned = broker._audit_broken
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._sending = threading.Lock()
        self._at_work = 0
        self._quiet = threading.Condition()
        forks.enroll(self)
        self._thread = threading.Thread(target=self._run, name="rampart-session", daemon=True)
        self._thread.start()

    # For the harness

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
        """Have the session's thread collect what the engine has decided so far."""
        if self._thread is threading.current_thread():
            return
        with self._caught_up:
            if self._engine is None:
                return
            self._asked_for += 1
            wanted = self._asked_for
            self._engine.wake()
            self._caught_up.wait_for(
                lambda: self._collected >= wanted or self._engine is None, timeout=_LAST_WORDS
            )

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
            self._send(protocol.Signal(signo, tree), None)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN):
                raise

    def kill_tree(self) -> None:
        """SIGKILL to every process of the tree."""
        self.signal(signal.SIGKILL, tree=True)
        self._wake_launcher()

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
        return self._tables is not None

    def judge_under(
        self, matcher: AnyMatcher, names: HostNames, features: frozenset[str], tables: Tables | None
    ) -> None:
        """Judge by another policy from the next call on; ``tables`` are those of the policy, if `native`."""
        with self._changing:
            judge = self._judge.under(matcher, names)
            self._judge = judge
            # Again: the hand-over of the tree, if it runs just then, sets ours first and the judge's next.
            judge.lineage = self._lineage
            self._setting.features = features
            if tables is not None:
                self._tables = tables
                self._put_in_force()

    def question_everything(self) -> None:
        """Have the engine decide nothing from here on, whatever policy comes: Python knows more than it."""
        with self._changing:
            self._questioned = True
            self._put_in_force()

    def forsake(self) -> None:
        """In a forked child: close what is the parent's, who alone answers for the tree."""
        self._control.close()
        for fd in (self._launcher, self._wake, self._woken):
            if fd >= 0:
                os.close(fd)
        self._launcher = self._wake = self._woken = -1
        if self._listener is not None:
            self._listener.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.forsake()
        self._setting.sockets.forsake()
        self._ledger.forsake()
        # Whoever held a lock, or would have set an event, is not here.
        self._changing = threading.Lock()
        self._sending = threading.Lock()
        self._caught_up = threading.Condition()
        self._settled, self.finished, self.command_ended = (threading.Event() for _ in range(3))
        self._fail(BrokerClosed())
        self.finished.set()
        self.command_ended.set()

    def _put_in_force(self) -> None:
        if self._engine is None or self._tables is None:
            return
        if self._questioned or self._broker._audit_broken:
            self._engine.put_in_force(None, record_all=False, required=False)
            return
        self._ledger.judged_by(self._tables.serial, self._judge)
        record_all = self._broker._records_allowed
        self._engine.put_in_force(
            self._tables,
            record_all=record_all,
            required=record_all and self._broker.policy.audit == "required",
        )

    # The session's thread

    def _run(self) -> None:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {lib.rs_interrupt_signal()})
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
        self._see_off_launcher()
        # The last calls are recorded, and use the listener, before it is gone; a stuck one is not waited for.
        with self._quiet:
            idle = self._quiet.wait_for(lambda: self._at_work == 0, _LAST_WORDS)
        idle = self._stop_engine() and idle
        self._pool.close()
        self._vigil.close()
        if self._listener is not None and idle:
            with forks.excluded:
                self._listener.close()
        self._setting.sockets.close()
        wake, woken = self._wake, self._woken
        self._wake = self._woken = -1
        os.close(wake)
        os.close(woken)
        forks.leave(self)
        self._broker._forget(self)
        self.finished.set()
        self.command_ended.set()

    def _stop_engine(self) -> bool:
        """Stop the engine and keep its last records; False if one of its threads hangs in the kernel."""
        engine = self._engine
        if engine is None:
            return True
        stopped = engine.stop()
        if stopped:
            self._ledger.detach()
        with self._changing, self._caught_up:
            self._engine = None
            self._caught_up.notify_all()
        if stopped:
            engine.close()
        else:
            _stuck.append(engine)
        return stopped

    def _see_off_launcher(self) -> None:
        """Tell the launcher to end the tree, if it is still there, and wait until it has."""
        self._wake_launcher()
        with self._sending:
            try:
                self._control.shutdown(socket.SHUT_WR)
                poll = select.poll()
                poll.register(self._control, select.POLLIN)
                if self._launcher >= 0:
                    poll.register(self._launcher, select.POLLIN)
                deadline = time.monotonic() + _LAST_WORDS
                while ready := poll.poll(max(0, deadline - time.monotonic()) * 1000):
                    if all(fd == self._launcher for fd, _ in ready) or not self._hear_last():
                        break
            except OSError:
                pass  # it is gone already
            with forks.excluded:
                self._control.close()
        launcher, self._launcher = self._launcher, -1
        if launcher >= 0:
            os.close(launcher)

    def _hear_last(self) -> bool:
        """Take one of the launcher's last messages, which is nobody's any more; False at its end."""
        packet, fds = receive(self._control)
        for fd in fds:
            os.close(fd)
        return bool(packet)

    def _wake_launcher(self) -> None:
        """A launcher that was stopped along with its command hears no order."""
        if self._launcher >= 0:
            lib.rs_nudge(self._launcher)  # it may be gone, which is met elsewhere

    def _send(self, message: protocol.Message, fd: int | None) -> None:
        """Send a message to the launcher, which reads them as long as it lives and is not stopped."""
        packet = protocol.encode(message)
        deadline = time.monotonic() + _LAST_WORDS
        with self._sending:
            while True:
                try:
                    if fd is None:
                        self._control.send(packet, socket.MSG_DONTWAIT)
                    else:
                        socket.send_fds(self._control, [packet], [fd], socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    self._nudge_launcher()
                    poll = select.poll()
                    poll.register(self._control, select.POLLOUT)
                    poll.poll(_NUDGE * 1000)
                else:
                    return

    def _nudge_launcher(self) -> None:
        """Continue a launcher that was stopped along with its command: it has execs to see to."""
        if self._listener is not None and is_stopped(self._listener.launcher):
            self._wake_launcher()

    def _look_after_launcher(self) -> None:
        """Continue a stopped launcher that is needed, or whose command was continued without it."""
        assert self._listener is not None
        self._launcher_stopped = self._launcher_stopped and is_stopped(self._listener.launcher)
        needed = self._verifying is not None and self._verifying.busy
        if needed or (self._launcher_stopped and not is_stopped(self.command_pid or 0)):
            self._nudge_launcher()

    def _hand_over(self) -> bool:
        """Receive the listener and let the command go; False if the session was closed first."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        if any(fd == self._wake for fd, _ in poll.poll()):
            return False
        with forks.excluded:
            taken = accept(self._control, self._name)
            self._listener = taken.listener
            self._launcher = os.pidfd_open(taken.listener.launcher)
        self.command_pid = taken.command_pid
        self.scoped = taken.scoped
        if self._broker._scoped and taken.landlock_abi < SCOPE_ABI:
            raise KernelSupportError(
                "the launcher cannot confine signals to the tree, and the filter relies on it",
                hint="start the broker outside of other sandboxes, or as the user who started them",
            )
        self._judge.questions.bounce = self._bounce
        self._setting.adopters.add(taken.listener.launcher)
        self._lineage = self._judge.lineage = Lineage(taken.command_pid, self._setting.adopters)
        self._setting.verifier = self._verifying = Verifying(
            self._send,
            self._pool.lending,
            self._lineage,
            self._note_tampering,
            self._nudge_launcher,
            self._executing,
            degraded=lambda: not self._judge.relies_on_execs or self._broker.degraded(Operation.EXEC),
        )
        if self.native:
            self._start_engine(taken.listener, taken.command_pid, self._lineage)
        self._control.send(protocol.encode(protocol.Go()))
        return True

    def _executing(self, stage: Stage, *, leader: bool) -> None:
        """Tell the engine about an exec: what it knows of tasks may not hold any more."""
        with self._changing:
            if self._engine is not None:
                self._engine.executing(stage, leader=leader)

    def _start_engine(self, listener: Listener, member: int, lineage: Lineage) -> None:
        with self._changing, forks.excluded:
            self._engine = engine = Engine(listener, member, self._names)
            self._ledger.attach(engine, lineage)
            self._put_in_force()
        engine.start()

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
                poll.register(self._launcher, select.POLLIN)
            if listener_there:
                # Whoever receives has to know of calls; the end of all callers is always told.
                poll.register(self._listener, select.POLLIN if self._engine is None else 0)
            if self._engine is not None:
                poll.register(self._engine, select.POLLIN)
            busy = self._launcher_stopped or (self._verifying is not None and self._verifying.busy)
            ready = poll.poll(_NUDGE * 1000 if busy else None)
            if not ready:
                self._look_after_launcher()
            for fd, happened in ready:
                if fd == self._wake:
                    return
                if fd == self._control.fileno():
                    launcher_there = self._hear() and launcher_there
                elif fd == self._launcher:
                    launcher_there = self._hear_out() and self._heed(None)
                elif self._engine is not None and fd == self._engine.fileno():
                    launcher_there = self._take_questions(self._engine) and launcher_there
                elif happened & select.POLLIN:
                    launcher_there = self._take() and launcher_there
                else:
                    listener_there = False
            if not launcher_there and listener_there and not self._orphaned:
                self._orphaned = True
                self.question_everything()
            if not launcher_there and self._verifying is not None:
                self._verifying.close()

    def _hear(self) -> bool:
        """Take one message of the launcher; False at its end."""
        packet, fds = receive(self._control)
        for fd in fds:
            os.close(fd)
        return self._heed(protocol.decode(packet) if packet else None)

    def _heed(self, message: protocol.Message | None) -> bool:
        """Act on what the launcher said; False if that is its end."""
        if isinstance(message, protocol.Started):
            self._settled.set()
        elif isinstance(message, protocol.Stopping):
            self._launcher_stopped = True
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
        self._ledger.deny(self._ledger.number(), denial)
        self._broker._note_limit(denial)
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
        with self._caught_up:
            wanted = self._asked_for
        engine.clear()
        # Not for as long as there are any: others have to be heard, too, the end of the session above all.
        asked = list(itertools.islice(engine.questions(), _TURN))
        if len(asked) == _TURN:
            engine.wake()
        # Whoever decided something may have become another program just before, which is said by then; and
        # those who want to become one wait until what they did before is entered.
        raw = self._ledger.take()
        there = self._hear_out()
        execs = [notification for notification in asked if notification.syscall in _EXECS]
        for notification in asked:
            if notification.syscall not in _EXECS:
                there = self._submit(notification) and there
        self._ledger.enter(raw)
        for notification in execs:
            there = self._submit(notification) and there
        with self._caught_up:
            self._collected = wanted
            self._caught_up.notify_all()
        return there

    def _hear_out(self) -> bool:
        """Hear what the launcher has said so far; False at its end.

        Whoever makes a call may have become another program: that is said before it can make one.
        """
        there = True
        while there and _readable(self._control):
            there = self._hear()
        return there

    def _submit(self, notification: Notification) -> bool:
        """Have a call answered; False if the launcher's end was met on the way."""
        with self._quiet:
            self._at_work += 1
        there = self._hear_out()
        self._pool.submit(lambda: self._handle(notification))
        return there

    # One call

    def _handle(self, notification: Notification) -> None:
        """Answer one call. Whatever goes wrong in here is a denial."""
        bounced = False
        try:
            if self._orphaned:
                _kill(notification)
                return
            self._answer(notification)
        except Bounced:
            bounced = True
        except TargetGone:
            self._give_up(notification)
        except BaseException:
            self._broker._report(traceback.format_exc())
            self._give_up(notification)
        finally:
            notification.close()
            if not bounced:
                self._judge.questions.over(notification)
            with self._quiet:
                self._at_work -= 1
                self._quiet.notify_all()

    def _answer(self, notification: Notification) -> None:
        began = time.monotonic_ns()
        try:
            for _ in range(_RETRIES):
                try:
                    if self._decide(notification, began):
                        return
                except CallChanged:
                    continue
            error = errno.EBUSY
        except OSError as failure:
            if isinstance(failure, TargetGone) or notification.answered:
                raise
            error = failure.errno or errno.EACCES
        notification.deny(error)

    def _bounce(self, notification: Notification) -> bool:
        return self._verifying is not None and self._verifying.bounce(notification)

    def _decide(self, notification: Notification, began: int) -> bool:
        with decode(notification, self._setting) as call:
            if self._broker._audit_broken and call.events:
                raise PermissionError(errno.EACCES, "the audit log cannot be written")
            judgements = self._judge.judge(call)
            while judgements and not judgements[0].allowed:
                if not call.cut_before(judgements[0].event):
                    call.close()
                    self._refuse(judgements[0], notification, began)
                    return True
                self._note_denial(self._with_process(judgements[0], notification), began)
                judgements = self._judge.judge(call)
            if self._broker._records_allowed:
                judgements = [self._with_process(judgement, notification) for judgement in judgements]
            failed: OSError | None = None
            number = self._ledger.number()
            try:
                call.perform()
            except TargetGone:
                raise
            except Withheld as withheld:
                call.close()
                self._refuse(withheld.judgement, notification, began)
                return True
            except ExecUnverifiable as unverifiable:
                call.close()
                self._fail(unverifiable)
                where = "built-in: execs cannot be verified here"
                refused = Judgement(judgements[0].event, allowed=False, where=where, errno=errno.EPERM)
                self._refuse(refused, notification, began)
                return True
            except OSError as error:
                failed = error
                call.close()
                notification.deny(error.errno or errno.EACCES)
            for judgement in judgements:
                self._record(judgement, failed.errno if failed else None, call.enforced, began, number)
        return True

    def _refuse(self, judgement: Judgement, notification: Notification, began: int) -> None:
        known = self._with_process(judgement, notification)
        # Known to the harness before the program can act on it; on record after the reply.
        number = self._ledger.number()
        self._ledger.deny(number, self._broker._denial(known, self._judge.suggest(known)))
        try:
            notification.deny(known.errno)
        finally:
            self._record(known, known.errno, "answered", began, number)

    def _note_denial(self, judgement: Judgement, began: int) -> None:
        """Record what is left out of a call that is done in part."""
        number = self._ledger.number()
        self._ledger.deny(number, self._broker._denial(judgement, self._judge.suggest(judgement)))
        self._record(judgement, judgement.errno, "answered", began, number)

    def _note_tampering(self, call: ExecCall) -> None:
        """Record a process that was killed at its exec: it had become something else than was judged."""
        where = "built-in: exec-tampered, another program, argument or variable than was judged"
        judgement = Judgement(call.events[0], allowed=False, where=where, errno=errno.EACCES)
        number = self._ledger.number()
        self._ledger.deny(number, self._broker._denial(judgement, None))
        self._record(judgement, errno.EACCES, "killed", time.monotonic_ns(), number)

    def _give_up(self, notification: Notification) -> None:
        if not notification.valid():
            return
        try:
            notification.deny(errno.EACCES)
        except OSError:
            return
        failure = RefusedEvent(syscall=notification.syscall)
        judgement = Judgement(failure, allowed=False, where="built-in: the broker failed")
        number = self._ledger.number()
        self._ledger.deny(number, self._broker._denial(judgement, None))
        self._record(judgement, errno.EACCES, "answered", time.monotonic_ns(), number)

    def _with_process(self, judgement: Judgement, notification: Notification) -> Judgement:
        event: Event = judgement.event
        if event.process is not None:
            return judgement
        process = describe(notification, self._lineage)
        return attrs.evolve(judgement, event=attrs.evolve(event, process=process))

    def _record(
        self, judgement: Judgement, error: int | None, enforced: str, began: int, number: int
    ) -> None:
        self._ledger.record(number, judgement, error, enforced, time.monotonic_ns() - began)


def _waiting_max() -> int:
    """How many calls may wait for a peer at a time: each holds a few descriptors of ours (RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 400 if soft < 0 else max(16, min(400, soft // 16))


def _readable(control: socket.socket) -> bool:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    return bool(poll.poll(0))


def _kill(notification: Notification) -> None:
    """End a process whose launcher is gone, when it next calls."""
    fd = os.pidfd_open(notification.tgid)
    try:
        notification.ensure_valid()
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)
