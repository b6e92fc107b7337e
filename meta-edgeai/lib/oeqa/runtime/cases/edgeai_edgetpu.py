# SPDX-License-Identifier: MIT
"""Edge TPU: the library fits the CPU runtime; with a stick it is listed; without one a stand-in is asked the same."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

IDS = ("1a6e:089a", "18d1:9302")
STAND_IN = "/usr/lib*/edgeai-standins/libedgetpu_standin.so"

# The library's own interface, then the interpreter's: a model of the CPU must run unharmed beside the delegate.
ASK = """
import ctypes, glob, numpy
try:
    from ai_edge_litert.interpreter import Interpreter, load_delegate
except ImportError:
    from tflite_runtime.interpreter import Interpreter, load_delegate
path = glob.glob('{library}')[0]
library = ctypes.CDLL(path)
library.edgetpu_version.restype = ctypes.c_char_p
library.edgetpu_list_devices.restype = ctypes.c_void_p
count = ctypes.c_size_t()
library.edgetpu_list_devices(ctypes.byref(count))
model = sorted(glob.glob('/usr/share/edgeai/models/*/*/*.tflite'))[0]
one = Interpreter(model_path=model, experimental_delegates=[load_delegate(path)] if count.value else None)
one.allocate_tensors()
one.set_tensor(one.get_input_details()[0]['index'], numpy.zeros(one.get_input_details()[0]['shape'], one.get_input_details()[0]['dtype']))
one.invoke()
print(library.edgetpu_version().decode(), 'devices:', count.value)
"""


class EdgeaiEdgetpuTest(OERuntimeTestCase):
    def plugged_in(self):
        _, listed = self.target.run("cat /sys/bus/usb/devices/*/uevent 2>/dev/null; ls /dev/apex_* 2>/dev/null")
        products = {"{:x}/{:x}".format(*(int(half, 16) for half in one.split(":"))) for one in IDS}
        return any(f"PRODUCT={one}/" in listed for one in products) or "/dev/apex_" in listed

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["libedgetpu-clock-std", "libedgetpu-clock-max"])
    def test_library_loads(self):
        status, output = self.target.run(f'python3 -c "{ASK.format(library="/usr/lib*/libedgetpu.so.1")}"')
        self.assertEqual(status, 0, msg=f"libedgetpu.so.1 cannot be used: {output}")
        if self.plugged_in():
            self.assertNotIn("devices: 0", output)

    @OETestDepends(["edgeai_edgetpu.EdgeaiEdgetpuTest.test_library_loads"])
    @OEHasPackage(["python3-pycoral"])
    def test_pycoral_lists_devices(self):
        status, output = self.target.run('python3 -c "from pycoral.utils.edgetpu import list_edge_tpus; print(len(list_edge_tpus()))"')
        self.assertEqual(status, 0, msg=output)
        if not self.plugged_in():
            self.skipTest("no Edge TPU in this machine")
        self.assertGreater(int(output.strip()), 0, msg=output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeai-standins"])
    def test_a_stand_in_fits_the_cpu_runtime(self):
        status, output = self.target.run(f'python3 -c "{ASK.format(library=STAND_IN)}"')
        self.assertEqual(status, 0, msg=output)
        self.assertIn("devices: 1", output)
