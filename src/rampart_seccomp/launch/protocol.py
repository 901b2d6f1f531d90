"""The control protocol with the launcher: csrc/protocol.h, one packet a message, native byte order."""

from __future__ import annotations

import enum
import struct
from typing import ClassVar

import attrs

__all__ = [
    "MAX_PACKED",
    "MAX_PACKET",
    "NONCE_SIZE",
    "Child",
    "Ended",
    "Exceeded",
    "Executed",
    "Failed",
    "File",
    "Go",
    "Halt",
    "Lend",
    "Lent",
    "Limit",
    "Limits",
    "Listener",
    "Message",
    "Outcome",
    "Release",
    "Signal",
    "Stage",
    "Start",
    "StartFlag",
    "Started",
    "Stopping",
    "Trace",
    "Traced",
    "decode",
    "encode",
]

NONCE_SIZE = 16
_INSN_SIZE = 8  # struct sock_filter
_MAX_INSNS = 4096  # BPF_MAXINSNS
MAX_PACKET = 56 + _MAX_INSNS * _INSN_SIZE
MAX_PACKED = 16384
_UNLISTED = 0xFFFFFFFF


class StartFlag(enum.IntFlag):
    """What START asks for beside the filter."""

    SCOPE = 1
    """Confine signals with Landlock where the kernel can (ABI 6 and later)."""
    NO_CORES = 2
    """Hard RLIMIT_CORE of 0: a core dump is a file that is made without a file call."""
    LINGER = 4
    """What the command leaves running lives until the broker goes away."""


_NO_FLAGS = StartFlag(0)


class Stage(enum.IntEnum):
    """How far a start got before it failed."""

    RESOLVE = 1
    """The program was not found through PATH."""
    SANDBOX = 2
    """fork, no_new_privs, Landlock."""
    FILTER = 3
    """seccomp(2); EBUSY: the process already has a listener."""
    EXEC = 4
    """execve(2), or the policy's answer to it."""
    PROTOCOL = 5
    """A malformed packet, or a child that ended before it reported."""


class Limit(enum.IntEnum):
    """A limit that the launcher or its guard looks after; the kernel keeps the others by itself."""

    PROCESSES = 1
    WALL_TIME = 2


@attrs.frozen(kw_only=True, repr=False)
class Limits:
    """What START limits; 0: no limit.

    Args:
        open_files: RLIMIT_NOFILE of each process.
        cpu_seconds: RLIMIT_CPU of each process.
        memory: RLIMIT_DATA of each process, in bytes.
        processes: Of the whole tree.
        wall_ms: Of the whole tree, in milliseconds from START on.
    """

    layout: ClassVar[struct.Struct] = struct.Struct("=QQQQQ")
    open_files: int = 0
    cpu_seconds: int = 0
    memory: int = 0
    processes: int = 0
    wall_ms: int = 0


_NO_LIMITS = Limits()


@attrs.frozen(repr=False)
class Start:
    """Install this filter. Carries one descriptor: a pidfd of the harness.

    Args:
        program: The BPF program, as packed `struct sock_filter`.
        flags: What else to do.
        filter_flags: SECCOMP_FILTER_FLAG_*; the launcher adds NEW_LISTENER.
        limits: What the tree may use up.
    """

    layout: ClassVar[struct.Struct] = struct.Struct(f"=IIII{Limits.layout.size}s")
    type: ClassVar[int] = 1
    program: bytes
    flags: StartFlag = _NO_FLAGS
    filter_flags: int = 0
    limits: Limits = _NO_LIMITS

    def __attrs_post_init__(self) -> None:
        count, rest = divmod(len(self.program), _INSN_SIZE)
        if rest or not 0 < count <= _MAX_INSNS:
            raise ValueError(f"a BPF program has 1 to {_MAX_INSNS} instructions of {_INSN_SIZE} bytes")

    def pack(self) -> bytes:
        count = len(self.program) // _INSN_SIZE
        limits = Limits.layout.pack(*attrs.astuple(self.limits))
        return self.layout.pack(self.type, self.flags, self.filter_flags, count, limits) + self.program

    @classmethod
    def unpack(cls, packet: bytes) -> Start:
        _, flags, filter_flags, count, limits = cls.layout.unpack_from(packet)
        program = packet[cls.layout.size :]
        if len(program) != count * _INSN_SIZE:
            raise ValueError("START does not hold as many instructions as it says")
        names = [field.name for field in attrs.fields(Limits)]
        values = dict(zip(names, Limits.layout.unpack(limits), strict=True))
        return cls(program, StartFlag(flags), filter_flags, Limits(**values))


