"""Harnesses that fork, end or are interrupted: nothing hangs, nothing leaks, no tree outlives its harness.

Each harness is a process of its own, so that what it leaves behind can be looked for.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.conftest import package_path

pytestmark = pytest.mark.core

PRELUDE = """\
import os, signal, socket, sys, threading, time
import rampart_seccomp as rampart

SECRET = os.path.join(os.getcwd(), "secret")
EVERYTHING = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
OPEN = rampart.Policy(rules=[EVERYTHING])
POLICY = OPEN.with_rules(rampart.deny("read", paths=[SECRET], name="secret"))
ASKING = OPEN.with_rules(rampart.ask("read", paths=[SECRET], name="question"))
TREE = dict(os.environ, TREE=os.environ["MARK"])
LOOP = ["/bin/sh", "-c", 'echo ready; while :; do cat "$0" "$1"; done', "/dev/null", SECRET]
ANSWERS = ["/bin/sh", "-c", 'while read line; do : <"$0" || exit 1; echo "$line"; done', __file__]

def popen(argv, broker, **options):
    return rampart.Popen(argv, broker=broker, env=TREE, text=True, bufsize=1, stderr=-3, **options)

def loop(broker):
    process = popen(LOOP, broker, stdout=-1)
    assert process.stdout.readline() == "ready\\n"
    return process

def answering(broker):
    process = popen(ANSWERS, broker, stdin=-1, stdout=-1)
    assert answers(process)
    return process

def answers(process):
    process.stdin.write("hello\\n")
    return process.stdout.readline() == "hello\\n"

