"""A real MQTT broker for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from .waiting import eventually

#: The program; None where it is not installed.
BROKER = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


class Broker:
    """A mosquitto on a free port of the loopback."""

    def __init__(self, directory: Path, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.config = directory / "mosquitto.conf"
        text = "\n".join(lines or ("allow_anonymous true",))
        self.config.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{text}\n")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and wait for the port."""
        self.process = subprocess.Popen([str(BROKER), "-c", self.config], stderr=subprocess.DEVNULL)

        def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        eventually(listening)

    def stop(self) -> None:
        """End it; it forgets everything, retained messages too."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
