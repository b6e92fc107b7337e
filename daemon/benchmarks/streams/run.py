"""What do streams cost? `run.py [--seconds N] [--streams N] [--video FILE] [--hand PYTHON] [--model FILE] [--json]`

A daemon with 1 and then N streams of the same source and model: frames per second, from frame to result (median, 95 of
100), processor time per frame of daemon, workers and streams. A file (--video, or made-up digits) is worked through
as fast as it goes, by one stream and by N at once; --hand PYTHON (an interpreter with OpenCV and LiteRT) works through
the same file in a loop written by hand (`hand.py`) over as many videos, and in as many processes with such a loop at
once, and the ratios are told. What starting takes is left out on both sides. --model FILE: the same with another model,
a classifier in a .tflite. --workers N: the CPU has N workers of one thread. Decoder and tracker times come first: least
of 30 calls.
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
from edgeaid.streams.process.pictures import Digits
from edgeaid.streams.process.tracker import Seen, Tracker
from edgeaid.tensors import TensorSpec
from edgeaid.vision.decoders import decode

STAGES = [{"detect": "digit-scenes"}, {"track": {}}]
HAND = Path(__file__).with_name("hand.py")


def children(pid: int) -> Iterator[int]:
    """A process and all below it, as far as they live."""
    yield pid
    below: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            below += map(int, (task / "children").read_text().split())
    for child in below:
        yield from children(child)


def cpu_seconds_of(pid: int) -> float:
    """Processor time of one process, 0 when it has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all that it has started, as far as they live."""
    return sum(map(cpu_seconds_of, children(pid)))


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


def through_file(streams: Streams, pid: int, video: Path, count: int, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """A file, as fast as it goes, by `count` streams: from when all have frames until the first one is at its end."""
    names = [f"f{i}" for i in range(count)]
    for name in names:
        streams.put(name, {"source": str(video), "fps": 30, "stage": stages})

    def look() -> tuple[float, int, dict[int, float]]:
        shown = [streams.show(n) for n in names]
        if any(s["state"] in ("ended", "failed") for s in shown):
            raise StopIteration
        inferred = [s["frames"]["inferred"] for s in shown]
        return time.perf_counter(), sum(inferred) if min(inferred) else 0, {p: cpu_seconds_of(p) for p in children(pid)}

    first = last = (0.0, 0, dict[int, float]())
    with contextlib.suppress(StopIteration):
        while not first[1]:
            time.sleep(0.02)
            first = look()
        last = first
        while True:
            time.sleep(0.1)
            last = look()
    for name in names:
        streams.remove(name)
    frames, seconds = last[1] - first[1], last[0] - first[0]
    if not frames:
        raise SystemExit(f"{video} ends before anything can be measured; give a longer one")
    used = sum(now - first[2].get(process, 0.0) for process, now in last[2].items())
    return {"streams": count, "frames": frames, "fps": frames / seconds, "cpu_ms_per_frame": used * 1e3 / frames}


def by_hand(python: str, video: Path, model: Path, loops: int, videos: int) -> dict[str, Any]:
    """The same file `videos` times in each of as many loops written by hand."""
    command = [python, str(HAND), str(model), *[str(video)] * videos]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(loops)
    ]
    done = [process.communicate()[0].split() for process in running]
    frames = sum(int(words[0]) for words in done)
    cpu = sum(float(words[2]) for words in done)
    return {
        "loops": loops,
        "videos": videos,
        "fps": frames / max(float(w[1]) for w in done),
        "cpu_ms_per_frame": cpu * 1e3 / frames,
    }


def compared(
    streams: Streams, pid: int, args: argparse.Namespace, video: Path, model: Path, stages: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Streams and loops in turns, with the ratios of their frames per second."""
    rows = []
    for count in (1, args.streams):
        row: dict[str, Any] = {"stages": stages, "ours": through_file(streams, pid, video, count, stages)}
        if args.hand:
            row["by_hand"] = by_hand(args.hand, video, model, 1, count)
            row["ratio"] = row["ours"]["fps"] / row["by_hand"]["fps"]
            if count > 1:
                row["processes"] = by_hand(args.hand, video, model, count, 1)
                row["ratio_to_processes"] = row["ours"]["fps"] / row["processes"]["fps"]
        rows.append(row)
    return rows


def digits_video(directory: Path, frames: int) -> Path:
    """Moving digits, 640x480, as the H.264 or MJPEG that GStreamer can write here."""
    scene = Digits(640, 480)
    for number in range(frames):
        scene.frame(number).save(directory / f"{number:04}.png")
    file = directory / "digits.avi"
    source = ["multifilesrc", f"location={directory}/%04d.png", "caps=image/png,framerate=30/1", "!", "pngdec"]
    for encoder in (["x264enc", "key-int-max=30"], ["jpegenc"]):
        tail = ["!", "videoconvert", "!", *encoder, "!", "avimux", "!", "filesink", f"location={file}"]
        if (
            subprocess.run(["gst-launch-1.0", "-q", *source, *tail], check=False, stderr=subprocess.DEVNULL).returncode
            == 0
        ):
            return file
    raise SystemExit("GStreamer can write no video here; give one with --video")


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
    parser.add_argument("--frames", type=int, default=3000, help="of the made-up video")
    parser.add_argument("--workers", type=int, default=0, help="workers of the CPU, each with one thread")
    parser.add_argument("--hand", metavar="PYTHON", help="interpreter with OpenCV and ai-edge-litert")
    parser.add_argument("--model", type=Path, help="a classifier (.tflite) to compare with as well")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result: dict[str, Any] = {"load": os.getloadavg()[0], **pure_parts()}
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "s.sock"
        command = [sys.executable, "-m", "edgeaid", "--socket", socket, "--model-repository", Path(directory) / "m"]
        if args.workers:
            device = '[[device]]\nid = "cpu{}"\ntarget = "cpu"\noptions = {{ threads = 1 }}\n'
            (Path(directory) / "edgeaid.toml").write_text("".join(device.format(n) for n in range(args.workers)))
            command += ["--config", Path(directory) / "edgeaid.toml"]
        process = subprocess.Popen([*command, "--log-level", "error"], env={**os.environ, "STATE_DIRECTORY": directory})
        try:
            with Client(socket, fast=False) as client:
                client.wait(120)
                streams = Streams(client)
                result["live"] = [
                    measure(streams, process.pid, n, args.source, args.fps, args.seconds) for n in (1, args.streams)
                ]
                video = args.video.absolute() if args.video else digits_video(Path(directory), args.frames)
                embedded = EMBEDDED / "digit-scenes" / "1" / "model.tflite"
                result["file"] = compared(streams, process.pid, args, video, embedded, STAGES[:1])
                result["file_tracked"] = through_file(streams, process.pid, video, 1, STAGES)
                if args.model:
                    client.push("measured", args.model)
                    stages = [{"classify": "measured"}]
                    result["file_model"] = compared(streams, process.pid, args, video, args.model.absolute(), stages)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    print(json.dumps(result, indent=None if args.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
