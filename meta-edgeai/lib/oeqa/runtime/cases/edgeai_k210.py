# SPDX-License-Identifier: MIT
"""K210 board: the parts on the image are there; with a device (or the stand-in package), the daemon lists it."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class EdgeaiK210Test(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeaid-k210"])
    def test_parts_are_there(self):
        status, output = self.target.run('python3 -c "import serial; print(serial.VERSION)"')
        self.assertEqual(status, 0, msg=output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeai-standin-k210"])
    def test_stand_in_is_served_by_the_daemon(self):
        status, output = self.target.run("edgeai devices")
        self.assertEqual(status, 0, msg=output)
        self.assertIn("k210", output)
