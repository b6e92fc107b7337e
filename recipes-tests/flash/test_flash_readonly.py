"""On an image with a read-only root, the root is writable only for the moment in which settings are applied."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from edgeaid.provision import apply as provision

from .conftest import MIB, run

pytestmark = pytest.mark.root


def test_a_read_only_root_takes_settings_and_is_read_only_again(loop: Callable[..., Path], tmp_path: Path) -> None:
    device = loop(size=4 * MIB)
    run("mke2fs", "-q", "-t", "ext4", device)
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run(["mount", device, root], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        for folder in ("etc", "boot"):
            (root / folder).mkdir()
        (root / "boot/edgeai.toml").write_text('schema = 1\nhostname = "kitchen"\n')
        run("mount", "-o", "remount,ro", root)
        report = provision.run(root, root / "boot")
        assert report is not None
        assert report.problems == []
        assert (root / "etc/hostname").read_text() == "kitchen\n"
        assert os.statvfs(root).f_flag & os.ST_RDONLY
        assert provision.run(root, root / "boot") is None
    finally:
        run("umount", root)
