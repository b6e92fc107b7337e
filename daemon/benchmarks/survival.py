#!/usr/bin/env python3
"""What a failing accelerator costs: time until it is READY again, and what other devices notice of it.

    python daemon/benchmarks/survival.py [--data DIR] [--rounds 3] [--quiet 5] [--json]

A daemon with a CPU worker and one Edge TPU, the stand-in of tests/standins (needs gcc), found on a made-up USB bus. One
process asks a model on the CPU for its latency all the time, 100 times a second; this one breaks the stick in every way
that it knows while it is being asked. Opening the stand-in takes no time, so the figures are the daemon's own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeaid import errors
from edgeaid.client import Client
from edgeaid.models.repository import EMBEDDED

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.standins.build import build
from tests.support.usbtree import UsbTree

MODEL = "mobilenet_v1_0.5_160_quant_edgetpu.tflite"
PICTURE = np.zeros((1, 160, 160, 3), np.uint8)
CORAL_BOOT, CORAL = (0x1A6E, 0x089A), (0x18D1, 0x9302)
#: Longest invoke before the worker counts as hung.
INVOKE_S = 1.0
PACE_S = 0.01

PROBE = """
import sys, time
import numpy as np
from edgeaid.client import Client
image = np.load(sys.argv[2])
with Client(sys.argv[1]) as client:
    while True:
        begin = time.time()
        client.infer("digits", image)
        end = time.time()
        print(begin, end - begin, flush=True)
        time.sleep(max(0.0, float(sys.argv[3]) - (end - begin)))
"""


class Rig:
    """The daemon, the bus, the stick's control file, the events and the probe's latencies."""

    def __init__(self, directory: Path, data: Path) -> None:
        self.tree = UsbTree(directory / "machine")
        library = build("edgetpu_standin", directory)
        self.control_file = directory / "control"
        self.tree.plug("1-2", CORAL)
        self.tree.same_socket("1-2", "2-2")
        self.control(self.at("1-2"))
        store = directory / "models" / "tpu" / "1"
        store.mkdir(parents=True)
        content = (data / "coral" / MODEL).read_bytes()
        (store / "m.tflite").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        (store / "model.toml").write_text(
            f'schema = 1\nname = "tpu"\n[artifacts.edgetpu]\nfile = "m.tflite"\nsha256 = "{digest}"\n'
        )
        self.config = directory / "edgeaid.toml"
        self.config.write_text(
            f"discover_seconds = 0.2\n[limits]\ninvoke_seconds = {INVOKE_S}\n"
            "[recovery]\nflaps = 1000\nsettle_seconds = 0.1\n"
        )
        self.environment = {
            **os.environ,
            "EDGEAI_SYSFS": str(self.tree.sys),
            "EDGEAI_EDGETPU_LIBRARY": str(library),
            "EDGEAI_CACHE": str(directory / "cache"),
            "EDGETPU_STANDIN_CONTROL": str(self.control_file),
            "EDGETPU_STANDIN_TIME": "0",
            "EDGETPU_STANDIN_STATE": str(directory),
        }
        self.directory = directory
        self.socket = directory / "s.sock"
        self.processes = [self.daemon(self.socket)]
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._follow, daemon=True).start()
        self.wait(self.ready, "the stick")
        golden = EMBEDDED / "digits" / "1" / "golden" / "0.in.npy"
        command = [sys.executable, "-c", PROBE, str(self.socket), str(golden), str(PACE_S)]
        probe = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(probe)
        self.latencies: list[tuple[float, float]] = []
        threading.Thread(target=self._collect, args=(probe,), daemon=True).start()

    def daemon(self, socket: Path) -> subprocess.Popen[bytes]:
        """Another daemon of the same configuration."""
        log = open(f"{socket}.log", "wb")  # noqa: SIM115  as long as the daemon
        command = [sys.executable, "-m", "edgeaid", "--config", self.config, "--socket", socket]
        process = subprocess.Popen(
            [*command, "--model-repository", self.directory / "models"], stderr=log, env=self.environment
        )
        self.wait(lambda: "ready after" in Path(f"{socket}.log").read_text(), "the daemon")
        return process

    def stop(self) -> None:
        """End everything; first who asks, then who answers."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def _follow(self) -> None:
        with Client(self.socket) as client:
            for event in client.events():
                self.events.append(event)

    def _collect(self, probe: subprocess.Popen[str]) -> None:
        for line in probe.stdout or ():
            begin, took = line.split()
            self.latencies.append((float(begin), float(took)))

    def at(self, port: str) -> str:
        """Command: the stick is at this port."""
        return f"devices usb:{self.tree.sys}/bus/usb/devices/{port}"

    def control(self, *lines: str) -> None:
        """Tell the stand-in, atomically."""
        fresh = self.control_file.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self.control_file)

    def stick(self, socket: Path | None = None) -> dict[str, Any]:
        """The stick as `edgeai devices` shows it."""
        with Client(socket or self.socket) as client:
            return next((d for d in client.devices() if d["target"] == "edgetpu"), {"state": "", "models": []})

    def ready(self) -> bool:
        """The stick has its model and waits for work."""
        stick = self.stick()
        return stick["state"] == "ready" and bool(stick["models"])

    def ask(self, timeout: float = 20.0) -> str:
        """One inference on the stick; what came of it."""
        try:
            with Client(self.socket) as client:
                return client.infer("tpu", PICTURE, timeout=timeout).device
        except errors.EdgeaiError as error:
            return type(error).__name__

    def wait(self, check: Callable[[], object], what: str, seconds: float = 60.0) -> float:
        """Seconds until `check` holds."""
        begin = time.monotonic()
        while not check():
            if time.monotonic() - begin > seconds:
                raise SystemExit(f"waited {seconds:g} s for {what}")
            time.sleep(0.02)
        return time.monotonic() - begin

    def event(self, kind: str, since: float, **fields: str) -> float:
        """Time of the first event of a kind (or of several) after `since`."""

        def times() -> list[float]:
            return [
                e["time"]
                for e in list(self.events)
                if e["kind"] in kind.split()
                and e["time"] >= since - 0.001
                and all(e.get(k) == v for k, v in fields.items())
            ]

        self.wait(times, f"the event {kind}")
        return times()[0]


