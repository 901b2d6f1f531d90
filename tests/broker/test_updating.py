"""Another policy for trees that run: from the next call on, all of it or nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import rampart_seccomp as rampart
from rampart_seccomp.errors import AuditError, BrokerClosed, NotEnforceable, PolicyError

pytestmark = pytest.mark.core

EVERYTHING = ["read", "write", "exec", "connect", "listen"]
OPEN = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")], features=["sysv-ipc"])

SERVANT = """
import errno, os, socket, sys
for line in sys.stdin:
    action, _, target = line.strip().partition(" ")
    try:
        if action == "read":
            os.close(os.open(target, os.O_RDONLY))
        elif action == "attribute":
            os.listxattr(target)
        elif action == "write":
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT))
        elif action == "connect":
            socket.create_connection(("127.0.0.1", int(target)), 5).close()
        elif action == "run":
            os.posix_spawn("/bin/true", ["true"], {})
        elif action == "memory":
            fd = os.memfd_create("true")
            os.write(fd, open(target, "rb").read())
            os.posix_spawn(f"/proc/self/fd/{fd}", ["true"], {})
        answer = "ok"
    except OSError as error:
        answer = errno.errorcode[error.errno]
    print(answer, flush=True)
"""


class Servant:
    """A tree that does what it is told, one call at a time."""

    def __init__(self, broker: rampart.Broker, directory: Path) -> None:
        self.process = rampart.Popen(
            [sys.executable, "-c", SERVANT],
            broker=broker,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, action: str, target: object) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{action} {target}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Service:
    """Brokers and the trees beneath them, ended with the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: list[Any] = []

    def broker(self, policy: Any, **options: Any) -> rampart.Broker:
        made = rampart.Broker(policy, **options)
        self._open.append(made)
        return made

    def servant(self, broker: rampart.Broker, directory: Path | None = None) -> Servant:
        made = Servant(broker, directory or self.directory)
        self._open.append(made)
        return made

    def close(self) -> None:
        for each in reversed(self._open):
            each.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content")
    return path


def denying(
    *operations: str, name: str = "never", policy: rampart.Policy = OPEN, **conditions: Any
) -> rampart.Policy:
    return policy.with_rules(rampart.deny(list(operations), name=name, **conditions))


def records(log: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, log.read_text().splitlines()) if record["record"] == kind]


def test_takes_effect_at_the_next_call(service: Service, file: Path) -> None:
    """The tree that runs is judged by the new policy, in both directions, and so is the next one."""
    broker = service.broker(OPEN)
    servant = service.servant(broker)
    strict = denying("modify", paths=[str(file)])
    assert servant("write", file) == "ok"

    broker.update(strict)
    assert broker.policy is strict
    assert servant("write", file) == service.servant(broker)("write", file) == "EACCES"
    assert [denial.rule for denial in servant.process.denials] == ["never"]
    assert servant("run", "true") == "ok", "what was verified before stays known"
    session = servant.process.session
    assert session._judge.lineage is session._lineage is not None

    broker.update(OPEN)
    assert servant("write", file) == "ok"


def test_what_no_filter_holds_is_open_and_shut_at_once(service: Service) -> None:
    """A feature that opens no calls comes and goes with the policy, for trees that run."""
    broker = service.broker(OPEN)
    servant = service.servant(broker)
    with_it = attrs.evolve(OPEN, features=["sysv-ipc", "memfd-exec"])
    answers = []
    for policy in (OPEN, with_it, OPEN):
        broker.update(policy)
        answers.append(servant("memory", "/bin/true"))
    assert answers == ["EACCES", "ok", "EACCES"]
    assert {denial.suggestion for denial in servant.process.denials} == {
        "say `features: [memfd-exec]`: then the rules decide"
    }
    assert rampart.Broker(OPEN, may_restrict={"memfd-exec"}).close() is None


