"""libedgetpu by ctypes: the calls of edgetpu_c.h, device names, temperatures.

Devices are opened by type and path through `edgetpu_create_delegate`, not through the plug-in entry that
`load_delegate` uses: the plug-in knows devices only by index, which changes when a stick is pulled, and forwards
`Performance` only for some spellings of the name.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import DeviceError, InvalidConfig, InvalidRequest, Unsupported

#: soname of every published libedgetpu.
DEFAULT_LIBRARY: Final = "libedgetpu.so.1"

#: `enum edgetpu_device_type`.
_TYPES: Final = {"pci": 0, "usb": 1}
_TYPE_NAMES: Final = {number: name for name, number in _TYPES.items()}

#: Option `performance` -> the driver's `Performance` per device type. "std" is what Google's throttled build does:
#: USB at 250 MHz (ambient up to 35 C), PCIe unrestricted. "max": USB at 500 MHz (ambient up to 25 C, hot to touch).
_PERFORMANCE: Final = {
    "std": {"usb": "High", "pci": "Max"},
    "max": {"usb": "Max", "pci": "Max"},
    "high": {"usb": "High", "pci": "High"},
    "medium": {"usb": "Medium", "pci": "Medium"},
    "low": {"usb": "Low", "pci": "Low"},
}


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("path", ctypes.c_char_p))


class _Option(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An Edge TPU that the library sees."""

    #: "usb" or "pci".
    kind: str
    #: /sys/bus/usb/devices/<bus>-<port> (stable while the stick stays in its socket) or /dev/apex_N.
    path: str
    #: Position among all, and among those of its kind, at this moment.
    index: int
    kind_index: int


class Library:
    """A loaded libedgetpu."""

    def __init__(self, path: str) -> None:
        """Load it; raises Unsupported when it is missing or is something else."""
        try:
            # CDLL, not PyDLL: opening a device takes seconds and must not hold the interpreter lock.
            self._c = ctypes.CDLL(path)
        except OSError as error:
            raise Unsupported(
                f"the Edge TPU library {path} cannot be loaded ({error}); on the image: add libedgetpu (feature "
                "edgetpu), on Debian: Google's package libedgetpu1-std; EDGEAI_EDGETPU_LIBRARY names another file"
            ) from None
        try:
            self._list, self._free_list = self._c.edgetpu_list_devices, self._c.edgetpu_free_devices
            self._create, self._free = self._c.edgetpu_create_delegate, self._c.edgetpu_free_delegate
            self._version = self._c.edgetpu_version
        except AttributeError as error:
            raise Unsupported(f"{path} is not libedgetpu: {error}") from None
        self._list.restype, self._list.argtypes = ctypes.POINTER(_Device), (ctypes.POINTER(ctypes.c_size_t),)
        self._free_list.restype, self._free_list.argtypes = None, (ctypes.POINTER(_Device),)
        self._create.restype = ctypes.c_void_p
        self._create.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_Option), ctypes.c_size_t)
        self._free.restype, self._free.argtypes = None, (ctypes.c_void_p,)
        self._version.restype, self._version.argtypes = ctypes.c_char_p, ()
        self.path = path

    @property
    def version(self) -> str:
        """For example "BuildLabel(N/A), RuntimeVersion(14)"."""
        return str((self._version() or b"").decode(errors="replace"))

    @property
    def runtime_version(self) -> int:
        """The number models are compared with (14 in the last published library), or 0 when the text has none."""
        match = re.search(r"RuntimeVersion\((\d+)\)", self.version)
        return int(match[1]) if match else 0

    def devices(self) -> tuple[Accelerator, ...]:
        """Every Edge TPU that is plugged in, opened or not, in the library's order."""
        count = ctypes.c_size_t(0)
        array = self._list(ctypes.byref(count))
        devices, per_kind = [], {"usb": 0, "pci": 0}
        for index in range(count.value):
            kind = _TYPE_NAMES.get(array[index].type)
            if kind is not None:
                path = (array[index].path or b"").decode(errors="replace")
                devices.append(Accelerator(kind, path, index, per_kind[kind]))
                per_kind[kind] += 1
        if array:
            self._free_list(array)
        return tuple(devices)

    def create(self, device: Accelerator, performance: str) -> Delegate:
        """Open `device`, or share it when this process has it open. Takes seconds. Raises DeviceError."""
        value = performance_for(performance, device.kind)
        options = (_Option * 1)(_Option(b"Performance", value.encode()))
        pointer = self._create(_TYPES[device.kind], device.path.encode(), options, 1)
        if not pointer:
            raise DeviceError(
                f"the Edge TPU at {device.path} does not open: {_why_not(device)}; another process may have it "
                "(one process per stick), or it needs to be pulled and plugged again"
            )
        return Delegate(self._free, pointer)


