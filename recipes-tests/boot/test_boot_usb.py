"""USB as the guest's kernel and udev see it: a serial board on QEMU's USB, a Coral stick made of software, stand-in libraries."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import TOP, wait_for

from rig.link import Link
from rig.machine import Machine

STANDINS = TOP / "daemon" / "tests" / "standins"

ECHO = """
import os, sys, termios, tty
fd = os.open("/dev/edgeai/k210", os.O_RDWR | os.O_NOCTTY)
tty.setraw(fd)
want, got = b"edge" * 256, b""
os.write(fd, want)
while len(got) < len(want):
    got += os.read(fd, 1024)
sys.exit(got != want)
"""

CORAL_DRIVER = """
import fcntl, os, struct, sys, time, glob
def node(vendor):
    for path in glob.glob("/sys/bus/usb/devices/*/idVendor"):
        if open(path).read().strip() == vendor:
            folder = os.path.dirname(path)
            return "/dev/bus/usb/%03d/%03d" % (int(open(folder + "/busnum").read()), int(open(folder + "/devnum").read()))
CONTROL = 0xC0185500
def control(fd, kind, request, value, data_or_length):
    import ctypes
    size = data_or_length if isinstance(data_or_length, int) else len(data_or_length)
    buffer = ctypes.create_string_buffer(b"" if isinstance(data_or_length, int) else bytes(data_or_length), max(size, 1))
    block = struct.pack("<BBHHHIxxxxQ", kind, request, value, 0, size, 2000, ctypes.addressof(buffer))
    done = fcntl.ioctl(fd, CONTROL, bytearray(block), True)
    return buffer.raw[:size]
