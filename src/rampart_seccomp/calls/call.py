"""What every decoded call has in common: what it would do, and how it is done."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from rampart_seccomp.calls.adopters import Adopters
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import lib
from rampart_seccomp.calls.stillness import Stillness
from rampart_seccomp.calls.substitutes import Irreplaceable
from rampart_seccomp.calls.tree_sockets import TreeSockets
from rampart_seccomp.events import Address, Event
from rampart_seccomp.verdicts import Redirect

if TYPE_CHECKING:
    from rampart_seccomp.calls.starting import Verifier

__all__ = [
    "Call",
    "CallChanged",
    "Departed",
    "Linking",
    "NameService",
    "Refusal",
    "Renaming",
    "Setting",
    "Synthesis",
    "Vigil",
    "Withheld",
]


class Withheld(Exception):
    """A guard found, at the last moment, what forbids the call. Nothing was done.

    Attributes:
        judgement: What the guard's maker wants to know about it.
    """

    def __init__(self, judgement: Any) -> None:
        super().__init__("withheld")
        self.judgement = judgement


class CallChanged(Exception):
    """The objects moved between pinning and performing: decode and decide again."""


class Departed(Exception):
    """A connection goes on its way without the call, which is answered when something has come of it."""


@attrs.frozen
class Refusal:
    """A built-in denial, whatever the policy says.

    Attributes:
        reason: For people.
        errno: What the program sees.
    """

    reason: str
    errno: int = errno.EACCES


@attrs.frozen(repr=False)
class Linking:
    """A symbolic link that would stand at a name: it must not lead around what is watched beneath that name.

    Attributes:
        link: Real absolute name of the link.
        target: Real absolute name of what it leads to now, existing or not.
    """

    link: bytes
    target: bytes


@attrs.frozen
class Renaming:
    """An object gets another name: it must not become less restricted by that.

    Attributes:
        old, new: Real absolute names.
        directory: O_PATH fd of a directory, which takes along whatever lies beneath; None for the rest.
    """

    old: bytes
    new: bytes
    directory: int | None = None


class Vigil:
    """Interrupts threads of the broker that wait in the kernel for a target that has died.

    Args:
        slots: Calls that may wait at a time.
        lend: Entered while a thread waits, so that others can take its place.
    """

    PERIOD = 0.05
    """Seconds between two looks."""

    def __init__(
        self, slots: int = 64, lend: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._waiting: dict[int, Notification] = {}
        self._changed = threading.Condition()
        self._slots = slots
        self._lend = lend
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="rampart-vigil", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self, notification: Notification) -> Iterator[None]:
        """While inside, a blocking call of this thread ends with EINTR once the target is gone.

        Raises:
            OSError: ENFILE if too many calls wait already; this one would stop those that they wait for.
        """
        tid = lib.rs_gettid()
        with self._changed:
            if len(self._waiting) >= self._slots:
                raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
            self._waiting[tid] = notification
            self._changed.notify()
        try:
            with self._lend():
                yield
        finally:
            with self._changed:
                del self._waiting[tid]

    def close(self) -> None:
        """End the watch; threads that still wait are interrupted."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                self._changed.wait(self.PERIOD)
                for tid, notification in self._waiting.items():
                    if self._closed or not notification.valid():
                        lib.rs_interrupt(tid)


class NameService(Protocol):
    """Answers the DNS of the tree, whatever server it is meant for."""

    @property
    def substitutes(self) -> frozenset[bytes]:
        """Real paths of files of which the tree is to read another version."""

    def endpoint(self, kind: str, version: int) -> tuple[str, int]:
        """Give the address and port that answer, for ``udp`` or ``tcp`` and 4 or 6. OSError if none does."""

    def substitute(self) -> int:
        """Give a descriptor of the version of such a file that the tree is to read."""

    def sending(self) -> AbstractContextManager[Any]:
        """Be inside from before a question is sent until it is noted who asks."""

    def note(self, notification: Notification, copy: int, kind: str, version: int) -> None:
        """Note that the process asks from this socket."""


class Meant(Protocol):
    """What a made-up address stands for: a name, and a real address of it."""

    @property
    def name(self) -> str:
        """Lower case, no trailing dot."""

    @property
    def address(self) -> Address:
        """Where a connection goes."""


class Synthesis(Protocol):
    """Knows the made-up addresses that the tree got in place of real ones."""

    def meant(self, address: Address) -> Meant | None:
        """Say what an address stands for; None for one that stands for nothing."""

    def reserved(self, address: Address) -> bool:
        """Say whether an address is one of those that stand for others, though it may stand for none yet."""


