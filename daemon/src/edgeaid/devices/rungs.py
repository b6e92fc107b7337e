"""Carries out the rungs of the ladder that touch hardware. Thin on purpose: each is one ioctl or a few sysfs writes.

All need write access that the daemon may not have: a udev rule gives group plugdev the USB node; `authorized` and port
power need more (docs/devices.md). A rung that is not permitted says so, counts as failed, and the
ladder goes on.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeaid.devices.discovery import SYS, Found
from edgeaid.devices.ladder import Rung
from edgeaid.errors import DeviceError

#: _IO('U', 20) of linux/usbdevice_fs.h.
USBDEVFS_RESET: Final = 0x5514

#: How long `authorized` stays 0 and the port stays dark. A stick's own capacitors outlast a shorter cut.
DARK_S: Final = 1.0

Ioctl = Callable[[int, int], object]


def usb_reset(found: Found, *, ioctl: Ioctl = fcntl.ioctl) -> None:
    """Reset the device's port; it re-enumerates in place. Raises `DeviceError`."""
    if found.usb_ids is None or found.node is None:
        raise DeviceError(f"device {found.id} is not on USB: it cannot be reset there")
    try:
        descriptor = os.open(found.node, os.O_WRONLY | os.O_CLOEXEC)
        try:
            ioctl(descriptor, USBDEVFS_RESET)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refused(found, f"reset its USB port through {found.node}", error) from error


async def authorize(found: Found, *, sysfs: Path = SYS, dark_s: float = DARK_S) -> None:
    """Make the kernel forget the device and find it again. Raises `DeviceError`."""
    path = sysfs / "bus/usb/devices" / found.port / "authorized"
    await _pulse(found, path, "0", "1", dark_s, "withdraw and renew its USB authorization")


async def port_power(found: Found, *, sysfs: Path = SYS, dark_s: float = DARK_S) -> None:
    """Switch its port off and on, if the hub can and the kernel offers it (6.0 and later). Raises `DeviceError`."""
    path = port_folder(found.port, sysfs) / "disable"
    if not path.exists():
        raise DeviceError(
            f"device {found.id}: the power of port {found.port} cannot be switched here (no {path.name} attribute: "
            "needs Linux 6.0 and a hub with per-port power); use a hub that can, or replug it by hand"
        )
    await _pulse(found, path, "1", "0", dark_s, "switch its port off and on")


def port_folder(port: str, sysfs: Path = SYS) -> Path:
    """The hub's folder for a port: `1-1.4` is port 4 of hub `1-1`, `2-1` is port 1 of root hub `usb2`."""
    hub, dot, number = port.rpartition(".")
    if not dot:
        bus, _, number = port.partition("-")
        return sysfs / "bus/usb/devices" / f"{bus}-0:1.0" / f"usb{bus}-port{number}"
    return sysfs / "bus/usb/devices" / f"{hub}:1.0" / f"{hub}-port{number}"


async def perform(rung: Rung, found: Found, *, sysfs: Path = SYS, ioctl: Ioctl = fcntl.ioctl) -> None:
    """Carry out a hardware rung; `RETRY` and `REOPEN` are the worker's business and do nothing here."""
    if rung is Rung.USB_RESET:
        # The ioctl blocks until the hub has answered, seconds in the worst case.
        await asyncio.to_thread(usb_reset, found, ioctl=ioctl)
    elif rung is Rung.AUTHORIZED:
        await authorize(found, sysfs=sysfs)
    elif rung is Rung.PORT_POWER:
        await port_power(found, sysfs=sysfs)


async def _pulse(found: Found, path: Path, first: str, then: str, dark_s: float, what: str) -> None:
    """Write one value, wait, write the other; the second is written whatever happens in between."""
    try:
        path.write_text(first, encoding="ascii")
    except OSError as error:
        raise _refused(found, f"{what} ({path})", error) from error
    try:
        await asyncio.sleep(dark_s)
    finally:
        try:
            path.write_text(then, encoding="ascii")
        except OSError as error:
            raise _refused(found, f"{what} ({path})", error) from error


def _refused(found: Found, what: str, error: OSError) -> DeviceError:
    hint = ""
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        hint = "; docs/devices.md says what gives the daemon this right"
    return DeviceError(f"device {found.id}: cannot {what}: {error.strerror or error}{hint}")
