"""USB and PCI ids of the devices we know. Sources: the vendors' udev rules and drivers, see docs/devices.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Known:
    """What an id stands for."""

    #: For people.
    kind: str
    #: Artifact target the device runs: edgetpu, ncs, ncs2, k210.
    target: str
    #: Its firmware is running; False = it waits for one.
    running: bool
    #: A serial bridge: a board may be behind it, which only its protocol shows.
    serial: bool = False


CORAL_BOOT: Final = (0x1A6E, 0x089A)
CORAL: Final = (0x18D1, 0x9302)
NCS_BOOT: Final = (0x03E7, 0x2150)
NCS2_BOOT: Final = (0x03E7, 0x2485)
#: Both Movidius generations once firmware runs. Only the id they had before distinguishes them.
MOVIDIUS: Final = (0x03E7, 0xF63B)

USB: Final[dict[tuple[int, int], Known]] = {
    CORAL_BOOT: Known("Coral USB Accelerator", "edgetpu", running=False),
    CORAL: Known("Coral USB Accelerator", "edgetpu", running=True),
    NCS_BOOT: Known("Neural Compute Stick", "ncs", running=False),
    NCS2_BOOT: Known("Neural Compute Stick 2", "ncs2", running=False),
    MOVIDIUS: Known("Neural Compute Stick", "ncs", running=True),
    # K210 boards: WCH CH340 / CH552 / CH9102, FTDI, CP210x, Prolific bridges and the DAP-Link of the M5 sticks.
    (0x1A86, 0x7523): Known("K210 board (CH340)", "k210", running=True, serial=True),
    (0x1A86, 0x55D3): Known("K210 board (CH343)", "k210", running=True, serial=True),
    (0x1A86, 0x55D4): Known("K210 board (CH9102)", "k210", running=True, serial=True),
    (0x0403, 0x6001): Known("K210 board (FT232)", "k210", running=True, serial=True),
    (0x0403, 0x6010): Known("K210 board (FT2232)", "k210", running=True, serial=True),
    (0x0403, 0x6015): Known("K210 board (FT231X)", "k210", running=True, serial=True),
    (0x10C4, 0xEA60): Known("K210 board (CP210x)", "k210", running=True, serial=True),
    (0x067B, 0x2303): Known("K210 board (PL2303)", "k210", running=True, serial=True),
    (0xC251, 0xF001): Known("K210 board (DAP-Link)", "k210", running=True, serial=True),
}

#: Nominal Mbit/s at which a device can work; a slower port is reported.
BEST_SPEED: Final[dict[str, float]] = {"edgetpu": 5000.0, "ncs": 5000.0, "ncs2": 5000.0}