@attrs.frozen(repr=False)
class Go:
    """Run the command: its memory was proven readable."""

    layout: ClassVar[struct.Struct] = struct.Struct("=I")
    type: ClassVar[int] = 2

    def pack(self) -> bytes:
        return self.layout.pack(self.type)

    @classmethod
    def unpack(cls, packet: bytes) -> Go:
        cls.layout.unpack(packet)
        return cls()


class Lent(enum.IntEnum):
    """What a launcher needs to trace execs for the engine."""

    CHANNEL = 1
    """A socket over which the engine says what it judged, and hears what came of it."""
    LISTENER = 2
    """A copy of the listener, to answer those calls."""


@attrs.frozen(repr=False)
class Lend:
    """Carries one descriptor, which is for what the engine judges. Before GO."""

    layout: ClassVar[struct.Struct] = struct.Struct("=II")
    type: ClassVar[int] = 7
    what: Lent

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.what)

    @classmethod
    def unpack(cls, packet: bytes) -> Lend:
        _, what = cls.layout.unpack(packet)
        return cls(Lent(what))


@attrs.frozen(repr=False)
class Signal:
    """Send a signal to the command, or to every process of the tree."""

    layout: ClassVar[struct.Struct] = struct.Struct("=III")
    type: ClassVar[int] = 3
    signo: int
    tree: bool

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.signo, self.tree)

    @classmethod
    def unpack(cls, packet: bytes) -> Signal:
        _, signo, tree = cls.layout.unpack(packet)
        return cls(signo, bool(tree))


@attrs.frozen(repr=False)
class Listener:
    """The filter is in; the child waits for GO. Carries one descriptor: the listener.

    Args:
        child_pid: The future command, in the launcher's pid namespace.
        nonce_address: Where the nonce stands in the child's memory.
        nonce: What stands there: reading it back proves that the broker can read the child.
        landlock_abi: 0 where there is no Landlock.
        scoped: True if signals are confined, and the launcher has tried that out.
    """

    layout: ClassVar[struct.Struct] = struct.Struct(f"=IIQ{NONCE_SIZE}sII")
    type: ClassVar[int] = 16
    child_pid: int
    nonce_address: int
    nonce: bytes = attrs.field(validator=attrs.validators.min_len(NONCE_SIZE))
    landlock_abi: int
    scoped: bool

    def pack(self) -> bytes:
        return self.layout.pack(
            self.type, self.child_pid, self.nonce_address, self.nonce, self.landlock_abi, self.scoped
        )

    @classmethod
    def unpack(cls, packet: bytes) -> Listener:
        _, child_pid, address, nonce, abi, scoped = cls.layout.unpack(packet)
        return cls(child_pid, address, nonce, abi, bool(scoped))


@attrs.frozen(repr=False)
class Started:
    """execve(2) took place: the command runs."""

    layout: ClassVar[struct.Struct] = struct.Struct("=I")
    type: ClassVar[int] = 17

    def pack(self) -> bytes:
        return self.layout.pack(self.type)

    @classmethod
    def unpack(cls, packet: bytes) -> Started:
        cls.layout.unpack(packet)
        return cls()


@attrs.frozen(repr=False)
class Stopping:
    """The command was stopped by job control, and the launcher is about to stop likewise."""

    layout: ClassVar[struct.Struct] = struct.Struct("=I")
    type: ClassVar[int] = 21

    def pack(self) -> bytes:
        return self.layout.pack(self.type)

    @classmethod
    def unpack(cls, packet: bytes) -> Stopping:
        cls.layout.unpack(packet)
        return cls()


