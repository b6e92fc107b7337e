# SPDX-License-Identifier: MIT
"""Neural Compute Stick: the library of the image loads and looks for sticks; a stand-in names the one it pretends."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

# API 2 where it has the function, else API 1; 0 is "here is one", anything else "none".
ASK = """
import ctypes, glob
library = ctypes.CDLL(glob.glob('{library}')[0])
if hasattr(library, 'ncDeviceCreate'):
    handle = ctypes.c_void_p()
    status = library.ncDeviceCreate(0, ctypes.byref(handle))
else:
    status = library.mvncGetDeviceName(0, ctypes.create_string_buffer(128), 128)
print('sticks:', int(status == 0))
"""


class EdgeaiNcsTest(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["libmvnc"])
    def test_library_loads(self):
        status, output = self.target.run(f'python3 -c "{ASK.format(library="/usr/lib*/libmvnc.so.0")}"')
        self.assertEqual(status, 0, msg=output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeai-standins"])
    def test_both_stand_ins_name_their_stick(self):
        for api in ("v1", "v2"):
            library = f"/usr/lib*/edgeai-standins/libmvnc_{api}_standin.so"
            status, output = self.target.run(f'python3 -c "{ASK.format(library=library)}"')
            self.assertEqual(status, 0, msg=output)
            self.assertIn("sticks: 1", output)
