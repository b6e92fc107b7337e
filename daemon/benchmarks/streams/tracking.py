"""How well are objects tracked? `tracking.py [--seeds N] [--pictures DIR] [--only NAME] [--json]`, by a Python with
motmetrics and edgeaid.

IDF1 and MOTA of the tracker beside norfair's and ByteTrack's (`trackers`), where they are installed, on the same
detections: made-up sequences with misses, false detections and occlusions at several rates, handwritten digits that
move over each other, detected by the embedded model (needs ai-edge-litert), and with --pictures crops of photographs
that move over one of them, detected by their difference to it (needs OpenCV): two that touch are one detection.
Trackers get the labels with the boxes and use them as they do (ByteTrack does not). Means over the seeds, with the
standard error of the difference of IDF1 to ours without labels.

    pip install motmetrics norfair trackers ai-edge-litert opencv-python-headless
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeaid.models.manifest import parse
from edgeaid.models.repository import EMBEDDED
from edgeaid.streams.process.pictures import bounce
from edgeaid.streams.process.tracker import Seen, Tracker
from edgeaid.streams.table import Track

Box = npt.NDArray[np.float64]
#: Of each frame: (number of the object, its box), and (box, score, label) of each detection.
Truth = list[list[tuple[int, Box]]]
Detections = list[list[tuple[Box, float, str]]]
Answer = list[list[tuple[int, Box]]]

HIGH = 0.5
PATIENCE_SECONDS = 2.0
SEQUENCES: dict[str, dict[str, Any]] = {
    "10 fps": {"fps": 10},
    "5 fps, fast": {"fps": 5, "speed": 0.15},
    "10 fps, crowd": {"fps": 10, "count": 30},
    "30 fps, noisy": {"fps": 30, "jitter": 0.06, "miss": 0.2},
}


def iou(first: Box, second: Box) -> float:
    """Intersection over union."""
    wide = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    high = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return float(wide * high / max(1e-12, sum(areas) - wide * high))


def made_up(
    seed: int, *, fps: int, count: int = 12, frames: int = 300, miss: float = 0.1, jitter: float = 0.02,
    speed: float = 0.06, false: float = 0.05,
) -> tuple[Truth, Detections]:  # fmt: skip
    """Boxes that wander, come and go; detections of them that tremble and are missing behind others."""
    rng = np.random.default_rng(seed)
    place, pace = rng.random((count, 2)), rng.normal(0, speed, (count, 2))
    size = 0.06 + 0.08 * rng.random((count, 2))
    first, last = rng.integers(0, frames // 3, count), rng.integers(2 * frames // 3, frames, count)
    truth: Truth = []
    detections: Detections = []
    for frame in range(frames):
        there: list[tuple[int, Box]] = []
        for number in range(count):
            if not first[number] <= frame < last[number]:
                continue
            place[number] += pace[number] / fps
            outside = (place[number] < 0.05) | (place[number] > 0.95)
            pace[number][outside] *= -1
            place[number] = np.clip(place[number], 0.05, 0.95)
            pace[number] += rng.normal(0, 0.01, 2)
            there.append((number, np.concatenate([place[number] - size[number] / 2, place[number] + size[number] / 2])))
        seen: list[tuple[Box, float, str]] = []
        for number, box in there:
            hidden = any(other < number and iou(box, b) > 0.5 for other, b in there)
            if rng.random() < (0.7 if hidden else miss):
                continue
            score = float(np.clip(rng.normal(0.35 if hidden else 0.75, 0.15), 0.12, 0.99))
            seen.append((box + rng.normal(0, jitter, 4) * np.tile(size[number], 2), score, "x"))
        for _ in range(rng.poisson(false * count)):
            middle, extent = rng.random(2), 0.05 + 0.1 * rng.random(2)
            box = np.concatenate([middle - extent / 2, middle + extent / 2])
            seen.append((box, float(rng.uniform(0.1, 0.6)), "x"))
        truth.append(there)
        detections.append(seen)
    return truth, detections


def digits(seed: int, *, fps: int = 10, count: int = 6, frames: int = 200) -> tuple[Truth, Detections]:
    """Handwritten digits that move over each other, as the embedded model detects them."""
    from ai_edge_litert.interpreter import Interpreter
    from PIL import Image

    from edgeaid.tensors import Quantization, TensorSpec
    from edgeaid.vision import postprocess, preprocess

    directory = EMBEDDED / "digit-scenes" / "1"
    manifest = parse((directory / "model.toml").read_bytes())
    labels = tuple((directory / "labels.txt").read_text().split())
    assert manifest.picture is not None
    assert manifest.output is not None
    interpreter = Interpreter(str(directory / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    entry, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def spec(details: dict[str, Any]) -> TensorSpec:
        kind = {"int8": "INT8", "uint8": "UINT8", "float32": "FP32"}[np.dtype(details["dtype"]).name]
        scale, zero = details["quantization"]
        quantization = Quantization((scale,), (zero,)) if scale else None
        return TensorSpec(details["name"], kind, tuple(map(int, details["shape"])), quantization)

    rng = np.random.default_rng(seed)
    samples = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))
    extent, side = 384, 96
    pixels = [np.asarray(Image.open(samples[i % len(samples)]).convert("L").resize((side, side))) for i in range(count)]
    # What is detected is the digit, not the square around it.
    inks = [np.array([*np.argwhere(p > 64).min(0)[::-1], *(np.argwhere(p > 64).max(0)[::-1] + 1)]) for p in pixels]
    start, pace = rng.integers(0, extent, (count, 2)), rng.integers(-9, 10, (count, 2))
    tensor = np.zeros(entry["shape"], entry["dtype"])
    truth: Truth = []
    detections: Detections = []
    for frame in range(frames):
        canvas = np.zeros((extent, extent), np.uint8)
        there = []
        for number in range(count):
            left, top = (bounce(int(start[number, k] + frame * pace[number, k]), extent - side) for k in (0, 1))
            part = canvas[top : top + side, left : left + side]
            np.maximum(part, pixels[number], out=part)
            there.append((number, (inks[number] + (left, top, left, top)) / extent))
        picture = Image.fromarray(canvas).convert("RGB")
        placement = preprocess.place(picture, spec(entry), manifest.picture, tensor)
        interpreter.set_tensor(entry["index"], tensor)
        interpreter.invoke()
        answer = postprocess.results(
            manifest.output, [spec(out)], [interpreter.get_tensor(out["index"])], labels, placement, threshold=0.1
        )
        truth.append(there)
        detections.append([(np.array(o.box), o.score, o.label) for o in answer.objects])
    return truth, detections


def crops(directory: Path, seed: int, *, fps: int = 10, count: int = 6, frames: int = 200) -> tuple[Truth, Detections]:
    """Crops of photographs that move over a photograph, detected where the picture differs from the empty one."""
    import cv2
    from PIL import Image

    rng = np.random.default_rng(seed)
    extent = 384
    files = sorted(f for f in directory.iterdir() if f.suffix in (".bmp", ".jpg", ".png"))
    photographs = [np.asarray(Image.open(f).convert("RGB").resize((extent, extent))) for f in files]
    empty = photographs[seed % len(photographs)]
    sides = rng.integers(40, 90, (count, 2))
    pieces = []
    for number, (wide, high) in enumerate(sides):
        left, top = rng.integers(0, extent - wide), rng.integers(0, extent - high)
        source = photographs[(seed + 1 + number) % len(photographs)]
        pieces.append(source[top : top + high, left : left + wide])
    start, pace = rng.integers(0, extent, (count, 2)), rng.integers(-8, 9, (count, 2))
    truth: Truth = []
    detections: Detections = []
    for frame in range(frames):
        canvas = empty.copy()
        there = []
        for number, piece in enumerate(pieces):
            high, wide = piece.shape[:2]
            left = bounce(int(start[number, 0] + frame * pace[number, 0]), extent - wide)
            top = bounce(int(start[number, 1] + frame * pace[number, 1]), extent - high)
            canvas[top : top + high, left : left + wide] = piece
            there.append((number, np.array([left, top, left + wide, top + high]) / extent))
        noisy = np.clip(canvas + rng.normal(0, 6, canvas.shape), 0, 255).astype(np.uint8)
        changed = (cv2.absdiff(noisy, empty).max(axis=2) > 40).astype(np.uint8)
        closed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
        seen = []
        for left, top, wide, high, filled in cv2.connectedComponentsWithStats(closed)[2][1:].tolist():
            if wide * high >= 400:
                box = np.array([left, top, left + wide, top + high]) / extent
                seen.append((box, float(np.clip(filled / (wide * high), 0.12, 0.99)), "x"))
        truth.append(there)
        detections.append(seen)
    return truth, detections


def without_labels(detections: Detections, fps: int) -> Answer:
    """The tracker of streams when all labels are the same: only boxes and scores tell objects apart."""
    return ours([[(box, score, "x") for box, score, _ in seen] for seen in detections], fps)


def ours(detections: Detections, fps: int) -> Answer:
    """The tracker of streams."""
    tracker = Tracker(Track(high=HIGH, patience_s=PATIENCE_SECONDS))
    answer: Answer = []
    for frame, seen in enumerate(detections):
        boxes = [Seen(label, score, (float(b[0]), float(b[1]), float(b[2]), float(b[3]))) for b, score, label in seen]
        tracks, _ = tracker.update(int(frame * 1e6 / fps), boxes)
        answer.append([(t.number, np.array(t.box)) for t in tracks if t.fresh])
    return answer


def by_norfair(detections: Detections, fps: int) -> Answer:
    """norfair, with overlap as its distance."""
    import norfair

    tracker = norfair.Tracker(
        distance_function="iou", distance_threshold=0.8, initialization_delay=1,
        hit_counter_max=int(PATIENCE_SECONDS * fps),
    )  # fmt: skip
    answer: Answer = []
    for seen in detections:
        given = [
            norfair.Detection(points=b.reshape(2, 2) * 1000, scores=np.array([s, s]), label=label)
            for b, s, label in seen
            if s >= HIGH
        ]
        tracked = [o for o in tracker.update(given) if any(o.last_detection is g for g in given)]
        answer.append([(o.id, o.last_detection.points.reshape(-1) / 1000) for o in tracked])
    return answer


def by_bytetrack(detections: Detections, fps: int) -> Answer:
    """ByteTrack of the package `trackers`."""
    import supervision
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(
        lost_track_buffer=int(PATIENCE_SECONDS * 30), frame_rate=fps, track_activation_threshold=HIGH
    )
    answer: Answer = []
    for seen in detections:
        given = supervision.Detections.empty()
        if seen:
            given = supervision.Detections(
                xyxy=np.array([b * 1000 for b, _, _ in seen]), confidence=np.array([s for _, s, _ in seen]),
                class_id=np.zeros(len(seen), int),
            )  # fmt: skip
        told = tracker.update(given)
        pairs = zip(told.tracker_id, told.xyxy, strict=True) if len(told) else ()
        answer.append([(int(n), b / 1000) for n, b in pairs if n is not None and n >= 0])
    return answer


def score(truth: Truth, answer: Answer) -> dict[str, float]:
    """IDF1, MOTA and switches of identity."""
    import motmetrics

    total = motmetrics.MOTAccumulator(auto_id=True)
    for there, told in zip(truth, answer, strict=True):
        distance = np.array([[1 - iou(b, c) for _, c in told] for _, b in there]).reshape(len(there), len(told))
        distance[distance > 0.5] = np.nan
        total.update([n for n, _ in there], [n for n, _ in told], distance)
    names = ["idf1", "mota", "num_switches"]
    return dict(motmetrics.metrics.create().compute(total, metrics=names, name="a").iloc[0].to_dict())


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--pictures", type=Path, help="a directory of photographs")
    parser.add_argument("--only", default="", help="sequences with this in their name")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if importlib.util.find_spec("motmetrics") is None:
        print("tracking.py: needs motmetrics; pip install motmetrics", file=sys.stderr)
        return 69
    sequences: dict[str, tuple[Callable[..., tuple[Truth, Detections]], dict[str, Any]]] = {
        name: (made_up, options) for name, options in SEQUENCES.items()
    }
    if importlib.util.find_spec("ai_edge_litert") is not None:
        sequences["digits, 10 fps"] = (digits, {"fps": 10})
    if args.pictures and importlib.util.find_spec("cv2") is not None:
        sequences["crops, 10 fps"] = (functools.partial(crops, args.pictures), {"fps": 10})
    trackers: dict[str, Callable[[Detections, int], Answer]] = {"edgeaid": ours, "no labels": without_labels}
    if importlib.util.find_spec("norfair") is not None:
        trackers["norfair"] = by_norfair
    if importlib.util.find_spec("trackers") is not None:
        trackers["bytetrack"] = by_bytetrack
    rows = []
    for name, (make, options) in sequences.items():
        if args.only not in name:
            continue
        made = [make(seed, **options) for seed in range(args.first, args.first + args.seeds)]
        own = np.zeros(0)
        for tracker, track in trackers.items():
            started = time.process_time()
            answers = [track(detections, options["fps"]) for _, detections in made]
            used = time.process_time() - started
            scores = [score(truth, answer) for (truth, _), answer in zip(made, answers, strict=True)]
            row: dict[str, Any] = {"sequence": name, "tracker": tracker}
            for key in ("idf1", "mota", "num_switches"):
                row[key] = round(float(np.mean([s[key] for s in scores])), 4)
            idf1 = np.array([s["idf1"] for s in scores])
            own = idf1 if tracker == "no labels" else own  # as ByteTrack, which uses none
            if len(own) > 1:
                row["error"] = round(float((idf1 - own).std(ddof=1) / len(own) ** 0.5), 4)
            row["ms_per_frame"] = round(used * 1e3 / sum(len(d) for _, d in made), 3)
            rows.append(row)
            if not args.json:
                print(
                    f"{name:16} {tracker:10} IDF1 {row['idf1']:.3f}  MOTA {row['mota']:.3f}  "
                    f"switches {row['num_switches']:.1f}  {row['ms_per_frame']:.2f} ms/frame  "
                    f"difference of IDF1 +- {row.get('error', 0):.3f}",
                    flush=True,
                )
    if args.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
