# SPDX-License-Identifier: MIT
"""The whole of TensorFlow can be imported and adds."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class EdgeaiTensorflowTest(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["python3-tensorflow"])
    def test_import(self):
        status, output = self.target.run('python3 -c "import tensorflow; print(int(tensorflow.constant(1) + 2))"', timeout=600)
        self.assertEqual(status, 0, msg=output)
        self.assertEqual(output.strip().splitlines()[-1], "3", msg=output)
