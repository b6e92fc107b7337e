"""Small numbers are read and written without `json` where there is no orjson: the same tensors, or refused."""

from __future__ import annotations

import json
import math
import random
import struct

import pytest

from edgeaid.api import json_text, large_json, tensor_json
from edgeaid.api.small_numbers import bytes_of, text_of
from edgeaid.errors import InvalidRequest
from edgeaid.tensors import TensorSpec

#: What stands in an array of pixels that somebody wrote by hand, by mistake, or to harm.
ODD = (
    "-0", "-1", "256", "257", "299", "300", "999", "1000", "4294967296", "1.0", "7.0", "0.5", "1e2", "1E+2",
    "255.0", "256.0", "-0.0", "00", "05", "007", "0255", "0x1", "+1", "1_0", "true", "false", "null",
    "NaN", "Infinity", "", " ", "  ", "1 2", "2 55", " 7", "7 ", "\t7", "7\n", "\r\n7 ", "[7]", "[", "]", "[]",
    "{}", '"7"', "7\u0000", "\u0667", "9" * 400,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "orjson", None)


def test_every_number_of_a_byte_is_read_beside_every_width_of_neighbour() -> None:
    for neighbour in (0, 9, 10, 99, 100, 255):
        values = [n for value in range(256) for n in (value, neighbour)]
        assert bytes_of(",".join(map(str, values)).encode()) == bytes(values)
        assert bytes_of(", ".join(map(str, values)).encode()) == bytes(values)


def by_json(text: str) -> bytes | None:
    """What the standard library makes of an array; None for what is not whole numbers of a byte."""
    try:
        values = json.loads(text)
        return bytes(int(v) if isinstance(v, float) and v.is_integer() else v for v in values)
    except (ValueError, TypeError, OverflowError):
        return None


def of_request(text: str, count: int) -> bytes | None:
    """What the daemon makes of the same array."""
    try:
        value = large_json.parse(text.encode(), 64)
        return value.encode(TensorSpec("x", "UINT8", (count,))) if isinstance(value, large_json.Numbers) else None
    except InvalidRequest:
        return None


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", [0, 1, 2500, 4998, 4999])
def test_odd_values_are_what_json_makes_of_them_or_refused(odd: str, place: int) -> None:
    values = [str(n * 31 % 256) for n in range(5000)]
    values[place] = odd
    text = ",".join(values).join("[]")
    assert of_request(text, 5000) == by_json(text)


def test_random_arrays_are_what_json_makes_of_them() -> None:
    chance = random.Random(7)
    for _ in range(40):
        count = chance.randrange(4096, 6000)
        values = [str(chance.randrange(256)) for _ in range(count)]
        for _ in range(chance.choice((0, 0, 1, 3))):
            values[chance.randrange(count)] = chance.choice(ODD)
        text = (
            chance.choice((",", ", ", " , ", ",\n "))
            .join(values)
            .join(chance.choice(("[]", ("[ ", " ]"), ("[\n", "\n]"))))
        )
        assert of_request(text, count) == by_json(text), text[:200]


def test_random_texts_of_digits_and_commas_are_what_json_makes_of_them() -> None:
    chance = random.Random(8)
    for _ in range(3000):
        text = "".join(chance.choice("00123456789,,,,, ") for _ in range(chance.randrange(1, 12)))
        packed = bytes_of(text.encode())
        if packed is not None:
            assert packed == by_json(f"[{text}]"), text


def test_an_array_of_the_wrong_length_is_refused() -> None:
    text = ",".join(["7"] * 5000)
    assert of_request(f"[{text}]", 5000) == b"\7" * 5000
    for count in (4999, 5001):
        assert of_request(f"[{text}]", count) is None
    assert of_request(f"[{text},]", 5000) is None
    assert of_request(f"[,{text}]", 5000) is None


def test_bytes_are_written_as_json_writes_them() -> None:
    everything = bytes(range(256)) * 9
    for datatype, form in (("UINT8", "B"), ("INT8", "b")):
        values = list(struct.unpack(f"{len(everything)}{form}", everything))
        assert json.loads(tensor_json.dumps(memoryview(everything), datatype)) == values


def test_fp32_is_written_so_that_every_bit_comes_back_and_whole_numbers_stay_floats() -> None:
    chance = random.Random(9)
    bits = [chance.getrandbits(32) for _ in range(20000)]
    numbers = [v for (v,) in struct.iter_unpack("<f", struct.pack("<20000I", *bits)) if math.isfinite(v)]
    numbers += [0.0, -0.0, 1.0, -1.0, 1e-45, 3.4028234663852886e38, 16777216.0, 123456792.0, 0.1]
    raw = struct.pack(f"<{len(numbers)}f", *numbers)
    text = text_of(memoryview(raw), "FP32")
    assert text is not None
    values = json.loads(text)
    assert struct.pack(f"<{len(values)}f", *values) == raw
    assert all(isinstance(value, float) for value in values)
    assert text_of(memoryview(struct.pack("<2f", 1.0, math.nan)), "FP32") is None
