"""What one inference on an Edge TPU costs: compute time plus all bytes that have to travel.

The rule of libedgetpu's driver (google-coral/libedgetpu:driver/driver.cc): a compiled file has C cached bytes and S
streamed bytes. S travels with every inference. C travels when the model is not in the device's cached set; the set is
emptied as soon as a model with another token runs. Inputs, outputs and the instructions travel every time. Then
`t_ms = compute_ms + 1000 * MiB_moved / bandwidth`.

Pure functions; bytes are bytes, times are milliseconds, bandwidth is MiB/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20

#: Fitted to the published co-compilation benchmark: USB 2.0 of a Raspberry Pi 3B+. USB 3 and PCIe differ: measure.
USB2_BANDWIDTH: Final = 33.5

#: Parameter memory that one group of co-compiled models shares, MiB. Public compiler logs lie between 1.1 and 8.2,
#: mostly 6.5 to 7.7; this is the lowest figure of the published benchmark, so a plan errs towards streaming.
ON_CHIP_MIB: Final = 6.53

#: Bytes streamed per byte that found no room. The 1.0 compiler's logs show 0.98 to 1.15, newer files exactly 1.
STREAM_OVERHEAD: Final = 1.06

#: Milliseconds of computing: a fixed part and a part per 10^9 multiply-accumulates. Through MobileNet v2 (0.30) and
#: Inception v1 (1.5) of the same benchmark, 10.33 and 13.6 ms, of which 8.0 and 10.4 are transfers of inputs, outputs
#: and instructions (281,032 and 366,500 bytes).
COMPUTE_FIXED_MS: Final = 2.12
COMPUTE_MS_PER_GMAC: Final = 0.7
#: What a MobileNet v2 at 224x224 moves with every inference beside parameters: input, output, instructions.
MOBILENET_TRANSFER: Final = 281_032
#: Instructions among them.
MOBILENET_INSTRUCTIONS: Final = 128_000
#: Instructions of a compiled model: a fixed part and a part per operator, but at least so much per value that its
#: operators make, as maps that do not fit in the chip are computed in pieces.
INSTRUCTION_BYTES: Final = 3_000
INSTRUCTION_BYTES_PER_OPERATOR: Final = 1_900
INSTRUCTION_BYTES_PER_VALUE: Final = 0.006
#: A softmax has more of them, per element up to so many elements.
SOFTMAX_BYTES_PER_ELEMENT: Final = 40
SOFTMAX_ELEMENTS: Final = 1024


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled model, as far as the cost rule needs it."""

    #: Unique per loaded model: the cached set holds loaded packages, not files.
    name: str
    #: Bytes sent once and kept in on-chip memory (C).
    cached: int
    #: Bytes sent with every inference (S).
    streamed: int
    #: Parameter caching token; equal for files compiled by one command. 0 = the model never shares the memory.
    token: int
    #: Milliseconds of computing, without transfers.
    compute_ms: float
    #: Bytes of inputs, outputs and instructions, which travel with every inference.
    transfer: int = 0


@dataclass(frozen=True, slots=True)
class CacheState:
    """What an opened device holds. The default is a device just opened."""

    token: int = 0
    cached: frozenset[str] = frozenset()


def step(state: CacheState, model: Built) -> tuple[CacheState, int]:
    """Run `model` once: the state afterwards and the parameter bytes that travelled."""
    if model.token == 0 or model.token != state.token:
        state = CacheState()
    moved = model.streamed
    if model.cached and model.name not in state.cached:
        moved += model.cached
        state = CacheState(model.token, state.cached | {model.name})
    return state, moved


def latency_ms(compute_ms: float, moved: float, bandwidth: float = USB2_BANDWIDTH) -> float:
    """Milliseconds of an inference for which `moved` bytes travel at `bandwidth` MiB/s."""
    return compute_ms + 1000 * moved / MIB / bandwidth


def compute_ms(macs: int | None) -> float:
    """Computing from multiply-accumulates; without them, that of a MobileNet v2."""
    return COMPUTE_FIXED_MS + COMPUTE_MS_PER_GMAC * (0.3 if macs is None else macs / 1e9)


def share_memory(totals: list[int], budget: float, overhead: float = STREAM_OVERHEAD) -> list[tuple[int, int]]:
    """(cached, streamed) bytes per model when `totals` parameter bytes are compiled together, in that order.

    The compiler serves models in command-line order from `budget` bytes; what finds no room is streamed.
    """
    result = []
    left = int(budget)
    for total in totals:
        cached = min(total, left)
        left -= cached
        result.append((cached, round((total - cached) * overhead)))
    return result