def test_each_tree_keeps_its_place(service: Service, tmp_path: Path) -> None:
    """What ``./`` and ``~`` mean was fixed when each was launched, and is so under the new policy."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        (directory / "file").touch()
    broker = service.broker(OPEN, home=os.fsencode(tmp_path / "first"))
    servants = [service.servant(broker, first), service.servant(broker, second)]

    broker.update(denying("modify", paths=["./file"]))
    assert [servant("write", second / "file") for servant in servants] == ["ok", "EACCES"]
    assert [servant("write", first / "file") for servant in servants] == ["EACCES", "ok"]
    broker.update(denying("modify", paths=["~/file"]))
    assert [servant("write", first / "file") for servant in servants] == ["EACCES"] * 2
    assert [servant("write", second / "file") for servant in servants] == ["ok"] * 2


def test_host_names_of_the_new_policy_are_known(service: Service) -> None:
    """A name that only the new policy has is resolved; one that it lacks is not a way in any more."""
    files = rampart.Policy(rules=[rampart.allow(["read", "write", "exec"], name="files")])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        named = files.with_rules(rampart.allow("connect", hosts=[f"localhost:{port}"], name="local"))
        broker = service.broker(files)
        servant = service.servant(broker)
        assert servant("connect", port) == "ECONNREFUSED"
        broker.update(named)
        assert servant("connect", port) == "ok"
        broker.update(files)
        assert servant("connect", port) == "ECONNREFUSED"


def test_files_of_every_policy_stay_protected(service: Service, tmp_path: Path) -> None:
    """No tree writes the file that a policy was read from, the one before it included."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(OPEN.dumps() + f"# {name}\n")
    broker = service.broker(rampart.Policy.load(tmp_path / "first.yaml"))
    servant = service.servant(broker)
    assert servant("write", tmp_path / "second.yaml") == "ok"

    broker.update(rampart.Policy.load(tmp_path / "second.yaml"))

    assert servant("write", tmp_path / "second.yaml") == "EACCES"
    assert servant("write", tmp_path / "first.yaml") == "EACCES"


@pytest.mark.parametrize(
    ("changed", "rule", "key", "operation", "lacking"),
    [
        (denying("read", paths=["/secret"]), "never", None, "read", "attributes"),
        (denying("create", paths=["/secret"], name="no-new"), "no-new", None, "create", "core dumps"),
        (
            rampart.Policy(
                default=dict.fromkeys(EVERYTHING, "allow") | {"read": "ask"}, features=["sysv-ipc"]
            ),
            None,
            "default.read",
            "read",
            "attributes",
        ),
        (attrs.evolve(OPEN, features=()), None, "features", "sysv-ipc", "its calls are free"),
        (rampart.Policy.stack(OPEN, denying("read", paths=["/secret"])), "never", None, "read", "attributes"),
    ],
    ids=["read", "create", "default", "feature", "stack"],
)
def test_what_a_tree_does_not_ask_about_cannot_be_restricted(
    changed: Any,
    rule: str | None,
    key: str | None,
    operation: str,
    lacking: str,
    service: Service,
    file: Path,
) -> None:
    """The error names rule, operation and tree; nothing is changed, and the policy can wait for the end."""
    broker = service.broker(OPEN)
    servant = service.servant(broker)

    with pytest.raises(NotEnforceable, match=re.escape(f"may_restrict=['{operation}']")) as caught:
        broker.update(changed)

    error = caught.value
    assert (error.rule, error.key, error.operation) == (rule, key, operation)
    assert error.pid == servant.process.command_pid
    assert lacking in str(error)
    assert isinstance(error, RuntimeError)
    assert broker.policy is OPEN
    assert servant("read", file) == servant("attribute", file) == servant("write", file) == "ok"

    servant.close()
    servant.process.session.wait_finished(10)
    broker.update(changed)
    assert broker.policy is changed


def test_one_tree_that_cannot_follow_holds_all_back(service: Service, file: Path) -> None:
    """The policy changes for all trees or for none."""
    broker = service.broker(denying("read", paths=["/secret"]))
    asking = service.servant(broker)
    broker.update(OPEN)
    free = service.servant(broker)
    strict = denying("read", paths=[str(file)])

    with pytest.raises(NotEnforceable) as caught:
        broker.update(strict)
    assert caught.value.pid == free.process.command_pid
    assert (asking("read", file), free("read", file)) == ("ok", "ok")

    free.close()
    free.process.session.wait_finished(10)
    broker.update(strict)
    assert (asking("read", file), asking("attribute", file)) == ("EACCES", "EACCES")


