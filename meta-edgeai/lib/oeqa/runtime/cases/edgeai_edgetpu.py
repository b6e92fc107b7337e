# SPDX-License-Identifier: MIT
"""Edge TPU: the library fits the runtime; with a device (or the stand-in package), it is listed."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

IDS = ("1a6e:089a", "18d1:9302")


class EdgeaiEdgetpuTest(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["libedgetpu-std", "libedgetpu-max"])
    def test_library_loads(self):
        status, output = self.target.run("python3 -c \"import ctypes; print(ctypes.CDLL('libedgetpu.so.1').edgetpu_version)\"")
        self.assertEqual(status, 0, msg=f"libedgetpu.so.1 cannot be loaded: {output}")

    @OETestDepends(["edgeai_edgetpu.EdgeaiEdgetpuTest.test_library_loads"])
    @OEHasPackage(["python3-pycoral"])
    def test_pycoral_lists_devices(self):
        status, output = self.target.run('python3 -c "from pycoral.utils.edgetpu import list_edge_tpus; print(len(list_edge_tpus()))"')
        self.assertEqual(status, 0, msg=output)
        _, listed = self.target.run("lsusb 2>/dev/null; ls /dev/apex_* 2>/dev/null")
        if not any(one in listed for one in IDS) and "/dev/apex_" not in listed:
            self.skipTest("no Edge TPU in this machine")
        self.assertGreater(int(output.strip()), 0, msg=output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeai-standin-edgetpu"])
    def test_stand_in_is_served_by_the_daemon(self):
        status, output = self.target.run("edgeai devices")
        self.assertEqual(status, 0, msg=output)
        self.assertIn("edgetpu", output)