@attrs.frozen(repr=False)
class Failed:
    """The command was never run; `errno` says why, and the launcher ends."""

    layout: ClassVar[struct.Struct] = struct.Struct("=IIi")
    type: ClassVar[int] = 18
    stage: Stage
    errno: int

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.stage, self.errno)

    @classmethod
    def unpack(cls, packet: bytes) -> Failed:
        _, stage, errno = cls.layout.unpack(packet)
        return cls(Stage(stage), errno)


class Outcome(enum.IntEnum):
    """What came of an execve that was let go."""

    COMMITTED = 1
    """The program that was judged runs, with the arguments and variables that were judged."""
    NOT_EXECUTED = 2
    """It failed, or was never let go."""
    TAMPERED = 3
    """Something else was about to run: the process was killed before its first instruction."""
    GONE = 4
    """The process died."""
    UNTRACED = 5
    """To the engine: it cannot be traced, and still waits for its answer."""


@attrs.frozen(repr=False)
class File:
    """A file by its numbers, as stat(2) has them."""

    dev: int
    ino: int


_NO_FILE = File(0, 0)


@attrs.frozen(repr=False)
class Trace:
    """Trace a thread that waits in a held execve. Carries a memfd if the strings do not fit in the packet.

    Args:
        tid, tgid: The thread and its process.
        cookie: Tells execs apart.
        image: What must be running after it.
        command_size: Bytes of the strings that are the command line, each argument with its NUL.
        environment_size: Bytes behind them that are the environment.
        interpreter: The image's PT_INTERP (elf(5)); zeros: none.
        strings: Both; empty if they are more than MAX_PACKED bytes and stand in the memfd.
    """

    layout: ClassVar[struct.Struct] = struct.Struct("=IIIIQQQQQQ")
    type: ClassVar[int] = 4
    tid: int
    tgid: int
    cookie: int
    image: File
    command_size: int
    environment_size: int
    interpreter: File = _NO_FILE
    strings: bytes = b""

    def __attrs_post_init__(self) -> None:
        size = self.command_size + self.environment_size
        if len(self.strings) != (size if size <= MAX_PACKED else 0):
            raise ValueError("TRACE does not hold as many bytes as it says")

    def pack(self) -> bytes:
        head = self.layout.pack(
            self.type,
            self.tid,
            self.tgid,
            self.command_size,
            self.cookie,
            self.image.dev,
            self.image.ino,
            self.interpreter.dev,
            self.interpreter.ino,
            self.environment_size,
        )
        return head + self.strings

    @classmethod
    def unpack(cls, packet: bytes) -> Trace:
        head, strings = packet[: cls.layout.size], packet[cls.layout.size :]
        _, tid, tgid, command_size, cookie, dev, ino, other_dev, other_ino, size = cls.layout.unpack(head)
        return cls(tid, tgid, cookie, File(dev, ino), command_size, size, File(other_dev, other_ino), strings)


@attrs.frozen(repr=False)
class Release:
    """The call was not let go after all."""

    layout: ClassVar[struct.Struct] = struct.Struct("=IIQ")
    type: ClassVar[int] = 5
    tid: int
    cookie: int

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.tid, self.cookie)

    @classmethod
    def unpack(cls, packet: bytes) -> Release:
        _, tid, cookie = cls.layout.unpack(packet)
        return cls(tid, cookie)


@attrs.frozen(repr=False)
class Halt:
    """Have a thread stop once on its way out of the call it waits in."""

    layout: ClassVar[struct.Struct] = struct.Struct("=IIIIQ")
    type: ClassVar[int] = 6
    tid: int
    tgid: int
    cookie: int

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.tid, self.tgid, 0, self.cookie)

    @classmethod
    def unpack(cls, packet: bytes) -> Halt:
        _, tid, tgid, _, cookie = cls.layout.unpack(packet)
        return cls(tid, tgid, cookie)


@attrs.frozen(repr=False)
class Traced:
    """The thread will stop at the commit of its exec, if `errno` is 0."""

    layout: ClassVar[struct.Struct] = struct.Struct("=IiQ")
    type: ClassVar[int] = 19
    errno: int
    cookie: int

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.errno, self.cookie)

    @classmethod
    def unpack(cls, packet: bytes) -> Traced:
        _, errno, cookie = cls.layout.unpack(packet)
        return cls(errno, cookie)


