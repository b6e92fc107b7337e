"""Do streams last? `soak.py [--minutes 10] [--streams 3] [--every 12] [--seed 1] [--coral DIR] [--json]`.

A daemon with streams of MJPEG cameras on the loopback, and a broker with `edgeai-mqtt` where mosquitto is installed.
With --coral (a directory with a model for the Edge TPU and the CPU) one more stream uses a stand-in for a stick.
Every few seconds something is taken away by chance: a camera, its network (it stalls without a word), the broker, the
stick, the worker of the CPU, a stream's process. Told at the end: seconds from the return to the next frame that was
captured and worked on, whether every frame is accounted for, and the memory of the daemon with all its children over
time. The exit status is 1 when a return took longer than 5 s, a frame is missing, or memory grew by more than a tenth
between the first and the last third. An hour: `--minutes 60`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from run import children

from edgeaid.client import Client
from edgeaid.client.streams import Streams
from edgeaid.streams.process.pictures import Digits

STAGES = [{"motion": {"hold_s": 5}}, {"detect": "digit-scenes"}, {"track": {}}]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n"
RETURN_SECONDS = 5.0
#: What the stream with a stick asks: EMBED.tflite on the CPU, EMBED_edgetpu.tflite on the stick.
EMBED = "mobilenet_v1_1.0_224_quant_embedding_extractor"
FPS = 8


class Camera:
    """An MJPEG camera that can be unplugged, stalled and plugged in again."""

    def __init__(self) -> None:
        self.port = 0
        self.stalled = False
        self._frames = []
        scene = Digits(320, 320)
        for number in range(120):
            buffer = io.BytesIO()
            scene.frame(number).save(buffer, "JPEG")
            self._frames.append(buffer.getvalue())
        self._open: list[socket.socket] = []
        self.plug()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/video"

    def plug(self) -> None:
        """It answers."""
        self.stalled = False
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def unplug(self) -> None:
        """It is gone with its connections."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._send, args=(connection,), daemon=True).start()

    def _send(self, connection: socket.socket) -> None:
        number = 0
        try:
            connection.recv(4096)
            connection.sendall(HEAD)
            while True:
                if not self.stalled:
                    data = self._frames[number % len(self._frames)]
                    length = f"Content-Length: {len(data)}\r\n\r\n".encode()
                    connection.sendall(b"--cut\r\nContent-Type: image/jpeg\r\n" + length + data + b"\r\n")
                    number += 1
                time.sleep(1 / FPS)
        except OSError:
            return


