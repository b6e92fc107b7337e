"""A repository whose disk is full: the push says so, nothing is left behind, everything else goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid import errors
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running

DIGITS = EMBEDDED / "digits" / "1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Any]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.root
def test_a_push_onto_a_full_disk_fails_cleanly(start: Callable[..., Running], small_disk: Any, tmp_path: Path) -> None:
    daemon = start(f'[models]\nrepositories = ["{small_disk}/models"]\n', repository=small_disk / "models")
    large = tmp_path / "large.tflite"
    large.write_bytes((DIGITS / "model.tflite").read_bytes() + bytes(1 << 20))
    with daemon.client() as client:
        assert client.push("fits", DIGITS / "model.tflite")["serving"]
        with pytest.raises(errors.Unavailable, match="free some space"):
            client.push("big", large)
        assert os.listdir(small_disk / "models" / ".staging") == []
        assert not (small_disk / "models" / "big").exists()
        assert client.infer("digits", np.load(DIGITS / "golden" / "0.in.npy"))["scores"].size == 10
        assert client.push("fits", DIGITS / "model.tflite")["version"] == "2"


@pytest.mark.root
def test_unpacking_and_rolling_back_on_a_full_disk_say_so_and_change_nothing(
    start: Callable[..., Running], small_disk: Any, tmp_path: Path
) -> None:
    from zipfile import ZIP_DEFLATED, ZipFile

    directory = small_disk / "models"
    daemon = start(
        f'[server]\nstate_directory = "{small_disk}/state"\n[models]\nrepositories = ["{directory}"]\n',
        repository=directory,
    )
    bundle = tmp_path / "large-1.edgeai"
    with ZipFile(bundle, "w", ZIP_DEFLATED) as archive:  # fits as it comes, not when it is unpacked
        archive.write(DIGITS / "model.toml", "model.toml")
        archive.writestr("large.bin", os.urandom(20_000) * 50)
    with daemon.client() as client:
        for _ in range(2):
            client.push("mine", DIGITS / "model.tflite")
        with pytest.raises(errors.Unavailable, match="free some space"):
            client.push("digits", bundle)
        assert os.listdir(directory / ".staging") == []
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(4096)):
                pass
        with pytest.raises(errors.Unavailable, match="free some space"):
            client.rollback("mine")
        assert next(m for m in client.models() if m["name"] == "mine" and m.get("default"))["version"] == "2"
        filler.unlink()
        assert client.rollback("mine") == "1"
        assert client.infer("mine", np.load(DIGITS / "golden" / "0.in.npy")).outputs
