"""A read-only root without a partition for settings: it is never written, and the log says what it needs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from edgeaid.provision import apply as provision
from edgeaid.provision.settings import LOG

from .conftest import MIB, run

pytestmark = pytest.mark.root


def test_a_read_only_root_is_left_as_it_is_and_the_setting_is_tried_again(
    loop: Callable[..., Path], tmp_path: Path
) -> None:
    device = loop(size=4 * MIB)
    run("mke2fs", "-q", "-t", "ext4", device)
    root, boot = tmp_path / "root", tmp_path / "boot"
    root.mkdir()
    boot.mkdir()
    done = subprocess.run(["mount", device, root], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        (root / "etc").mkdir()
        (boot / "edgeai.toml").write_text('schema = 1\nhostname = "kitchen"\n')
        run("mount", "-o", "remount,ro", root)
        for _ in range(2):  # what was not applied is not marked as applied
            report = provision.run(root, boot)
            assert report is not None
            assert len(report.problems) == 1
            assert "data partition (feature readonly)" in report.problems[0]
            assert report.problems[0] in (boot / LOG).read_text()
        run("mount", "-o", "remount,rw", root)
        report = provision.run(root, boot)
        assert report is not None
        assert report.problems == []
        assert (root / "etc/hostname").read_text() == "kitchen\n"
    finally:
        run("umount", root)
