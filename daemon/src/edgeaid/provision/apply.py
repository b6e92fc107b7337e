"""First-boot settings of a device: read `edgeai.toml` from the boot partition, apply it, erase its secrets.

Run by edgeai-provision.service as root, before the network and the daemon start. The schema is described in
docs/flashing.md. Every valid key is applied and every other one reported, to the journal (stderr) and to
`edgeai-provision.log` beside the file: a headless device that refused all for one typing error could not be reached.
Applying is idempotent, so a power cut at any moment is followed by a complete run at the next boot.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import secrets
import socket
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import AlreadyExists, EdgeaiError, InvalidConfig, InvalidModel
from ..models import bundle, manifest, repository
from ..models.trust import Trust, check_serial, trust_of
from ..systemd import stderr_is_the_journal
from .settings import BUNDLE, FILE, LOG, MAX_BYTES, MODELS, Settings, Wifi, keep, parse, preshared_key, redact, render

#: What was applied last, as a SHA-256 of the file after its secrets were erased; below what `kept` says.
STATE: Final = "etc/edgeai/provision.applied"
#: On an image with a read-only root: the list of files that are links to KEPT, and where its data partition is mounted.
LINKED: Final = "usr/lib/edgeai/persistent"
KEPT: Final = "data"
#: The interface whose supplicant edgeai-config starts.
INTERFACE: Final = "wlan0"


@dataclass(slots=True)
class Applied:
    """What happened, in sentences; never a secret."""

    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def kept(root: Path) -> Path:
    """Directory below which settings are written: the data partition of a read-only root, else the root itself."""
    return root / KEPT if (root / LINKED).is_file() and (root / KEPT / "etc").is_dir() else root


def apply(settings: Settings, root: Path, boot: Path, report: Applied) -> bool:
    """Put `settings` into force below `root`; False where the device itself failed and trying again makes sense."""
    target = kept(root)
    steps: list[tuple[str, Callable[[], str]]] = []
    if settings.hostname:
        steps.append(("hostname", partial(_apply_hostname, settings.hostname, target, root == Path("/"))))
    if settings.timezone:
        steps.append(("timezone", partial(_apply_timezone, settings.timezone, target, root)))
    if settings.wifi:
        steps.append(("wifi", partial(_apply_wifi, settings.wifi, target)))
    if settings.authorized_keys:
        steps.append(("ssh.authorized_keys", partial(_apply_keys, settings.authorized_keys, target / _root_home(root))))
    for file in settings.preload:
        steps.append((f"models.preload {file}", partial(_apply_model, file, root, boot)))
    final = True
    for name, step in steps:
        try:
            report.done.append(f"{name}: {step()}")
        except EdgeaiError as error:
            report.problems.append(f"{name}: {error}")
        except OSError as error:
            remedy = (
                "; a read-only root needs a data partition (feature readonly)" if error.errno == errno.EROFS else ""
            )
            report.problems.append(f"{name}: {error.strerror or error} ({error.filename}){remedy}")
            final = False
    return final


def _apply_hostname(name: str, target: Path, now: bool) -> str:
    _write(target / "etc/hostname", f"{name}\n".encode(), 0o644)
    if now:
        socket.sethostname(name)
    return name


def _apply_timezone(name: str, target: Path, root: Path) -> str:
    if not (root / "usr/share/zoneinfo" / name).is_file():
        raise InvalidConfig(f"{name!r} is not in this image's /usr/share/zoneinfo; check its spelling")
    link = target / "etc/localtime"
    temporary = link.with_name(f".localtime.{secrets.token_hex(4)}")
    temporary.symlink_to(f"{'..' if target == root else ''}/usr/share/zoneinfo/{name}")
    temporary.replace(link)
    _sync_directory(link.parent)
    return name


def _apply_wifi(wifi: Wifi, root: Path) -> str:
    """The file of wpa_supplicant@wlan0.service; addresses come from networkd (70-edgeai-wireless.network)."""
    target = root / f"etc/wpa_supplicant/wpa_supplicant-{INTERFACE}.conf"
    if not wifi.password and not wifi.open:
        if target.is_file():
            return "no new key; left as it is"
        raise InvalidConfig("no password; write one, or 'open = true' for a network without encryption")
    # Name and key in hex: nothing has to be quoted, so nothing can be quoted wrongly.
    lines = [
        "# written by edgeai-provision",
        "ctrl_interface=/run/wpa_supplicant",
        f"country={wifi.country}",
        "network={",
        f"\tssid={wifi.ssid.encode().hex()}",
        *(["\tscan_ssid=1"] if wifi.hidden else []),
        *(["\tkey_mgmt=NONE"] if wifi.open else ["\tkey_mgmt=WPA-PSK WPA-PSK-SHA256"]),
        *([] if wifi.open else [f"\tpsk={preshared_key(wifi.ssid, wifi.password)}"]),
        "}",
    ]
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _write(target, ("\n".join(lines) + "\n").encode(), 0o600)
    return f"network {wifi.ssid!r} on {INTERFACE}"


def _apply_keys(keys: tuple[str, ...], home: Path) -> str:
    """Keys are added, never taken away: a device must not lock its owner out."""
    directory = home / ".ssh"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    target = directory / "authorized_keys"
    old = target.read_text("utf-8", "replace").splitlines() if target.is_file() else []
    new = [key for key in keys if key not in old]
    _write(target, "".join(f"{line}\n" for line in [*old, *new]).encode(), 0o600)
    return f"{len(new)} added, {len(keys) - len(new)} there already"


def _root_home(root: Path) -> str:
    """Home of uid 0, relative; /home/root on OpenEmbedded, /root elsewhere."""
    with contextlib.suppress(OSError):
        for line in (root / "etc/passwd").read_text("utf-8", "replace").splitlines():
            parts = line.split(":")
            if len(parts) == 7 and parts[2] == "0" and parts[5].startswith("/") and ".." not in parts[5]:
                return parts[5].lstrip("/")
    return "root"


def _apply_model(file: str, root: Path, boot: Path) -> str:
    match = BUNDLE.fullmatch(file)
    if match is None:
        raise InvalidModel(f"{file!r} is not <name>-<version>.edgeai")
    name, version = manifest.check_name(match[1]), manifest.check_version(match[2])
    source = boot / MODELS / file
    models = repository.Repository([root / "var/lib/edgeai/models"])
    if (models.writable / name / version).is_dir():
        source.unlink(missing_ok=True)
        return "there already"
    if not source.is_file():
        raise InvalidModel(f"{MODELS}/{file} is not on the boot partition; copy it there")
    models.writable.mkdir(mode=0o750, parents=True, exist_ok=True)
    owner = models.writable.stat()
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream, models.staging() as staged:
        _extract(stream, staged)
        stored = repository.read(staged, name, version, models.max_file_bytes)
        for artifact in stored.manifest.artifacts:
            repository.verify(stored, artifact.target)
        _trust(root).check(stored)
        check_serial(stored.manifest, [models.find(name, other).manifest for other in models.versions(name)])
        for path in (staged, *staged.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        with contextlib.suppress(AlreadyExists):
            models.commit(staged, name, version)
    for directory in (models.writable / name, models.writable / repository.STAGING):
        os.chown(directory, owner.st_uid, owner.st_gid, follow_symlinks=False)
    source.unlink()
    with contextlib.suppress(OSError):
        source.parent.rmdir()
    return f"model {name} version {version}"


def _trust(root: Path) -> Trust:
    """Whose signatures the daemon of this device accepts: the [models] table of its configuration."""
    file = root / "etc/edgeai/edgeaid.toml"
    if not file.is_file():
        return Trust()
    try:
        table = tomllib.loads(file.read_text("utf-8")).get("models", {})
        return trust_of(table.get("trusted_keys", ()), bool(table.get("require_signature", False)))
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidConfig(f"{file} cannot be read, so whom to trust is not known: {error}") from error


def _extract(stream: BinaryIO, directory: Path) -> None:
    bundle.extract(stream, directory)
    for path in directory.rglob("*"):
        path.chmod(0o750 if path.is_dir() else 0o640)


def erase(path: Path, data: bytes) -> None:
    """Write `data` over a file, in place: the clusters that held the secret are written; flushed to the card."""
    with path.open("r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        _write_all(file.fileno(), data.ljust(size, b"\n"))
        os.fsync(file.fileno())
        file.truncate(len(data))
        os.fsync(file.fileno())


def run(root: Path, boot: Path) -> Applied | None:
    """Apply the boot partition's file to `root`; None if there is none or it was applied before. Raises OSError."""
    path = boot / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    target = kept(root)
    state = target / STATE
    with contextlib.suppress(OSError):
        if state.read_text().strip() == hashlib.sha256(data).hexdigest():
            return None
    report = Applied()
    final = True
    try:
        settings, problems = parse(data)
    except InvalidConfig as error:
        report.problems.append(str(error))
        clean = redact(data)
    else:
        report.problems.extend(problems)
        final = apply(settings, root, boot, report)
        secrets = (settings.wifi.password,) if settings.wifi and settings.wifi.password else ()
        clean = keep(data, secrets) if problems else render(settings, secret=False)
    erase(path, clean)
    _write_log(boot / LOG, report)
    if final:
        state.parent.mkdir(parents=True, exist_ok=True)
        _write(state, f"{hashlib.sha256(clean).hexdigest()}\n".encode(), 0o644)
    return report


