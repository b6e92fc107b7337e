# ruff: noqa: E402  the shims must be in place before what uses them is imported
"""Runs first in every MicroPython: puts the shims where MaixPy has its modules."""

import builtins
import sys

import shim_uctypes
import shim_utime
import shim_uzlib

sys.modules["uctypes"] = shim_uctypes
sys.modules["utime"] = sys.modules["time"] = shim_utime
sys.modules["uzlib"] = shim_uzlib

import files

sys.modules["uos"] = sys.modules["os"] = files
builtins.open = files.open

import image

_id = builtins.id


def _where(thing):
    return shim_uctypes.real_addressof(thing.head) if isinstance(thing, image.Image) else _id(thing)


builtins.id = _where
