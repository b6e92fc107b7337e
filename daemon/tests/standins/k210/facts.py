"""What the stand-in's KPU.load wants to know of a kmodel (v3, v4), read without the code under test."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Facts:
    version: int
    #: w, h, channels of a picture; 0, 0, n for n floats
    input: tuple[int, int, int]
    #: Bytes of each output.
    outputs: tuple[int, ...]
    #: "f" or "B": what fmap.typecode says.
    kind: str


def read(data: bytes) -> Facts | int:
    """Facts, or MaixPy's error number."""
    if len(data) < 40:
        return 2005
    words = struct.unpack_from("<10I", data)
    if words[0] == 3:
        layers, outputs = words[3], words[6]
        sizes = tuple(struct.unpack_from("<II", data, 28 + 8 * i)[1] for i in range(outputs))
        table = [struct.unpack_from("<II", data, 28 + 8 * outputs + 8 * i) for i in range(layers)]
        body = 28 + 8 * outputs + 8 * layers
        first = table[0][0]
        if first == 10240:
            offset = struct.unpack_from("<5I", data, body)[2]
            registers = struct.unpack_from("<12Q", data, offset)
            shape = ((registers[3] & 0x3FF) + 1, (registers[3] >> 10 & 0x1FF) + 1, (registers[2] & 0x3FF) + 1)
        else:
            shape = (0, 0, struct.unpack_from("<4I", data, body)[3] if first == 18 else 0)
        return Facts(3, shape, sizes, "B" if table[-1][0] == 10240 else "f")
    if words[0] == 0x4B4D444C and words[1] == 4:
        inputs, outputs = words[7], words[8]
        _, c, h, w = struct.unpack_from("<4i", data, 40 + 16 * inputs)
        at = 40 + 32 * inputs
        return Facts(4, (w, h, c), tuple(struct.unpack_from("<4I", data, at + 16 * i)[3] for i in range(outputs)), "f")
    return 2002


def small_kmodel(w: int, h: int, c: int, outputs: int = 1) -> bytes:
    """A valid v4 file: u8 picture in, float32 of the same number of elements out, once per output."""
    n = w * h * c
    out_bytes = 4 * n
    main = (n + 7) // 8 * 8
    head = struct.pack("<10I", 0x4B4D444C, 4, 0, 1, 0, main + outputs * out_bytes, outputs, 1, outputs, 0)
    source = struct.pack("<4I", 1, 1, 0, n)
    targets = [struct.pack("<4I", 1, 0, main + i * out_bytes, out_bytes) for i in range(outputs)]
    head += source + struct.pack("<4i", 1, c, h, w) + b"".join(targets)
    bodies = [source + t + struct.pack("<if", 0, 1 / 255) for t in targets]
    return head + b"".join(struct.pack("<II", 3, len(b)) for b in bodies) + b"".join(bodies)


def answer(raw: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    """What the stand-in's KPU computes: float32 in [0, 1), a function of all of the input and the number."""
    seed = zlib.crc32(raw)
    made = [np.random.default_rng([seed, i]) for i in range(len(sizes))]
    return [rng.random(size // 4, dtype=np.float32).tobytes() for rng, size in zip(made, sizes, strict=True)]
