"""What is plugged in, read from sysfs alone: works without udev, in a container, and on a made-up tree in tests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import usb_ids

SYS: Final = Path("/sys")
DEV: Final = Path("/dev")

#: Devices of /sys/bus/usb/devices, without interfaces (`1-1:1.0`) and root hubs (`usb1`): bus-port[.port...].
_USB_NAME: Final = re.compile(r"\d+-\d+(\.\d+)*")
_PORT_NAME: Final = re.compile(r"(?:usb(?P<root>\d+)|(?P<hub>\d+-[\d.]+))-port(?P<number>\d+)")
_APEX_NAME: Final = re.compile(r"apex_\d+")


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device as it is now."""

    #: Stable name: `usb:<physical port>` or `pci:<address>`.
    id: str
    #: For people, for instance `Coral USB Accelerator`.
    kind: str
    #: Artifact target it runs: edgetpu, ncs, ncs2, k210.
    target: str
    #: Name below /sys/bus/usb/devices (`1-1.4`) or PCI address: where it is at this moment.
    port: str
    #: Vendor and product, or None for PCIe.
    usb_ids: tuple[int, int] | None
    #: Nominal link speed in Mbit/s; None = not a USB device, or unknown.
    speed: float | None
    #: Device nodes: /dev/bus/usb/BBB/DDD, /dev/apex_N or /dev/ttyUSBN; a board with two serial ports has two.
    nodes: tuple[Path, ...]
    #: `booting` = waits for its firmware, `ready` = runs it.
    state: str
    #: Serial number, if it has one.
    serial: str = ""
    #: USB device number; rises when the device re-enumerates.
    number: int = 0

    @property
    def node(self) -> Path | None:
        """The first device node."""
        return self.nodes[0] if self.nodes else None

    def to_json(self) -> dict[str, object]:
        """As shown to users."""
        return {
            "id": self.id,
            "kind": self.kind,
            "target": self.target,
            "port": self.port,
            "usb_ids": None if self.usb_ids is None else "{:04x}:{:04x}".format(*self.usb_ids),
            "speed_mbit": self.speed,
            "nodes": [str(node) for node in self.nodes],
            "state": self.state,
            "serial": self.serial,
        }


def scan(sysfs: Path = SYS, dev: Path = DEV, *, targets: Mapping[str, str] | None = None) -> tuple[Hardware, ...]:
    """All known devices, by id. Devices that vanish while being read are left out.

    `targets` maps device ids to the target they had before: the two Movidius generations share an id once their
    firmware runs, so that only a memory can distinguish them (`monitor.Monitor` keeps one).
    """
    devices = [*_usb(sysfs, dev, targets or {}), *_pci(sysfs, dev)]
    return tuple(sorted(devices, key=lambda device: device.id))


def _usb(sysfs: Path, dev: Path, targets: Mapping[str, str]) -> Iterator[Hardware]:
    serials = _serial_nodes(sysfs, dev)
    for directory in _entries(sysfs / "bus/usb/devices"):
        if not _USB_NAME.fullmatch(directory.name):
            continue
        try:
            pair = int(_read(directory / "idVendor"), 16), int(_read(directory / "idProduct"), 16)
            known = usb_ids.USB.get(pair)
            if known is None:
                continue
            name = f"usb:{physical_port(directory)}"
            number = int(_read(directory / "devnum"))
            node = dev / "bus/usb" / f"{int(_read(directory / 'busnum')):03d}" / f"{number:03d}"
            speed = _number(directory / "speed")
        except (OSError, ValueError):
            continue  # gone between listing and reading; the next scan sees what came of it
        nodes: tuple[Path, ...] = (node,)
        if known.serial:
            nodes = tuple(sorted(serials.get(directory.resolve().name, ())))
            if not nodes:
                continue  # no tty: its driver is missing or it is still being set up
        target, kind = known.target, known.kind
        if pair == usb_ids.MOVIDIUS and targets.get(name) == "ncs2":
            target, kind = "ncs2", usb_ids.USB[usb_ids.NCS2_BOOT].kind
        yield Hardware(
            name,
            kind,
            target,
            directory.name,
            pair,
            speed,
            nodes,
            "ready" if known.running else "booting",
            _optional(directory / "serial"),
            number,
        )


def _pci(sysfs: Path, dev: Path) -> Iterator[Hardware]:
    for directory in _entries(sysfs / "class/apex"):
        if not _APEX_NAME.fullmatch(directory.name):
            continue
        address = (directory / "device").resolve().name
        node = dev / directory.name
        yield Hardware(
            f"pci:{address}",
            "Coral PCIe Accelerator",
            "edgetpu",
            address,
            None,
            None,
            (node,),
            "ready",
            _optional(directory / "unique_id"),
        )


def _serial_nodes(sysfs: Path, dev: Path) -> dict[str, list[Path]]:
    """USB device name -> its serial ports."""
    nodes: dict[str, list[Path]] = {}
    for directory in _entries(sysfs / "class/tty"):
        if not directory.name.startswith(("ttyUSB", "ttyACM")):
            continue
        above = (directory / "device").resolve()
        while above.name and not _USB_NAME.fullmatch(above.name):
            above = above.parent
        if above.name:
            nodes.setdefault(above.name, []).append(dev / directory.name)
    return nodes


def physical_port(directory: Path) -> str:
    """Name of the socket that a USB device sits in.

    A blue socket is two ports to the kernel, one on a USB 2 and one on a USB 3 bus, and a device may move from one to
    the other when its firmware starts. Where the kernel knows that they are one socket (`peer`), the smaller name of
    the two stands for both.
    """
    peer = directory / "port" / "peer"
    if peer.exists():
        match = _PORT_NAME.fullmatch(peer.resolve().name)
        if match is not None:
            hub, number = match["hub"], match["number"]
            other = f"{hub}.{number}" if hub else f"{match['root']}-{number}"
            return min(directory.name, other, key=_port_key)
    return directory.name


def _port_key(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.split(r"[-.]", name))


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()


def _optional(path: Path) -> str:
    try:
        return _read(path)
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_read(path))
    except (OSError, ValueError):
        return None
