# SPDX-License-Identifier: MIT
"""The CPU runtime of the image can be imported and runs a default model."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

RUN = """
import glob
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter
import numpy
path = sorted(glob.glob('/usr/share/edgeai/models/*/*/*.tflite'))[0]
model = Interpreter(model_path=path)
model.allocate_tensors()
for one in model.get_input_details():
    model.set_tensor(one['index'], numpy.zeros(one['shape'], one['dtype']))
model.invoke()
print('ran', path, model.get_tensor(model.get_output_details()[0]['index']).shape)
"""


class EdgeaiTfliteTest(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["python3-ai-edge-litert-bin", "python3-tflite-runtime"])
    def test_a_model_runs(self):
        status, output = self.target.run(f'python3 -c "{RUN}"')
        self.assertEqual(status, 0, msg=output)
        self.assertIn("ran", output)
