# SPDX-License-Identifier: MIT
"""K210 board: what the daemon imports and what it sends to a board are there; with a board it is listed."""

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class EdgeaiK210Test(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeaid-k210"])
    def test_parts_are_there(self):
        status, output = self.target.run('test -s /usr/share/edgeai/maixpy/agent.py && python3 -c "import serial; print(serial.VERSION)"')
        self.assertEqual(status, 0, msg=output)

    @OETestDepends(["edgeai_k210.EdgeaiK210Test.test_parts_are_there"])
    def test_a_board_is_listed(self):
        status, _ = self.target.run("ls /dev/edgeai/k210*")
        if status:
            self.skipTest("no K210 board is plugged in")
        status, output = self.target.run("edgeai --json devices")
        self.assertEqual(status, 0, msg=output)
        self.assertIn("k210", {one["target"] for one in json.loads(output)}, msg=output)
