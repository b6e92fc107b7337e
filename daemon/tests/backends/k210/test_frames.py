"""The codec, and the agent's own codec against it."""

from __future__ import annotations

import importlib.util
import struct
import sys
import types
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeaid.backends.k210 import frames
from edgeaid.backends.k210.frames import (
    Decoder,
    Frame,
    encode,
    parse,
    stuff,
    unstuff,
)

from .conftest import AGENT

bodies = st.one_of(
    st.binary(max_size=1024),
    st.builds(lambda b, n: (b * n)[:1024], st.sampled_from([b"\0", b"\1", b"\xff", b"\0\1"]), st.integers(0, 1024)),
)
any_frame = st.builds(
    Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535), bodies
)


@pytest.fixture(scope="module")
def agent() -> Any:
    """The agent's module, without a board: its codec needs none."""
    fakes = {"machine": types.ModuleType("machine"), "micropython": types.ModuleType("micropython")}
    vars(fakes["micropython"])["const"] = lambda value: value  # MicroPython's builtin helper
    import binascii
    import time

    fakes |= {"ubinascii": binascii, "ustruct": struct, "utime": time}
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        spec = importlib.util.spec_from_file_location("k210_agent", AGENT)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
    return module


@given(bodies)
@example(b"")
@example(b"\1" * 254)
@example(b"\1" * 253 + b"\0")
@example(b"\0" * 600)
def test_cobs_has_no_zero_and_comes_back(data: bytes) -> None:
    packed = stuff(data)
    assert 0 not in packed
    assert len(packed) <= len(data) + 1 + len(data) // 254
    assert unstuff(packed) == data


@given(any_frame)
def test_a_frame_comes_back_and_fits_its_limit(frame: Frame) -> None:
    data = encode(frame)
    assert data[0] == data[-1] == 0
    assert len(data) - 2 <= frames.MAX_CHUNK
    assert parse(data[1:-1]) == frame


def test_a_payload_over_the_limit_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="1025 bytes"):
        encode(Frame(5, 0, 1, 0, bytes(1025)))


@given(st.binary(max_size=3000))
def test_no_bytes_make_the_parser_raise(data: bytes) -> None:
    parse(data)
    unstuff(data)


@settings(max_examples=60)
@given(st.lists(st.one_of(any_frame, st.binary(max_size=300)), max_size=8), st.integers(1, 700))
def test_frames_are_found_between_garbage_however_the_bytes_are_cut(parts: list[Frame | bytes], step: int) -> None:
    stream = b"".join(encode(p) if isinstance(p, Frame) else p.replace(b"\0", b"\1") for p in parts)
    decoder = Decoder()
    frames = [f for i in range(0, len(stream), step) for f in decoder.feed(stream[i : i + step])]
    assert frames == [p for p in parts if isinstance(p, Frame)]


@settings(max_examples=60)
@given(any_frame, st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_byte_never_gives_a_wrong_frame(frame: Frame, where: int, change: int) -> None:
    data = bytearray(encode(frame))
    data[where % len(data)] ^= change
    # A delimiter that became something else may swallow the frame, nothing else can come out.
    assert [f for f in Decoder().feed(bytes(data) + b"\0") if f != frame] == []


def test_an_endless_stretch_without_zeros_takes_no_memory_and_is_left_behind() -> None:
    decoder = Decoder()
    for _ in range(1000):
        assert decoder.feed(b"\x55" * 4096) == []
    assert len(decoder._rest) <= frames.MAX_CHUNK + 1
    frame = Frame(9, 0, 1, 0, b"alive")
    assert decoder.feed(encode(frame)) == [frame]
    assert decoder.bad == 1
    assert decoder.discarded == 4096000


@settings(max_examples=80)
@given(any_frame)
def test_the_agent_and_the_host_write_the_same_bytes(agent: Any, frame: Frame) -> None:
    assert agent.frame(frame.type, frame.flags, frame.seq, frame.index, frame.payload) == encode(frame)


@settings(max_examples=80)
@given(st.lists(st.one_of(any_frame, st.binary(max_size=1500)), max_size=6), st.integers(1, 900))
def test_the_agent_and_the_host_find_the_same_frames(agent: Any, parts: list[Frame | bytes], step: int) -> None:
    stream = b"".join(encode(p) if isinstance(p, Frame) else p for p in parts)
    reader, decoder = agent.Reader(), Decoder()
    mine: list[Frame] = []
    theirs: list[Frame] = []
    for i in range(0, len(stream), step):
        mine += decoder.feed(stream[i : i + step])
        reader.feed(stream[i : i + step], lambda *fields: theirs.append(Frame(*fields)))
    assert theirs == mine


@given(any_frame, st.integers(0, 10**6), st.integers(1, 255))
def test_the_agent_never_takes_a_damaged_frame(agent: Any, frame: Frame, where: int, change: int) -> None:
    data = bytearray(encode(frame))
    data[where % len(data)] ^= change
    frames: list[Frame] = []
    agent.Reader().feed(bytes(data) + b"\0", lambda *fields: frames.append(Frame(*fields)))
    assert [f for f in frames if f != frame] == []


def test_the_worked_example_of_the_documentation_is_right() -> None:
    text = (AGENT.parents[2] / "docs" / "k210.md").read_text()
    block = text.split("<!-- example -->")[1].split("```")[1]
    seen = []
    for line in block.strip().splitlines()[1:]:
        _, name, hexes = line.split("|")[0:3] if "|" in line else ("", "", "")
        data = bytes.fromhex(hexes.strip())
        (frame,) = Decoder().feed(data)
        assert encode(frame) == data
        assert frames.Type(frame.type).name == name.strip()
        seen.append(frame)
    assert [f.type for f in seen][:3] == [frames.Type.HELLO, frames.Type.HELLO, frames.Type.LOAD]
    announced = next(f for f in seen if f.type == frames.Type.INPUT)
    pieces = b"".join(f.payload for f in seen if f.type == frames.Type.DATA and f.seq == announced.seq)
    size, crc = struct.unpack_from("<II", announced.payload)
    assert (len(pieces), zlib.crc32(pieces)) == (size, crc)
