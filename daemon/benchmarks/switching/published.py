"""The published co-compilation benchmark of the Edge TPU, and how well `t = compute + bytes / link rate` explains it.

Source: coral.ai "Edge TPU compiler, parameter data caching benchmark" (2019-06-23): Raspberry Pi 3B+, USB Accelerator
at maximum clock on USB 2.0, API 1.9.2, compiler 1.0.249710469. Means of 100 later inferences, milliseconds. The
megabytes come from the compiler's log of the same models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgeaid.scheduling.costs import MIB, USB2_MIB_S, predict

#: Compute alone, ms: measured with everything cached (MobileNet v2), or with a known small rest (inception_v1).
MOBILENET_V2_MS: Final = 10.33
INCEPTION_V1_MS: Final = 13.6

#: Parameters, MiB.
BIRD_MIB: Final = 3.75
PLANT_MIB: Final = 5.08
INCEPTION_MIB: Final = 6.53 + 182.19 / 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure of the table."""

    what: str
    compute_ms: float
    #: MiB of parameters that travel with each inference: streamed, plus cached ones when the cache rule sends them.
    moved_mib: float
    measured_ms: float

    @property
    def predicted_ms(self) -> float:
        """What the formula says."""
        return 1000 * predict(self.compute_ms / 1000, self.moved_mib * MIB, USB2_MIB_S)

    @property
    def error(self) -> float:
        """Relative, signed."""
        return self.predicted_ms / self.measured_ms - 1


#: Every later-inference figure.
LATER: Final = (
    Row("bird alone", MOBILENET_V2_MS, 0, 10.33),
    Row("bird, alternating with plant", MOBILENET_V2_MS, BIRD_MIB, 123.00),
    Row("plant, alternating with bird", MOBILENET_V2_MS, PLANT_MIB, 163.27),
    Row("bird in both slots, first", MOBILENET_V2_MS, 0, 10.33),
    Row("bird in both slots, second", MOBILENET_V2_MS, 0, 10.34),
    Row("bird co-compiled with plant", MOBILENET_V2_MS, 0, 10.61),
    Row("plant co-compiled with bird, streams", MOBILENET_V2_MS, 2.59, 86.31),
    Row("inception_v1, alternating with plant", INCEPTION_V1_MS, INCEPTION_MIB, 212.19),
    Row("plant, alternating with inception_v1", MOBILENET_V2_MS, PLANT_MIB, 162.95),
    Row("inception_v1 co-compiled first, streams", INCEPTION_V1_MS, 182.19 / 1024, 18.91),
    Row("plant co-compiled second, streams", MOBILENET_V2_MS, 5.86, 183.40),
    Row("plant co-compiled first", MOBILENET_V2_MS, 0, 11.18),
    Row("inception_v1 co-compiled second, streams", INCEPTION_V1_MS, 5.16, 169.28),
)

#: Seconds used as the truth of the simulated device: measured, not predicted.
RUN_S: Final = {"bird": 0.01033, "plant": 0.01033}
SWITCH_S: Final = {"bird": 0.12300 - 0.01033, "plant": 0.16327 - 0.01033}
#: What the scheduler is told beforehand: bytes from the files.
CACHED_BYTES: Final = {"bird": int(BIRD_MIB * MIB), "plant": int(PLANT_MIB * MIB)}
