"""Hot-plug: calls back with what was added, removed or changed, from udev where pyudev is there, else by scans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from .discovery import DEV, SYS, Hardware, scan

log = logging.getLogger("edgeaid.devices")

#: A plug makes a burst of events (device, interfaces, tty); one look after the burst sees all of it.
BURST_S: Final = 0.05
#: A device whose firmware starts leaves and comes back. Away for less than this, it is the same one, even if it comes
#: back on another bus (USB 2 to USB 3) of a machine that does not say which ports are one socket.
MOVE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened."""

    #: `added`, `removed` or `changed` (same device, other ids, number, speed or nodes).
    what: str
    #: How it is now; for `removed`, how it was last.
    hardware: Hardware
    #: How it was before, for `changed`.
    before: Hardware | None = None


class Memory:
    """Turns successive scans into changes and keeps identities. Pure: `now` is an argument, monotonic seconds."""

    def __init__(self) -> None:
        self.devices: dict[str, Hardware] = {}
        #: Targets by device id, for the two generations that share an id once they run.
        self.targets: dict[str, str] = {}
        #: Devices that left while booting: device id -> (when, how it was).
        self._moving: dict[str, tuple[float, Hardware]] = {}
        #: id by where it is -> id it is known by.
        self._alias: dict[str, str] = {}

    def update(self, devices: tuple[Hardware, ...], now: float) -> list[Change]:
        """Compare with what was there."""
        self._moving = {name: entry for name, entry in self._moving.items() if now - entry[0] <= MOVE_S}
        seen: dict[str, Hardware] = {}
        for device in devices:
            known = self._known_as(device, {other.id for other in devices})
            seen[known.id] = known
        changes = []
        for name, before in list(self.devices.items()):
            if name not in seen:
                del self.devices[name]
                if before.state == "booting":
                    self._moving[name] = (now, before)
                changes.append(Change("removed", before))
        for name, device in seen.items():
            previous = self.devices.get(name)
            self.devices[name] = device
            if device.state == "booting":
                self.targets[name] = device.target
            if previous is None:
                self._moving.pop(name, None)
                changes.append(Change("added", device))
            elif previous != device:
                changes.append(Change("changed", device, previous))
        # Names that nothing refers to any more must not pile up over years of plugging.
        alive = self.devices.keys() | self._moving.keys()
        self._alias = {at: name for at, name in self._alias.items() if name in alive}
        if len(self.targets) > 64:
            self.targets = {name: target for name, target in self.targets.items() if name in alive}
        return changes

    def _known_as(self, device: Hardware, present: set[str]) -> Hardware:
        """The device under the name it has had so far."""
        name = self._alias.get(device.id)
        if name in present:  # another device sits in the old place now
            del self._alias[device.id]
            name = None
        if name is None and device.state == "ready" and device.id not in self.devices:
            # Running, at a place where nothing was: does it continue one that just left, or leaves now, elsewhere?
            left = [(n, f) for n, (_, f) in self._moving.items() if _continues(device, f)]
            left += [
                (n, f)
                for n, f in self.devices.items()
                if f.state == "booting" and n not in present and _continues(device, f)
            ]
            if len(left) == 1 and left[0][0] != device.id:
                name = self._alias[device.id] = left[0][0]
        if name is None or name == device.id:
            return device
        target = self.targets.get(name, device.target)
        kind = device.kind if target == device.target else f"{device.kind} ({target})"
        return replace(device, id=name, target=target, kind=kind)


def _continues(device: Hardware, earlier: Hardware) -> bool:
    """Could be the same hardware: same maker's family, and not in the very same place."""
    family = {"ncs": "movidius", "ncs2": "movidius"}
    return family.get(device.target, device.target) == family.get(earlier.target, earlier.target)


class Monitor:
    """Watches for devices on the running event loop."""

    def __init__(
        self,
        callback: Callable[[Change], None],
        *,
        sysfs: Path = SYS,
        dev: Path = DEV,
        interval_s: float = 2.0,
        udev: bool = True,
    ) -> None:
        """`interval_s` is the time between looks where there is no udev; a made-up `sysfs` never uses udev."""
        self._callback = callback
        self._sysfs = sysfs
        self._dev = dev
        self._interval_s = interval_s
        self._want_udev = udev and sysfs == SYS
        self._udev: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.memory = Memory()

    @property
    def uses_udev(self) -> bool:
        """Events come from udev."""
        return self._udev is not None

    def start(self) -> None:
        """Report what is there as added, then watch. Call on the event loop."""
        self._loop = asyncio.get_running_loop()
        if self._want_udev:
            self._udev = _open_udev()
        if self._udev is not None:
            self._loop.add_reader(self._udev.fileno(), self._on_udev)
        # After subscribing, so that nothing falls between the first look and the first event.
        self.look()
        if self._udev is None:
            self._timer = self._loop.call_later(self._interval_s, self._on_timer)

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._udev is not None and self._loop is not None:
            self._loop.remove_reader(self._udev.fileno())
            # pyudev has no close; dropping the last reference closes the netlink socket.
            self._udev = None

    def look(self) -> list[Change]:
        """Scan now and report the changes; also after anything that may have made a device re-enumerate."""
        now = self._loop.time() if self._loop is not None else 0.0
        changes = self.memory.update(scan(self._sysfs, self._dev, targets=self.memory.targets), now)
        for change in changes:
            try:
                self._callback(change)
            except Exception:
                log.exception("a listener failed on %s of device %s", change.what, change.hardware.id)
        return changes

    def _on_udev(self) -> None:
        while self._udev.poll(timeout=0) is not None:
            pass
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(BURST_S, self._after_burst)

    def _after_burst(self) -> None:
        self._timer = None
        self.look()

    def _on_timer(self) -> None:
        self.look()
        if self._loop is not None:
            self._timer = self._loop.call_later(self._interval_s, self._on_timer)


def _open_udev() -> Any:
    """A started udev monitor, or None where pyudev or udev is missing."""
    try:
        import pyudev

        monitor = pyudev.Monitor.from_netlink(pyudev.Context())
        for subsystem in ("usb", "tty", "apex"):
            monitor.filter_by(subsystem)
        monitor.start()
    except (ImportError, OSError) as error:
        log.info("no udev events (%s): looking for devices every few seconds instead", error)
        return None
    return monitor