@attrs.frozen(repr=False)
class Child:
    """A relative of the executing process: its pid, and the clock tick since boot in which it was started."""

    layout: ClassVar[struct.Struct] = struct.Struct("=QQ")
    pid: int
    start_time: int


@attrs.frozen(repr=False)
class Executed:
    """What came of a traced exec.

    Args:
        outcome: That.
        cookie: As in TRACE.
        pid: The process.
        start_time: Its start, in clock ticks since boot (proc_pid_stat(5)).
        children: Whom it had forked before it committed; None: they could not be listed.
        ancestors: Of what the engine judged: whom it descends from, the nearest first, up to one that has
            executed something; none if it has itself.
    """

    layout: ClassVar[struct.Struct] = struct.Struct("=IIQQIIII")
    type: ClassVar[int] = 20
    outcome: Outcome
    cookie: int
    pid: int
    start_time: int
    children: tuple[Child, ...] | None
    ancestors: tuple[Child, ...] = ()

    def pack(self) -> bytes:
        count = _UNLISTED if self.children is None else len(self.children)
        head = self.layout.pack(
            self.type, self.outcome, self.cookie, self.start_time, self.pid, count, len(self.ancestors), 0
        )
        relatives = (*(self.children or ()), *self.ancestors)
        return head + b"".join(Child.layout.pack(each.pid, each.start_time) for each in relatives)

    @classmethod
    def unpack(cls, packet: bytes) -> Executed:
        _, outcome, cookie, start_time, pid, n_children, n_ancestors, _ = cls.layout.unpack_from(packet)
        rest = packet[cls.layout.size :]
        listed = 0 if n_children == _UNLISTED else n_children
        if len(rest) != (listed + n_ancestors) * Child.layout.size:
            raise ValueError("EXECUTED does not list as many relatives as it says")
        relatives = tuple(Child(*each) for each in Child.layout.iter_unpack(rest))
        children = None if n_children == _UNLISTED else relatives[:listed]
        return cls(Outcome(outcome), cookie, pid, start_time, children, relatives[listed:])


@attrs.frozen(repr=False)
class Ended:
    """The command has ended, and its tree lives on; sent with LINGER only.

    Args:
        status: As waitpid(2) has it.
    """

    layout: ClassVar[struct.Struct] = struct.Struct("=Ii")
    type: ClassVar[int] = 24
    status: int

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.status)

    @classmethod
    def unpack(cls, packet: bytes) -> Ended:
        _, status = cls.layout.unpack(packet)
        return cls(status)


@attrs.frozen(repr=False)
class Exceeded:
    """The tree is ended because of this limit."""

    layout: ClassVar[struct.Struct] = struct.Struct("=II")
    type: ClassVar[int] = 25
    limit: Limit

    def pack(self) -> bytes:
        return self.layout.pack(self.type, self.limit)

    @classmethod
    def unpack(cls, packet: bytes) -> Exceeded:
        _, limit = cls.layout.unpack(packet)
        return cls(Limit(limit))


_KINDS = (
    *(Start, Go, Lend, Signal, Trace, Release, Halt),
    *(Listener, Started, Failed, Traced, Executed, Stopping, Ended, Exceeded),
)
Message = (
    Start
    | Go
    | Lend
    | Signal
    | Trace
    | Release
    | Halt
    | Listener
    | Started
    | Failed
    | Traced
    | Executed
    | Stopping
    | Ended
    | Exceeded
)
_BY_TYPE: dict[int, type[Message]] = {kind.type: kind for kind in _KINDS}


def encode(message: Message) -> bytes:
    """Pack a message into the bytes of one packet."""
    return message.pack()


def decode(packet: bytes) -> Message:
    """Unpack one packet.

    Raises:
        ValueError: The packet is not one of this protocol.
    """
    if len(packet) < 4:
        raise ValueError(f"a control packet of {len(packet)} bytes")
    (number,) = struct.unpack_from("=I", packet)
    try:
        return _BY_TYPE[number].unpack(packet)
    except KeyError:
        raise ValueError(f"a control packet of unknown type {number}") from None
    except struct.error as error:
        raise ValueError(f"a control packet of type {number} and the wrong size: {error}") from None
