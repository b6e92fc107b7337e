# ruff: noqa: F401  what is imported is what the module offers
"""utime of the real MicroPython, but sleeping lets the processor rest and the line be read."""

import hw
from utime import ticks_add, ticks_diff, ticks_ms, ticks_us

sleep_ms = hw.sleep_ms


def sleep(seconds):
    hw.sleep_ms(int(seconds * 1000))
