"""Row 35: descriptors and room for the log run out, on either side: an error, never an allow."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

# Without a free descriptor: opens, then what needs none.
FULL = """
import errno, json, os, resource, socket
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
inbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); inbox.bind(("127.0.0.1", 0))
stream = socket.socket(); sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
said = []
def step(call):
    try: call(); said.append("ok")
    except OSError as error: said.append(errno.errorcode[error.errno])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True: taken.append(os.dup(0))
except OSError: pass
OPENS = [("open/f", os.O_RDONLY), ("open/f", os.O_WRONLY | os.O_TRUNC),
         ("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
         ("nothing/here", os.O_RDONLY), ("vault/f", os.O_RDONLY), ("vault/f", os.O_WRONLY | os.O_TRUNC),
         ("vault/new", os.O_CREAT | os.O_WRONLY)]
for path, flags in OPENS: step(lambda: os.open(path, flags, 0o600))
step(lambda: stream.connect(server.getsockname()))
step(lambda: sender.sendmsg([b"x"], [], 0, inbox.getsockname()))
step(lambda: inbox.recv(1))
step(lambda: os.unlink("open/gone"))
os.close(taken.pop())
step(lambda: os.close(os.open("open/f", os.O_RDONLY)))
step(lambda: os.close(os.open("vault/f", os.O_RDONLY)))
print(json.dumps(said))
"""


@pytest.fixture
def vault(project: Any) -> Path:
    for name in ("open/f", "open/gone", "vault/f"):
        project.write(name, "content\n")
    return project.root / "vault"


def test_target_without_descriptors(project: Any, vault: Path, deny_rule: Any) -> None:
    """EMFILE comes before anything is created or truncated; what needs no descriptor still works."""
    argv = [sys.executable, "-I", "-S", "-c", FULL]
    bare = json.loads(project.bare(argv).stdout)
    assert bare == ["EMFILE"] * 7 + ["ok"] * 6
    (project.root / "open" / "gone").write_text("again")

    done = project.run(argv, deny_rule(["read", "write"], paths=["./vault/**"]))

    found = json.loads(done.stdout)
    # Of what is denied anyway either error says enough.
    assert [word.replace("EACCES", "EMFILE") for word in found[4:7]] == bare[4:7]
    assert found[:4] + found[7:12] == bare[:4] + bare[7:12]
    assert found[12] == "EACCES"
    assert sorted(os.listdir(project.root / "open")) == ["f"]
    assert os.listdir(vault) == ["f"]
    assert not (project.root / "new").exists()
    for name in ("open/f", "vault/f"):
        assert (project.root / name).read_text() == "content\n"


# A target that tries everything at each line it reads.
TRIES = """
import errno, json, os, socket, subprocess, sys
def one(call):
    try: call(); return "ok"
    except OSError as error: return errno.errorcode[error.errno]
def connect():
    with socket.socket() as stream: stream.connect(("127.0.0.2", int(sys.argv[1])))
def execute():
    os.posix_spawn("vault/true", ["true"], {})
    os.wait()
CALLS = {
    "read": lambda: os.close(os.open("open/f", os.O_RDONLY)),
    "made": lambda: (os.close(os.open("open/n", os.O_CREAT | os.O_EXCL | os.O_WRONLY)), os.unlink("open/n")),
    "rename": lambda: (os.rename("open/a", "open/b"), os.rename("open/b", "open/a")),
    "denied read": lambda: os.close(os.open("vault/f", os.O_RDONLY)),
    "denied write": lambda: os.close(os.open("vault/f", os.O_WRONLY | os.O_TRUNC)),
    "denied creat": lambda: os.close(os.open("vault/new", os.O_CREAT | os.O_WRONLY)),
    "denied link": lambda: os.link("vault/f", "open/link"),
    "denied rename": lambda: os.rename("vault/f", "open/moved"),
    "denied connect": connect,
    "denied exec": execute,
}
for line in sys.stdin:
    for name, call in CALLS.items(): print(json.dumps([name, one(call)]), flush=True)
    print(json.dumps(["end", ""]), flush=True)
"""

# Fills its table of descriptors but for argv[1] of them, lets the target try, frees them, lets it try again.
POOR = """
import json, os, queue, resource, sys, threading
import rampart_seccomp as rampart
spare, code, port, log = int(sys.argv[1]), *sys.argv[2:5]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
policy = rampart.Policy(rules=[
    rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything"),
    rampart.deny(["read", "write", "exec"], paths=["./vault/**"], name="secret"),
    rampart.deny("connect", hosts=["127.0.0.2"], name="peer")])
broker = rampart.Broker(policy, audit=log)
process = rampart.Popen([sys.executable, "-I", "-S", "-c", code, port], broker=broker, stdin=-1, stdout=-1,
                        text=True, bufsize=1)
answers = queue.Queue()
threading.Thread(target=lambda: [answers.put(line) for line in process.stdout], daemon=True).start()
def until_end(seconds):
    said = []
    try:
        while not said or said[-1][0] != "end": said.append(json.loads(answers.get(timeout=seconds)))
    except queue.Empty: return said, False
    return said[:-1], True
def tell(): process.stdin.write("now\\n"); process.stdin.flush()
tell()
before, _ = until_end(20)
taken = []
try:
    while True: taken.append(os.dup(0))
except OSError: pass
for _ in range(spare): os.close(taken.pop())
tell()
during, whole = until_end(2)
for fd in taken: os.close(fd)
late = [] if whole else until_end(20)[0]
tell()
after, _ = until_end(20)
process.stdin.close()
status = process.wait(20)
broker.close()
print(json.dumps([before, during + late, after, status]))
"""


@pytest.mark.parametrize("spare", [0, 2, 3, 5])
def test_harness_without_descriptors(spare: int, project: Any, vault: Path) -> None:
    """Calls fail or wait while the harness has hardly a descriptor left, and what is denied stays denied. All
    works again once there are some."""
    project.write("open/a", "x")
    shutil.copy("/bin/true", vault / "true")
    package = os.pathsep.join([str(Path(rampart.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with socket.socket() as server:
        server.bind(("127.0.0.2", 0))
        server.listen(100)
        port = str(server.getsockname()[1])
        bare = project.bare([sys.executable, "-I", "-S", "-c", TRIES, port], input="now\n")
        assert {json.loads(line)[1] for line in bare.stdout.splitlines()} == {"ok", ""}
        for name in ("open/link", "vault/new"):
            (project.root / name).unlink()
        os.rename(project.root / "open" / "moved", vault / "f")
        (vault / "f").write_text("content\n")

        done = project.bare(
            [sys.executable, "-c", POOR, str(spare), TRIES, port, str(project.audit)],
            env={"PYTHONPATH": package},
            timeout=60,
        )

    assert done.returncode == 0, done.stderr
    before, during, after, status = json.loads(done.stdout)
    assert status == 0
    for name, result in before + after:
        expected = "ECONNREFUSED" if name == "denied connect" else "EACCES" if "denied" in name else "ok"
        assert result == expected, (name, done.stderr)
    assert len(before) == len(after) == len(during) > 0
    assert [name for name, result in during if name.startswith("denied") and result == "ok"] == []
    assert (vault / "f").read_text() == "content\n"
    assert sorted(os.listdir(vault)) == ["f", "true"]
    assert sorted(os.listdir(project.root / "open")) == ["a", "f", "gone"]


# Runs a target that makes and reads files, with a log that has little room; prints what the target said.
LOGGED = """
import json, os, resource, sys
import rampart_seccomp as rampart
from rampart_seccomp.audit import verify
way, audit, code, log = sys.argv[1:5]
policy = rampart.Policy(audit=audit, rules=[
    rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything"),
    rampart.deny(["read", "write", "exec"], paths=["./vault/**"], name="secret")])
broker = rampart.Broker(policy, audit=log, explain=sys.stderr)
process = rampart.Popen([sys.executable, "-I", "-S", "-c", code], broker=broker,
                        stdin=-1, stdout=-1, text=True)
process.stdout.readline()
if way == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(log).st_size + 20_000, resource.RLIM_INFINITY))
said, errors = process.communicate("now\\n")
later = None
try: rampart.run(["true"], broker=broker)
except PermissionError: later = "denied"
broker.close()
print(json.dumps([json.loads(said), process.returncode, later, verify(log).records]))
"""
FILLING = """
import json, os, socket, sys, time
def one(call):
    try: call(); return 1
    except OSError: return 0
