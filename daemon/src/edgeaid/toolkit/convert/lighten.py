"""`edgeai model lighten`: what pruning, clustering, fewer channels and training with rounding bring, all measured.

What sharing and binarisation would bring is a report: no runtime here computes with indices into a table or with single
bits, so that such files are not written; their size is computed from the weights that were trained for it.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidData, InvalidModel
from ...formats.tflite import reader as tflite
from ..files import weights
from . import compare, representative
from .quantize import LogLine, kind, run_child
from .representative import Array, Normalisation


@dataclass(frozen=True, slots=True)
class Job:
    """What to do."""

    #: A Keras classifier of one picture.
    model: Path
    #: Labelled directories, one subdirectory per class number.
    train: Path
    test: Path
    #: Where the variants go.
    output: Path
    rules: Normalisation
    #: Share of zeros in each pruned kernel.
    sparsity: float = 0.6
    #: Different values in each clustered kernel.
    clusters: int = 16
    epochs: int = 4
    #: Share of the channels that the slim variant has less.
    channels: float = 0.5
    #: A Keras classifier of the same classes that teaches; None = the model teaches its slim and binary variants.
    teacher: Path | None = None
    #: Softens the teacher's answers.
    temperature: float = 3.0


@dataclass(frozen=True, slots=True)
class Variant:
    """A line of the table."""

    name: str
    path: Path
    #: Bytes of the file, and of the file compressed, which is what travels to a device.
    size: int
    compressed: int
    #: Bytes that the file would have if weights that share a value were stored as indices into a table (`packed`).
    shared: int
    #: Share of zeros among the weights.
    zeros: float
    #: Microseconds per inference here, one thread.
    us: float
    #: Top-1 on the test directory.
    accuracy: float

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "path": self.path.name}


def lighten(job: Job, say: LogLine = lambda _: None) -> list[Variant]:
    """Make and measure the variants. Raises InvalidData, InvalidModel, NotFound, Unsupported."""
    if job.teacher is not None and kind(job.teacher) != "keras":
        raise InvalidModel(f"{job.teacher} is not a Keras file: a teacher is a network that can be asked")
    if kind(job.model) != "keras":
        raise InvalidModel(
            f"{job.model} is not a Keras file: pruning and clustering train the model on, so they need it"
        )
    shape = input_shape(job.model)
    train, test = (_read(directory, shape, job.rules) for directory in (job.train, job.test))
    job.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        directory = Path(name)
        x, y = np.stack([v for v, _ in train]), np.array([c for _, c in train])
        # Classes come one after the other from a directory; calibration needs a mixture.
        order = np.random.default_rng(0).permutation(len(x))
        np.savez(directory / "data.npz", x=x[order], y=y[order])
        say(f"training on with {len(x)} pictures: pruned, clustered, both, rounded, with fewer channels, of one bit")
        request = {
            "model": str(job.model.resolve()), "data": str(directory / "data.npz"), "sparsity": job.sparsity,
            "clusters": job.clusters, "channels": job.channels, "temperature": job.temperature,
            "teacher": str(job.teacher.resolve()) if job.teacher else "", "epochs": job.epochs,
            "directory": str(job.output.resolve()), "samples": 100,
        }  # fmt: skip
        answer = run_child("tensorflow", "lighten", request, directory, say)
    for variant, why in answer["skipped"].items():
        say(f"{variant} is left out: {why}")
    names = [f"{variant}_{form}" for variant in answer["variants"] for form in ("float", "int8")]
    return [_measure(name, job.output / f"{name}.tflite", test) for name in names]


def input_shape(model: Path) -> Sequence[int]:
    """Input shape (height, width, channels) from a .keras file's own description, without TensorFlow."""
    import json
    import zipfile

    try:
        with zipfile.ZipFile(model) as archive:
            config = json.loads(archive.read("config.json")[: 16 << 20])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InvalidModel(f"{model} is not a .keras file of Keras 3: {error}") from error
    for layer in config.get("config", {}).get("layers", []):
        batch = layer.get("config", {}).get("batch_shape")
        if isinstance(batch, list) and len(batch) == 4 and all(isinstance(d, int) for d in batch[1:]):
            return batch[1:]
    raise InvalidModel(f"{model} has no input of fixed height, width and channels; pictures would not fit")


def _read(directory: Path, shape: Sequence[int], rules: Normalisation) -> list[tuple[Array, int]]:
    if not directory.is_dir():
        raise InvalidData(f"{directory} is not a directory of pictures with one subdirectory per class number")
    labelled = [(representative.picture(p, shape, rules), c) for p, c in representative.labelled(directory, ())]
    if not labelled:
        raise InvalidData(f"{directory} has no subdirectories with pictures; make one per class")
    return labelled


def _measure(name: str, path: Path, test: list[tuple[Array, int]]) -> Variant:
    content = path.read_bytes()
    _, _, us = compare.run(path, np.stack([v for v, _ in test[:32]]))
    return Variant(
        name,
        path,
        len(content),
        len(gzip.compress(content, 9, mtime=0)),
        packed(content),
        zeros(content),
        us,
        compare.accuracy(path, test),
    )


def zeros(content: bytes) -> float:
    """Share of zeros among the weights of a TFLite file; integer weights are symmetric, so 0 is stored as 0."""
    count = total = 0
    for values, _ in _weights(content):
        count += int((values == 0).sum())
        total += values.size
    return count / total if total else 0.0


def packed(content: bytes) -> int:
    """Bytes of a TFLite file whose weights were indices into tables of their values.

    A table is that of a whole tensor or one per output channel, whichever is smaller; an index has as many bits as its
    table needs, so that weights of two values per channel take one bit each. Tensors that gain nothing stay.
    """
    total = len(content)
    for values, axis in _weights(content):
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        tables = [[len(np.unique(values))], [len(np.unique(row)) for row in rows]]
        sizes = [-(-values.size * max(1, (max(t) - 1).bit_length()) // 8) + sum(t) * values.itemsize for t in tables]
        total -= max(0, values.nbytes - min(sizes))
    return total


def _weights(content: bytes) -> Iterator[tuple[Array, int]]:
    """Weights of a TFLite file, float32 or int8, each with the axis of its output channels."""
    model = tflite.read(content)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if weights(graph, operator) is None:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        kind = {"FP32": "<f4", "INT8": "i1"}.get(tensor.datatype)
        if kind and tensor.constant and tensor.shape:
            values = np.frombuffer(tflite.constant(content, model, tensor), kind).reshape(tensor.shape)
            yield values, len(tensor.shape) - 1 if operator.name == "DEPTHWISE_CONV_2D" else 0
