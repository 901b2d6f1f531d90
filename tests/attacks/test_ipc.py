"""Row 50: System V IPC and POSIX message queues of processes outside, which no path names."""

from __future__ import annotations

import ctypes
import os
import secrets
import struct
from collections.abc import Iterator
from typing import Any

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

CREATE, EXCLUSIVE, REMOVE, NOWAIT = 0o1000, 0o2000, 0, 0o4000
GETVAL, SETVAL = 12, 16
SYSTEM_V = (
    *("shmget", "shmget-private", "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl"),
    *("msgget", "msgrcv", "msgsnd", "msgctl"),
)
QUEUES = ("mq_open", "mq_timedreceive", "mq_timedsend", "mq_notify", "mq_getsetattr", "mq_unlink")


class Outside:
    """Objects of a process outside of the tree: a segment, a semaphore, a queue of each kind."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.shmat.restype = ctypes.c_void_p
        self.key = 0x52000000 | secrets.randbits(24)
        self.name = f"/rampart-{self.key:x}"
        mode = CREATE | EXCLUSIVE | 0o600
        self.shmid = self._made("shmget", self.key, ctypes.c_size_t(4096), mode)
        self.semid = self._made("semget", self.key, 1, mode)
        self.msqid = self._made("msgget", self.key, mode)
        self.queue = self._made(
            "mq_open", self.name.encode(), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK, 0o600, None
        )
        self._memory = self._libc.shmat(self.shmid, None, 0)
        ctypes.memmove(self._memory, b"SEGMENT\0", 8)
        self._made("semctl", self.semid, 0, SETVAL, 5)
        self._made("msgsnd", self.msqid, struct.pack("@l8s", 1, b"MESSAGE"), ctypes.c_size_t(8), NOWAIT)
        self._made("mq_send", self.queue, b"QUEUED", ctypes.c_size_t(6), 0)

    def _made(self, call: str, *args: Any) -> int:
        result = int(getattr(self._libc, call)(*args))
        if result < 0:
            raise OSError(ctypes.get_errno(), call)
        return result

    @property
    def arguments(self) -> list[str]:
        """What the attacker is told: names and numbers, as it could find or guess them."""
        return [*map(str, (self.key, self.shmid, self.semid, self.msqid)), self.name]

    def state(self) -> list[object]:
        """Say what is in the segment, the semaphore and the queues; takes the messages out."""
        message, queued = ctypes.create_string_buffer(72), ctypes.create_string_buffer(8192)
        self._libc.msgrcv(self.msqid, message, ctypes.c_size_t(64), 0, NOWAIT)
        self._libc.mq_receive(self.queue, queued, ctypes.c_size_t(8192), None)
        segment = ctypes.string_at(self._memory)
        return [segment, self._libc.semctl(self.semid, 0, GETVAL), message.raw[8:16], queued.value]

    def close(self) -> None:
        self._libc.shmdt(ctypes.c_void_p(self._memory))
        self._libc.shmctl(self.shmid, REMOVE, None)
        self._libc.semctl(self.semid, 0, REMOVE)
        self._libc.msgctl(self.msqid, REMOVE, None)
        self._libc.mq_close(self.queue)
        self._libc.mq_unlink(self.name.encode())


UNTOUCHED = [b"SEGMENT", 5, b"MESSAGE\0", b"QUEUED"]


@pytest.fixture
def outside() -> Iterator[Outside]:
    try:
        made = Outside()
    except (OSError, AttributeError) as error:
        pytest.skip(f"no IPC here: {error}")
    yield made
    made.close()


def said(output: str) -> dict[str, str]:
    """Give each call's answer, with what was read."""
    return dict(line.rstrip().split(" ", 1) for line in output.splitlines())


def test_ipc_of_others_is_out_of_reach(project: Any, outside: Outside, attacker: Any) -> None:
    """Every call fails as on a kernel without it, is recorded, and nothing outside was seen or changed."""
    policy = rampart.Policy(rules=[rampart.allow(["read", "write", "exec"], name="files")])

    done = project.run([attacker("ipc"), *outside.arguments], policy)

    assert said(done.stdout) == dict.fromkeys((*SYSTEM_V, *QUEUES), "ENOSYS"), done.stderr
    assert outside.state() == UNTOUCHED
    refused = [record for record in project.records() if record["verdict"] == "deny"]
    assert {record["syscall"] for record in refused} == {*SYSTEM_V, *QUEUES} - {"shmget-private"}
    assert {record["where"] for record in refused} == {
        f"built-in: {record['syscall']} needs `features: [sysv-ipc]`" for record in refused
    }


@pytest.mark.parametrize("behind", [False, True], ids=["bare", "featured"])
def test_the_attack_is_real(
    behind: bool, project: Any, outside: Outside, attacker: Any, allow_all: Any
) -> None:
    """Bare, and under a policy that opens the feature, all of it is reached, and nothing is asked."""
    argv = [attacker("ipc"), *outside.arguments]

    done = project.run(argv, allow_all) if behind else project.bare(argv)

    answers = said(done.stdout)
    assert {name: answers.pop(name) for name in ("shmat", "msgrcv", "mq_timedreceive")} == {
        "shmat": "ok SEGMENT",
        "msgrcv": "ok MESSAGE",
        "mq_timedreceive": "ok QUEUED",
    }
    assert set(answers.values()) == {"ok"}
    assert outside.state()[:2] == [b"XEGMENT", 3]
    assert not [record for record in project.records() if record["syscall"] in (*SYSTEM_V, *QUEUES)]


def test_a_stack_opens_it_only_if_every_layer_does(
    project: Any, outside: Outside, attacker: Any, allow_all: Any
) -> None:
    """A layer that does not have the feature keeps it shut."""
    import attrs

    policy = rampart.Policy.stack(allow_all, attrs.evolve(allow_all, features=()))

    done = project.run([attacker("ipc"), *outside.arguments], policy)

    assert set(said(done.stdout).values()) == {"ENOSYS"}
    assert outside.state() == UNTOUCHED
