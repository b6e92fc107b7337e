"""A made-up /sys and /dev with the kernel's real file layout: symlinks, attributes, hubs, ports, interfaces, ttys."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CORAL_BOOT = (0x1A6E, 0x089A)
CORAL = (0x18D1, 0x9302)
NCS2_BOOT = (0x03E7, 0x2485)
MOVIDIUS = (0x03E7, 0xF63B)
CH340 = (0x1A86, 0x7523)


class UsbTree:
    """Two root hubs of one controller (usb1 at 480, usb2 at 5000 Mbit/s) and a four-port hub 1-1, as on a Pi."""

    def __init__(self, top: Path) -> None:
        self.sys = top / "sys"
        self.dev = top / "dev"
        self._controller = self.sys / "devices/platform/soc/xhci.0"
        self._number = {1: 1, 2: 1}
        (self.sys / "bus/usb/devices").mkdir(parents=True)
        (self.sys / "class/tty").mkdir(parents=True)
        (self.sys / "class/apex").mkdir(parents=True)
        (self.dev / "bus/usb").mkdir(parents=True)
        self._root_hub(1, 480)
        self._root_hub(2, 5000)
        self.plug("1-1", (0x2109, 0x3431))
        for number in range(1, 5):
            self._port(self._directory("1-1") / "1-1:1.0" / f"1-1-port{number}")
        self._link(self._directory("1-1") / "1-1:1.0")

    def _root_hub(self, bus: int, speed: int) -> None:
        hub = self._controller / f"usb{bus}"
        hub.mkdir(parents=True)
        for name, value in {
            "idVendor": "1d6b",
            "idProduct": "0002",
            "speed": speed,
            "busnum": bus,
            "devnum": 1,
        }.items():
            (hub / name).write_text(f"{value}\n")
        self._link(hub)
        for number in (1, 2):
            self._port(hub / f"{bus}-0:1.0" / f"usb{bus}-port{number}")
        self._link(hub / f"{bus}-0:1.0")

    def _port(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "disable").write_text("0\n")

    def _link(self, directory: Path) -> None:
        link = self.sys / "bus/usb/devices" / directory.name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(directory, link.parent))

    def _directory(self, name: str) -> Path:
        bus, _, ports = name.partition("-")
        directory = self._controller / f"usb{bus}"
        path = f"{bus}-"
        for index, port in enumerate(ports.split(".")):
            path += port if not index else f".{port}"
            directory /= path
        return directory

    def _port_of(self, name: str) -> Path:
        hub, dot, number = name.rpartition(".")
        if dot:
            return self._directory(hub) / f"{hub}:1.0" / f"{hub}-port{number}"
        bus, _, number = name.partition("-")
        return self._controller / f"usb{bus}" / f"{bus}-0:1.0" / f"usb{bus}-port{number}"

    def same_socket(self, one: str, other: str) -> None:
        """Two ports are one socket, and the kernel knows."""
        for here, there in ((one, other), (other, one)):
            (self._port_of(here) / "peer").symlink_to(os.path.relpath(self._port_of(there), self._port_of(here)))

    def plug(self, name: str, ids: tuple[int, int], *, speed: int = 480, serial: str = "", tty: str = "") -> None:
        """Plug a device into a port; its number rises each time."""
        bus = int(name.split("-", maxsplit=1)[0])
        self._number[bus] += 1
        number = self._number[bus]
        directory = self._directory(name)
        interface = directory / f"{name}:1.0"
        interface.mkdir(parents=True)
        attributes: dict[str, object] = {
            "idVendor": f"{ids[0]:04x}",
            "idProduct": f"{ids[1]:04x}",
            "speed": speed,
            "busnum": bus,
            "devnum": number,
            "authorized": 1,
        }
        if serial:
            attributes["serial"] = serial
        for key, value in attributes.items():
            (directory / key).write_text(f"{value}\n")
        if self._port_of(name).exists():
            (directory / "port").symlink_to(os.path.relpath(self._port_of(name), directory))
        self._link(directory)
        self._link(interface)
        node = self.dev / f"bus/usb/{bus:03d}/{number:03d}"
        node.parent.mkdir(exist_ok=True)
        node.touch()
        if tty:
            place = interface / tty / "tty" / tty
            place.mkdir(parents=True)
            (place / "device").symlink_to("../../../" + tty)
            (self.sys / "class/tty" / tty).symlink_to(os.path.relpath(place, self.sys / "class/tty"))
            (self.dev / tty).touch()

    def unplug(self, name: str) -> None:
        """Pull it."""
        directory = self._directory(name)
        bus, number = int((directory / "busnum").read_text()), int((directory / "devnum").read_text())
        (self.dev / f"bus/usb/{bus:03d}/{number:03d}").unlink()
        for link in (*(self.sys / "bus/usb/devices").iterdir(), *(self.sys / "class/tty").iterdir()):
            if directory in link.resolve().parents or link.resolve() == directory:
                link.unlink()
        shutil.rmtree(directory)

    def become(self, name: str, ids: tuple[int, int], *, speed: int = 480) -> None:
        """Firmware starts: the device leaves and comes back in place under other ids."""
        self.unplug(name)
        self.plug(name, ids, speed=speed)

    def add_apex(self, number: int = 0, address: str = "0000:01:00.0") -> None:
        """A Coral card on PCIe."""
        card = self.sys / f"devices/pci0000:00/{address}"
        directory = card / f"apex/apex_{number}"
        directory.mkdir(parents=True)
        (directory / "device").symlink_to("../..")
        (directory / "temp").write_text("45050\n")
        (self.sys / "class/apex" / directory.name).symlink_to(os.path.relpath(directory, self.sys / "class/apex"))
        (self.dev / directory.name).touch()
