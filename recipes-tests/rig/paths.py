"""Where things are, and as whom builds run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LAYER = TOP / "recipes-tests" / "meta-edgeai-testdistro"
RELEASES = ("scarthgap", "wrynose")
#: Files of recipes-tests/kas that add features to the default configuration.
VARIANTS = ("full",)
#: BitBake refuses to run as root; when root runs the tests, builds run as this number, which needs no account.
BUILD_UID = 12345


class Missing(Exception):
    """Something of the host is not there; the text says what and how to get it. Tests skip with it."""


def work_dir() -> Path:
    """Directory for everything that is fetched and built: EDGEAI_TEST_WORK, else ~/.cache/edgeai-tests.

    Root's home is closed to the build user, so for root the default is /var/cache/edgeai-tests.
    """
    named = os.environ.get("EDGEAI_TEST_WORK")
    if named:
        directory = Path(named)
    elif os.getuid() == 0:
        directory = Path("/var/cache/edgeai-tests")
    else:
        directory = Path.home() / ".cache" / "edgeai-tests"
    if not directory.is_dir():
        directory.mkdir(parents=True)
        if os.getuid() == 0:
            os.chown(directory, BUILD_UID, BUILD_UID)
    return directory


def host_packages() -> list[str]:
    """Debian packages that the rig needs: recipes-tests/host-packages-emulation.txt."""
    text = (TOP / "recipes-tests" / "host-packages-emulation.txt").read_text()
    return [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]


def need(*tools: str) -> None:
    """Raise Missing, with the command that helps, unless all these programs are on PATH."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [tool for tool in tools if shutil.which(tool, path=path) is None]
    if absent:
        raise Missing(
            f"not installed: {' '.join(absent)}; packages: apt-get install $(recipes-tests/testdistro host-packages)"
        )