@attrs.define(eq=False)
class Setting:
    """What the calls of one tree share; `names` is the whole broker's.

    Attributes:
        sockets: Unix sockets that the tree bound.
        names: Held while names are changed. All changes of names by the trees come through here, so
            whoever holds it can rely on a path for as long as it takes to act on it.
        vigil: Frees threads whose target has died.
        lend: Entered while a thread waits for an answer, so that others can take its place.
        verifier: Lets execs go on; None: they go on unverified.
        adopters: Processes that adopt orphans: not all their children are their own.
        features: Families of calls that the policy in force opens, though the tree's filter may refuse them.
        dns: Answers in place of name servers; None if the policy in force has no host names.
        synthetic: Knows what addresses stand for that the tree got; None: none stands for another.
    """

    names: Stillness = attrs.field(factory=Stillness)
    vigil: Vigil = attrs.field(factory=Vigil)
    lend: Callable[[], AbstractContextManager[None]] = nullcontext
    sockets: TreeSockets = attrs.field(factory=TreeSockets)
    verifier: Verifier | None = None
    adopters: Adopters = attrs.field(factory=Adopters)
    features: frozenset[str] = frozenset()
    dns: NameService | None = None
    synthetic: Synthesis | None = None


@attrs.define(eq=False)
class Call:
    """A held call with its objects pinned. Decoders make one; `perform` carries it out and answers.

    Attributes:
        notification: The held call.
        setting: What is shared within the broker.
        events: What it would do: each is judged, the strictest verdict wins.
        renamings: Names that objects would get.
        linkings: Symbolic links that there would be.
        refusal: A built-in denial, if one applies.
        depart: Has somebody else wait for a connection and answer, given a copy of the socket and an address;
            False if nobody does. None: there is nobody.
        guards: Asked while the names are held still, just before names change; one that raises `Withheld`
            prevents it.
    """

    notification: Notification
    setting: Setting
    events: tuple[Event, ...] = ()
    renamings: tuple[Renaming, ...] = ()
    linkings: tuple[Linking, ...] = ()
    refusal: Refusal | None = None
    guards: list[Callable[[], None]] = attrs.field(factory=list)
    depart: Callable[[int, bytes], bool] | None = None
    _pins: list[Pin] = attrs.field(factory=list)
    _fds: list[int] = attrs.field(factory=list)

    enforced = "performed"
    """How an allowed call takes effect: ``performed`` by the broker, or ``continued`` by the kernel."""

    def perform(self) -> None:
        """Carry the call out, let go of everything held, and only then answer.

        A copy of a socket that outlives the answer would keep its port taken when the program closes it.

        Raises:
            OSError: The call failed as the target's own would have; it is not yet answered.
            CallChanged: Nothing was done; decode again.
            Withheld: Nothing was done; a guard forbids it.
            TargetGone: Nobody waits for the answer any more.
            Departed: It is not answered yet.
        """
        raise NotImplementedError(type(self).__name__)

    def redirect(
        self, redirect: Redirect, name: bytes | None, masked: Callable[[int], bytes]
    ) -> Event | None:
        """Have the call made with something else than the file that it reads, or the host that it reaches.

        Args:
            redirect: With what.
            name: Absolute name of the file that is shown instead, if it is one.
            masked: Gives the file behind a descriptor with its values masked.

        Returns:
            What is read or reached instead, to be judged; None if that is nothing that rules are about.

        Raises:
            Irreplaceable: The call cannot be answered so.
        """
        raise Irreplaceable("only an open for reading alone, and a connect, can be redirected")

    def cut_before(self, event: Event) -> bool:
        """Keep only what comes before a denied effect, if the call can be done in part; tell if so."""
        return False

    def ensure_named_as_judged(self) -> None:
        """Raise `CallChanged` unless everything pinned still has the name it was judged by.

        To be called while the names are held still.
        """
        if not all(pin.named_as_judged() for pin in self._pins):
            raise CallChanged

    def hold(self, pin: Pin) -> Pin:
        """Keep a pin until the call is closed."""
        self._pins.append(pin)
        return pin

    def hold_fd(self, fd: int) -> int:
        """Keep a descriptor until the call is closed."""
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Let go of everything pinned."""
        for pin in self._pins:
            pin.close()
        for fd in self._fds:
            os.close(fd)
        self._pins.clear()
        self._fds.clear()

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Close the call if decoding it fails inside."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
