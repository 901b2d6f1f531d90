"""The sink: what it writes, what it refuses, and that nothing around it can interfere."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from rampart_seccomp.audit import AuditLog, verify
from rampart_seccomp.audit.chain import GENESIS, canonical, digest
from rampart_seccomp.errors import AuditError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def hostile_logging() -> Iterator[None]:
    """A host that drops everything through structlog and logging."""

    def drop(*_: object) -> dict[str, object]:
        raise structlog.DropEvent

    structlog.configure(
        processors=[drop],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    logging.disable(logging.CRITICAL)
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_lines_are_canonical_and_chained(path: Path) -> None:
    """Each line is canonical JSON, numbered, hashed over its content, and names the hash before."""
    with AuditLog(path) as log:
        log.write({"record": "decision", "b": 1, "a": "ä\n"})
        log.write({"record": "decision", "b": 2, "session": "mine"})
    lines = path.read_text("ascii").splitlines()
    header, first, second = found = records(path)
    assert lines == [canonical(record) for record in found]
    assert [record["seq"] for record in found] == [1, 2, 3]
    assert [record["prev"] for record in found] == [GENESIS, header["hash"], first["hash"]]
    assert [record["hash"] for record in found] == [digest(record) for record in found]
    assert (header["record"], header["format"], header["pid"]) == ("session", 1, os.getpid())
    assert (first["session"], first["a"]) == (header["session"], "ä\n")
    assert second["session"] == "mine"


def test_header_says_what_the_opener_adds(path: Path) -> None:
    """`about` stands in the header, without replacing what the header says itself."""
    with AuditLog(path, about={"policy": "agent", "record": "forged"}):
        pass
    (header,) = records(path)
    assert (header["policy"], header["record"]) == ("agent", "session")


def test_mode_is_private_and_the_fd_does_not_leak(path: Path) -> None:
    """Log and checkpoint are 0600 whatever the umask says, and closed at exec."""
    before = os.umask(0)
    try:
        with AuditLog(path) as log:
            assert log.paths == (os.fsencode(path), os.fsencode(path) + b".head")
            held = [int(fd) for fd in os.listdir("/proc/self/fd") if _names(fd).startswith(str(path))]
            assert len(held) == 2
            assert [os.get_inheritable(fd) for fd in held] == [False, False]
    finally:
        os.umask(before)
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in log.paths] == [0o600, 0o600]


def _names(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


def test_an_existing_log_is_continued(path: Path) -> None:
    """A second opening goes on with number and hash, under a new session."""
    for _ in range(3):
        with AuditLog(path) as log:
            log.write({"n": 1})
    found = records(path)
    assert [record["seq"] for record in found] == list(range(1, 7))
    assert len({record["session"] for record in found}) == 3
    verified = verify(path)
    assert (verified.records, verified.sessions, verified.head) == (6, 3, found[-1]["hash"])


def test_the_path_is_real(tmp_path: Path) -> None:
    """`path` is where the log really is, so that a policy can protect it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with AuditLog(tmp_path / "link" / "audit.jsonl") as log:
        assert log.path == os.fsencode(tmp_path / "real" / "audit.jsonl")


def test_a_host_configuration_changes_nothing(path: Path, hostile_logging: None) -> None:
    """structlog.configure and logging.disable of the program around us neither drop nor alter a record."""
    assert structlog.get_logger().critical("dropped") is None  # the positive control
    with AuditLog(path) as log:
        log.write({"record": "decision", "event": "kept", "level": "debug", "self": 1, "method_name": 2})
    assert (
        records(path)[1].items() >= {"event": "kept", "level": "debug", "self": 1, "method_name": 2}.items()
    )
    assert verify(path).records == 2


