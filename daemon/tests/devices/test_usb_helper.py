"""The helper for USB ports: one process per connection, which takes a line and no descriptors."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.usbtree import CORAL, UsbTree


def helper(sysfs: Path, theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start it as systemd does: the connection is its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgeaid.devices.usb_helper"],
        stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL,
        env={**os.environ, "EDGEAI_SYSFS": str(sysfs)},
    )  # fmt: skip


@pytest.mark.parametrize("line", [b"authorized 1-1.9\n", b"shut down\n"])
def test_a_descriptor_that_comes_with_a_request_is_gone_before_the_answer(tmp_path: Path, line: bytes) -> None:
    tree = UsbTree(tmp_path)
    tree.plug("1-1.4", CORAL)
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    process = helper(tree.sys, theirs)
    theirs.close()
    read, write = os.pipe()
    socket.send_fds(ours, [line], [write])
    os.close(write)
    with ours.makefile("rb") as lines:
        answered = lines.readline()
    assert (b"not understood" in answered) == line.startswith(b"shut")
    ready, _, _ = select.select([read], [], [], 30)
    assert ready
    assert os.read(read, 1) == b""  # nobody holds the other end
    os.close(read)
    ours.close()
    assert process.wait(30) == 0
