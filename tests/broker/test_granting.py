"""Grants for a while: exact, recorded, and gone when their time is over."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.errors import PolicyError

pytestmark = pytest.mark.core

FILES = rampart.allow(["read", "write", "exec", "listen"], name="files")
CAT = "/bin/cat"


def asking(*rules: rampart.Rule) -> rampart.Policy:
    return rampart.Policy(rules=[FILES, *rules])


def read(broker: rampart.Broker, path: Path) -> bool:
    """Read a file in a new tree; tell whether that was allowed."""
    done = rampart.run([CAT, str(path)], broker=broker, capture_output=True)
    return bool(done.stdout == path.read_bytes())


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def no_time_runs() -> bool:
    """Whether no grant will end by itself; a timer that was cancelled takes a moment to end."""
    return all(each.name != "rampart-grant" for each in threading.enumerate())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content")
    return path


def test_a_grant_answers_a_question_while_it_lasts(file: Path, tmp_path: Path) -> None:
    """Within the context and not after it, for the one file and not for the one beside it."""
    beside = tmp_path / "beside"
    beside.write_text("content")
    policy = asking(rampart.ask("read", paths=[f"{tmp_path}/*"], name="question"))
    with rampart.Broker(policy) as broker:
        assert not read(broker, file)
        with broker.grant(read=file) as granted:
            assert granted.overruled is None
            assert (read(broker, file), read(broker, beside)) == (True, False)
        assert not read(broker, file)
        granted.revoke()
        assert broker.policy is policy


def test_a_grant_ends_by_itself(file: Path) -> None:
    """Nobody has to leave a context: when the time is over, the question is asked again."""
    with rampart.Broker(asking(rampart.ask("read", paths=[str(file)], name="question"))) as broker:
        began = time.monotonic()
        broker.grant(read=file, seconds=1)
        assert read(broker, file)
        assert eventually(lambda: not read(broker, file))
        assert time.monotonic() - began >= 1
        with broker.grant(read=file, seconds=3600):
            assert read(broker, file)
        assert not read(broker, file)
        assert eventually(no_time_runs)


def test_a_grant_reaches_trees_that_run(file: Path) -> None:
    """From the next call on, and back again, of a tree that was there before."""
    script = f"while read line; do cat {file} 2>/dev/null || printf denied; echo; done"
    with (
        rampart.Broker(asking(rampart.ask("read", paths=[str(file)], name="question"))) as broker,
        rampart.Popen(
            ["/bin/sh", "-c", script],
            broker=broker,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def tell() -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        said = [tell()]
        with broker.grant(read=file):
            said.append(tell())
        said.append(tell())
        process.stdin.close()
    assert said == ["denied", "content", "denied"]


def test_every_kind(tmp_path: Path) -> None:
    """Files, programs, connections and ports, each by its own keyword, stand before the default."""
    tool = tmp_path / "tool"
    shutil.copy("/bin/true", tool)
    tool.chmod(0o755)
    new = tmp_path / "new"
    policy = rampart.Policy(
        default={"read": "allow"}, rules=[rampart.allow("exec", paths=["@system"], name="system")]
    )
    with socket.create_server(("127.0.0.1", 0)) as server, rampart.Broker(policy) as broker:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        listen = "import socket; socket.create_server(('127.0.0.1', 47113))"
        attempts: list[tuple[list[str], dict[str, Any]]] = [
            (
                ["/bin/sh", "-c", f": > {new} && echo x > {new} && chmod 600 {new} && rm {new}"],
                {"write": new},
            ),
            (["/bin/sh", "-c", f"{tool} x"], {"exec": [str(tool), "x"], "path": tool}),
            (["/usr/bin/env", "python3", "-c", connect], {"connect": f"127.0.0.1:{port}"}),
            (["/usr/bin/env", "python3", "-c", listen], {"listen": "127.0.0.1:47113"}),
        ]
        for command, grant in attempts:
            statuses = []
            for granted in (False, True):
                if granted:
                    with broker.grant(**grant) as given:
                        assert given.overruled is None
                        statuses.append(rampart.run(command, broker=broker, capture_output=True).returncode)
                else:
                    statuses.append(rampart.run(command, broker=broker, capture_output=True).returncode)
            assert (statuses[0] != 0, statuses[1]) == (True, 0), grant


def test_a_granted_name_is_resolved() -> None:
    """A host that the policy does not name is resolved for as long as it is granted."""
    with socket.create_server(("127.0.0.1", 0)) as server, rampart.Broker(asking()) as broker:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        command = ["/usr/bin/env", "python3", "-c", script]
        with broker.grant(connect=f"localhost:{port}"):
            assert rampart.run(command, broker=broker, capture_output=True).returncode == 0
        assert rampart.run(command, broker=broker, capture_output=True).returncode != 0


def test_a_grant_never_stands_against_a_deny(file: Path) -> None:
    """It has no effect, which is no error, and it says what stands against it."""
    policy = asking(rampart.deny("read", paths=[str(file)], name="never"))
    with rampart.Broker(policy) as broker, broker.grant(read=file) as granted:
        assert not read(broker, file)
        assert granted.overruled == f"read {file}: deny by never"
        assert "never" in repr(granted)


def test_a_grant_answers_one_layer(file: Path) -> None:
    """Of a stack, the last layer's question or the one named, and never another's."""
    question = rampart.ask("read", paths=[str(file)], name="question")
    lax, strict = asking(), asking(question)
    with rampart.Broker(rampart.Policy.stack(strict, lax)) as broker:
        with broker.grant(read=file) as granted:
            assert (read(broker, file), granted.overruled) == (False, f"read {file}: ask by question")
        with broker.grant(read=file, layer=0) as granted:
            assert (read(broker, file), granted.overruled) == (True, None)
    with rampart.Broker(rampart.Policy.stack(strict, strict)) as broker:
        with broker.grant(read=file, layer=0), broker.grant(read=file, layer=1):
            assert read(broker, file)
        assert not read(broker, file)


def test_grants_outlast_an_update(file: Path) -> None:
    """Another policy does not take back what was granted, unless it denies or has no such layer."""
    first, second = (asking(rampart.ask("read", paths=[str(file)], name=name)) for name in ("one", "two"))
    with rampart.Broker(first) as broker:
        with broker.grant(read=file):
            broker.update(second)
            assert read(broker, file)
            broker.update(asking(rampart.deny("read", paths=[str(file)], name="never")))
            assert not read(broker, file)
        broker.update(rampart.Policy.stack(first, second))
        with broker.grant(read=file, layer=1):
            with pytest.raises(PolicyError, match=r"layer: there is no layer 1: the policy has 1"):
                broker.update(first)
            assert len(broker.policy.layers) == 2


def test_provenance_is_on_record(file: Path, tmp_path: Path) -> None:
    """The log has the grant, what was allowed because of it, and its end; secrets in arguments are masked."""
    log = tmp_path / "audit.jsonl"
    policy = asking(rampart.ask("read", paths=[str(file)], name="question"))
    with rampart.Broker(policy, audit=log) as broker:
        with broker.grant(read=file, seconds=60, by="alice"):
            read(broker, file)
        with broker.grant(exec=["curl", "--password", "hunter2"], path=os.path.realpath("/bin/true")):
            pass

    records = [json.loads(line) for line in log.read_text().splitlines()]
    given, *_ = [record for record in records if record["record"] == "grant"]
    assert {key: given[key] for key in ("operation", "object", "layer", "by", "seconds")} == {
        "operation": "read",
        "object": str(file),
        "layer": -1,
        "by": "alice",
        "seconds": 60,
    }
    (allowed,) = [record for record in records if record.get("path") == str(file)]
    assert (allowed["verdict"], allowed["where"], allowed["asked"]) == ("allow", "grant by alice", False)
    kinds = [record["record"] for record in records if record["record"] in ("grant", "revocation")]
    assert kinds == ["grant", "revocation"] * 2
    assert "hunter2" not in log.read_text()
    from rampart_seccomp.audit import verify

    assert verify(log).records == len(records)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "none is given"),
        ({"read": "/x", "connect": "a:1"}, "read and connect is given"),
        ({"read": "x"}, "not a real absolute path"),
        ({"read": "/x", "path": "/y"}, "path: `path` goes with exec"),
        ({"exec": ["ls"]}, "needs `path` and `command`"),
        ({"exec": "ls", "path": "/bin/ls"}, "a list of arguments"),
        ({"connect": "example.com"}, "not one destination"),
        ({"connect": "*.example.com:443"}, "host"),
        ({"connect": "10.0.0.0/8:80"}, "not one destination"),
        ({"listen": "8000-9000"}, "not one port"),
        ({"read": "/x", "layer": 1}, "layer: there is no layer 1"),
        ({"read": "/x", "seconds": 0}, "seconds=0"),
        ({"read": "/x", "seconds": -1.0}, "seconds=-1.0"),
        ({"read": "/x", "seconds": float("nan")}, "seconds=nan"),
    ],
)
def test_what_is_not_one_thing_is_an_error(given: dict[str, Any], problem: str) -> None:
    """It says what is wrong, nothing is granted, and no time runs."""
    with rampart.Broker(asking()) as broker:
        with pytest.raises(ValueError, match=problem.replace("*", r"\*")):
            broker.grant(**given)
        assert broker._granted == []
    assert eventually(no_time_runs)


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    """Who can make a link would choose what is granted: the harness names the real file, or gets an error."""
    link = tmp_path / "link"
    link.symlink_to(file)
    with rampart.Broker(asking()) as broker:
        with pytest.raises(PolicyError, match="is really") as caught:
            broker.grant(read=link)
        assert caught.value.key == "read"
