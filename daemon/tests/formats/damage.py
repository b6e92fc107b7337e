"""Damaging files, seeded: the same number always makes the same damage."""

from __future__ import annotations

import random

#: Numbers that break arithmetic: ends of ranges, signs, sizes.
NASTY = (0, 1, 2, 3, 4, 7, 8, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC)


def damaged(seed: bytes, number: int) -> bytes:
    """`seed` with one to eight changes: bytes, bits, words, cuts, moved, repeated or removed pieces; or plain noise."""
    rnd = random.Random(number)
    if rnd.random() < 0.02:
        return rnd.randbytes(rnd.randrange(200))
    data = bytearray(seed)
    for _ in range(rnd.choice((1, 1, 1, 2, 3, 5, 8))):
        if len(data) < 8:
            break
        kind, at = rnd.random(), rnd.randrange(len(data))
        if kind < 0.25:
            data[at] = rnd.randrange(256)
        elif kind < 0.45:
            data[at] ^= 1 << rnd.randrange(8)
        elif kind < 0.75:
            width = rnd.choice((2, 4, 4, 4, 8))
            at = at // 4 * 4 if rnd.random() < 0.7 else at
            value = rnd.choice((*NASTY, len(data), len(data) - at, rnd.randrange(len(data)), rnd.getrandbits(32)))
            data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif kind < 0.8:
            del data[at:]
        elif kind < 0.86:
            del data[at : at + rnd.randrange(1, 64)]
        elif kind < 0.92:
            source = rnd.randrange(len(data))
            piece = data[source : source + rnd.randrange(1, 64)]
            data[at : at + len(piece)] = piece
        elif kind < 0.97:
            source = rnd.randrange(len(data))
            data[at:at] = data[source : source + rnd.randrange(1, 200)]
        else:
            data += rnd.randbytes(rnd.randrange(1, 64))
    return bytes(data)