def died_to_ready(rig: Rig, since: float) -> float:
    """Seconds from the worker's end to the next READY."""
    died = rig.event("worker-died", since)
    return rig.event("device-state", died, state="ready") - died


def abort(rig: Rig) -> dict[str, float]:
    """The runtime aborts in the middle of an inference, as libedgetpu does."""
    begin = time.time()
    rig.control(rig.at("1-2"), "once abort")
    rig.ask()
    return {"worker's end to READY": died_to_ready(rig, begin)}


def hang(rig: Rig) -> dict[str, float]:
    """An inference never comes back."""
    rig.control(rig.at("1-2"), "once hang")
    begin = time.time()
    rig.ask()
    late = rig.event("worker-died", begin) - begin - INVOKE_S
    return {"noticed after deadline": late, "worker's end to READY": died_to_ready(rig, begin)}


def error(rig: Rig) -> dict[str, float]:
    """The runtime reports an error twice: the retry fails as well, the worker is replaced."""
    begin = time.time()
    rig.control(rig.at("1-2"), "fail transfer")
    rig.ask()
    rig.control(rig.at("1-2"))
    return {"worker's end to READY": died_to_ready(rig, begin)}


def pulled(rig: Rig) -> dict[str, float]:
    """Pulled in the middle of an inference, plugged in again three seconds later."""
    begin = time.time()
    rig.control("devices", "vanish")
    rig.tree.unplug("1-2")
    rig.ask(timeout=1.0)
    rig.event("device-state", begin, state="absent")
    rig.control(rig.at("1-2"))
    rig.tree.plug("1-2", CORAL)
    plugged = rig.event("device-added", begin)
    return {"plugged in to READY": rig.event("device-state", plugged, state="ready") - plugged}


def renumbered(rig: Rig) -> dict[str, float]:
    """Leaves the bus by itself and comes back under its other id, on the other bus of its socket, and back again."""
    took = {}
    for name, old, new, ids in (("other id", "1-2", "2-2", CORAL_BOOT), ("first id", "2-2", "1-2", CORAL)):
        begin = time.time()
        rig.control(rig.at(new))
        rig.tree.unplug(old)
        rig.tree.plug(new, ids, speed=5000 if new == "2-2" else 480)
        changed = rig.event("device-changed device-added", begin)  # one look saw both, or two looks one each
        took[f"{name} to READY"] = rig.event("device-state", changed, state="ready") - changed
        rig.wait(rig.ready, "the model")
    return took