fd = os.open(node("1a6e"), os.O_RDWR)
firmware = bytes(range(256)) * 40
for block in range(0, len(firmware), 256):
    control(fd, 0x21, 1, block // 256, firmware[block:block + 256])
    control(fd, 0xA1, 3, 0, 6)
control(fd, 0x21, 1, len(firmware) // 256, b"")
print(control(fd, 0xA1, 3, 0, 6)[4])
os.close(fd)
"""


def test_serial_board_appears_under_its_own_name_echoes_and_leaves(
    booted: Machine, guest: Link, tmp_path: Path
) -> None:
    path = booted.folder / "k210.sock"
    booted.qmp(
        "chardev-add",
        id="k210",
        backend={
            "type": "socket",
            "data": {"addr": {"type": "unix", "data": {"path": str(path)}}, "server": True, "wait": False},
        },
    )
    board = socket.socket(socket.AF_UNIX)
    board.connect(str(path))

    def echo() -> None:
        while data := board.recv(4096):
            board.sendall(data)

    threading.Thread(target=echo, daemon=True).start()
    booted.qmp("device_add", driver="usb-serial", chardev="k210", id="board", bus="xhci.0")
    try:
        wait_for(lambda: guest.run("test -c /dev/edgeai/k210").code == 0, 60, "the serial board's link")
        assert guest.run("stat -L -c %G:%a /dev/edgeai/k210").check().strip() == "dialout:660"
        guest.python(ECHO, user="edgeai", timeout=120).check()
    finally:
        booted.qmp("device_del", id="board")
    wait_for(lambda: guest.run("test -e /dev/edgeai/k210").code != 0, 60, "the link to go")
    board.close()


@pytest.fixture
def coral(guest: Link):
    """A stick behind vhci_hcd; commands go through a FIFO, its words to a file."""
    if guest.run("modprobe vhci_hcd").code:
        pytest.skip("this image's kernel has no vhci_hcd module")
    guest.put("/run/usb_coral.py", (STANDINS / "usb_coral.py").read_bytes())
    guest.run("rm -f /run/coral.in /run/coral.out; mkfifo /run/coral.in")
    guest.run("(python3 /run/usb_coral.py <> /run/coral.in > /run/coral.out 2>&1 &) </dev/null >/dev/null 2>&1").check()
    wait_for(lambda: "attached boot" in guest.run("cat /run/coral.out").out, 60, "the stick to be plugged in")
    yield guest
    guest.run("echo quit > /run/coral.in")
    wait_for(lambda: guest.run("pgrep -f usb_coral.py").code != 0, 30, "the stand-in to end")


def test_coral_changes_its_identity_with_its_firmware_and_udev_follows(coral: Link) -> None:
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code == 0, 60, "the link of the boot identity")
    assert coral.run("stat -L -c %G:%a /dev/edgeai/coral-dfu").check().strip() == "plugdev:660"
    place = coral.run("basename $(dirname $(grep -l 1a6e /sys/bus/usb/devices/*/idVendor))").check().strip()
    assert coral.python(CORAL_DRIVER, user="edgeai").check().strip() == "7"
    wait_for(lambda: "attached running" in coral.run("cat /run/coral.out").out, 60, "the stick to come back")
    assert "firmware 10240" in coral.run("cat /run/coral.out").out
    wait_for(
        lambda: coral.run("test -e /dev/edgeai/coral && ! test -e /dev/edgeai/coral-dfu").code == 0,
        60,
        "the link of the running identity",
    )
    assert coral.run("basename $(dirname $(grep -l 18d1 /sys/bus/usb/devices/*/idVendor))").check().strip() == place


def test_coral_pulled_and_plugged_leaves_and_returns(coral: Link) -> None:
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code == 0, 60, "the link")
    coral.run("echo unplug > /run/coral.in").check()
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code != 0, 60, "the link to go")
    coral.run("echo plug > /run/coral.in").check()
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code == 0, 60, "the link to return")
    assert coral.run("systemctl is-active edgeaid").out.strip() == "active"


@pytest.fixture(scope="module")
def libraries(guest: Link, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The stand-ins of libedgetpu and libmvnc, compiled for aarch64 and put into the guest."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("aarch64-linux-gnu-gcc is not installed: apt-get install gcc-aarch64-linux-gnu")
    out = tmp_path_factory.mktemp("standins")
    subprocess.run(
        [sys.executable, str(STANDINS / "build.py"), "--target", "aarch64", str(out)], check=True, capture_output=True
    )
    for library in out.glob("*.so"):
        guest.put(f"/run/standins/{library.name}", library.read_bytes(), 0o755)
    return "/run/standins"


def test_every_stand_in_library_loads_on_aarch64(guest: Link, libraries: str) -> None:
    names = guest.run(f"ls {libraries}").check().split()
    assert len(names) >= 4
    for name in names:
        guest.python(f"import ctypes; ctypes.CDLL('{libraries}/{name}')").check()


def test_edgetpu_delegate_abi_of_aarch64_runs_a_compiled_model(
    guest: Link, libraries: str, request: pytest.FixtureRequest
) -> None:
    """Structs by value go in registers on one architecture and in memory on the other: only a real call shows it."""
    data = Path(__import__("os").environ.get("EDGEAI_TEST_DATA", TOP.parent / "shared" / "data"))
    found = sorted(data.rglob("*edgetpu*.tflite")) if data.is_dir() else []
    if not found:
        pytest.skip(f"no compiled Edge TPU model in {data} (set EDGEAI_TEST_DATA)")
    model = min(found, key=lambda path: path.stat().st_size)
    guest.put("/run/model_edgetpu.tflite", model.read_bytes())
    guest.python(
        f"""
from ai_edge_litert.interpreter import Interpreter, load_delegate
import numpy as np
delegate = load_delegate("{libraries}/libedgetpu_standin.so", {{}})
interpreter = Interpreter("/run/model_edgetpu.tflite", experimental_delegates=[delegate])
interpreter.allocate_tensors()
spec = interpreter.get_input_details()[0]
interpreter.set_tensor(spec["index"], np.zeros(spec["shape"], spec["dtype"]))
interpreter.invoke()
print(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).shape)
""",
        timeout=300,
    ).check()
