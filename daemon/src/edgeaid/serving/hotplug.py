"""Accelerators that come and go: discovery's changes become devices of the data plane."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Final

from .. import config as configuration
from ..devices.discovery import SYS, Hardware
from ..devices.monitor import Change, Monitor
from .device import DeviceRunner
from .plane import Plane
from .tasks import Tasks

log = logging.getLogger(__name__)

#: A stick that loads its firmware leaves the bus and returns; only one that stays away was unplugged.
GRACE_SECONDS: Final = 2.0


def backend_name(hardware: Hardware) -> str:
    """How a target's backend calls a device."""
    if hardware.target == "edgetpu":
        return f"usb:{hardware.port}" if hardware.usb_ids else str(hardware.node)
    if hardware.target == "k210":
        return str(hardware.node)
    return ""  # libmvnc and OpenVINO name sticks themselves: the first free one


class Hotplug:
    """Watches the buses and passes changes to the plane.

    A target that the configuration has devices for gets no others: hardware is matched to one of them.
    """

    def __init__(self, plane: Plane, *, sysfs: Path = SYS, dev: Path = Path("/dev")) -> None:
        self.plane = plane
        self._configured = {d.target for d in plane.config.device}
        self._monitor = Monitor(self._changed, sysfs=sysfs, dev=dev, interval_s=plane.config.discover_seconds)
        self._tasks = Tasks()

    def start(self) -> None:
        """Take what is there, then watch."""
        self._monitor.start()
        self.plane.look = self._monitor.look

    def stop(self) -> None:
        """Stop watching."""
        self._monitor.stop()
        self._tasks.cancel()

    def _changed(self, change: Change) -> None:
        hardware = change.hardware
        self._publish(change)
        if change.what == "removed":
            self._tasks.start(self._left(hardware))
            return
        device = self._known(hardware)
        if device is not None:
            # By where it is now: a board that was plugged in again has another tty, a stick may be on another bus.
            device.plugged(hardware, None if hardware.target in self._configured else backend_name(hardware))
        elif hardware.target not in self._configured:
            self._tasks.start(self._new(hardware))

    def _publish(self, change: Change) -> None:
        device, before = change.hardware, change.before
        now = _where(device)
        text = {
            "added": f"{device.kind} is plugged in ({now})",
            "removed": f"{device.kind} is gone",
            "changed": f"{_where(before) if before else 'it'} became {now}",
        }[change.what]
        self.plane.events.publish(
            f"device-{change.what}",
            f"device {device.id}: {text}",
            device=device.id,
            hardware=device.kind,
            port=device.port,
        )

    async def _new(self, hardware: Hardware) -> None:
        entry = configuration.Device(id=hardware.id, target=hardware.target, device=backend_name(hardware))
        device = await self.plane.add_device(entry, hardware)
        if device.state == "ready":
            await self.plane.registry.adopt(device)

    async def _left(self, hardware: Hardware) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        device = self._known(hardware)
        if device is not None and hardware.id not in self._monitor.memory.devices:
            device.unplugged(time.monotonic())

    def _known(self, hardware: Hardware) -> DeviceRunner | None:
        """The plane's device that this hardware is."""
        same = [d for d in self.plane.devices.values() if d.target == hardware.target]
        for device in same:
            if device.id == hardware.id or (
                device.recovery.hardware is not None and device.recovery.hardware.id == hardware.id
            ):
                return device
        if hardware.target not in self._configured:
            return None
        for device in same:
            if _means(device, hardware):
                return device
        # Not named: one that waits for hardware, or the only one there is.
        free = [d for d in same if d.recovery.hardware is None or not d.recovery.present]
        waiting = [d for d in free if not _names_place(d.config.device) and (d.state != "ready" or len(same) == 1)]
        return waiting[0] if waiting else None


def _names_place(name: str) -> bool:
    """A configured name says where: `usb:1-1.3`, `/dev/apex_0`, `/dev/ttyUSB0`; `usb:0`, `:1` and the like do not."""
    return "/" in name or "-" in name


def _means(device: DeviceRunner, hardware: Hardware) -> bool:
    """A configured device has this very hardware open, or is configured for its place."""
    opened = str(device.facts.get("path", "")) if device.state == "ready" else ""
    for name in filter(None, (opened, device.config.device)):
        if _names_place(name) and (
            os.path.basename(name).removeprefix("usb:") == hardware.port
            or os.path.realpath(name) in {str(node) for node in hardware.nodes}
        ):
            return True
    return False


def _where(hardware: Hardware) -> str:
    ids = "{:04x}:{:04x}".format(*hardware.usb_ids) if hardware.usb_ids else "PCIe"
    return f"{ids} at {hardware.port}"
