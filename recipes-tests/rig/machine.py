"""An emulated board: QEMU with an image of ours, its console, its control socket and the agent's stream."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import initramfs
from .link import GuestError, Link
from .paths import Missing, need

SECTOR = 512
#: Without kernel page-table isolation (which address randomisation asks for) every entry to the kernel costs an emulated
#: processor a third less. Nobody attacks this machine.
CHEAPER = ("nokaslr", "kpti=off", "mitigations=off")


@dataclass(frozen=True, slots=True)
class Board:
    """What is emulated."""

    machine: str = "virt"  # or raspi3b
    cpu: str = "cortex-a72"
    cpus: int = 2
    memory_mib: int = 1024
    acceleration: str = "tcg,thread=multi"
    #: TCP port of the host's loopback that leads to SSH; 0 = none.
    ssh_port: int = 0
    #: Further words of QEMU's and the kernel's command lines.
    extra: tuple[str, ...] = ()
    kernel_words: tuple[str, ...] = ()
    read_only_root: bool = False


@dataclass(slots=True)
class Machine:
    """One run of the emulator. `disk` is a qcow2 over the image; the image itself is never written."""

    board: Board
    disk: Path
    work: Path
    root_partition: int
    directory: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    link: Link | None = field(default=None, init=False)
    _qmp: socket.socket | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # sockets want short names
        self.directory = Path(tempfile.mkdtemp(prefix="edgeai-emu-"))

    def command(self, load: str = "") -> list[str]:
        """QEMU's command line."""
        need("qemu-system-aarch64")
        kernel = initramfs.kernel(self.work)
        board = self.board
        partition = f"{self.root_partition}" if self.root_partition else ""
        mode = "ro" if board.read_only_root else "rw"
        words = [
            "qemu-system-aarch64", "-M", board.machine, "-accel", board.acceleration, "-display", "none", "-nodefaults",
            "-kernel", str(kernel.image), "-initrd", str(initramfs.build(self.work, board.machine)),
            "-chardev", f"socket,id=con,path={self.directory}/console,server=on,wait=off,logfile={self.directory}/console.log",
            "-chardev", f"socket,id=agent,path={self.directory}/agent,server=on,wait=off",
            "-qmp", f"unix:{self.directory}/qmp,server=on,wait=off", "-no-reboot",
        ]  # fmt: skip
        forward = f",hostfwd=tcp:127.0.0.1:{board.ssh_port}-:22" if board.ssh_port else ""
        if board.machine == "virt":
            append = [
                f"root=/dev/vda{partition}",
                mode,
                "console=ttyAMA0",
                "quiet",
                "systemd.firstboot=off",
                *CHEAPER,
                *board.kernel_words,
            ]
            words += [
                "-cpu", board.cpu, "-smp", str(board.cpus), "-m", str(board.memory_mib), "-serial", "chardev:con",
                "-drive", f"if=none,id=disk,file={self.disk},format=qcow2", "-device", "virtio-blk-pci,drive=disk",
                "-device", "virtio-rng-pci", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=edgeai.agent",
                "-netdev", f"user,id=net,restrict=on{forward}", "-device", "virtio-net-pci,netdev=net,romfile=",
            ]  # fmt: skip
        else:
            # QEMU's model of this board resets it the moment its watchdog is started.
            append = [
                f"root=/dev/mmcblk0{'p' if partition else ''}{partition}", mode, "console=ttyS1,115200", "dwc_otg.lpm_enable=0", "quiet", "systemd.firstboot=off",
                "systemd.watchdog_sec=0", "emulator.agent=10.0.2.100:9000", *board.kernel_words,
            ]  # fmt: skip
            words += [
                "-dtb", str(kernel.raspi_dtb), "-drive", f"if=sd,format=qcow2,file={self.disk}", "-serial", "null", "-serial", "chardev:con",
                "-netdev", f"user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:9000-chardev:agent{forward}", "-device", "usb-net,netdev=net",
            ]  # fmt: skip
        words += ["-append", " ".join(append), *board.extra]
        return words + (["-loadvm", load] if load else [])

    def start(self, load: str = "", timeout: float = 300) -> None:
        """Start, or continue from a snapshot; returns when the agent answers. GuestError carries the console's end."""
        log = (self.directory / "qemu.log").open("wb")
        self.process = subprocess.Popen(
            ["nice", "-n", os.environ.get("EDGEAI_TEST_NICE", "10"), *self.command(load)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + 30
        while self.link is None:
            try:
                self.link = Link(self.directory / "agent")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise GuestError(f"QEMU did not start: {(self.directory / 'qemu.log').read_text()}") from None
                time.sleep(0.05)
        try:
            self.link.wait(timeout)
        except GuestError as error:
            raise GuestError(
                f"{error}\nconsole:\n{self.console()[-3000:]}\n{(self.directory / 'qemu.log').read_text()}"
            ) from None
        if load:  # the guest's clock stands where the snapshot was taken
            self.link.run(f"date -u -s @{time.time():.0f}")

    def console(self) -> str:
        """What the serial console said so far."""
        path = self.directory / "console.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def qmp(self, execute: str, **arguments: Any) -> Any:
        """One command to QEMU's monitor."""
        if self._qmp is None:
            self._qmp = socket.socket(socket.AF_UNIX)
            self._qmp.connect(str(self.directory / "qmp"))
            self._answer()
            self._ask({"execute": "qmp_capabilities"})
        return self._ask({"execute": execute, "arguments": arguments})

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._qmp is not None
        self._qmp.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._answer()
            if "error" in answer:
                raise GuestError(f"{request}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def _answer(self) -> dict[str, Any]:
        assert self._qmp is not None
        data = b""
        while not data.endswith(b"\n"):
            part = self._qmp.recv(1)  # answers are short; byte by byte keeps them apart
            if not part:
                raise GuestError("QEMU closed its monitor")
            data += part
        answer: dict[str, Any] = json.loads(data)
        return answer

    def monitor(self, line: str) -> str:
        """One line to the human monitor; its answer."""
        answer: str = self.qmp("human-monitor-command", **{"command-line": line})
        return answer.strip()

    def save(self, name: str) -> None:
        """Snapshot of memory and disk inside the qcow2."""
        answer = self.monitor(f"savevm {name}")
        if answer:
            raise GuestError(f"savevm: {answer}")

    def wait_up(self, timeout: float = 900) -> str:
        """Until systemd finished starting; its word: "running" or "degraded"."""
        assert self.link is not None
        return self.link.run("systemctl is-system-running --wait", timeout=timeout).out.strip()

    def ending(self) -> str:
        """How QEMU ended, for a person; empty while it runs and after the guest powered off."""
        code = self.process.poll() if self.process is not None else None
        if not code:
            return ""
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the kernel does that when memory is short (dmesg tells)" if name == "SIGKILL" else ""
            return f"QEMU was killed by {name}{hint}"
        return f"QEMU ended with exit status {code}: {self._said()[-500:]}"

    def _said(self) -> str:
        path = self.directory / "qemu.log"
        return path.read_text(errors="replace").strip() if path.is_file() else ""

    def rebooted(self) -> bool:
        """Whether QEMU ended because the guest asked for a reset (-no-reboot makes an end of it). Needs `listen()` before."""
        if self.process is None or self.process.poll() != 0 or self._qmp is None:
            return False
        with contextlib.suppress(GuestError, OSError):
            while True:
                event = self._answer()
                if event.get("event") == "SHUTDOWN":
                    return bool(event["data"]["reason"] == "guest-reset")
        return False

    def listen(self) -> None:
        """Keep a connection to the monitor, which tells why QEMU ends."""
        self.monitor("info status")

    def start_again(self, timeout: float = 900) -> None:
        """Boot once more from the same disk, after the guest's reboot ended QEMU."""
        self._close()
        self.start(timeout=timeout)

    def kill(self) -> None:
        """Power cut."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._close()

    def shut_down(self, timeout: float = 120) -> int:
        """Ask the guest to power off; returns QEMU's exit code, or kills it and raises GuestError."""
        assert self.process is not None
        if self.process.poll() is None:
            assert self.link is not None
            with contextlib.suppress(GuestError, OSError):
                self.link.run("systemctl poweroff --no-block", timeout=20)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                console = self.console()[-2000:]
                self.kill()
                raise GuestError(f"the guest did not power off within {timeout:.0f} s:\n{console}") from None
        code = self.process.returncode
        self._close()
        return code

    def _close(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None

    def remove(self) -> None:
        """Delete sockets and logs."""
        shutil.rmtree(self.directory, ignore_errors=True)


def root_partition(image: Path) -> int:
    """1-based number of the ext4 root partition in a disk image; 0 where the image is a bare file system."""
    with image.open("rb") as f:
        head = f.read(SECTOR)
        if head[510:512] != b"\x55\xaa":
            return 0
        for number in range(4):
            entry = head[446 + 16 * number : 462 + 16 * number]
            start = int.from_bytes(entry[8:12], "little")
            if entry[4] == 0x83:
                f.seek(start * SECTOR + 1024 + 56)
                if f.read(2) == b"\x53\xef":
                    return number + 1
    raise Missing(f"{image} has a partition table without an ext4 root partition")


def overlay(image: Path, target: Path, size_gib: int = 0) -> Path:
    """A fresh qcow2 over the image; boards with an SD card want a power of two as size."""
    need("qemu-img")
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.resolve()), "-F", "raw", str(target)]
    subprocess.run(words + ([f"{size_gib}G"] if size_gib else []), check=True)
    return target


def boot(
    image: Path,
    work: Path,
    disk: Path,
    board: Board | None = None,
    *,
    fresh: bool = True,
    load: str = "",
    timeout: float = 900,
) -> Machine:
    """Start a machine on an image; `fresh` makes a new overlay at `disk`."""
    board = board or Board()
    if fresh or not disk.is_file():
        size = 0
        if board.machine != "virt":
            size = 1
            while size << 30 < image.stat().st_size:
                size *= 2
        overlay(image, disk, size)
    machine = Machine(board, disk, work, root_partition(image))
    try:
        machine.start(load, timeout)
    except BaseException:
        machine.kill()
        machine.remove()
        raise
    return machine


def find_images(directories: Sequence[Path]) -> list[Path]:
    """Disk images of ours below deploy directories, newest first."""
    paths = [p for directory in directories for p in directory.glob("edgeai-image*.wic") if p.is_file()]
    paths += [p for directory in directories for p in directory.glob("edgeai-image*.ext4") if p.is_file()]
    return sorted({p.resolve() for p in paths}, key=lambda p: (p.suffix != ".wic", -os.stat(p).st_mtime))
