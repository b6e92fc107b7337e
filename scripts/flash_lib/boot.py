"""Settings and models for the boot partition: `edgeai.toml` and bundles, written by mtools, nothing mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeaid.errors import EdgeaiError
from edgeaid.models import bundle as archives
from edgeaid.models import manifest
from edgeaid.provision.settings import (
    BUNDLE,
    FILE,
    MODELS,
    Settings,
    Wifi,
    key_problem,
    parse,
    preshared_key,
    render,
)
from edgeaid.models import pack
from edgeaid.toolkit.bundle import bundle

from . import Refused, images


def read_keys(files: Sequence[Path]) -> tuple[str, ...]:
    """Public keys of *.pub and authorized_keys files. Refused for anything else, above all for private keys."""
    keys: list[str] = []
    for file in files:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"--ssh-key {file}: {error}") from None
        public = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not public:
            raise Refused(f"--ssh-key {file} holds no key")
        for line in public:
            if wrong := key_problem(line):
                raise Refused(f"--ssh-key {file}: it {wrong}")
            keys.append(line)
    return tuple(dict.fromkeys(keys))


def read_password(file: Path) -> str:
    """The first line of a file; - is standard input."""
    try:
        text = Path("/dev/stdin").read_text("utf-8") if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"--wifi-password-file {file}: {error}") from None
    return text.splitlines()[0] if text else ""


def checked(settings: Settings) -> Settings:
    """The same settings, as the device will read them. Refused where it would complain."""
    parsed, problems = parse(render(settings, secret=True))
    if problems:
        raise Refused("these settings are not right: " + "; ".join(problems))
    if parsed != settings:
        raise Refused("these settings cannot be written so that the device reads the same; look for odd characters")
    if parsed.wifi and parsed.wifi.password:
        # The key is enough for the device: the passphrase itself, maybe used elsewhere too, never comes onto the card.
        return replace(parsed, wifi=replace(parsed.wifi, password=preshared_key(parsed.wifi.ssid, parsed.wifi.password)))
    return parsed


def wifi(ssid: str | None, country: str | None, password: str | None) -> Wifi | None:
    """The network of the options, or None. Refused for half of it."""
    if ssid is None:
        if country is not None or password is not None:
            raise Refused("--wifi-country and --wifi-password-file need --wifi-ssid")
        return None
    if country is None:
        raise Refused(
            "--wifi-ssid needs --wifi-country (two letters, such as DE): it decides which channels may be used"
        )
    if password == "":
        raise Refused("the file of --wifi-password-file is empty")
    return Wifi(ssid, country, password or "", open=password is None)


def pack_models(sources: Sequence[Path], directory: Path) -> list[Path]:
    """Bundles `<name>-<version>.edgeai` in `directory`, of model directories and bundles. Refused otherwise."""
    made: list[Path] = []
    for source in sources:
        try:
            if source.is_dir():
                file = pack.write(source, directory)
            else:
                verified = bundle.verify(source)
                match = BUNDLE.fullmatch(source.name)
                version = match[2] if match and match[1] == verified.name else verified.version or "1"
                file = directory / f"{verified.name}-{version}{bundle.SUFFIX}"
                shutil.copyfile(source, file)
            with archives.open_bundle(file) as opened:
                manifest.parse(opened.read(archives.MANIFEST))
        except (EdgeaiError, OSError) as error:
            raise Refused(f"--preload {source}: {error}") from None
        if BUNDLE.fullmatch(file.name) is None:
            raise Refused(f"--preload {source}: {file.name} has no usable version; put it into a directory <name>/1")
        if file in made:
            raise Refused(f"--preload {source}: {file.name} was given twice")
        made.append(file)
    return made


def provision(device: Path, settings: Settings, models: Sequence[Path]) -> None:
    """Write edgeai.toml and the bundles into the FAT partition of `device`, and read them back. Refused on failure."""
    place = f"{device}@@{images.boot_partition(device)}"
    with tempfile.TemporaryDirectory(prefix="edgeai-flash-") as name:
        directory = Path(name)  # mode 0700: the key of the Wi-Fi is in it for a moment
        file = directory / FILE
        file.write_bytes(render(settings, secret=True))
        if models:
            _mtools("mmd", "-D", "s", "-i", place, f"::{MODELS}", most=1)
            for model in models:
                _mtools("mcopy", "-o", "-i", place, str(model), f"::{MODELS}/{model.name}")
        _mtools("mcopy", "-o", "-i", place, str(file), f"::{FILE}")
        with device.open("r+b", buffering=0) as stream:
            images.forget_cache(stream)
        for source, target in [(file, FILE), *((m, f"{MODELS}/{m.name}") for m in models)]:
            back = directory / "back"
            _mtools("mcopy", "-n", "-o", "-i", place, f"::{target}", str(back))
            if back.read_bytes() != source.read_bytes():
                raise Refused(f"{target} on {device} is not what was written; the card or its reader is faulty")
            back.unlink()


def _mtools(*command: str, most: int = 0) -> None:
    tool = shutil.which(command[0])
    if tool is None:
        raise Refused(f"{command[0]} is not installed (Debian: apt install mtools)")
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, env=environment, check=False, input="")
    if done.returncode > most:
        raise Refused(f"the boot partition could not be written: {(done.stderr or done.stdout).strip()}")
