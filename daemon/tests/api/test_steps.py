"""Much JSON is read in short steps, whatever is in it: others have their turns between them."""

from __future__ import annotations

import asyncio
import time

import pytest

from edgeaid.api import large_json, oip
from edgeaid.api.inference import LONG_JSON
from edgeaid.api.steps import Steps, finish, in_turns
from edgeaid.errors import EdgeaiError
from edgeaid.tensors import TensorSpec

ROWS = 1000


def request(data: bytes, rows: int = ROWS) -> bytes:
    return b'{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,1],"data":%b}]}' % (rows, data)


def longest(steps: Steps[object]) -> float:
    """Seconds of processor time of the longest step, up to the end or a refusal."""
    worst = 0.0
    while True:
        begun = time.thread_time()
        try:
            next(steps)
        except (StopIteration, EdgeaiError):
            return max(worst, time.thread_time() - begun)
        worst = max(worst, time.thread_time() - begun)


@pytest.mark.parametrize(
    "unit",
    [
        b"1,", b"0.5,", b"[1],", b"[],", b"[1,2],", b"[", b'{"a":', b'"a",', b'"\\"', b'"\\\\",', b"1 ", b" ", b"1",
        b"[" + b"1," * 2060 + b"1],", b"[" * 90 + b"1" + b"]" * 90 + b",", b'"k":"v",', b"[[]," * 900 + b'"a"],',
    ],
)  # fmt: skip
@pytest.mark.parametrize("beginning", [b"[", b'{"a":['])
def test_no_step_of_reading_takes_long(unit: bytes, beginning: bytes) -> None:
    size = LONG_JSON if unit == b"[1]," else LONG_JSON >> 4  # only the brackets are compared in one step
    data = beginning + unit * (size // len(unit)) + b"1]"
    rows = data.count(b",") + 1
    text = request(data, rows)
    spec = TensorSpec("x", "FP32", (rows, 1))

    def read() -> Steps[oip.InferRequest]:
        cut = yield from large_json.cutting(text)
        return (yield from oip.reading(cut.value(100), memoryview(b""), (spec,), (spec,)))

    assert longest(read()) < 0.05


@pytest.mark.parametrize("row", [b"[1]", b"[ 1.0 ]", b"1", b"[[1]]"])
def test_a_tensor_is_the_same_in_turns_and_at_once(row: bytes) -> None:
    text = request(b"[" + b",".join([b"  " * 20 + row] * ROWS) + b"]")
    spec = TensorSpec("x", "FP32", (ROWS, 1))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1

    async def in_loop() -> oip.InferRequest:
        cut = await in_turns(large_json.cutting(text), turn)
        return await in_turns(oip.reading(cut.value(100), memoryview(b""), (spec,), (spec,)), turn)

    at_once = finish(oip.reading(large_json.parse(text, 100), memoryview(b""), (spec,), (spec,)))
    assert asyncio.run(in_loop()) == at_once
    assert at_once.inputs[0].data == b"\0\0\x80?" * ROWS
    assert turns >= 2
