"""A kernel and a small initial RAM disk that start an unchanged image in the emulator.

The RAM disk loads the emulated board's drivers, mounts the image's root, and puts three things below /run, which the image's
systemd finds there: the agent with its unit, and a udev rule that gives the virtual disk the names of an SD card.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .paths import Missing, need

HERE = Path(__file__).resolve().parent
#: All that an emulator needs of Debian; the rest is for building images.
PACKAGES = ("linux-image-arm64", "busybox-static")
VIRT_MODULES = "virtio_pci virtio_mmio virtio_blk ext4 crc32c_generic virtio_console virtio_net virtio-rng vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 af_packet"
RASPI_MODULES = (
    "raspberrypi_power bcm2835_wdt clk-raspberrypi bcm2835-mbox raspberrypi bcm2835_dma pinctrl-bcm2835 bcm2835 sdhci-iproc mmc_block "
    "ext4 crc32c_generic dwc2 phy-generic usbnet cdc_ether smsc95xx vfat nls_cp437 nls_ascii nls_iso8859-1 af_packet"
)

INIT = """#!/busybox sh
bb=/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
while read -r m; do $bb insmod $m 2>/dev/null; done < /modules.list
root=/dev/vda; mode=rw; agent=/dev/virtio-ports/edgeai.agent; login=
for word in $($bb cat /proc/cmdline); do
    case $word in root=*) root=${word#root=};; ro) mode=ro;; rw) mode=rw;; emulator.agent=*) agent=${word#emulator.agent=};; emulator.login) login=yes;; esac
done
n=0
while [ ! -b $root ] && [ $n -lt 300 ]; do $bb sleep 0.1; n=$((n+1)); done
$bb mount -t ext4 -o $mode $root /root || exec $bb sh
$bb mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /root/run
run=/root/run/edgeai-emulator
$bb mkdir -p $run /root/run/systemd/system/sysinit.target.wants /root/run/udev/rules.d
$bb cp /agent.py /busybox $run/
{
    echo '[Unit]'
    echo 'Description=Agent of the emulator (not part of the image)'
    echo 'DefaultDependencies=no'
    echo 'After=systemd-udevd.service systemd-tmpfiles-setup-dev.service'
    echo 'Conflicts=shutdown.target'
    echo 'Before=shutdown.target'
    echo 'IgnoreOnIsolate=yes'
    echo 'StartLimitIntervalSec=0'
    echo '[Service]'
    echo "ExecStart=/usr/bin/python3 /run/edgeai-emulator/agent.py $agent"
    echo 'Restart=always'
    echo 'RestartSec=500ms'
    echo 'KillMode=process'
    echo 'OOMScoreAdjust=-900'
} > /root/run/systemd/system/edgeai-emulator.service
$bb ln -s ../edgeai-emulator.service /root/run/systemd/system/sysinit.target.wants/edgeai-emulator.service
# serial ports of the real board that this machine lacks: nobody should wait for them
for t in ttyS0 ttyS1 ttyAMA0; do
    [ -c /dev/$t ] || $bb ln -s /dev/null /root/run/systemd/system/serial-getty@$t.service
done
# for a person at the console: no password is set anywhere, so nobody could log in
for t in ttyS1 ttyAMA0; do
    [ "$login" ] || break
    $bb mkdir -p /root/run/systemd/system/serial-getty@$t.service.d
    printf '[Service]\\nExecStart=\\nExecStart=-/sbin/agetty --autologin root --noclear %%I 115200 linux\\n' > /root/run/systemd/system/serial-getty@$t.service.d/50-emulator.conf
done
# an emulated processor is ten to a hundred times slower: what counts seconds gets more of them
$bb mkdir -p /root/run/systemd/system/edgeaid.service.d /root/run/systemd/system.conf.d
printf '[Manager]\\nDefaultTimeoutStartSec=900s\\nDefaultDeviceTimeoutSec=900s\\n' > /root/run/systemd/system.conf.d/50-emulator.conf
printf '[Service]\\nWatchdogSec=180s\\nTimeoutStartSec=900s\\n' > /root/run/systemd/system/edgeaid.service.d/50-emulator.conf
for p in "" 1 2 3 4; do
    echo "KERNEL==\\"vda$p\\", SYMLINK+=\\"mmcblk0${p:+p$p}\\""
done > /root/run/udev/rules.d/61-edgeai-emulator.rules
$bb mount --move /dev /root/dev
$bb umount /sys /proc
exec $bb switch_root /root /sbin/init
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Debian's arm64 kernel, unpacked."""

    root: Path
    version: str

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def raspi_dtb(self) -> Path:
        return self.root / "usr/lib" / f"linux-image-{self.version}" / "broadcom/bcm2837-rpi-3-b.dtb"


def kernel(work: Path) -> Kernel:
    """Fetch and unpack the kernel package once."""
    need("dpkg-deb", "depmod", "modprobe")
    debs = packages.fetch_debs(work, PACKAGES)
    name = json.loads((debs / "index.json").read_text())["linux-image-arm64"]
    version = name.split("_")[0].removeprefix("linux-image-")
    root = work / "boot" / name.removesuffix(".deb")
    if not (root / "done").is_file():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", str(debs / name), str(root)], check=True)
        if not (root / "lib/modules" / version).is_dir():
            raise Missing(f"{name} has no modules for {version}")
        subprocess.run(["/usr/sbin/depmod", "-b", str(root), version], check=True)
        (root / "done").touch()
    return Kernel(root, version)


def busybox(work: Path) -> bytes:
    """Debian's static arm64 busybox."""
    debs = packages.fetch_debs(work, PACKAGES)
    path = debs / json.loads((debs / "index.json").read_text())["busybox-static"]
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True, check=True).stdout
    return subprocess.run(["tar", "-xO", "./bin/busybox"], input=archive, capture_output=True, check=True).stdout


