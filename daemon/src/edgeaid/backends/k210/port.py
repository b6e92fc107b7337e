"""A serial port: bytes and rates, errors in our own words. pyserial is imported when a port is opened."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ... import usb_ids
from ...errors import DeviceError, Unsupported

#: Name that our udev rules give to the first board.
LINK: Final = "/dev/edgeai/k210"
#: Levels of (DTR, RTS) one after the other, 0.1 s apart, that end in a running board (kflash's tables).
RESETS: Final[Mapping[str, tuple[tuple[int, int], ...]]] = {
    "dan": ((0, 0), (0, 1), (0, 0)),
    "kd233": ((0, 0), (1, 0), (0, 0)),
    "goD": ((0, 0), (1, 0), (1, 1)),
}


class LineLost(DeviceError):
    """The board does not answer, or its port went away. Reopening may help."""


def _serial() -> Any:
    try:
        import serial
    except ImportError:
        raise Unsupported(
            "the k210 backend needs pyserial: install python3-serial (pip: pyserial, or edgeaid's extra `k210`)"
        ) from None
    return serial


def find(device: str) -> str:
    """Path of the port that `device` names: a path, "usb:1-1.3" or "1-1.3" (USB port), "" = the first board.

    Raises DeviceError when there is none, Unsupported without pyserial.
    """
    if device.startswith("/"):
        if not os.path.exists(device):
            raise DeviceError(f"no serial port {device}; is the board plugged in?")
        return device
    if not device and os.path.exists(LINK):
        return LINK
    _serial()
    from serial.tools import list_ports

    ports = sorted(list_ports.comports())
    if device:
        place = device.removeprefix("usb:")
        for port in ports:
            if port.location and port.location.partition(":")[0] == place:
                return str(port.device)
        raise DeviceError(f"no serial port at USB port {place}; serial ports here: {_listing(ports)}")
    for port in ports:
        known = usb_ids.USB.get((port.vid, port.pid))
        if known is not None and known.serial:
            return str(port.device)
    raise DeviceError(f"no K210 board found (serial ports here: {_listing(ports)}); plug one in or name its port")


def _listing(ports: list[Any]) -> str:
    return ", ".join(p.device for p in ports) or "none"


class Port:
    """An open serial port, 8N1, no flow control, locked against other programs."""

    def __init__(self, path: str, baud: int = 115200) -> None:
        serial = _serial()
        self.path = path
        # pyserial raises ValueError for a rate that the driver does not know.
        self._errors: tuple[type[Exception], ...] = (serial.SerialException, OSError, ValueError)
        try:
            self._port = serial.Serial(path, baud, timeout=0, write_timeout=5, exclusive=True)
        except self._errors as error:
            raise DeviceError(_why(path, error)) from None

    @property
    def baud(self) -> int:
        """The rate in force."""
        return int(self._port.baudrate)

    def set_baud(self, baud: int) -> None:
        """Change the rate; LineLost when the port cannot."""
        try:
            self._port.baudrate = baud
        except self._errors as error:
            raise LineLost(f"{self.path}: cannot run at {baud} baud: {error}") from None

    def read(self, timeout: float) -> bytes:
        """What has come, or b"" after `timeout` seconds; LineLost when the port is gone."""
        try:
            if not select.select([self._port.fileno()], [], [], max(0.0, timeout))[0]:
                return b""
            return bytes(self._port.read(max(1, self._port.in_waiting)))
        except self._errors as error:
            raise LineLost(f"{self.path}: the port is gone ({error}); is the board still plugged in?") from None

    def write(self, data: bytes) -> None:
        """Send all of it; LineLost when the port is gone or takes nothing for 5 s."""
        try:
            self._port.write(data)
        except self._errors as error:
            raise LineLost(f"{self.path}: cannot send ({error}); is the board still plugged in?") from None

    def clear(self) -> None:
        """Drop what has come and was not read."""
        with contextlib.suppress(*self._errors):
            self._port.reset_input_buffer()

    def reset_board(self, board: str) -> None:
        """Pulse the modem lines that many boards wire to reset; a port without such lines is left alone."""
        import time

        for dtr, rts in RESETS[board]:
            with contextlib.suppress(*self._errors):
                self._port.dtr, self._port.rts = bool(dtr), bool(rts)
            time.sleep(0.1)

    def close(self) -> None:
        """Give the port back."""
        with contextlib.suppress(*self._errors):
            self._port.close()


def _why(path: str, error: Exception) -> str:
    text = str(error)
    if "exclusively lock" in text or "Resource temporarily unavailable" in text or "busy" in text.lower():
        return f"{path} is in use by another program; stop it (another edgeaid, a terminal, ModemManager)"
    if "Permission denied" in text:
        return f"{path}: permission denied; add this user to the group of the port ({_group(path)})"
    return f"{path} cannot be opened: {text}"


def _group(path: str) -> str:
    try:
        return Path(path).group()
    except (OSError, KeyError):
        return "dialout"
