# SPDX-License-Identifier: MIT
"""The daemon's sandbox is as tight as promised, and nothing answers without a key."""

import re

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

# systemd-analyze's exposure level, 0 (walled in) to 10.
HIGHEST_SCORE = 1.5


class EdgeaiSecurityTest(OERuntimeTestCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeaid"])
    def test_exposure_level(self):
        status, output = self.target.run("systemd-analyze security --no-pager edgeaid.service | tail -1")
        if status != 0 or "level" not in output:
            self.skipTest("systemd-analyze is not on this image")
        score = float(re.search(r"edgeaid\.service: ([0-9.]+)", output)[1])  # behind it may stand a face with a colon
        self.assertLessEqual(score, HIGHEST_SCORE, msg=output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeaid"])
    def test_no_tcp_port_of_the_daemon_is_open(self):
        _, pid = self.target.run("systemctl start edgeaid.service; systemctl show -P MainPID edgeaid.service")
        pid = pid.split()[-1]  # systemctl may have a warning before it
        self.assertGreater(int(pid), 0, msg="edgeaid does not run")
        _, output = self.target.run(f"cd /proc/{pid} && cat net/tcp net/tcp6 2>/dev/null; ls -l fd")
        inodes = {line.split("[")[1].rstrip("]") for line in output.splitlines() if "socket:[" in line}
        listening = {line.split()[9] for line in output.splitlines() if len(line.split()) > 9 and line.split()[3] == "0A"}
        self.assertFalse(inodes & listening, msg=f"edgeaid listens on TCP: {output}")

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeai-config"])
    def test_passwords_are_refused(self):
        # The server's empty directory is made when it first runs.
        status, output = self.target.run("mkdir -p /run/sshd; sshd -T 2>/dev/null | grep -i '^passwordauthentication'")
        if status != 0:
            self.skipTest("this SSH server does not print its settings")
        self.assertIn("no", output.split(), msg=output)
