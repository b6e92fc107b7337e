"""Model directories from what people push: a bundle, or a bare .tflite whose manifest is written from the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..formats import detect
from ..formats.tflite import metadata as tflite_metadata
from ..formats.tflite import reader as tflite
from . import bundle
from .guess import Guess, guess


def unpack(upload: Path, staged: Path, name: str, limit: int) -> None:
    """Turn an upload (bundle, or a bare .tflite) into a model directory `staged`. Blocking."""
    with open(upload, "rb") as stream:
        head = stream.read(8)
    if head[4:8] == b"TFL3":
        wrap_tflite(upload, staged, name)
        return
    bundle.extract(upload, staged, bundle.Limits(total_bytes=limit))


def wrap_tflite(upload: Path, staged: Path, name: str) -> None:
    """Write a manifest for a bare model file from its own metadata and labels."""
    data = upload.read_bytes()
    kind = detect.detect(data)
    model = tflite.read(data)
    target = "edgetpu" if kind == "edgetpu" or "edgetpu-custom-op" in model.custom_codes else "cpu"
    upload.replace(staged / "model.tflite")
    facts = tflite_metadata.exporter_facts(data)
    known = guess([i.shape for i in model.inputs], [o.shape for o in model.outputs], facts)
    lines = [
        "schema = 1",
        f'name = "{name}"',
        f'task = "{known.task if known is not None else guess_task(model)}"',
        'source = "pushed as a bare .tflite; this manifest was written from the file"',
        f"[artifacts.{target}]",
        'file = "model.tflite"',
        f'sha256 = "{hashlib.sha256(data).hexdigest()}"',
    ]
    labels = tflite_labels(data) or tflite_metadata.exporter_labels(facts)
    if labels:
        (staged / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
        lines += ["[labels]", 'file = "labels.txt"']
    shape = model.inputs[0].shape if len(model.inputs) == 1 else ()
    if len(shape) == 4 and shape[3] in (1, 3):
        lines += ["[input]", f'color = "{"RGB" if shape[3] == 3 else "GRAY"}"']
        lines += _picture(model.inputs[0].datatype, known, ultralytics=bool(facts))
        if known is not None:
            lines += ["[output]", f'decoder = "{known.decoder}"']
            lines += [f"keypoints = {known.keypoints}"] if known.keypoints else []
        elif guess_task(model) == "classify":
            lines += ["[output]", 'decoder = "classification"']
    (staged / "model.toml").write_text("\n".join(lines) + "\n")


def _picture(datatype: str, known: Guess | None, *, ultralytics: bool) -> list[str]:
    """What the families of networks want: 0 to 1 and borders for YOLO, -1 to 1 for what TensorFlow trains."""
    decoder = known.decoder if known is not None else ""
    if ultralytics or decoder.startswith(("yolov", "yolo-end2end")):
        shape = ['resize = "crop"'] if decoder == "classification" else ['resize = "letterbox"', "fill = 114"]
        return ["mean = [0.0]", "std = [255.0]", *shape]
    if datatype != "FP32":
        return []
    return ["mean = [0.0]", "std = [1.0]"] if decoder == "yolox" else ["mean = [127.5]", "std = [127.5]"]


def tflite_labels(data: bytes) -> tuple[str, ...]:
    """Labels inside a .tflite, () when there are none."""
    return tuple(tflite_metadata.labels(data))


def guess_task(model: tflite.TfliteModel) -> str:
    """A picture in and one row of scores out is a classifier; anything else is not guessed."""
    if (
        len(model.inputs) == 1
        and len(model.inputs[0].shape) == 4
        and len(model.outputs) == 1
        and len(model.outputs[0].shape) == 2
    ):
        return "classify"
    return "other"