def test_paying_in_advance(service: Service, file: Path) -> None:
    """Trees launched for what may come ask about it: attributes and IPC as bare now, and denied later."""
    broker = service.broker(OPEN, may_restrict=["read", "create", "sysv-ipc"])
    servant = service.servant(broker)
    ipc = "import ctypes; print(ctypes.CDLL(None).semget(0, 1, 0o600) >= 0)"
    assert servant("attribute", file) == "ok"
    command = [sys.executable, "-c", ipc]
    assert rampart.run(command, broker=broker, capture_output=True).stdout == b"True\n"
    limit = rampart.run(["/bin/sh", "-c", "ulimit -H -c"], broker=broker, capture_output=True).stdout
    assert limit == b"0\n"

    broker.update(denying("read", "create", paths=[str(file)], policy=attrs.evolve(OPEN, features=())))

    assert servant("attribute", file) == servant("read", file) == "EACCES"
    assert rampart.run(command, broker=broker, capture_output=True).stdout == b"False\n"


def test_a_feature_opens_for_trees_that_run(service: Service, tmp_path: Path) -> None:
    """A tree launched without it may use it from the next call on."""
    script = tmp_path / "ipc.py"
    script.write_text(
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\n"
        "for _ in sys.stdin: print(libc.semget(0, 1, 0o600) >= 0, flush=True)\n"
    )
    broker = service.broker(attrs.evolve(OPEN, features=()))
    with rampart.Popen(
        [sys.executable, script], broker=broker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = []
        for policy in (None, OPEN, attrs.evolve(OPEN, features=())):
            if policy is not None:
                broker.update(policy)
            process.stdin.write("\n")
            process.stdin.flush()
            said.append(process.stdout.readline())
    assert said == ["False\n", "True\n", "False\n"]


@pytest.mark.parametrize("names", ["reads", ["read", "ptrace"]])
def test_what_may_be_restricted_must_exist(names: Any) -> None:
    """A name that is neither an operation nor a feature is an error before anything starts."""
    with pytest.raises(PolicyError, match=r"may_restrict: there is no operation.*the features are sysv-ipc"):
        rampart.Broker(OPEN, may_restrict=names)


def test_the_change_is_on_record(service: Service, tmp_path: Path, file: Path) -> None:
    """One record says what was in force and what is; the decisions after it stand after it."""
    log = tmp_path / "audit.jsonl"
    broker = service.broker(OPEN, audit=log)
    servant = service.servant(broker)
    servant("write", file)
    changed = denying("modify", paths=[str(file)])
    broker.update(changed)
    servant("write", file)
    broker.close()  # decisions are recorded after the reply

    (record,) = records(log, "policy")
    assert (record["before"], record["after"]) == (OPEN.fingerprint, changed.fingerprint)
    (denied,) = [each for each in records(log, "decision") if each["rule"] == "never"]
    assert denied["seq"] > record["seq"]


def test_a_change_that_cannot_be_recorded_does_not_happen(
    service: Service, tmp_path: Path, file: Path
) -> None:
    """Neither an update nor a grant comes into force without its record; what is revoked goes anyway."""
    from rampart_seccomp.audit import AuditLog

    log = AuditLog(tmp_path / "audit.jsonl")
    strict = denying("modify", paths=[str(file)])
    asking = rampart.Policy(rules=[*OPEN.rules, rampart.ask("modify", paths=[str(file)], name="question")])
    broker = service.broker(asking, audit=log)
    granted = broker.grant(modify=file)
    log.close()

    with pytest.raises(AuditError):
        broker.update(strict)
    with pytest.raises(AuditError):
        broker.grant(create=file)
    assert broker.policy is asking
    granted.revoke()
    assert broker._granted == []


def test_a_closed_broker_changes_nothing() -> None:
    """Neither the policy nor grants; revoking is no error."""
    broker = rampart.Broker(OPEN)
    granted = broker.grant(read="/x")
    broker.close()
    with pytest.raises(BrokerClosed):
        broker.update(OPEN)
    with pytest.raises(BrokerClosed):
        broker.grant(read="/x")
    granted.revoke()


def test_updates_beside_calls(service: Service, file: Path) -> None:
    """While policies change as fast as they can, every call is judged by one of them, whole."""
    broker = service.broker(OPEN)
    servant = service.servant(broker)
    both = [denying("modify", paths=[str(file)]), OPEN]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for policy in both:
                broker.update(policy)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        said = {servant("write", file) for _ in range(200)}
    finally:
        stop.set()
        thread.join()
    assert said <= {"ok", "EACCES"}
    assert {denial.rule for denial in servant.process.denials} <= {"never"}