def descriptors():
    return {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")}

def threads():
    return len(os.listdir("/proc/self/task"))

def wait_child(pid, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return "hangs"

"""


@attrs.frozen
class Ended:
    """How a harness ended."""

    status: int
    output: str
    errors: str


@attrs.define
class Harness:
    """Runs programs that use the package.

    Attributes:
        directory: Where they run.
        mark: Stands in the environment of the trees: how they are found.
        environment: Of the harness.
    """

    directory: Path
    mark: str
    environment: dict[str, str]

    def start(self, code: str, prelude: str = PRELUDE) -> subprocess.Popen[str]:
        """Start one."""
        script = self.directory / "harness.py"
        script.write_text(prelude + code)
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", script],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, code: str, prelude: str = PRELUDE, timeout: float = 90) -> Ended:
        """Run one to its end, and see that nothing of its trees is left."""
        with self.start(code, prelude) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        self.ensure_gone()
        return Ended(process.returncode, output, errors)

    def left(self) -> list[str]:
        """The processes of the trees, launchers and guards included."""
        wanted = f"TREE={self.mark}".encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
        return found

    def ensure_gone(self, seconds: float = 5) -> None:
        """Fail if a process of the trees is still there after a moment."""
        end = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.02)
        assert left == []


@pytest.fixture(params=["native", "python"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """Harnesses, with each of the engines."""
    path = os.pathsep.join([*package_path(), *filter(None, [os.environ.get("PYTHONPATH")])])
    mark = uuid.uuid4().hex
    (tmp_path / "secret").write_text("x")
    environment = {"PYTHONPATH": path, "MARK": mark, "RAMPART_SECCOMP_ENGINE": request.param}
    made = Harness(tmp_path, mark, os.environ | environment)
    yield made
    made.ensure_gone()


def test_a_forked_child_holds_nothing_of_the_tree(harness: Harness) -> None:
    """A child of the harness has neither listener nor control socket; its broker does nothing there."""
    done = harness.run("""
broker = rampart.Broker(POLICY, audit="audit.jsonl")
process, waiting = answering(broker), broker.wrap(["true"])
server = socket.create_server(("127.0.0.1", 0))
address = server.getsockname()
connecting = f"import socket, time; socket.create_connection({address}); print(1); time.sleep(60)"
connected = popen([sys.executable, "-uc", connecting], broker, stdout=-1)
assert connected.stdout.readline()
time.sleep(0.5)  # what the last calls held is closed just after their answers
session = process.session
ours = {os.readlink(f"/proc/self/fd/{session._control.fileno()}")}
assert "anon_inode:seccomp notify" in descriptors().values()
child = os.fork()
if child == 0:
    try:
        held = set(descriptors().values())
        assert not held & ours, held & ours
        assert not [name for name in held if name.startswith(("anon_inode:", "/proc/"))], held
        assert session.denials == [] and session.events is not None
        process.kill(), process.terminate(), session.kill_tree(), session.close(), waiting.close()
        broker.close()
        assert session.wait_finished(5)
        try:
            broker.wrap(["true"])
        except rampart.errors.BrokerClosed:
            os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
    os._exit(1)
assert wait_child(child) == 0
assert all(answers(process) for _ in range(20))
assert process.poll() is None
broker.close()
print("closed", process.wait(10))
""")

    assert (done.status, done.errors) == (0, "")
    assert done.output.startswith("closed")


def test_a_tree_ends_with_its_harness_whatever_was_forked(harness: Harness) -> None:
    """A child that lives on keeps neither the tree nor a held call of it alive."""
    done = harness.run("""
broker = rampart.Broker(POLICY)
process = loop(broker)
if os.fork() == 0:
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    time.sleep(15)
    os._exit(0)
print("leaving", flush=True)
os._exit(0)
""")

    assert (done.status, done.output, done.errors) == (0, "leaving\n", "")


def test_a_forked_child_becomes_the_launcher(harness: Harness) -> None:
    """Spawners that fork and then execute (pexpect) can start a tree; what else was forked is no matter."""
    done = harness.run("""
import pty
with rampart.Broker(POLICY) as broker:
    command = broker.wrap(["/bin/sh", "-c", "cat /dev/null; exit 7"])
    bystander = os.fork()
    if bystander == 0:
        time.sleep(60)
        os._exit(0)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TREE)
        for fd in command.pass_fds:
            os.set_inheritable(fd, True)
        os.execv(command.argv[0], command.argv)
    command.close()
    command.session.wait_started(30)
    print(wait_child(child))
    began = time.monotonic()
    assert command.session.wait_finished(30)
    assert time.monotonic() - began < 4
    os.kill(bystander, signal.SIGKILL)
    os.waitpid(bystander, 0)
""")

    assert (done.status, done.output, done.errors) == (0, "7\n", "")


def test_forks_while_threads_are_at_work(harness: Harness) -> None:
    """However the fork meets the broker's threads, the child hangs nowhere and holds no listener."""
    done = harness.run("""
broker = rampart.Broker(POLICY, audit="audit.jsonl")
process = loop(broker)
over = threading.Event()
def more():
    while not over.is_set():
        rampart.run(["/bin/true"], policy=POLICY, env=TREE)
runner = threading.Thread(target=more)
runner.start()
statuses = []
for _ in range(40):
    child = os.fork()
    if child == 0:
        broker.close()
        process.kill()
        found = [name for name in descriptors().values() if "seccomp notify" in name]
        os._exit(len(found))
    statuses.append(wait_child(child))
over.set()
runner.join(60)
assert not runner.is_alive()
assert process.poll() is None
broker.close()
print(set(statuses))
""")

    assert (done.status, done.output, done.errors) == (0, "{0}\n", "")


def test_a_forked_child_runs_trees_of_its_own(harness: Harness) -> None:
    """What is closed in the child is its parent's: a new broker works there, and ends with it."""
    done = harness.run("""
broker = rampart.Broker(POLICY)
process = answering(broker)
child = os.fork()
if child == 0:
    ended = rampart.run(["/bin/cat", SECRET], policy=POLICY, env=TREE, capture_output=True)
    own = rampart.Broker(POLICY)
    left_running = loop(own)
    os._exit(0 if [denial.rule for denial in ended.denials] == ["secret"] else 1)
assert wait_child(child) == 0
assert answers(process)
broker.close()
""")

    assert (done.status, done.errors) == (0, "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(harness: Harness, method: str) -> None:
    """Workers of a harness with a live tree run trees of their own, and end; the tree goes on."""
    done = harness.run(f"""
def work(_):
    ended = rampart.run(["/bin/cat", SECRET], policy=POLICY, env=TREE, capture_output=True)
    return [denial.rule for denial in ended.denials]

if __name__ == "__main__":
    import multiprocessing
    with rampart.Broker(POLICY) as broker:
        process = answering(broker)
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            print(pool.map(work, range(3)))
            pool.close()
            pool.join()
        assert answers(process)
""")

    assert (done.status, done.errors) == (0, "")
    assert done.output == f"{[['secret']] * 3}\n"


@pytest.mark.parametrize("way", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"])
def test_sudden_death(harness: Harness, way: str) -> None:
    """A harness that goes without a word takes its trees along, in about a second."""
    done = harness.start(f"""
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
brokers = [rampart.Broker(POLICY) for _ in range(2)]
processes = [loop(broker) for broker in brokers]
print("ready", flush=True)
sys.stdin.readline()
{way}
""")

    with done:
        assert done.stdout is not None
        assert done.stdout.readline() == "ready\n"
        assert len(harness.left()) >= 4
        assert done.stdin is not None
        done.stdin.close()
        assert done.wait(60) != 0
    began = time.monotonic()
    harness.ensure_gone()
    assert time.monotonic() - began < 3


ENDINGS = {
    "the end of the script": "",
    "sys.exit": "sys.exit(0)",
    "sys.exit in a thread": "threading.Thread(target=lambda: (loop(broker), sys.exit(0))).start()",
    "a daemon thread runs a tree": """
there, here = os.pipe()
def forever():
    rampart.run(LOOP, policy=POLICY, env=TREE, stdout=here, stderr=-3)
threading.Thread(target=forever, daemon=True).start()
assert os.read(there, 5) == b"ready"
""",
    "a daemon thread starts trees": """
def always():
    try:
        while True:
            # Without a broker, calls fail (ENOSYS): before it is killed, the program may complain.
            rampart.run(["/bin/true"], policy=POLICY, env=TREE, stderr=-3)
    except Exception:
        return  # at the end of the interpreter nothing can be started any more
threading.Thread(target=always, daemon=True).start()
time.sleep(0.3)
""",
    "an approver that never answers": """
asked = threading.Event()
def never(event):
    asked.set()
    time.sleep(600)
other = rampart.Broker(ASKING, on_ask=never)
held = popen(["/bin/cat", SECRET], other)
assert asked.wait(30)
""",
    "an atexit function looks at the tree": """
import atexit
atexit.register(lambda: (process.denials, process.events, process.poll()))
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_interpreter_shutdown(harness: Harness, ending: str) -> None:
    """The interpreter ends with live trees: in time, without a complaint, and they are gone."""
    done = harness.run(f"""
broker = rampart.Broker(POLICY, audit="audit.jsonl")
process = loop(broker)
{ENDINGS[ending]}
print("end", flush=True)
""")

    said = "" if ending == "sys.exit" else "end\n"
    assert (done.status, done.output, done.errors) == (0, said, "")


def test_two_brokers(harness: Harness) -> None:
    """Brokers of one process are apart: policies, denials, ends."""
    done = harness.run("""
other = os.path.join(os.getcwd(), "other")
open(other, "w").close()
policy = POLICY.with_rules(rampart.deny("read", paths=[other], name="other"))
first, second = rampart.Broker(POLICY), rampart.Broker(policy)
living = answering(first)
for _ in range(3):
    for broker in (first, second):
        ended = rampart.run(["/bin/cat", SECRET, other], broker=broker, env=TREE, capture_output=True)
        print([denial.rule for denial in ended.denials])
second.close()
assert answers(living)
first.close()
""")

    assert (done.status, done.errors) == (0, "")
    assert done.output == "['secret']\n['secret', 'other']\n" * 3


def test_trees_of_two_threads(harness: Harness) -> None:
    """Two threads that run trees at the same time, with one broker and with their own, disturb nobody."""
    done = harness.run("""
shared = rampart.Broker(POLICY)
found = []
def work(number):
    for turn in range(8):
        how = {"broker": shared} if turn % 2 else {"policy": POLICY}
        ended = rampart.run(["/bin/sh", "-c", f"cat {SECRET}; echo {number}.{turn}"], env=TREE,
                            capture_output=True, text=True, **how)
        found.append((ended.stdout == f"{number}.{turn}\\n", [denial.rule for denial in ended.denials]))
workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
for worker in workers: worker.start()
for worker in workers: worker.join()
shared.close()
print(len(found), set(map(str, found)))
""")

    assert (done.status, done.errors) == (0, "")
    assert done.output == "16 {\"(True, ['secret'])\"}\n"


INTERRUPTED = """
def say_when(event):
    print("now", flush=True)
    time.sleep(30)
    return rampart.Allow()

def start_is_held():
    asking = rampart.Policy(rules=[rampart.ask("exec", name="question")])
    rampart.run(["/bin/sleep", "876"], policy=asking, on_ask=say_when, env=TREE)

def runs():
    rampart.run(["/bin/sh", "-c", "echo now; exec sleep 876"], policy=POLICY, env=TREE)

def output_is_collected():
    noisy = ["/bin/sh", "-c", "echo now >&2; while :; do cat /dev/null; done"]
    rampart.run(noisy, policy=POLICY, env=TREE, stdout=-1)

def is_asked():
    rampart.run(["/bin/cat", SECRET], policy=ASKING, on_ask=say_when, env=TREE)

os.dup2(1, 2)
rampart.run(["/bin/true"], policy=POLICY, env=TREE)
before = len(descriptors())
try:
    {phase}()
except KeyboardInterrupt:
    print("interrupted", flush=True)
end = time.monotonic() + 10
while time.monotonic() < end and len(descriptors()) > before:
    time.sleep(0.02)
sessions = [thread.name for thread in threading.enumerate() if "session" in thread.name]
print(len(descriptors()) - before, sessions, flush=True)
time.sleep(3)
"""


@pytest.mark.parametrize("phase", ["start_is_held", "runs", "output_is_collected", "is_asked"])
def test_keyboard_interrupt_during_run(harness: Harness, phase: str) -> None:
    """SIGINT to the harness alone: the exception comes out, the tree is dead, and nothing is left open."""
    process = harness.start(INTERRUPTED.replace("{phase}", phase))
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        harness.ensure_gone()
        assert process.stdout.readline() == "0 []\n"
        assert process.wait(60) == 0


def test_two_hundred_runs_leave_nothing(harness: Harness) -> None:
    """Threads, descriptors and memory of the harness do not grow with the number of trees."""
    done = harness.run(
        """
import gc
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def one():
    ended = rampart.run(["/bin/cat", SECRET], policy=POLICY, env=TREE, capture_output=True)
    assert [denial.rule for denial in ended.denials] == ["secret"]
for _ in range(160):
    one()
time.sleep(0.5)
before = resident(), threads(), len(descriptors())
for _ in range(200):
    one()
end = time.monotonic() + 10
while time.monotonic() < end and (threads(), len(descriptors())) != before[1:]:
    time.sleep(0.05)
after = resident(), threads(), len(descriptors())
print(after[0] - before[0], after[1] - before[1], after[2] - before[2])
""",
        timeout=400,
    )

    assert (done.status, done.errors) == (0, "")
    grown, threads, descriptors = map(int, done.output.split())
    assert (threads, descriptors) == (0, 0)
    assert grown < 4 << 20


GEVENT = """
from gevent import monkey
monkey.patch_all()
"""


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_patched_threads_are_refused(harness: Harness) -> None:
    """Where threads are greenlets, a held call would stop everybody, so a broker says what to do instead."""
    done = harness.run(
        """
try:
    rampart.run(["/bin/true"], policy=POLICY, env=TREE)
except rampart.errors.ThreadsPatched as error:
    print(error)
print(threads())
""",
        GEVENT + PRELUDE,
    )

    assert (done.status, done.errors) == (0, "")
    assert "patch_all(thread=False, queue=False)" in done.output


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_gevent_with_real_threads(harness: Harness) -> None:
    """With threads left alone, the rest of a patched standard library serves trees well."""
    done = harness.run(
        """
ended = rampart.run(["/bin/cat", SECRET], policy=POLICY, env=TREE, capture_output=True)
print([denial.rule for denial in ended.denials])
with rampart.Broker(POLICY) as broker:
    process = answering(broker)
    print([answers(process) for _ in range(3)])
""",
        GEVENT.replace("()", "(thread=False, queue=False)") + PRELUDE,
    )

    assert (done.status, done.errors) == (0, "")
    assert done.output == "['secret']\n[True, True, True]\n"