CALLS = [lambda: os.close(os.open("open/f", os.O_RDONLY)), lambda: os.mkdir("open/d"),
         lambda: os.rmdir("open/d"),
         lambda: os.rename("open/a", "open/b"), lambda: os.rename("open/b", "open/a"),
         lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))]
print("ready", flush=True)
sys.stdin.readline()
denied = lambda: one(lambda: os.open("vault/f", os.O_RDONLY))
leaks = allowed = 0
end = time.monotonic() + 20
while time.monotonic() < end:
    leaks += denied()
    # One denial may be for want of room in memory (`audit: required`), which there is again soon.
    if not any(one(CALLS[0]) or time.sleep(0.1) for _ in range(10)): break
    allowed += 1
time.sleep(0.3)
after = [sum(one(call) for call in CALLS[:6]) + denied() for _ in range(20)]
print(json.dumps([allowed, leaks, sum(after)]))
"""


@pytest.mark.parametrize("audit", ["all", "denials", "required"])
@pytest.mark.parametrize("way", ["limit", "disk"])
def test_no_room_for_the_log(way: str, audit: str, project: Any, vault: Path) -> None:
    """Once a record cannot be written everything is denied, of this tree and later ones; the log is whole."""
    project.write("open/a", "x")
    package = os.pathsep.join([str(Path(rampart.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    argv = [sys.executable, "-c", LOGGED, way, audit, FILLING]
    if way == "disk":
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("needs root and unshare(1), to have a small disk")
        small = 'mount -t tmpfs -o size=512k none "$0" && exec "$@"'
        disk = project.base / "disk"
        disk.mkdir()
        argv = ["unshare", "-m", "sh", "-c", small, disk, *argv, disk / "log"]
    else:
        argv.append(project.audit)

    done = project.bare(argv, env={"PYTHONPATH": package}, timeout=60)

    assert done.returncode == 0, done.stderr
    (allowed, leaks, after), status, later, records = json.loads(done.stdout)
    assert allowed > 0
    assert (leaks, after, status, later) == (0, 0, 0, "denied")
    assert records > 5
    assert done.stderr.count("everything is denied from here on") == 1
    assert (project.root / "open" / "a").exists()
