"""Registers and memory of the K210's KPU, as every kmodel version stores them.

Sources: kendryte/nncase v0.2.0-beta4:src/common/include/kernels/k210/k210_kernels.h and the kmodel reference of this
project (docs/formats.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Bytes of feature-map memory.
KPU_RAM: Final = 2_097_152
#: Bytes of general memory, firmware and heaps included.
MAIN_RAM: Final = 6 * 1024 * 1024

#: Pooling field -> name; 5-7 pick one pixel, which is how stride 2 is done.
POOLS: Final = (
    "", "max 2x2 s2", "mean 2x2 s2", "max 4x4 s4", "mean 4x4 s4", "stride 2", "stride 2 (right)", "stride 4",
    "mean 2x2 s1", "max 2x2 s1",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Convolution:
    """One KPU convolution, decoded from its twelve registers. Shapes are (channels, height, width)."""

    input: tuple[int, int, int]
    output: tuple[int, int, int]
    #: Side of the square kernel, 1 or 3.
    kernel: int
    depthwise: bool
    #: One of POOLS.
    pool: str
    #: Byte ranges of KPU RAM: where the input lies and where the result goes.
    source: tuple[int, int]
    destination: tuple[int, int]
    #: Bytes of weights per load (30 KiB at most) and number of loads.
    load_bytes: int
    loads: int
    #: Whether the result also goes to main memory.
    to_main: bool

    @property
    def peak(self) -> int:
        """Highest byte of KPU RAM used, plus one."""
        return max(sum(self.source), sum(self.destination))


def feature_map_bytes(channels: int, height: int, width: int) -> int:
    """Bytes of KPU RAM that one feature map takes; rows are packed into 64-byte units by width."""
    if width <= 16:
        groups, row = 4, 1
    elif width <= 32:
        groups, row = 2, 1
    else:
        groups, row = 1, -(-width // 64)
    groups = max(1, min(channels, groups))
    return 64 * row * height * -(-channels // groups)


def bits(register: int, low: int, high: int) -> int:
    """Bits low..high of a register, inclusive."""
    return register >> low & ((1 << (high - low + 1)) - 1)


def convolution(registers: Sequence[int]) -> Convolution:
    """Decode the twelve 64-bit registers of one layer."""
    r = registers
    source_shape = (bits(r[2], 0, 9) + 1, bits(r[3], 10, 18) + 1, bits(r[3], 0, 9) + 1)
    target_shape = (bits(r[2], 32, 41) + 1, bits(r[3], 42, 50) + 1, bits(r[3], 32, 41) + 1)
    pool = bits(r[4], 4, 7)
    return Convolution(
        input=source_shape,
        output=target_shape,
        kernel=3 if bits(r[4], 0, 2) == 1 else 1,
        depthwise=bool(bits(r[0], 3, 3)),
        pool=POOLS[pool] if pool < len(POOLS) else f"pool {pool}",
        source=(bits(r[1], 0, 14) * 64, feature_map_bytes(*source_shape)),
        destination=(bits(r[1], 32, 46) * 64, feature_map_bytes(*target_shape)),
        load_bytes=bits(r[5], 15, 31),
        loads=bits(r[5], 1, 6) + 1,
        to_main=bool(bits(r[11], 0, 0)),
    )