def _module_files(kernel: Kernel, names: str) -> list[Path]:
    paths: list[Path] = []
    for name in names.split():
        listed = subprocess.run(
            ["/usr/sbin/modprobe", "-d", str(kernel.root.resolve()), "-S", kernel.version, "--show-depends", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        for line in listed.stdout.splitlines():
            words = line.split()
            if words and words[0] == "insmod" and Path(words[1]) not in paths:
                paths.append(Path(words[1]))
    return paths


def fingerprint() -> str:
    """Another one where another RAM disk would be built: a machine that was saved with the old one is not continued."""
    return hashlib.sha256(INIT.encode() + (HERE / "agent.py").read_bytes()).hexdigest()[:16]


def build(work: Path, machine: str) -> Path:
    """Write the initial RAM disk of a machine ("virt", "raspi3b"); returns its path."""
    unpacked = kernel(work)
    target = work / "boot" / f"initramfs-{machine}.gz"
    modules = _module_files(unpacked, VIRT_MODULES if machine == "virt" else RASPI_MODULES)
    files: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in ("dev", "proc", "sys", "root", "modules")]
    files += [(f"modules/{path.name}", 0o100644, path.read_bytes()) for path in modules]
    files += [
        ("modules.list", 0o100644, "".join(f"/modules/{path.name}\n" for path in modules).encode()),
        ("busybox", 0o100755, busybox(work)),
        ("agent.py", 0o100644, (HERE / "agent.py").read_bytes()),
        ("init", 0o100755, INIT.encode()),
    ]
    scratch = target.with_suffix(".new")
    scratch.write_bytes(gzip.compress(cpio(files), compresslevel=1, mtime=0))
    scratch.replace(target)
    return target


def cpio(files: list[tuple[str, int, bytes]]) -> bytes:
    """A "newc" archive of (name, mode, content), with /dev/console, owned by root."""
    out = bytearray()

    def entry(name: str, mode: int, data: bytes, number: int, device: tuple[int, int] = (0, 0)) -> None:
        fields = (number, mode, 0, 0, 2 if mode & 0o040000 else 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        out.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    for number, (name, mode, data) in enumerate(files, 1):
        entry(name, mode, data, number)
    entry("dev/console", 0o020600, b"", len(files) + 1, (5, 1))
    entry("TRAILER!!!", 0, b"", 0)
    return bytes(out)
