#!/usr/bin/env python3
"""A Coral USB Accelerator made of software: both USB identities of the stick, its firmware download, plug and unplug.

The kernel's vhci_hcd module takes USB request blocks from a socket; this program answers them. Nothing of a real
stick's computing is here, only what udev, libusb and a driver's start-up see. Standard library only, needs root.

    usb_coral.py [--port N] [--running | --ncs]

Plugs the stick in (boot identity 1a6e:089a, or with --running 18d1:9302 as after the firmware; with --ncs it is a
Neural Compute Stick that waits for its firmware, 03e7:2150) and reads lines from
stdin: `unplug`, `plug`, `hang` (requests are no longer answered), `wake`, `quit`. Each is answered by a line on
stdout; events are lines too: `attached boot`, `attached running`, `firmware BYTES`, `detached`.

Packets: Linux kernel, Documentation/usb/usbip_protocol.rst. Descriptors and the DFU sequence: what a stick shows to
lsusb, and the USB Device Firmware Upgrade class, version 1.1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

VHCI = Path("/sys/devices/platform/vhci_hcd.0")
SUBMIT = struct.Struct(">5I IiiIi 8s")
SUBMIT_REPLY = struct.Struct(">5I iiIIi 8x")
UNLINK_REPLY = struct.Struct(">5I i 24x")
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
STALL = -32
CONNECTION_RESET = -104
HIGH_SPEED = 3

DFU_IDLE, DFU_DOWNLOAD_IDLE, DFU_MANIFEST_SYNC, DFU_MANIFEST = 2, 5, 6, 7


@dataclass(frozen=True, slots=True)
class Identity:
    """What the stick says about itself."""

    name: str
    vendor: int
    product: int
    interface: tuple[int, int, int]
    #: Descriptors after the interface's.
    extra: bytes
    endpoints: int

    def device(self) -> bytes:
        return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 0, 0, 0, 64, self.vendor, self.product, 0x0100, 0, 0, 0, 1)

    def configuration(self) -> bytes:
        body = struct.pack("<BBBBBBBBB", 9, 4, 0, 0, self.endpoints, *self.interface, 0) + self.extra
        return struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), 1, 1, 0, 0x80, 250) + body


def _endpoint(address: int, attributes: int, size: int, interval: int) -> bytes:
    return struct.pack("<BBBBHB", 7, 5, address, attributes, size, interval)


BOOT = Identity("boot", 0x1A6E, 0x089A, (0xFE, 1, 2), bytes.fromhex("0921010000001001 01".replace(" ", "")), 0)
RUNNING = Identity(
    "running",
    0x18D1,
    0x9302,
    (0xFF, 0, 0),
    _endpoint(0x01, 2, 512, 0) + _endpoint(0x81, 2, 512, 0) + _endpoint(0x82, 2, 512, 0) + _endpoint(0x83, 3, 8, 4),
    4,
)
NCS = Identity("ncs", 0x03E7, 0x2150, (0xFF, 0x11, 0xFF), _endpoint(0x01, 2, 512, 0) + _endpoint(0x81, 2, 512, 0), 2)


@dataclass(slots=True)
class Stick:
    """The device behind one port; `attach` starts a thread that answers until `detach`."""

    port: int
    identity: Identity = BOOT
    hung: bool = False
    firmware: bytearray = field(default_factory=bytearray)
    state: int = DFU_IDLE
    registers: dict[int, bytes] = field(default_factory=dict)
    bulk_bytes: int = 0
    _sock: socket.socket | None = None
    _pending: dict[int, int] = field(default_factory=dict)

    def attach(self, identity: Identity) -> None:
        """Plug in as `identity`."""
        self.identity, self.state, self.hung = identity, DFU_IDLE, False
        self.firmware.clear()
        self._pending.clear()
        ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        (VHCI / "attach").write_text(f"{self.port} {kernels.fileno()} {(1 << 16) + 1} {HIGH_SPEED}")
        kernels.close()
        self._sock = ours
        threading.Thread(target=self._serve, args=(ours,), daemon=True).start()
        say(f"attached {identity.name}")

    def detach(self) -> None:
        """Pull out."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        with contextlib.suppress(OSError):  # the kernel may have noticed the closed socket first
            (VHCI / "detach").write_text(str(self.port))
        say("detached")

    def _serve(self, sock: socket.socket) -> None:
        try:
            while True:
                head = _exactly(sock, SUBMIT.size)
                command, number, _, direction, endpoint, flags, length, start, packets, _, setup = SUBMIT.unpack(head)
                if command == CMD_UNLINK:
                    status = CONNECTION_RESET if self._pending.pop(flags, None) is not None else 0
                    sock.sendall(UNLINK_REPLY.pack(RET_UNLINK, number, 0, 0, 0, status))
                    continue
                data = _exactly(sock, length) if direction == 0 and length > 0 else b""
                answer = self._answer(number, direction, endpoint, length, setup, data)
                if answer is None:
                    self._pending[number] = endpoint
                    continue
                status, payload = answer
                size = len(payload) if direction else (len(data) if status == 0 else 0)
                sock.sendall(SUBMIT_REPLY.pack(RET_SUBMIT, number, 0, 0, 0, status, size, start, packets, 0) + payload)
        except OSError:
            pass  # unplugged

    def _answer(
        self, number: int, direction: int, endpoint: int, length: int, setup: bytes, data: bytes
    ) -> tuple[int, bytes] | None:
        """(status, data), or None for a request that stays open."""
        if self.hung:
            return None
        if endpoint:
            return self._endpoint(direction, endpoint, length, data)
        kind, request, value, index, wanted = struct.unpack("<BBHHH", setup)
        if kind & 0x60 == 0:
            return self._standard(kind, request, value, wanted)
        if self.identity is BOOT:
            return self._dfu(kind, request, wanted, data)
        offset = value | index << 16
        if kind & 0x80:
            return 0, self.registers.get(offset, bytes(8))[:wanted].ljust(wanted, b"\0")
        self.registers[offset] = data
        return 0, b""

    def _standard(self, kind: int, request: int, value: int, wanted: int) -> tuple[int, bytes]:
        if (kind, request) == (0x80, 6):
            descriptor = {1: self.identity.device(), 2: self.identity.configuration(), 3: b"\x04\x03\x09\x04"}.get(
                value >> 8
            )
            return (STALL, b"") if descriptor is None else (0, descriptor[:wanted])
        if (kind, request) == (0x80, 0):
            return 0, b"\0\0"[:wanted]
        return (0, b"") if request in (1, 3, 5, 9, 11) else (STALL, b"")

    def _dfu(self, kind: int, request: int, wanted: int, data: bytes) -> tuple[int, bytes]:
        if (kind, request) == (0x21, 1):  # DNLOAD; an empty one ends it
            self.firmware += data
            self.state = DFU_DOWNLOAD_IDLE if data else DFU_MANIFEST_SYNC
            return 0, b""
        if (kind, request) == (0xA1, 3):  # GETSTATUS
            if self.state == DFU_MANIFEST_SYNC:
                self.state = DFU_MANIFEST
                threading.Thread(target=self._restart, daemon=True).start()
            return 0, bytes((0, 0, 0, 0, self.state, 0))[:wanted]
        if request in (4, 6):  # CLRSTATUS, ABORT
            self.state = DFU_IDLE
            return 0, b""
        return STALL, b""

    def _restart(self) -> None:
        """With firmware the stick leaves the bus and comes back on the same port as another device."""
        say(f"firmware {len(self.firmware)}")
        time.sleep(0.2)
        self.detach()
        time.sleep(0.5)
        self.attach(RUNNING)

    def _endpoint(self, direction: int, endpoint: int, length: int, data: bytes) -> tuple[int, bytes] | None:
        if direction == 0 and endpoint == 1:
            self.bulk_bytes += len(data)
            return 0, b""
        if direction == 1 and endpoint == 1:
            return 0, (bytes(range(256)) * (length // 256 + 1))[:length]
        return None  # events and interrupts: nothing ever happens


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise OSError("closed")
        parts += part
    return bytes(parts)


def say(text: str) -> None:
    """One line to whoever drives the stand-in."""
    print(text, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--running", action="store_true", help="start with the identity that a stick has after its firmware"
    )
    which.add_argument("--ncs", action="store_true", help="a Neural Compute Stick instead")
    arguments = parser.parse_args()
    plugged = NCS if arguments.ncs else BOOT
    if not VHCI.is_dir():
        sys.exit("vhci_hcd is not loaded: modprobe vhci_hcd")
    stick = Stick(arguments.port)
    stick.attach(RUNNING if arguments.running else plugged)
    try:
        for line in sys.stdin:
            word = line.strip()
            if word == "unplug":
                stick.detach()
            elif word == "plug":
                stick.attach(plugged)
            elif word in ("hang", "wake"):
                stick.hung = word == "hang"
                say(word)
            elif word == "quit":
                break
    finally:
        stick.detach()
        os._exit(0)


if __name__ == "__main__":
    main()
