"""What do streams cost? `run.py [--seconds N] [--streams N] [--video FILE] [--hand PYTHON] [--json]`

A daemon with 1 and then N streams of the same source and model: frames per second, from frame to result (median, 95 of
100), processor time per frame of daemon, workers and streams. With --video a file is worked through as fast as it goes,
and --hand PYTHON (an interpreter with OpenCV and LiteRT) works through the same file in a loop written by hand. Decoder
and tracker times come first: least of 30 calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeaid.client import Client
from edgeaid.client.streams import Streams
from edgeaid.models.repository import EMBEDDED
from edgeaid.models.rules import OutputRules
from edgeaid.streams.process.tracker import Seen, Tracker
from edgeaid.tensors import TensorSpec
from edgeaid.vision.decoders import decode

STAGES = [{"detect": "digit-scenes"}, {"track": {}}]
HAND = """
import sys, time
import cv2, numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[2], num_threads=1)
interpreter.allocate_tensors()
entry, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
_, height, width, _ = entry["shape"]
scale, zero = entry["quantization"]
video = cv2.VideoCapture(sys.argv[1])
count, started = 0, time.perf_counter()
while True:
    ok, frame = video.read()
    if not ok:
        break
    grey = cv2.cvtColor(cv2.resize(frame, (int(width), int(height))), cv2.COLOR_BGR2GRAY)
    real = grey.astype(np.float32) / 255
    values = np.clip(np.rint(real / scale) + zero, -128, 255).astype(entry["dtype"]) if scale else real
    interpreter.set_tensor(entry["index"], values.reshape(entry["shape"]))
    interpreter.invoke()
    interpreter.get_tensor(out["index"])
    count += 1
print(count, time.perf_counter() - started, time.process_time())
"""


def children(pid: int) -> Iterator[int]:
    """A process and all below it, as far as they live."""
    yield pid
    below: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            below += map(int, (task / "children").read_text().split())
    for child in below:
        yield from children(child)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all that it has started, as far as they live."""
    total = 0.0
    for one in children(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(streams: Streams, pid: int, count: int, source: str, fps: float, seconds: float) -> dict[str, Any]:
    """`count` streams of one live source for a while."""
    names = [f"s{i}" for i in range(count)]
    for name in names:
        streams.put(name, {"source": source, "fps": fps, "stage": STAGES})
    while any(streams.show(n)["state"] != "running" for n in names):
        time.sleep(0.2)
    time.sleep(2.0)
    before = [streams.show(n)["frames"] for n in names]
    cpu, started = cpu_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    shown = [streams.show(n) for n in names]
    elapsed, used = time.perf_counter() - started, cpu_seconds(pid) - cpu
    inferred = sum(s["frames"]["inferred"] - b["inferred"] for s, b in zip(shown, before, strict=True))
    captured = sum(s["frames"]["captured"] - b["captured"] for s, b in zip(shown, before, strict=True))
    for name in names:
        streams.remove(name)
    return {
        "streams": count,
        "wanted_fps": fps * count,
        "captured_fps": captured / elapsed,
        "inferred_fps": inferred / elapsed,
        "p50_ms": float(np.median([s["latency"]["p50_ms"] for s in shown])),
        "p95_ms": max(s["latency"]["p95_ms"] for s in shown),
        "cpu_ms_per_frame": used * 1e3 / max(1, inferred),
    }


def through_file(streams: Streams, video: Path) -> dict[str, Any]:
    """A file, as fast as it goes."""
    streams.put("file", {"source": str(video), "fps": 30, "stage": STAGES})
    while streams.show("file")["state"] not in ("running", "ended"):
        time.sleep(0.01)
    started = time.perf_counter()
    while (shown := streams.show("file"))["state"] != "ended":
        time.sleep(0.02)
    elapsed = time.perf_counter() - started
    streams.remove("file")
    return {"frames": shown["frames"]["inferred"], "fps": shown["frames"]["inferred"] / elapsed}


def by_hand(python: str, video: Path) -> dict[str, Any]:
    """The same file in a loop written by hand."""
    model = EMBEDDED / "digit-scenes" / "1" / "model.tflite"
    done = subprocess.run([python, "-c", HAND, video, model], check=True, capture_output=True, text=True)
    count, elapsed, cpu = done.stdout.split()
    return {"frames": int(count), "fps": int(count) / float(elapsed), "cpu_ms_per_frame": float(cpu) * 1e3 / int(count)}


def best_ms(work: Any, rounds: int = 30) -> float:
    """Least milliseconds of one call: the machine's other work only adds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) * 1e3


def pure_parts() -> dict[str, float]:
    """Decoder and tracker."""
    rng = np.random.default_rng(1)
    values = (rng.random((1, 84, 8400)) * 0.2505).astype(np.float32)
    rules = OutputRules.from_table({"decoder": "yolov8", "threshold": 0.25, "max_results": 300})
    specs = [TensorSpec("o", "FP32", values.shape)]
    tracker, frame = Tracker(), iter(range(1 << 30))
    boxes = rng.random((30, 2))

    def track() -> None:
        moved = boxes + rng.normal(0, 0.002, boxes.shape)
        tracker.update(next(frame) * 100_000, [Seen("x", 0.9, (x, y, x + 0.1, y + 0.1)) for x, y in moved.tolist()])

    return {
        "decode_8400x84_ms": best_ms(lambda: decode(rules, specs, [values], (640, 640))),
        "track_30_objects_ms": best_ms(track),
    }


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--source", default="test:digits?width=384&height=384", help="rtsp://... for a real server")
    parser.add_argument("--video", type=Path, help="a file of digits or of anything else")
    parser.add_argument("--hand", metavar="PYTHON", help="interpreter with OpenCV and ai-edge-litert")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result: dict[str, Any] = {"load": os.getloadavg()[0], **pure_parts()}
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "s.sock"
        command = [sys.executable, "-m", "edgeaid", "--socket", socket, "--model-repository", Path(directory) / "m"]
        process = subprocess.Popen([*command, "--log-level", "error"], env={**os.environ, "STATE_DIRECTORY": directory})
        try:
            with Client(socket, fast=False) as client:
                client.wait(120)
                streams = Streams(client)
                result["live"] = [
                    measure(streams, process.pid, n, args.source, args.fps, args.seconds) for n in (1, args.streams)
                ]
                if args.video:
                    result["file"] = through_file(streams, args.video.absolute())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    if args.video and args.hand:
        result["by_hand"] = by_hand(args.hand, args.video)
    print(json.dumps(result, indent=None if args.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
