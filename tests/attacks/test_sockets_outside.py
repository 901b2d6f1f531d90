"""Rows 22, 23 and 49: sockets of services, credentials, and descriptors that are not the tree's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

SOURCES = Path(__file__).with_name("src")
DROPPED = "65534"


class Service:
    """A datagram and a stream socket outside of the tree that note who speaks to them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[tuple[int, int, int]] = []
        self._datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._datagrams.bind(str(path))
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.bind(f"{path}.stream")
        self._stream.listen()
        for name in (path, Path(f"{path}.stream")):
            name.chmod(0o777)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._stream.accept()
                with peer:
                    size = struct.calcsize("=iII")
                    _, uid, gid = struct.unpack(
                        "=iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
                    )
                    peer.send(f"{uid} {gid}".encode())

    def datagrams(self) -> list[tuple[int, int, int]]:
        """Credentials that came with the datagrams so far."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                _, ancillary, _, _ = self._datagrams.recvmsg(100, 1000, socket.MSG_DONTWAIT)
                found += [struct.unpack("=iII", data) for _, kind, data in ancillary if kind == 2]
        return found

    def close(self) -> None:
        self._datagrams.close()
        self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()


@pytest.fixture
def service(project: Any) -> Iterator[Service]:
    project.base.chmod(0o755)
    made = Service(project.base / "service")
    yield made
    made.close()


def named(*paths: object) -> Any:
    """Everything but unix sockets outside is allowed, and these of them."""
    rules = [rampart.allow(["read", "write", "exec", "listen"], name="everything")]
    if paths:
        rules.append(rampart.allow("connect", hosts=[f"unix:{path}" for path in paths], name="named"))
    return rampart.Policy(rules=rules)


def results(text: str) -> dict[str, str]:
    return dict(line.split("\t") for line in text.splitlines() if "\t" in line)


@pytest.mark.parametrize("who", ["-", DROPPED], ids=["as it is", "dropped"])
def test_forged_credentials(who: str, project: Any, service: Service) -> None:
    """Rows 23 and 49: nobody is told of other ids than the target's; a broker that is root lends none.

    Root may claim any id, bare and behind a policy; the pid is always that of who performed.
    """
    if who != "-" and os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    argv = ["python3", SOURCES / "credentials.py", str(service.path), who, str(os.getpid())]
    me = (os.geteuid(), os.getegid()) if who == "-" else (int(who), int(who))
    root = me[0] == 0

    bare = results(project.bare(argv).stdout)
    assert bare["honest"] == "ok"
    assert bare["uid"] == ("ok" if root else "EPERM")
    assert bare["connected as"] == f"{me[0]} {me[1]}"
    bare_seen = service.datagrams()

    done = project.run(argv, named(service.path, f"{service.path}.stream"))
    assert done.returncode == 0, done.stderr
    judged = results(done.stdout)
    seen = service.datagrams()

    assert judged["honest"] == "ok"
    assert judged["connected as"] == bare["connected as"]
    for forged in ("uid", "gid", "pid of the harness", "pid 1"):
        assert judged[forged] == ("ok" if root else "EPERM"), forged
    assert [ids for _, *ids in seen] == [ids for _, *ids in bare_seen][: len(seen)]
    assert {pid for pid, _, _ in seen} == {os.getpid()}
    if not root:
        assert seen == [(os.getpid(), *me)]


def test_descriptors_of_the_broker(project: Any, service: Service) -> None:
    """Row 23: descriptors of the broker: not by number, /proc, pidfd or what a message carries."""
    argv = ["python3", SOURCES / "credentials.py", str(service.path), "-", str(os.getpid())]

    judged = results(project.run(argv, named(service.path, f"{service.path}.stream")).stdout)

    assert judged["own descriptor"] == "got 1"
    assert judged["descriptors without a file"] == "EBADF"
    assert {judged[name] for name in ("second of two", "second number")} == {"EBADF"}
    assert {judged[name] for name in ("length too small", "length too large")} == {"EINVAL"}
    assert judged["odd length"] == "got 1"
    for name in ("harness", "launcher"):
        assert judged[f"pidfd_getfd of the {name}"] == "EPERM"
        assert judged[f"listing of the {name}"] == "EACCES"
        assert {judged[f"{name} {number}"] for number in (0, 3, 4, 5, 6, 7)} <= {"EACCES", "ENOENT"}
    assert set(judged["pidfd of a sender"].split(",")) <= {"EPERM", "none", "ENOPROTOOPT"}
    assert "seccomp" not in judged["kinds"]
    assert "socket:" not in judged["kinds"]


STANDINS = """
    run/docker.sock run/containerd/containerd.sock run/podman/podman.sock run/crio/crio.sock run/snapd.socket
    run/user/1000/bus run/dbus/system_bus_socket run/user/1000/systemd/private run/user/1000/gnupg/S.gpg-agent
    tmp/ssh-XyZ/agent.42 home/.ssh/control-git@host:22 tmp/tmux-1000/default run/screen/S-me/42.tty
    home/.emacs.d/server run/user/1000/emacs/server run/user/1000/nvim.42.0 run/user/1000/vscode-ipc.sock
    tmp/.X11-unix/X97 run/user/1000/wayland-0 run/nscd/socket run/systemd/resolve/io.systemd.Resolve
    run/avahi-daemon/socket @/tmp/.X11-unix/X97 @/tmp/dbus-abc @/containerd-shim/x.sock