def test_structlog_is_imported_only_for_a_log() -> None:
    """Importing the package of the audit does not import structlog: it costs more than a short command."""
    code = "import sys, rampart_seccomp.audit; print('structlog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_many_threads_write_one_chain(path: Path) -> None:
    """Records of threads that write at once are all there, each once, and the chain holds."""
    with AuditLog(path) as log:
        threads = [
            threading.Thread(
                target=lambda who: [log.write({"who": who, "n": n}) for n in range(50)], args=[who]
            )
            for who in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    written = {(record["who"], record["n"]) for record in records(path)[1:]}
    assert written == {(who, n) for who in range(8) for n in range(50)}
    assert verify(path).records == 401


def test_a_symbolic_link_is_refused(tmp_path: Path, path: Path) -> None:
    """Neither the log nor its checkpoint may be a link: what it points to is not touched."""
    other = tmp_path / "other"
    path.symlink_to(other)
    with pytest.raises(AuditError, match="symbolic link"):
        AuditLog(path)
    path.unlink()
    Path(f"{path}.head").symlink_to(other)
    with pytest.raises(AuditError, match="symbolic link"):
        AuditLog(path)
    assert not other.exists()


def test_what_is_no_regular_file_is_refused(path: Path) -> None:
    """A FIFO, a directory, a device: refused at once, without waiting for a reader."""
    os.mkfifo(path)
    for name in (path, path.parent, Path("/dev/null")):
        with pytest.raises(AuditError):
            AuditLog(name)


def test_a_second_name_is_refused(tmp_path: Path, path: Path) -> None:
    """A hard link would be a way to change the log under a name that nobody protects."""
    with AuditLog(path):
        pass
    os.link(path, tmp_path / "twin")
    with pytest.raises(AuditError, match="hard link"):
        AuditLog(path)


def test_two_writers_are_refused(path: Path) -> None:
    """While one has the log open, another is told so, in this process and in another; afterwards it may."""
    code = f"from rampart_seccomp.audit import AuditLog; AuditLog({os.fspath(path)!r}).close()"
    with AuditLog(path):
        with pytest.raises(AuditError, match="somebody else is writing"):
            AuditLog(path)
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "somebody else is writing" in other.stderr
    subprocess.run([sys.executable, "-c", code], check=True)
    assert verify(path).sessions == 2


def test_a_forked_child_cannot_write(path: Path) -> None:
    """A fork would continue the chain twice from the same place; the parent's log stays usable."""
    with AuditLog(path) as log:
        child = os.fork()
        if not child:
            try:
                log.write({"n": 0})
            except AuditError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        log.write({"n": 1})
    assert verify(path).records == 2


def test_a_closed_log_refuses(path: Path) -> None:
    """Nothing is lost silently after close; closing twice is fine."""
    log = AuditLog(path)
    log.close()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.write({})


@pytest.mark.parametrize("value", [object(), b"bytes", float("nan"), {1: 2, "1": 3}])
def test_what_json_lacks_is_an_error(path: Path, value: object) -> None:
    """A value without a JSON form raises, writes nothing, and leaves the log usable."""
    with AuditLog(path) as log:
        with pytest.raises(AuditError, match="no JSON form"):
            log.write({"value": value})
        log.write({"value": None})
    assert verify(path).records == 2


def test_a_failed_write_raises_and_leaves_no_half_line(path: Path) -> None:
    """When the file may not grow (as on a full disk) write raises, and the log still verifies."""
    with AuditLog(path) as log:
        log.write({"n": 1})
        size = path.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
            with pytest.raises(AuditError) as caught:
                log.write({"text": "x" * 1000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert caught.value.errno == errno.ENOSPC
        assert path.stat().st_size == size
        log.write({"n": 2})
    assert [record.get("n") for record in records(path)] == [None, 1, 2]
    assert verify(path).records == 3


@pytest.mark.parametrize(
    ("damage", "line", "problem"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], 3, "truncated: the line is cut off"),
        (lambda lines: lines[:-1], 3, "truncated: there were 3 records, 2 are left"),
        (lambda lines: [], 1, "truncated: there were 3 records, 0 are left"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"n":2', b'"n":3')], 3, "edited"),
        (lambda lines: [*lines, b"no record\n"], 4, "edited"),
    ],
)
def test_a_damaged_end_is_not_continued(path: Path, damage: object, line: int, problem: str) -> None:
    """Opening refuses a log that was damaged at its end, names the line, and does not write to it."""
    with AuditLog(path) as log:
        log.write({"n": 1})
        log.write({"n": 2})
    content = b"".join(damage(path.read_bytes().splitlines(keepends=True)))  # type: ignore[operator]
    path.write_bytes(content)
    with pytest.raises(AuditError, match=problem) as caught:
        AuditLog(path)
    assert (caught.value.line, caught.value.file) == (line, os.fsencode(path))
    assert path.read_bytes() == content


def test_a_writer_that_died_before_its_checkpoint_is_continued(path: Path) -> None:
    """A line more than the checkpoint knows is the mark of a SIGKILL, not of an attack."""
    with AuditLog(path) as log:
        head = Path(f"{path}.head").read_bytes()
        log.write({"n": 1})
    Path(f"{path}.head").write_bytes(head)
    with AuditLog(path) as log:
        log.write({"n": 2})
    assert verify(path).records == 4
