"""The Python half of the control protocol says the same as csrc/protocol.h."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rampart_seccomp.launch import protocol

HEADER = Path(__file__).resolve().parents[2] / "csrc" / "protocol.h"
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
FILES = st.builds(protocol.File, U64, U64)
RELATIVES = st.builds(protocol.Child, U64, U64)


def trace(
    head: tuple[int, int, int, protocol.File], strings: bytes, more: int, *rest: protocol.File
) -> protocol.Trace:
    """A TRACE whose strings are packed; with `more`, they would not fit."""
    size = len(strings) + (protocol.MAX_PACKED + more if more else 0)
    return protocol.Trace(*head, size // 2, size - size // 2, *rest, b"" if more else strings)


MESSAGES = st.one_of(
    st.builds(
        protocol.Start,
        st.integers(1, 4096).map(lambda count: bytes(range(8)) * count),
        st.sampled_from([protocol.StartFlag(number) for number in range(8)]),
        U32,
        st.builds(protocol.Limits, **{field.name: U64 for field in attrs.fields(protocol.Limits)}),
    ),
    st.just(protocol.Go()),
    st.builds(protocol.Lend, st.sampled_from(protocol.Lent)),
    st.builds(protocol.Signal, st.integers(0, 64), st.booleans()),
    st.builds(
        protocol.Listener,
        U32,
        st.integers(0, 2**64 - 1),
        st.binary(min_size=protocol.NONCE_SIZE, max_size=protocol.NONCE_SIZE),
        U32,
        st.booleans(),
    ),
    st.just(protocol.Started()),
    st.just(protocol.Stopping()),
    st.builds(protocol.Failed, st.sampled_from(protocol.Stage), st.integers(0, 4095)),
    st.builds(
        trace,
        st.tuples(U32, U32, U64, FILES),
        st.binary(max_size=64),
        st.just(0) | st.integers(1, 2**31),
        FILES,
    ),
    st.builds(protocol.Release, U32, U64),
    st.builds(protocol.Halt, U32, U32, U64),
    st.builds(protocol.Traced, st.integers(0, 4095), U64),
    st.builds(
        protocol.Executed,
        st.sampled_from(protocol.Outcome),
        U64,
        U32,
        U64,
        st.none() | st.lists(RELATIVES, max_size=4).map(tuple),
        st.lists(RELATIVES, max_size=4).map(tuple),
    ),
    st.builds(protocol.Ended, st.integers(0, 2**16 - 1)),
    st.builds(protocol.Exceeded, st.sampled_from(protocol.Limit)),
)


@given(MESSAGES)
def test_round_trip(message: protocol.Message) -> None:
    """Every message survives encoding, and fits the buffer that receivers use."""
    packet = protocol.encode(message)
    assert protocol.decode(packet) == message
    assert len(packet) <= protocol.MAX_PACKET


@given(MESSAGES, st.integers(1, 7))
def test_cut_or_padded_packets_are_refused(message: protocol.Message, size: int) -> None:
    """A packet of the wrong size is an error, never a shorter message."""
    packet = protocol.encode(message)
    for wrong in (packet[:-size], packet + bytes(size)):
        with pytest.raises(ValueError, match=r"control packet|START|EXECUTED|TRACE"):
            protocol.decode(wrong)


@given(st.binary(max_size=64))
def test_noise_is_refused(noise: bytes) -> None:
    """Whatever the bytes are: a message or ValueError."""
    try:
        protocol.decode(noise)
    except ValueError:
        return
    assert struct.unpack_from("=I", noise)[0] in (*range(1, 8), *range(16, 22), 24, 25)


@pytest.mark.parametrize("size", [protocol.MAX_PACKED, protocol.MAX_PACKED + 1])
def test_strings_are_packed_or_carried(size: int) -> None:
    """What fits comes in the packet, all of it; what does not never does in part."""
    fits = size <= protocol.MAX_PACKED
    image = protocol.File(1, 2)
    order = protocol.Trace(3, 4, 5, image, 1, size - 1, strings=b"x" * size if fits else b"")
    assert protocol.decode(protocol.encode(order)) == order
    with pytest.raises(ValueError, match="TRACE"):
        protocol.Trace(3, 4, 5, image, 1, size - 1, strings=b"" if fits else b"x" * size)


@pytest.mark.parametrize("size", [0, 7, 12, 4097 * 8])
def test_programs_of_impossible_size(size: int) -> None:
    """An empty program, half an instruction, more than the kernel takes: refused before it is sent."""
    with pytest.raises(ValueError, match="instructions"):
        protocol.Start(bytes(size))


def test_same_as_the_header(tmp_path: Path) -> None:
    """Sizes, offsets and numbers of the C structures, as a compiler has them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not HEADER.exists():
        pytest.skip("needs a compiler and the sources")
    structs = {
        "start": protocol.Start,
        "go": protocol.Go,
        "signal": protocol.Signal,
        "listener": protocol.Listener,
        "started": protocol.Started,
        "failed": protocol.Failed,
        "trace": protocol.Trace,
        "release": protocol.Release,
        "halt": protocol.Halt,
        "traced": protocol.Traced,
        "executed": protocol.Executed,
        "stopping": protocol.Stopping,
        "ended": protocol.Ended,
        "exceeded": protocol.Exceeded,
    }
    expected = {f"RS_{name.upper()}": kind.type for name, kind in structs.items()}
    expected |= {f"sizeof(struct rs_{name})": kind.layout.size for name, kind in structs.items()}
    expected |= {f"RS_START_{flag.name}": flag.value for flag in protocol.StartFlag}
    expected |= {f"RS_LIMIT_{limit.name}": limit.value for limit in protocol.Limit}
    expected |= {
        f"offsetof(struct rs_limits, {field.name})": index * 8
        for index, field in enumerate(attrs.fields(protocol.Limits))
    }
    expected |= {"sizeof(struct rs_limits)": protocol.Limits.layout.size}
    expected |= {f"RS_STAGE_{stage.name}": stage.value for stage in protocol.Stage}
    expected |= {f"RS_{outcome.name}": outcome.value for outcome in protocol.Outcome}
    expected |= {
        "sizeof(struct rs_child)": protocol.Child.layout.size,
        "offsetof(struct rs_trace, cookie)": struct.calcsize("=IIII"),
        "offsetof(struct rs_trace, interpreter)": struct.calcsize("=IIIIQQQ"),
        "offsetof(struct rs_executed, pid)": struct.calcsize("=IIQQ"),
        "RS_NONCE_SIZE": protocol.NONCE_SIZE,
        "RS_MAX_PACKED": protocol.MAX_PACKED,
        "sizeof(struct rs_start) + RS_MAX_INSNS * 8": protocol.MAX_PACKET,
        "offsetof(struct rs_listener, nonce_address)": struct.calcsize("=II"),
        "offsetof(struct rs_listener, nonce)": struct.calcsize("=IIQ"),
        "offsetof(struct rs_listener, landlock_abi)": struct.calcsize("=IIQ16s"),
        "offsetof(struct rs_failed, error)": struct.calcsize("=II"),
    }
    prints = "".join(f'printf("%d\\n", (int)({expression}));' for expression in expected)
    source = tmp_path / "layout.c"
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {prints} return 0; }}\n')
    subprocess.run([compiler, source, "-o", tmp_path / "layout"], check=True)
    output = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout
    assert dict(zip(expected, map(int, output.split()), strict=True)) == expected
