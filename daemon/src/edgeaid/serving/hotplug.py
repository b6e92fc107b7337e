"""Accelerators that come and go: discovery's changes become devices of the data plane."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from .. import config as configuration
from ..devices.discovery import SYS, Found
from ..devices.monitor import Change, Monitor
from .plane import Plane

log = logging.getLogger(__name__)

#: A stick that loads its firmware leaves the bus and returns; only one that stays away was unplugged.
GRACE_SECONDS: Final = 2.0


def backend_name(found: Found) -> str:
    """How a target's backend calls a device."""
    if found.target == "edgetpu":
        return found.id.split(":", 1)[0] + ":" + found.port if found.usb_ids else str(found.node)
    if found.target == "k210":
        return str(found.node)
    return ""  # libmvnc and OpenVINO name sticks themselves: the first free one


class Hotplug:
    """Watches the buses and tells the plane. Devices that the configuration names are left to it."""

    def __init__(self, plane: Plane, *, sysfs: Path = SYS, dev: Path = Path("/dev")) -> None:
        self.plane = plane
        self._configured = {d.target for d in plane.config.device}
        self._monitor = Monitor(self._changed, sysfs=sysfs, dev=dev)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take what is there, then watch."""
        self._monitor.start()

    def stop(self) -> None:
        """Stop watching."""
        self._monitor.stop()
        for task in self._tasks:
            task.cancel()

    def _changed(self, change: Change) -> None:
        found = change.found
        task = asyncio.get_running_loop().create_task(
            self._left(found) if change.what == "removed" else self._came(found)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _came(self, found: Found) -> None:
        device = self.plane.devices.get(found.id)
        if device is not None:
            device.plugged(found)
            return
        if found.target in self._configured:
            for candidate in self.plane.devices.values():
                if candidate.target == found.target and candidate.state != "ready":
                    candidate.plugged(found)
            return
        entry = configuration.Device(id=found.id, target=found.target, device=backend_name(found))
        log.info("found %s at %s", found.kind, found.port)
        device = await self.plane.add_device(entry, found)
        if device.state == "ready":
            await self.plane.adopt(device)

    async def _left(self, found: Found) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        device = self.plane.devices.get(found.id)
        if device is not None and found.id not in self._monitor.memory.devices:
            device.unplugged(time.monotonic())
