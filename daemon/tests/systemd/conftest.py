"""The real units under a real systemd as PID 1: a container over an overlay of this computer's root, then gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..support.waiting import eventually

DAEMON = Path(__file__).resolve().parents[2]
UNITS = DAEMON / "systemd"
#: Everything the container gets that is not on the host lies here, outside of what ProtectHome= hides.
PLACE = "/usr/lib/edgeaid-test"

#: Runs in a mount namespace of its own: builds the root and becomes nspawn.
LAUNCH = r"""
set -eu
scratch=$1; units=$2; source=$3; site=$4; name=$5
mount --make-rprivate /
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
root=$scratch/root
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/default.target
: > "$root/etc/fstab"; : > "$root/etc/machine-id"
mkdir -p "$root/usr/lib/edgeaid-test/site" "$root/etc/edgeai" "$root/var/lib/edgeai"
cp -r "$source" "$root/usr/lib/edgeaid-test/src"
cp "$units"/*.service "$units"/*.socket "$root/etc/systemd/system/"
cp "$units/edgeaid.toml" "$root/etc/edgeai/"
cp "$units/edgeai.sysusers" "$root/usr/lib/sysusers.d/edgeai.conf"
cp "$units/edgeai.tmpfiles" "$root/usr/lib/tmpfiles.d/edgeai.conf"
cat > "$root/usr/bin/edgeaid" <<'END'
#!/bin/sh
export PYTHONPATH=/usr/lib/edgeaid-test/src:/usr/lib/edgeaid-test/site
exec /usr/bin/python3 -m edgeaid "$@"
END
chmod 755 "$root/usr/bin/edgeaid"
# units that run a module with -I see it as if it were installed
printf '%s\n' /usr/lib/edgeaid-test/src /usr/lib/edgeaid-test/site > "$root/usr/lib/python3/dist-packages/edgeai.pth"
mkdir -p "$root/etc/systemd/system/edgeaid.service.d"
# this computer may be busy; the tests that are about the watchdog set their own time
printf '[Service]\nWatchdogSec=120s\nTimeoutStartSec=180s\n' > "$root/etc/systemd/system/edgeaid.service.d/50-test.conf"
sockets='edgeaid.socket edgeaid-fast.socket edgeaid-usb.socket'
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=%s\n' "$sockets" > "$root/etc/systemd/system/ci.target"
systemd-sysusers --root="$root"
for entry in watcher:edgeai-observe asker:edgeai-infer keeper:edgeai-control stranger:; do
    group=${entry#*:}
    chroot "$root" useradd -M ${group:+-G "$group"} "${entry%%:*}"
done
exec systemd-nspawn -q --register=no --keep-unit -b -D "$root" -M "$name" --console=pipe --private-network \
    --bind-ro="$site:/usr/lib/edgeaid-test/site" --kill-signal=SIGRTMIN+3 systemd.unit=ci.target
"""


@dataclass(frozen=True, slots=True)
class Container:
    """A booted container."""

    leader: int

    def run(
        self, *command: str, user: str = "", stdin: str = "", timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A command inside, as root or as a user with its groups."""
        words = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        if user:
            words += ["runuser", "-u", user, "--"]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{PLACE}/src:{PLACE}/site",
        }
        done = subprocess.run(
            [*words, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def python(self, source: str, user: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        """A Python program inside, with edgeaid importable."""
        return self.run("/usr/bin/python3", "-", user=user, stdin=source, **options)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        out = self.run("systemctl", "show", unit, "-p", ",".join(names)).stdout
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """systemd with the project's units, sockets listening, daemon not started."""
    if os.geteuid():
        pytest.skip("needs root: namespaces and an overlay of the root file system")
    missing = [tool for tool in ("systemd-nspawn", "nsenter", "unshare", "runuser") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}; apt-get install systemd-container util-linux")
    system = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    if system.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip(
            f"/usr/bin/python3 is {system.stdout.strip() or 'absent'}, the packages here are for {sys.version_info[:2]}"
        )
    scratch = tmp_path_factory.mktemp("container")
    log = (tmp_path_factory.mktemp("log") / "console").open("wb")
    name = f"edgeaid-test-{os.getpid()}"
    words = [
        "unshare",
        "--mount",
        "/bin/sh",
        "-c",
        LAUNCH,
        "launch",
        str(scratch),
        str(UNITS),
        str(DAEMON / "src"),
        sysconfig.get_paths()["purelib"],
        name,
    ]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def text() -> str:
        return Path(log.name).read_text(errors="replace")[-3000:]

    try:
        leader = 0
        deadline = time.monotonic() + 120
        while not leader:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no container with systemd can be started here: {text().strip()}")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in children:
                with contextlib.suppress(OSError):  # a child that has just ended
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        leader = int(child)
            time.sleep(0.1)
        inside = Container(leader)
        eventually(
            lambda: inside.run("systemctl", "is-active", "edgeaid.socket", check=False).returncode == 0,
            120,
            f"the socket unit: {text()}",
        )
        yield inside
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