class Delegate:
    """A TfLiteDelegate that keeps its device open; an Interpreter takes it like the result of load_delegate."""

    def __init__(self, free: Any, pointer: int) -> None:
        self._free = free
        self._pointer = pointer

    def _get_native_delegate_pointer(self) -> int:
        """What Interpreter asks its delegates for. The interpreter must be gone before the delegate is."""
        return self._pointer

    def __del__(self) -> None:
        if self._pointer:
            self._free(self._pointer)
            self._pointer = 0


def performance_for(option: str, kind: str) -> str:
    """The driver's word for the option `performance`; raises InvalidConfig for an unknown one."""
    if option not in _PERFORMANCE:
        raise InvalidConfig(f"performance = {option!r} is unknown; use one of {', '.join(_PERFORMANCE)}")
    return _PERFORMANCE[option][kind]


def choose(name: str, devices: tuple[Accelerator, ...]) -> Iterator[Accelerator]:
    """The devices that `name` can mean, best first.

    Names as pycoral has them ("" any, ":0", "usb", "usb:1", "pci", "pci:0"), or by place: "usb:1-1.3", "1-1.3",
    "/dev/apex_0", "/sys/bus/usb/devices/1-1.3". Raises InvalidRequest for anything else, DeviceError when nothing fits.
    """
    match = re.fullmatch(r"(usb|pci|)(?::(.+))?", name)
    kind, rest = (match[1], match[2] or "") if match else ("", name)
    if not re.fullmatch(r"\d*|[\w./:-]*(\d-\d[\d.]*|apex_\d+)", rest):
        raise InvalidRequest(
            f"{name!r} is not an Edge TPU name; use usb, usb:0, pci:0, :0, a USB port such as usb:1-1.3, or /dev/apex_0"
        )
    fits = [d for d in devices if not kind or d.kind == kind]
    if rest.isdigit():
        fits = [d for d in fits if (d.kind_index if kind else d.index) == int(rest)]
    elif rest:
        fits = [d for d in fits if os.path.basename(d.path) == os.path.basename(rest)]
    if not fits:
        seen = ", ".join(f"{d.kind}:{os.path.basename(d.path)}" for d in devices) or "none"
        wanted = f"no Edge TPU called {name!r} is present" if name else "no Edge TPU is present"
        raise DeviceError(f"{wanted} (seen: {seen}); plug one in, or add a cpu artifact to the model")
    yield from fits


def _why_not(device: Accelerator) -> str:
    """A permission problem is the usual cause and can be seen from here."""
    node = device.path
    if device.kind == "usb":
        try:
            numbers = [int(Path(device.path, n).read_text()) for n in ("busnum", "devnum")]
        except (OSError, ValueError):
            return "the library gives no reason"
        node = "/dev/bus/usb/{:03d}/{:03d}".format(*numbers)
    if os.path.exists(node) and not os.access(node, os.R_OK | os.W_OK):
        group = "apex" if device.kind == "pci" else "plugdev"
        return f"no permission for {node} (add the udev rule, and the user to group {group})"
    return "the library gives no reason"


def thermal(device: Accelerator, sysfs: Path = Path("/sys")) -> dict[str, Any]:
    """Temperature in degrees Celsius and throttling of a PCIe device; {} for USB sticks, which do not report them.

    Each trip point passed halves the clock once more (gasket driver: divider steps 0 to 3).
    """
    if device.kind != "pci":
        return {}
    directory = sysfs / "class/apex" / os.path.basename(device.path)
    try:
        milli = int((directory / "temp").read_text())
        trips = [int((directory / f"trip_point{i}_temp").read_text()) for i in range(3)]
    except (OSError, ValueError):
        return {}
    steps = sum(milli >= trip for trip in trips)
    return {"temperature_c": milli / 1000, "throttled": steps > 0, "clock_divider_steps": steps}


def link(device: Accelerator) -> Mapping[str, Any]:
    """USB speed in Mbit/s as negotiated; a stick in a USB 2 socket (480) is several times slower."""
    try:
        return {"link_mbps": int(Path(device.path, "speed").read_text())} if device.kind == "usb" else {}
    except (OSError, ValueError):
        return {}
