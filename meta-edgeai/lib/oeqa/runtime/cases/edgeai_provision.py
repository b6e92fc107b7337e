# SPDX-License-Identifier: MIT
"""First-boot settings were applied, and their secrets are gone from the boot partition."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class EdgeaiProvisionTest(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeai-provision"])
    def test_unit_did_not_fail(self):
        status, output = self.target.run("systemctl is-failed edgeai-provision.service")
        self.assertNotEqual(status, 0, msg=f"edgeai-provision failed: {output}")

    @OETestDepends(["edgeai_provision.EdgeaiProvisionTest.test_unit_did_not_fail"])
    def test_no_secret_is_left(self):
        _, output = self.target.run("grep -iE 'psk|password' /boot/edgeai.toml 2>/dev/null")
        self.assertEqual(output.strip(), "", msg="the boot partition still holds a secret")
