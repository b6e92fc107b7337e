"""micropython for CPython."""

import hw


def const(value):
    return value


def kbd_intr(char):
    hw.interrupt = char
