"""Verification finds every change to a log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rampart_seccomp.audit import AuditLog, verify
from rampart_seccomp.errors import AuditError

RECORDS = 6


@pytest.fixture(scope="module")
def whole() -> tuple[bytes, bytes]:
    """The content of a sound log of six records and two sessions, and of its checkpoint."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "audit.jsonl")
        for first in (0, 2):
            with AuditLog(path) as log:
                for n in range(first, first + 2):
                    log.write({"record": "decision", "object": f"/tmp/\udcff{n}", "held_us": n + 0.5, "n": n})
        return path.read_bytes(), Path(f"{path}.head").read_bytes()


@pytest.fixture(scope="module")
def check(whole: tuple[bytes, bytes]) -> Callable[..., None]:
    """Verify a changed log beside the checkpoint of the sound one."""
    directory = tempfile.mkdtemp()

    def verify_changed(log: bytes, head: bytes = whole[1], **options: bool) -> None:
        path = Path(directory, "audit.jsonl")
        path.write_bytes(log)
        Path(f"{path}.head").write_bytes(head)
        assert verify(path, **options).records == RECORDS

    return verify_changed


def test_a_sound_log_passes(whole: tuple[bytes, bytes], check: Callable[..., None]) -> None:
    """The positive control of everything below."""
    check(whole[0])


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_any_changed_byte_is_found(
    whole: tuple[bytes, bytes], check: Callable[..., None], data: st.DataObject
) -> None:
    """One byte of the log replaced, removed or added: found, even without the checkpoint."""
    log = whole[0]
    at = data.draw(st.integers(0, len(log) - 1))
    new = data.draw(st.binary(max_size=2).filter(lambda value: value != log[at : at + 1]))
    changed = log[:at] + new + log[at + 1 :]
    with pytest.raises(AuditError) as caught:
        check(changed, checkpoint=False)
    # A removed or added newline shows at the line that it belonged to, or begins.
    line = log.count(b"\n", 0, at) + 1
    assert caught.value.line in (line, line + 1)


@given(order=st.permutations(range(RECORDS)).filter(lambda order: order != sorted(order)))
@settings(max_examples=100, deadline=None)
def test_any_other_order_is_found(
    whole: tuple[bytes, bytes], check: Callable[..., None], order: list[int]
) -> None:
    """Lines in another order: found at the first one that moved."""
    lines = whole[0].splitlines(keepends=True)
    with pytest.raises(AuditError) as caught:
        check(b"".join(lines[index] for index in order), checkpoint=False)
    assert caught.value.line == next(at for at, index in enumerate(order) if at != index) + 1


@given(
    chosen=st.lists(st.integers(0, RECORDS - 1), max_size=8).filter(
        lambda chosen: chosen != [*range(RECORDS)]
    )
)
@settings(max_examples=200, deadline=None)
def test_any_selection_of_lines_is_found(
    whole: tuple[bytes, bytes], check: Callable[..., None], chosen: list[int]
) -> None:
    """Lines left out, doubled or shuffled: found; lines left out at the end by the checkpoint."""
    lines = whole[0].splitlines(keepends=True)
    with pytest.raises(AuditError):
        check(b"".join(lines[index] for index in chosen))


@given(size=st.integers(0, 4000))
@settings(max_examples=200, deadline=None)
def test_any_truncation_is_found(whole: tuple[bytes, bytes], check: Callable[..., None], size: int) -> None:
    """The log cut off anywhere, at the end of a line too."""
    log = whole[0]
    with pytest.raises(AuditError):
        check(log[: size % len(log)])


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_changed_checkpoint_is_found(
    whole: tuple[bytes, bytes], check: Callable[..., None], data: st.DataObject
) -> None:
    """One byte of the checkpoint changed, or it cut off."""
    log, head = whole
    at = data.draw(st.integers(0, len(head) - 1))
    new = data.draw(st.binary(max_size=1).filter(lambda value: value != head[at : at + 1]))
    with pytest.raises(AuditError):
        check(log, head[:at] + new + head[at + 1 :])
    with pytest.raises(AuditError):
        check(log, head[:at])


def test_messages_say_what_happened(whole: tuple[bytes, bytes], check: Callable[..., None]) -> None:
    """Each kind of change has its own words and its line."""
    lines = whole[0].splitlines(keepends=True)
    cases = [
        ([lines[0].replace(b'"pid":', b'"pid":1'), *lines[1:]], "1: edited: the hash"),
        ([*lines[:2], *lines[3:]], "3: gap: record 3 should stand before record 4"),
        ([*lines[:1], *lines[4:]], "2: gap: records 2 to 4 should stand before record 5"),
        ([*lines[:3], lines[2], *lines[3:]], "4: out of order or twice: record 3 stands where 4 should"),
        (lines[:4], "5: truncated: there were 6 records, 4 are left"),
        ([*lines[:5], lines[5][:40]], "6: truncated: the line is cut off"),
    ]
    for changed, expected in cases:
        with pytest.raises(AuditError) as caught:
            check(b"".join(changed))
        assert expected in str(caught.value)


def test_a_history_that_was_written_anew_is_found(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    """Another sound log in the place of the first one does not agree with the checkpoint."""
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        for n in range(RECORDS - 1):
            log.write({"n": n})
    Path(f"{path}.head").write_bytes(whole[1])
    with pytest.raises(AuditError, match="rewritten"):
        verify(path)


def test_without_a_checkpoint_it_must_be_asked_for(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    """A missing .head file is an error unless the caller says that it is."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(whole[0])
    with pytest.raises(AuditError, match="there is no checkpoint"):
        verify(path)
    assert verify(path, checkpoint=False).records == RECORDS


def test_missing_and_empty_logs_do_not_pass(tmp_path: Path) -> None:
    """Nothing is not whole."""
    with pytest.raises(AuditError, match="cannot read"):
        verify(tmp_path / "missing")
    (tmp_path / "empty").touch()
    with pytest.raises(AuditError, match="is empty"):
        verify(tmp_path / "empty")


def test_a_growing_log_verifies(tmp_path: Path) -> None:
    """Verifying beside the writer sees what is there, and tolerates the line that is on its way."""
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        log.write({"n": 1})
        assert verify(path).records == 2
        with path.open("ab") as half:
            half.write(b'{"half":')
        assert verify(path).records == 2
    with pytest.raises(AuditError, match="cut off"):
        verify(path)
