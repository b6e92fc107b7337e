# SPDX-License-Identifier: MIT
"""The daemon is up, answers on its socket, and runs a default model."""

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

SOCKET = "/run/edgeai/edgeaid.sock"


class EdgeaiDaemonTest(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeaid"])
    def test_socket_is_listening(self):
        status, output = self.target.run("systemctl is-active edgeaid.socket edgeaid-fast.socket")
        self.assertEqual(status, 0, msg=f"sockets of edgeaid are not active: {output}")

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_socket_is_listening"])
    def test_daemon_answers(self):
        status, output = self.target.run("edgeai --json status || edgeai status")
        self.assertEqual(status, 0, msg=f"edgeai status: {output}")

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_ready_over_the_open_inference_protocol(self):
        status, output = self.target.run(
            "python3 -c \"import socket; s=socket.socket(socket.AF_UNIX); "
            f"s.connect('{SOCKET}'); "
            "s.sendall(b'GET /v2 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'); "
            "print(b''.join(iter(lambda: s.recv(65536), b'')).decode())\""
        )
        self.assertEqual(status, 0, msg=output)
        self.assertIn("200", output.splitlines()[0], msg=output)
        body = output.split("\n\n" if "\n\n" in output else "\r\n\r\n", 1)[-1].strip()
        self.assertIn("name", json.loads(body), msg=body)

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_default_models_are_there(self):
        status, output = self.target.run("find /usr/share/edgeai/models -name model.toml | grep -c .")
        self.assertEqual(status, 0, msg=f"no default models: {output}")

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_a_killed_daemon_comes_back(self):
        self.target.run("systemctl kill --signal=KILL --kill-whom=main edgeaid.service")
        status, output = self.target.run("sleep 3; edgeai status")
        self.assertEqual(status, 0, msg=f"the daemon did not come back: {output}")
