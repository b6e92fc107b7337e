# SPDX-License-Identifier: MIT
"""The daemon is up, answers on its socket, runs a default model, and comes back when it is killed."""

import json
import time

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

SOCKET = "/run/edgeai/edgeaid.sock"
PICTURE = "/usr/share/edgeai/models/digits/1/samples/digit-5.png"

# Asks as another user, who is in one group or none; prints which of observe, infer and control was allowed.
ROLES = """
import grp, os, sys
group = sys.argv[1]
os.setgroups([grp.getgrnam(group).gr_gid] if group else [])
os.setgid(65534)
os.setuid(65534)
from edgeaid import errors
from edgeaid.client import Client
with Client(fast=False, timeout=120) as client:
    calls = {
        'observe': lambda: client.get('/v2/models/digits'),
        'infer': lambda: client.post('/v2/models/digits/infer', {'inputs': []}),
        'control': lambda: client.load('digits'),
    }
    for name, call in calls.items():
        try:
            call()
            print(name)
        except errors.InvalidRequest:  # allowed, and told what is wrong with it
            print(name)
        except errors.PermissionDenied:
            pass
"""


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

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeaid"])
    def test_no_unit_failed(self):
        _, output = self.target.run("systemctl --failed --no-legend --plain")
        self.assertEqual(output.strip(), "", msg="units failed")

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_roles_are_enforced(self):
        for group, allowed in (
            ("", []),
            ("edgeai-observe", ["observe"]),
            ("edgeai-infer", ["observe", "infer"]),
            ("edgeai-control", ["observe", "infer", "control"]),
        ):
            status, output = self.target.run(f"python3 -c \"{ROLES}\" '{group}'", timeout=300)
            self.assertEqual((status, output.split()), (0, allowed), msg=f"group '{group}': {output}")

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_start_is_in_the_journal_with_its_fields(self):
        status, output = self.target.run("journalctl -b -u edgeaid -o json MESSAGE_ID=9672b2c56cb646c6b00eb20e9f7aaf6a")
        self.assertEqual(status, 0, msg=output)
        self.assertGreater(int(json.loads(output.splitlines()[-1])["EDGEAI_MS"]), 0)

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_reload_keeps_the_process(self):
        before = self.main_pid()
        status, output = self.target.run("systemctl reload edgeaid.service")
        self.assertEqual((status, self.main_pid()), (0, before), msg=output)

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_watchdog_replaces_a_stopped_daemon(self):
        before = self.main_pid()
        self.target.run(f"kill -STOP {before}")
        for _ in range(60):  # WatchdogSec is 10 s; the emulator gives more
            if self.main_pid() not in ("0", before):
                break
            time.sleep(5)
        self.edgeai("devices")
        self.assertNotEqual(self.main_pid(), before, msg="the watchdog let a stopped daemon be")

    def main_pid(self):
        return self.target.run("systemctl show -P MainPID edgeaid.service")[1].strip()

    @OETestDepends(["edgeai_daemon.EdgeaiDaemonTest.test_daemon_answers"])
    def test_a_killed_daemon_comes_back(self):
        before = self.main_pid()
        self.target.run("systemctl kill --signal=KILL --kill-whom=main edgeaid.service")
        # The socket stays, so the question waits until the new daemon has started.
        self.edgeai("devices")
        self.assertNotIn(self.main_pid(), ("", "0", before), msg="the same process still answers")
