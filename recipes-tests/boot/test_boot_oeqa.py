"""The layer's oeqa runtime cases, which a full Yocto build runs over SSH (TEST_SUITES), run by oe-core's own runner here."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from boot.conftest import RELEASE, TOP
from rig import bitbake, paths
from rig.link import Link

pytestmark = pytest.mark.slow

CASES = TOP / "meta-edgeai/lib/oeqa/runtime/cases"
#: In place of oe-core's case of this name, which asks over the network: every case of ours depends on it.
SSH = """
from oeqa.runtime.case import OERuntimeTestCase
class SSHTest(OERuntimeTestCase):
    def test_ssh(self):
        self.assertEqual(self.target.run("true")[0], 0)
"""


class Target:
    """What oe-core calls a target: runs commands on the device."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def run(self, command: str, timeout: int = 300, **_: object) -> tuple[int, str]:
        """Exit status and what the command printed, as over SSH."""
        done = self.link.run(command, timeout=timeout)
        return done.code, (done.out + done.err).rstrip("\n")


def test_runtime_cases_of_the_layer_pass_under_the_runner_of_oe_core(guest: Link, tmp_path: Path) -> None:
    build = bitbake.Build(RELEASE, paths.work_dir())
    library = build.top / "openembedded-core" / "meta" / "lib"
    named = os.environ.get("EDGEAI_TEST_IMAGE")
    manifest = Path(named or build.image("wic")).with_suffix(".manifest")
    if not library.is_dir() or not manifest.is_file():
        pytest.skip(f"no built image with its layers in {build.top}; recipes-tests/testdistro build {RELEASE}")
    (tmp_path / "ssh.py").write_text(SSH)
    packages = {line.split()[0] for line in manifest.read_text().splitlines()}
    sys.path[:0] = [str(library), str(build.top / "bitbake" / "lib")]
    try:
        from oeqa.core.context import OETestContext
        from oeqa.runtime.loader import OERuntimeTestLoader

        context = OETestContext({"MLPREFIX": ""}, logging.getLogger("oeqa"))
        context.loaderClass = OERuntimeTestLoader
        context.target, context.image_packages = Target(guest), packages
        context.loadTests([str(tmp_path), str(CASES)])
        result = context.runTests()
    finally:
        del sys.path[:2]
    passed = {case.id() for case, _ in result.successes}
    print("\npassed:", *sorted(passed), sep="\n  ")
    print("skipped:", *sorted(f"{case.id()}: {why}" for case, why in result.skipped), sep="\n  ")
    assert [f"{case.id()}: {text}" for case, text in [*result.failures, *result.errors]] == []
    assert "edgeai_daemon.EdgeaiDaemonTest.test_watchdog_replaces_a_stopped_daemon" in passed