def _write_log(path: Path, report: Applied) -> None:
    lines = [*(f"problem: {p}" for p in report.problems), *(f"done: {d}" for d in report.done)]
    # A full boot partition must not keep the settings from being marked as applied.
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        _write_all(file.fileno(), ("\n".join(lines) + "\n").encode())
        os.fsync(file.fileno())


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file whole or not at all; on the disk when this returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str] | None = None) -> int:
    """0: applied or nothing to do; 1: applied with problems; 2: could not be read or written."""
    parser = argparse.ArgumentParser(prog="edgeai-provision", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/"), help="the device's root directory")
    parser.add_argument("--boot", type=Path, help="where the boot partition is mounted (default: ROOT/boot)")
    options = parser.parse_args(arguments)
    # The manager turns these prefixes into priorities of the journal.
    error_mark, info_mark = ("<3>", "<6>") if stderr_is_the_journal() else ("", "")
    try:
        report = run(options.root, options.boot or options.root / "boot")
    except OSError as error:
        sys.stderr.write(f"{error_mark}cannot apply {FILE}: {error}\n")
        return 2
    if report is None:
        sys.stderr.write(f"{info_mark}nothing new in {FILE}\n")
        return 0
    for text in report.done:
        sys.stderr.write(f"{info_mark}{text}\n")
    for text in report.problems:
        sys.stderr.write(f"{error_mark}{text}\n")
    return 1 if report.problems else 0