class Broker:
    """A mosquitto with `edgeai-mqtt`."""

    def __init__(self, directory: Path, daemon: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = directory / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.start()
        words = [
            "--socket",
            str(daemon),
            "--broker",
            f"127.0.0.1:{self.port}",
            "--node",
            "soak",
            "--log-level",
            "error",
        ]
        self.bridge = subprocess.Popen([sys.executable, "-m", "edgeaid.bridges.mqtt", *words, "--log-level", "error"])

    def start(self) -> None:
        """It is there."""
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        self._process = subprocess.Popen([program, "-c", self._config], stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """It is gone."""
        self._process.kill()
        self._process.wait()


class Stick:
    """A stand-in for an Edge TPU that can be pulled and plugged in again, and a model for it and for the CPU."""

    def __init__(self, directory: Path, coral: Path) -> None:
        sys.path.insert(0, str(Path(__file__).parents[2]))
        from tests.standins import build

        library = build.build("edgetpu_standin", directory / "standin")
        self._control = directory / "control"
        self.plug()
        self.environment = {
            "EDGETPU_STANDIN_CONTROL": str(self._control),
            "EDGETPU_STANDIN_DEVICES": "usb:/sys/bus/usb/devices/1-1",
            "EDGEAI_EDGETPU_LIBRARY": str(library),
        }
        self.config = directory / "edgeaid.toml"
        self.config.write_text(
            '[[device]]\nid = "cpu0"\ntarget = "cpu"\n'
            f'[[device]]\nid = "tpu0"\ntarget = "edgetpu"\noptions = {{ library = "{library}" }}\n'
        )
        model = directory / "m" / "embed" / "1"
        model.mkdir(parents=True)
        text = 'schema = 1\nname = "embed"\n[input]\nresize = "stretch"\nmean = [0.0]\nstd = [1.0]\n'
        for target, file in (("edgetpu", f"{EMBED}_edgetpu.tflite"), ("cpu", f"{EMBED}.tflite")):
            data = (coral / file).read_bytes()
            (model / f"{target}.tflite").write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            text += f'[artifacts.{target}]\nfile = "{target}.tflite"\nsha256 = "{digest}"\n'
        (model / "model.toml").write_text(text)

    def pull(self) -> None:
        """It is gone."""
        self._write("vanish\n")

    def plug(self) -> None:
        """It is there."""
        self._write("")

    def _write(self, text: str) -> None:
        fresh = self._control.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._control)


def memory_mb(pid: int) -> float:
    """Mebibytes of a process and all below it; shared pages count in parts."""
    total = 0
    for one in children(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += int(text.partition("\nPss:")[2].split()[0])
    return total / 1024


def accounted(frames: dict[str, Any]) -> bool:
    """Is every captured frame somewhere?"""
    ended = frames["gated"] + frames["inferred"] + sum(frames["dropped"].values()) + frames["under_way"]
    return bool(frames["captured"] == ended)


class Soak:
    """One run."""

    def __init__(
        self, args: argparse.Namespace, directory: Path, pid: int, client: Client, stick: Stick | None
    ) -> None:
        self.random = random.Random(args.seed)
        self.pid = pid
        self.client = client
        self.streams = Streams(client)
        self.cameras = {f"s{i}": Camera() for i in range(args.streams)}
        self.broker = Broker(directory, directory / "s.sock") if _has_broker() else None
        self.returns: list[float] = []
        self.memory: list[tuple[float, float]] = []
        self.missing: list[dict[str, Any]] = []
        self.stick = stick
        #: Seconds from plugging the stick in until its stream is answered by it again.
        self.stick_returns: list[float] = []
        self.faults: dict[str, int] = {}
        #: Returns that took too long.
        self.slow: list[dict[str, Any]] = []
        for name, camera in self.cameras.items():
            stage = [{"embed": "embed"}] if stick is not None and name == "s0" else STAGES
            self.streams.put(name, {"source": camera.url, "fps": FPS, "stage": stage})

    def worked_on(self, name: str) -> int:
        """Frames that a stream's stages are through with."""
        frames = self.streams.show(name)["frames"]
        return int(frames["inferred"] + frames["gated"])

    def frames_come(self, name: str, since: float) -> float:
        """Seconds from `since` (monotonic) until a frame has come that is younger than that, and one is worked on."""
        before = self.worked_on(name)
        while True:
            shown = self.streams.show(name)
            now = time.monotonic()
            if (
                shown["state"] == "running"
                and shown["last_frame_s"] is not None
                and shown["last_frame_s"] < now - since
                and shown["frames"]["inferred"] + shown["frames"]["gated"] > before
            ):
                return now - since
            if now - since > 60:
                return now - since
            time.sleep(0.05)

    def fault(self) -> None:
        """Take something away, and bring it back."""
        name, camera = self.random.choice(sorted(self.cameras.items()))
        kinds = ["camera", "network", "worker", "stream", *(["broker"] if self.broker else [])]
        kind = self.random.choice([*kinds, *(["stick"] if self.stick else [])])
        self.faults[kind] = self.faults.get(kind, 0) + 1
        away = self.random.uniform(1.0, 6.0)
        if kind == "camera":
            camera.unplug()
            time.sleep(away)
            camera.plug()
        elif kind == "network":
            camera.stalled = True
            time.sleep(away + 5.0)
            camera.stalled = False
        elif kind == "broker" and self.broker is not None:
            self.broker.stop()
            time.sleep(away)
            self.broker.start()
        elif kind == "stick" and self.stick is not None:
            name = "s0"
            self.stick.pull()
        elif kind == "worker":
            os.kill(int(next(d["pid"] for d in self.client.devices() if d["id"] == "cpu0")), signal.SIGKILL)
        elif kind == "stream":
            pid = self.streams.show(name)["pid"]
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        seconds = self.frames_come(name, time.monotonic())
        self.returns.append(seconds)
        if seconds > RETURN_SECONDS:
            shown = self.streams.show(name)
            self.slow.append({"fault": kind, "seconds": round(seconds, 2), "reason": shown["reason"]})
        if kind == "stick" and self.stick is not None:
            self.plug(self.stick, away)

    def plug(self, stick: Stick, away: float) -> None:
        """The stream went on without its stick, which comes back now."""
        time.sleep(away)
        stick.plug()
        since = time.monotonic()
        while self.streams.show("s0")["models"]["embed"] != "tpu0" and time.monotonic() - since < 120:
            time.sleep(0.05)
        self.stick_returns.append(time.monotonic() - since)

    def look(self, started: float) -> None:
        """Memory, and whether frames are missing."""
        self.memory.append((time.monotonic() - started, memory_mb(self.pid)))
        for name in self.cameras:
            frames = self.streams.show(name)["frames"]
            if not accounted(frames):
                self.missing.append({"stream": name, **frames})

    def run(self, seconds: float, every: float) -> dict[str, Any]:
        """Until the time is over."""
        for name in self.cameras:
            self.frames_come(name, time.monotonic())
        started = time.monotonic()
        self.look(started)
        while time.monotonic() - started < seconds:
            time.sleep(self.random.uniform(0.5, 1.5) * every)
            self.fault()
            self.look(started)
        for name in self.cameras:
            self.streams.switch(name, "stop")
        ended = {name: self.streams.show(name) for name in self.cameras}
        third = len(self.memory) // 3
        first = statistics.median(m for _, m in self.memory[:third] or self.memory)
        last = statistics.median(m for _, m in self.memory[-third:] or self.memory)
        totals: dict[str, int] = {}
        for shown in ended.values():
            frames = shown["frames"]
            for key, value in {**{k: v for k, v in frames.items() if k != "dropped"}, **frames["dropped"]}.items():
                totals[key] = totals.get(key, 0) + value
        return {
            "minutes": round((time.monotonic() - started) / 60, 1),
            "faults": self.faults,
            "return_p50_s": round(statistics.median(self.returns), 2),
            "return_max_s": round(max(self.returns), 2),
            "slow_returns": self.slow,
            "stick_used_again_max_s": round(max(self.stick_returns, default=0.0), 2),
            "load": os.getloadavg()[1],
            "memory_first_third_mb": round(first, 1),
            "memory_last_third_mb": round(last, 1),
            "frames": totals,
            # Stopped, nothing is under way any more: whatever is not counted as ended is missing.
            "frames_missing": len(self.missing) + sum(s["frames"]["under_way"] for s in ended.values()),
            "restarts": sum(s["restarts"] for s in ended.values()),
        }


def _has_broker() -> bool:
    if shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        return False
    try:
        import paho.mqtt.client  # noqa: F401  only whether it is there
    except ImportError:
        return False
    return True


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("--every", type=float, default=12.0, help="seconds between faults, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--coral", type=Path, metavar="DIR", help=f"has {EMBED}.tflite and its twin for the Edge TPU")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        command = [sys.executable, "-m", "edgeaid", "--socket", path / "s.sock", "--model-repository", path / "m"]
        environment = {**os.environ, "STATE_DIRECTORY": directory}
        stick = Stick(path, args.coral) if args.coral else None
        if stick is not None:
            command += ["--config", stick.config]
            environment |= stick.environment
        with open(path / "log", "wb") as log:  # every fault is reported there
            process = subprocess.Popen([*command, "--log-level", "error"], env=environment, stderr=log)
        soak = None
        try:
            with Client(path / "s.sock", fast=False) as client:
                client.wait(120)
                soak = Soak(args, path, process.pid, client, stick)
                result = soak.run(args.minutes * 60, args.every)
        finally:
            if soak is not None and soak.broker is not None:
                soak.broker.bridge.terminate()
                soak.broker.bridge.wait(30)
                soak.broker.stop()
            process.terminate()
            process.wait(60)
    print(json.dumps(result, indent=None if args.json else 2))
    grown = result["memory_last_third_mb"] > 1.1 * result["memory_first_third_mb"]
    return int(grown or result["return_max_s"] > RETURN_SECONDS or result["frames_missing"] > 0)


if __name__ == "__main__":
    sys.exit(main())