def killed(rig: Rig) -> dict[str, float]:
    """The worker is killed, for instance for lack of memory."""
    begin = time.time()
    os.kill(rig.stick()["pid"], 9)
    return {"worker's end to READY": died_to_ready(rig, begin)}


def second_daemon(rig: Rig) -> dict[str, float]:
    """A second daemon wants the same stick: it says so and goes on without, the first one notices nothing."""
    begin = time.monotonic()
    socket = rig.directory / "second" / "s.sock"
    socket.parent.mkdir(exist_ok=True)
    other = rig.daemon(socket)
    try:
        rig.wait(lambda: rig.stick(socket)["state"] in ("failed", "recovering"), "the second daemon's complaint")
        took = time.monotonic() - begin
        assert "another process may have it" in rig.stick(socket)["reason"], rig.stick(socket)["reason"]
        assert rig.ask() == rig.stick()["id"]
    finally:
        other.kill()
        other.wait()
    return {"start of the second to its complaint": took}


CASES = (abort, hang, error, killed, pulled, renumbered, second_daemon)


def quantiles(latencies: list[float]) -> tuple[float, float, float]:
    """p50, p99 and maximum in ms."""
    if not latencies:
        return 0.0, 0.0, 0.0
    ordered = sorted(latencies)
    return tuple(1e3 * ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.99, 1.0))  # type: ignore[return-value]


@contextmanager
def window(rig: Rig) -> Iterator[list[float]]:
    """Latencies of requests that began within."""
    begin, latencies = time.time(), []
    yield latencies
    end = time.time()
    time.sleep(0.05)
    latencies.extend(took for at, took in list(rig.latencies) if begin <= at <= end)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEAI_TEST_DATA", here)))
    parser.add_argument("--rounds", type=int, default=3, help="how often each case")
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds without trouble, before and after")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory), arguments.data)
        rows: list[dict[str, Any]] = []
        try:
            for name in (
                "quiet, before",
                *(c.__name__ for c in CASES for _ in range(arguments.rounds)),
                "quiet, after",
            ):
                rig.wait(rig.ready, "the stick to settle")
                case = next((c for c in CASES if c.__name__ == name), None)
                figures: dict[str, float] = {}
                with window(rig) as seen:
                    if case is None:
                        time.sleep(arguments.quiet)
                    else:
                        rig.ask()
                        time.sleep(0.2)
                        figures = case(rig)
                        time.sleep(0.5)
                rows.append({"case": name, "figures": figures, "latencies": seen})
        finally:
            rig.stop()
    report(rows, as_json=arguments.json)


def report(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """One line per case: its figures (median, worst) and what the other device's clients saw."""
    result = []
    for name in dict.fromkeys(row["case"] for row in rows):
        same = [row for row in rows if row["case"] == name]
        p50, p99, longest = quantiles([value for row in same for value in row["latencies"]])
        figures = {key: [row["figures"][key] for row in same] for key in same[0]["figures"]}
        count = sum(len(row["latencies"]) for row in same)
        result.append({"case": name, "figures_s": figures, "cpu": {"n": count, "p50": p50, "p99": p99, "max": longest}})
    if as_json:
        print(json.dumps({"load": os.getloadavg(), "cases": result}))
        return
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; meanwhile a model on the CPU was asked every "
        f"{PACE_S * 1e3:g} ms\n"
    )
    print(f"{'case':16}{'CPU requests':>13}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}   times in ms: median (worst)")
    for row in result:
        times = "; ".join(
            f"{key} {1e3 * statistics.median(values):.0f} ({1e3 * max(values):.0f})"
            for key, values in row["figures_s"].items()
        )
        cpu = row["cpu"]
        print(f"{row['case']:16}{cpu['n']:13}{cpu['p50']:9.2f}{cpu['p99']:9.2f}{cpu['max']:9.2f}   {times}")


if __name__ == "__main__":
    main()