""".split()  # noqa: SIM905
TALK = """
import errno, json, os, socket, sys
answers = {}
for name in json.loads(sys.argv[1]):
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect("\\0" + name[1:] if name[0] == "@" else os.fsencode(name))
        answers[name] = "ok"
    except OSError as error:
        answers[name] = errno.errorcode[error.errno]
print(json.dumps(answers))
"""


@contextlib.contextmanager
def listening(*names: str | bytes) -> Iterator[None]:
    """Sockets outside of any tree at these names."""
    with contextlib.ExitStack() as stack:
        for name in names:
            if not name.startswith(b"\0" if isinstance(name, bytes) else "\0"):
                os.makedirs(os.path.dirname(name), exist_ok=True)
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(name)
            server.listen(20)
        yield


def connect_all(project: Any, policy: Any, names: list[str]) -> dict[str, str]:
    import json

    argv = ["python3", "-c", TALK, json.dumps(names)]
    done = project.bare(argv) if policy is None else project.run(argv, policy)
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def test_services_are_closed(project: Any) -> None:
    """Rows 22 and 49: what stands where services stand is not reached by default, nor with connect: allow."""
    spelled = [
        name + f"-{os.getpid()}" if name[0] == "@" else f"{project.base}/s/{name}" for name in STANDINS
    ]
    bound = ["\0" + name[1:] if name[0] == "@" else name for name in spelled]
    silent = named()
    opened = rampart.Policy(rules=silent.rules, default={"connect": "allow"})
    with listening(*bound):
        assert set(connect_all(project, None, spelled).values()) == {"ok"}
        for policy in (silent, opened, rampart.Policy.load("agent")):
            assert set(connect_all(project, policy, spelled).values()) == {"ECONNREFUSED"}
        only = connect_all(project, named(spelled[0]), spelled)
    assert {name for name, answer in only.items() if answer == "ok"} == {spelled[0]}


def test_odd_names(project: Any) -> None:
    """Row 22: bytes, line breaks, links, dots and relative names are the socket they lead to."""
    odd = [b"caf\xe9", b"line\nbreak", b"\x1b[2J", b"tail (deleted)", b"sp ace"]
    bound = [os.fsencode(project.base) + b"/odd/" + name for name in odd]
    abstract = [f"\0rampart-{os.getpid()}\nnewline", f"\0rampart-{os.getpid()}\0nul"]
    with listening(*bound, *abstract):
        (project.root / "link").symlink_to(os.fsdecode(bound[0]))
        (project.root / "way").symlink_to(project.base / "odd")
        spelled = [os.fsdecode(name) for name in bound]
        spelled += ["link", f"way/{os.fsdecode(odd[1])}", "../odd/sp ace", "./../project/../odd/sp ace"]
        spelled += ["/proc/self/cwd/link", *("@" + name[1:] for name in abstract)]
        assert set(connect_all(project, None, spelled).values()) == {"ok"}
        answers = connect_all(project, named(), spelled)
        assert set(answers.values()) == {"ECONNREFUSED"}
        assert len([record for record in project.records() if record["verdict"] == "deny"]) == len(answers)
        some = connect_all(project, named(f"{project.base}/odd/sp ace"), spelled)
    assert {name for name, answer in some.items() if answer == "ok"} == {
        f"{project.base}/odd/sp ace",
        "../odd/sp ace",
        "./../project/../odd/sp ace",
    }


def test_keys_for_the_users_terminal(project: Any, allow_all: Any) -> None:
    """Row 49: a tmux of the user takes no keys, and runs nothing, for the tree."""
    tmux = shutil.which("tmux")
    if tmux is None:
        pytest.skip("no tmux")
    server = str(project.base / "tmux.sock")
    environment = project.environment | {"TERM": "screen", "SHELL": "/bin/sh"}
    outside = project.base / "outside"
    begin = [tmux, "-S", server, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh"]
    if subprocess.run(begin, env=environment, cwd=project.base, check=False).returncode:
        pytest.skip("tmux does not start here")
    try:
        keys = [tmux, "-S", server, "send-keys", f"echo typed > {outside}", "Enter"]
        started = [tmux, "-S", server, "run-shell", f"echo started > {outside}"]
        for command in (keys, started):
            for policy in (named(), rampart.Policy.load("agent")):
                assert project.run(command, policy, env={"TMUX": f"{server},1,0"}).returncode != 0
        time.sleep(0.5)
        assert not outside.exists()

        assert project.run(keys, named(server)).returncode == 0
        end = time.monotonic() + 20
        while not (outside.exists() and outside.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        assert outside.read_text() == "typed\n"
    finally:
        subprocess.run([tmux, "-S", server, "kill-server"], check=False, env=environment)
