"""The K210 stand-in behind an emulated USB serial adapter: its pseudo terminal joined to a character device of QEMU."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from typing import Any

from boot.conftest import TOP
from rig.machine import Machine

sys.path.insert(0, str(TOP / "daemon"))

from tests.standins.k210 import facts as facts  # noqa: E402
from tests.standins.k210.board import Board  # noqa: E402  the path above has to be set first


@contextlib.contextmanager
def plugged(booted: Machine, name: str) -> Iterator[Any]:
    """A board on the guest's USB while the block runs; yields the stand-in's handle."""
    path = booted.directory / f"{name}.sock"
    where = {"type": "unix", "data": {"path": str(path)}}
    booted.qmp(
        "chardev-add",
        id=name,
        backend={"type": "socket", "data": {"addr": where, "server": True, "wait": False}},
    )
    wire = socket.socket(socket.AF_UNIX)
    wire.connect(str(path))
    stop = threading.Event()
    with Board("cpython", "--unpaced") as board:
        port = os.open(os.path.realpath(board.port), os.O_RDWR | os.O_NOCTTY)
        tty.setraw(port)
        joiner = threading.Thread(target=_join, args=(port, wire, board, stop), daemon=True)
        joiner.start()
        booted.qmp("device_add", driver="usb-serial", chardev=name, id=name, bus="xhci.0")
        try:
            yield board
        finally:
            booted.qmp("device_del", id=name)
            stop.set()
            joiner.join(10)
            os.close(port)
            wire.close()


def _join(port: int, wire: socket.socket, board: Any, stop: threading.Event) -> None:
    """Carry bytes both ways. QEMU tells nobody the rate that the guest sets, so this end follows the board's."""
    rate, asked = 0, 0.0
    while not stop.is_set():
        if time.monotonic() > asked + 0.05:
            asked = time.monotonic()
            now = board.do("stats")["baud"]
            if now != rate:
                settings = termios.tcgetattr(port)
                settings[4] = settings[5] = getattr(termios, f"B{now}")
                termios.tcsetattr(port, termios.TCSANOW, settings)
                rate = now
        ready, _, _ = select.select([port, wire.fileno()], [], [], 0.05)
        if port in ready:
            wire.sendall(os.read(port, 4096))
        if wire.fileno() in ready:
            data = wire.recv(4096)
            if not data:
                return
            os.write(port, data)


def model(name: str) -> tuple[bytes, str]:
    """A kmodel of 32x32x3 bytes in and 3072 floats out, and its manifest."""
    data = facts.small_kmodel(32, 32, 3)
    text = (
        f'schema = 1\nname = "{name}"\ntask = "other"\ndescription = "one node"\nlicense = "MIT"\n'
        'source = "made by this test"\n\n[artifacts.k210]\nfile = "m.kmodel"\n'
        f'sha256 = "{hashlib.sha256(data).hexdigest()}"\noutputs = [[32, 32, 3]]\n'
    )
    return data, text
