"""Model directories from what people push: a bundle, or a bare .tflite whose manifest is written from the file."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidModel, TooLarge
from ..formats import detect
from ..formats.labels import Labels, parse
from ..formats.tflite import metadata as tflite_metadata
from ..formats.tflite import reader as tflite
from ..formats.tflite.entry import signature_of
from ..formats.tflite.metadata import Metadata
from . import bundle, bundle_entries, catalogue, foreign, pictures
from .digests import sha256
from .guess import guess


def unpack(upload: Path, staged: Path, name: str, limit: int, digest: str = "") -> tuple[str, ...]:
    """Turn an upload (bundle, or a bare .tflite) into a model directory `staged`; returns what was assumed. Blocking.

    `digest`: its SHA-256 where that is known already, of the bytes that came.
    InvalidModel names what is pushed when it is not a model, and what to do with it.
    """
    with open(upload, "rb") as stream:
        head = stream.read(8)
        # Not closed by hand: an exception may hold a view of it.
        reason = foreign.refusal(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) if head else b"")
    if reason:
        raise InvalidModel(reason)
    if head[4:8] == b"TFL3":
        return wrap_tflite(upload, staged, name, digest)
    bundle.extract(upload, staged, bundle_entries.Limits(total_bytes=limit))
    return ()


def wrap_tflite(upload: Path, staged: Path, name: str, digest: str = "") -> tuple[str, ...]:
    """Write a manifest for a bare model file: the catalogue's, else from the file itself. Returns what was assumed."""
    data = upload.read_bytes()
    if not digest:
        whole = sha256(len(data))
        whole.update(data)
        digest = whole.hexdigest()
    published = catalogue.of_digest(digest, data)
    if published is not None:
        return _catalogued(published, digest, data, upload, staged, name)
    kind = detect.detect(data)
    try:
        model = tflite.read(data)
    except InvalidModel as error:
        raise InvalidModel(f"{error} ({len(data)} bytes came)") from error
    try:
        about = tflite_metadata.metadata(data, model)
    except InvalidModel:
        about = None  # no runtime follows it
    target = "edgetpu" if kind == "edgetpu" or model.edgetpu else "cpu"
    upload.replace(staged / "model.tflite")
    facts = tflite_metadata.exporter_facts(data)
    known = guess([i.shape for i in model.inputs], [o.shape for o in model.outputs], facts)
    labels = _labels(data, model, facts)
    task = known.task if known is not None else pictures.task_of(model, len(labels.names))
    if task == "segment" and _is_one_mask(model) and len(labels.names) == 1:
        labels = Labels(("background", *labels.names), labels.notes)  # the file's label is what the mask shows
    lines = [
        "schema = 1",
        f'name = "{name}"',
        f'task = "{task}"',
        'source = "pushed as a bare .tflite; this manifest was written from the file"',
        f"[artifacts.{target}]",
        'file = "model.tflite"',
        f'sha256 = "{digest}"',
    ]
    if labels.names:
        (staged / "labels.txt").write_text(_written(labels.names), encoding="utf-8")
        lines += ["[labels]", 'file = "labels.txt"']
    notes = list(labels.notes)
    if len(model.signatures) > 1:
        served = signature_of(model)
        others = ", ".join(repr(s.key) for s in model.signatures if s is not served)
        what = f"the signature {served.key!r}" if served is not None else "the main graph"
        notes.append(f"{what} is served; the file also has the signatures {others}, which are not")
    decoder = known.decoder if known is not None else ""
    lines += _input(data, model, about, decoder, notes)
    if known is not None:
        lines += ["[output]", f'decoder = "{known.decoder}"']
        lines += [f"keypoints = {known.keypoints}"] if known.keypoints else []
    else:
        lines += _output(model, about, task, labels.names, notes)
    (staged / "model.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tuple(notes)


def _catalogued(
    known: tuple[catalogue.Entry, catalogue.File], digest: str, data: bytes, upload: Path, staged: Path, name: str
) -> tuple[str, ...]:
    """The catalogue's manifest for a file that is in it, with the labels inside the file where it has some: the
    catalogue's own are another file, which did not come along.
    """
    entry, file = known
    text = catalogue.manifest(entry, {file: digest}, name=name, labels=False)
    model = tflite.read(data)
    names = _labels(data, model, tflite_metadata.exporter_facts(data)).names
    upload.replace(staged / file.name)
    if names:
        (staged / "labels.txt").write_text(_written(names), encoding="utf-8")
        (staged / "model.toml").write_text(f'{text}\n[labels]\nfile = "labels.txt"\n', encoding="utf-8")
        return (f"the file is the catalogue's {entry.name!r}: its manifest was taken, with the labels in the file",)
    (staged / "model.toml").write_text(text, encoding="utf-8")
    note = f"the file is the catalogue's {entry.name!r}: its manifest was taken"
    if entry.labels is not None:
        note += f", without labels; `edgeai pull {entry.name}` brings them"
    return (note,)


def _labels(data: bytes, model: tflite.TfliteModel, facts: Mapping[str, Any]) -> Labels:
    exported = tflite_metadata.exporter_labels(facts)
    if exported:
        return Labels(exported)
    shape = model.outputs[0].shape if len(model.outputs) == 1 else ()
    try:
        return tflite_metadata.labels(data, model, shape[-1] if len(shape) == 2 and shape[-1] > 1 else None)
    except (InvalidModel, TooLarge) as error:
        return Labels((), (f"the labels in the file cannot be read: {error}",))


def _written(names: tuple[str, ...]) -> str:
    """A label file that reads back as `names`: one a line where that does, else a table of numbers and names."""
    lines = "\n".join(names) + "\n"
    if all(names) and parse(lines).names == names:
        return lines
    return json.dumps({str(i): n for i, n in enumerate(names) if n}, ensure_ascii=False, indent=0) + "\n"


def _input(data: bytes, model: tflite.TfliteModel, about: Metadata | None, decoder: str, notes: list[str]) -> list[str]:
    size = pictures.picture_input(model)
    if size is None:
        return []
    rule = pictures.normalisation(data, model, about, decoder)
    lines = ["[input]", f'color = "{"RGB" if size[2] == 3 else "GRAY"}"', f"# normalisation: {rule.why}", *rule.placing]
    if rule.mean is not None and rule.std is not None:
        lines += [f"mean = {list(rule.mean)}", f"std = {list(rule.std)}"]
        said = f"pixels become (pixel - {_short(rule.mean)}) / {_short(rule.std)}"
        if rule.known:
            notes.append(f"{said}: {rule.why}")
        else:
            notes.append(
                f"ASSUMED: {said}, because nothing in the file says how pixels are normalised; if answers are wrong, "
                "push again with --mean and --std, or set mean and std under [input] in model.toml"
            )
    return lines


def _is_one_mask(model: tflite.TfliteModel) -> bool:
    """Whether the output is one score per pixel: how much it belongs to what the model looks for."""
    shape = model.outputs[0].shape
    return len(shape) == 4 and shape[-1] == 1


def _short(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else str([round(v, 4) for v in values])


def _output(
    model: tflite.TfliteModel, about: Metadata | None, task: str, labels: tuple[str, ...], notes: list[str]
) -> list[str]:
    if task == "classify":
        return ["[output]", 'decoder = "classification"', f'activation = "{pictures.activation_of(model)}"']
    if task == "segment":
        return ["[output]", 'decoder = "segmentation"', *(["threshold = 0.5"] if _is_one_mask(model) else [])]
    if task != "detect":
        return []
    guessed = pictures.guessed_order(model, about)
    if guessed is None:
        return []
    order, why = guessed
    lines = ["[output]", 'decoder = "ssd"', f"# order: {why}", f"order = {json.dumps(order)}"]
    if why == "an assumption":
        notes.append(
            f"ASSUMED: the four outputs are {', '.join(order)}; if not, set `order` under [output] in model.toml"
        )
    if labels and (not labels[0] or labels[0].lower() == "???"):
        lines.append("class_offset = 1")
        notes.append("class numbers are looked up one line further: the labels begin with an entry for nothing")
    return lines
