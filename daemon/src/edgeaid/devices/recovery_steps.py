"""Carries out the steps of the ladder that touch hardware. Thin on purpose: each is one ioctl or a few sysfs writes.

A udev rule gives group plugdev the USB node, which is all that a reset needs. `authorized` and the power of a port are
root's to write: where the daemon may not, it asks `usb_helper.py`, a unit of its own that can do these two things and
no other. A step that is not permitted is logged with the reason, counts as failed, and the next one follows.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import DeviceError
from .discovery import SYS, Hardware
from .ladder import Step

#: _IO('U', 20) of linux/usbdevice_fs.h.
USBDEVFS_RESET: Final = 0x5514

#: How long `authorized` stays 0 and the port stays dark. A stick's own capacitors outlast a shorter cut.
DARK_S: Final = 1.0

#: Socket of edgeaid-usb.socket.
HELPER: Final = Path("/run/edgeai/usb.sock")
#: The helper starts Python, then keeps the port dark.
HELPER_S: Final = 15.0

Ioctl = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Switch:
    """sysfs attributes that are written twice."""

    paths: tuple[Path, ...]
    first: str
    then: str


def usb_reset(hardware: Hardware, *, ioctl: Ioctl = fcntl.ioctl) -> None:
    """Reset the device's port; it re-enumerates in place. Raises `DeviceError`."""
    if hardware.usb_ids is None or hardware.node is None:
        raise DeviceError(f"device {hardware.id} is not on USB: it cannot be reset there")
    try:
        descriptor = os.open(hardware.node, os.O_WRONLY | os.O_CLOEXEC)
        try:
            ioctl(descriptor, USBDEVFS_RESET)
        finally:
            os.close(descriptor)
    except OSError as error:
        text = f"device {hardware.id}: cannot reset its USB port through {hardware.node}: {error.strerror or error}"
        hint = "; docs/devices.md says what gives the daemon this right" if _forbidden(error) else ""
        raise DeviceError(text + hint) from error


def switch(step: Step, port: str, sysfs: Path = SYS) -> Switch:
    """What `authorized` and `port-power` write for a port such as `1-1.4`. Raises `DeviceError`."""
    if step is Step.AUTHORIZED:
        return Switch((sysfs / "bus/usb/devices" / port / "authorized",), "0", "1")
    directory = port_directory(port, sysfs)
    # A USB 3 socket is two ports with one supply: it loses power only when both are off.
    paths = tuple(path for path in (directory / "disable", directory / "peer" / "disable") if path.exists())
    if not paths:
        raise DeviceError(
            f"the power of port {port} cannot be switched here (no attribute `disable`: needs Linux 6.0 and a hub with "
            "per-port power); use a hub that can, or replug it by hand"
        )
    return Switch(paths, "1", "0")


def port_directory(port: str, sysfs: Path = SYS) -> Path:
    """The hub's directory for a port: `1-1.4` is port 4 of hub `1-1`, `2-1` is port 1 of root hub `usb2`."""
    hub, dot, number = port.rpartition(".")
    if not dot:
        bus, _, number = port.partition("-")
        return sysfs / "bus/usb/devices" / f"{bus}-0:1.0" / f"usb{bus}-port{number}"
    return sysfs / "bus/usb/devices" / f"{hub}:1.0" / f"{hub}-port{number}"


async def perform(
    step: Step,
    hardware: Hardware,
    *,
    sysfs: Path = SYS,
    ioctl: Ioctl = fcntl.ioctl,
    helper: Path = HELPER,
    dark_s: float = DARK_S,
) -> None:
    """Carry out a hardware step; `RETRY` and `REOPEN` are the worker's business and do nothing here."""
    if step is Step.USB_RESET:
        # The ioctl blocks until the hub has answered, seconds in the worst case.
        await asyncio.to_thread(usb_reset, hardware, ioctl=ioctl)
    elif step in (Step.AUTHORIZED, Step.PORT_POWER):
        try:
            await pulse(switch(step, hardware.port, sysfs), dark_s)
        except OSError as error:
            if not _forbidden(error):
                raise DeviceError(f"device {hardware.id}: {step} does not work: {error}") from error
            await _ask(helper, step, hardware)


async def pulse(what: Switch, dark_s: float) -> None:
    """Write one value, wait, write the other; the second is written whatever happens in between. Raises OSError."""
    done: list[Path] = []
    try:
        for path in what.paths:
            path.write_text(what.first, encoding="ascii")
            done.append(path)
        await asyncio.sleep(dark_s)
    finally:
        for path in done:
            path.write_text(what.then, encoding="ascii")


async def _ask(helper: Path, step: Step, hardware: Hardware) -> None:
    """Let the helper do it: one line there, one line back."""
    try:
        async with asyncio.timeout(HELPER_S):
            reader, writer = await asyncio.open_unix_connection(helper)
            try:
                writer.write(f"{step} {hardware.port}\n".encode())
                answer = (await reader.readline()).decode(errors="replace").strip()
            finally:
                writer.close()
    except (OSError, ValueError) as error:  # ValueError: a line without an end
        raise DeviceError(
            f"device {hardware.id}: {step} needs root, and the helper for it does not answer at {helper} "
            f"({error or 'time out'}); systemctl enable --now edgeaid-usb.socket"
        ) from error
    if answer != "ok":
        raise DeviceError(f"device {hardware.id}: {step}: {answer or 'the helper ended without an answer'}")


def _forbidden(error: OSError) -> bool:
    return isinstance(error, PermissionError) or error.errno == errno.EROFS
