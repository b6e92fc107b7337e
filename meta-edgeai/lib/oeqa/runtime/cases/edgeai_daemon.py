# SPDX-License-Identifier: MIT
"""The daemon is up, answers on its socket, runs a default model, and comes back when it is killed."""

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

SOCKET = "/run/edgeai/edgeaid.sock"
PICTURE = "/usr/share/edgeai/models/digits/1/samples/digit-5.png"


class EdgeaiDaemonTest(OERuntimeTestCase):
    def edgeai(self, words):
        """What `edgeai --json WORDS` prints."""
        status, output = self.target.run(f"edgeai --json {words}")
        self.assertEqual(status, 0, msg=f"edgeai {words}: {output}")
        return json.loads(output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeaid"])
    def test_socket_is_listening(self):
        status, output = self.target.run("systemctl is-active edgeaid.socket edgeaid-fast.socket")
        self.assertEqual(status, 0, msg=f"sockets of edgeaid are not active: {output}")

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_socket_is_listening"])
    def test_daemon_answers(self):
        devices = self.edgeai("devices")
        self.assertIn(("cpu", "ready"), [(one["target"], one["state"]) for one in devices], msg=str(devices))

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
        body = output.replace("\r\n", "\n").split("\n\n", 1)[-1].strip()
        self.assertIn("name", json.loads(body), msg=body)

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    @OEHasPackage(["edgeai-models"])
    def test_a_default_model_knows_its_picture(self):
        states = {one["name"]: one["state"] for one in self.edgeai("models")}
        self.assertEqual(states.get("digits"), "READY", msg=str(states))
        answer = self.edgeai(f"classify digits {PICTURE}")
        self.assertEqual(answer["classes"][0]["label"], "5", msg=str(answer))

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_a_killed_daemon_comes_back(self):
        show = "systemctl show -P MainPID edgeaid.service"
        _, before = self.target.run(show)
        self.target.run("systemctl kill --signal=KILL --kill-whom=main edgeaid.service")
        # The socket stays, so the question waits until the new daemon has started.
        self.edgeai("devices")
        _, after = self.target.run(show)
        self.assertNotIn(after.strip(), ("", "0", before.strip()), msg="the same process still answers")
