"""`edgeai model quantize`: a float model becomes a smaller TFLite file, and the loss is measured."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel, InvalidRequest, NotFound
from ...formats.tflite import reader as tflite
from ..run import child
from . import compare, environments, representative
from .compare import Difference, LayerError
from .representative import PIXELS, Array, Normalisation

_CHILDREN: Final = Path(__file__).parent / "children"
_TIMEOUT: Final = 3600.0
#: Samples for the comparison of both models.
_COMPARED: Final = 32
#: Schemes, and what each is.
SCHEMES: Final[dict[str, str]] = {
    "int8": "integers everywhere: what accelerators take",
    "int16x8": "activations of 16 bits, weights of 8: CPU only, where int8 loses too much",
    "float16": "weights in half precision, computed in float",
    "dynamic": "weights of 8 bits, activations rounded at run time",
    "weights": "weights of 8 bits, computed in float",
}
#: Schemes with ranges of activations, which representative data decide.
_CALIBRATED: Final = frozenset({"int8", "int16x8"})


@dataclass(frozen=True, slots=True)
class Job:
    """What to do."""

    model: Path
    #: Scheme, a key of SCHEMES -> file to write.
    files: Mapping[str, Path]
    #: Directory of pictures, .npy, or file.py:function.
    representative: str
    rules: Normalisation = PIXELS
    #: int8: type of the result's inputs and outputs: int8, uint8 or float32.
    io: str = "int8"
    per_channel: bool = True
    samples: int = 200
    #: Names of the first and last node, for frozen graphs.
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    #: Fixed input shape with batch, for frozen graphs whose placeholder has none.
    shape: tuple[int, ...] = ()
    #: Directory with one subdirectory per class to measure accuracy on; None = do not.
    accuracy: Path | None = None
    labels: tuple[str, ...] = ()
    #: Pictures for that at most.
    accuracy_samples: int = 2000
    #: Where to keep the float .tflite (compilers for the K210 start from it); None = nowhere.
    float_output: Path | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came out. Sizes in bytes, times in microseconds per inference on this machine, one thread."""

    output: Path
    scheme: str
    float_bytes: int
    quantised_bytes: int
    float_us: float
    quantised_us: float
    difference: Difference
    layers: tuple[LayerError, ...]
    #: Top-1 of the `float` and the `quantised` model, and number of `samples`; empty if not measured.
    accuracy: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "output": self.output.name}


LogLine = Callable[[str], None]
Progress = Callable[[int, int], None]


def kind(path: Path) -> str:
    """keras, saved-model, graphdef or tflite. Raises NotFound or InvalidModel."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved-model"
        raise InvalidModel(
            f"{path} is a directory without saved_model.pb; name a SavedModel, .keras, .h5, .pb or .tflite"
        )
    if not path.is_file():
        raise NotFound(f"{path} does not exist")
    with path.open("rb") as file:
        head = file.read(16)
    if path.suffix in (".keras", ".h5", ".hdf5") and (head[:2] == b"PK" or head[:8] == b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if head[4:8] == b"TFL3":
        return "tflite"
    if path.suffix == ".pb":
        return "graphdef"
    raise InvalidModel(f"{path} is not a Keras file, SavedModel, frozen graph or TFLite file; convert it first")


def quantize(job: Job, say: LogLine = lambda _: None, progress: Progress = lambda _a, _b: None) -> list[Result]:
    """Quantise and measure; a result per scheme, in the order of `job.files`.

    Raises InvalidModel when the converter refuses, Unsupported when its environment cannot be made, and what
    `representative.load` raises.
    """
    source = kind(job.model)
    if unknown := set(job.files) - set(SCHEMES):
        raise InvalidRequest(f"there is no scheme {', '.join(sorted(unknown))}; choose {', '.join(SCHEMES)}")
    if job.io not in ("int8", "uint8", "float32"):
        raise InvalidRequest(f"inputs of type {job.io!r}: choose int8, uint8 or float32")
    if source == "graphdef" and not (job.inputs and job.outputs):
        raise InvalidRequest("a frozen graph needs the names of its first and last node (--input-node, --output-node)")
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        directory = Path(name)
        floats = directory / "float.tflite"
        if source == "tflite":
            floats.write_bytes(job.model.read_bytes())
        else:
            say("exporting the float model")
            _tensorflow(job, source, directory, {"float_out": str(floats)}, say, progress)
        spec = _input(floats)
        data = representative.load(job.representative, spec[1:], job.rules, job.samples)
        if len(data) < 20 and _CALIBRATED & set(job.files):
            say(f"only {len(data)} representative samples: 100 to 500 of them give better ranges")
        np.savez(directory / "data.npz", data=data)
        made = _quantised(job, source, floats, say, progress)
        say("comparing with the float model")
        results = _measure(job, floats, made, data, progress)
        for scheme, output in job.files.items():
            _keep(made[scheme], output)
        if job.float_output is not None:
            _keep(floats, job.float_output)
    for result in results:
        report = json.dumps(result.as_dict(), indent=2) + "\n"
        result.output.with_suffix(".report.json").write_text(report, "utf-8")
    return results


def _quantised(job: Job, source: str, floats: Path, say: LogLine, progress: Progress) -> dict[str, Path]:
    """A file per scheme, beside `floats`, where `data.npz` lies too."""
    directory = floats.parent
    made = {scheme: directory / f"{scheme}.tflite" for scheme in job.files}
    # TensorFlow's converter has no scheme that rounds weights only.
    own = [scheme for scheme in made if source == "tflite" or scheme == "weights"]
    if source == "tflite" and "int8" in made and job.io != "int8":
        say("a float TFLite file gets int8 inputs and outputs; quantise its source for others")
    for names, tool in ((own, "quantizer"), ([scheme for scheme in made if scheme not in own], "tensorflow")):
        if not names:
            continue
        say(f"quantising: {', '.join(names)}")
        more = {"representative": str(directory / "data.npz"), "schemes": {name: str(made[name]) for name in names}}
        if tool == "quantizer":
            run_child("quantizer", "quantize_tflite", {"model": str(floats), **more}, directory, say)
        else:
            _tensorflow(job, source, directory, more, say, progress)
    return made


def _keep(made: Path, output: Path) -> None:
    """Put a file where it was asked for, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.tmp")
    temporary.write_bytes(made.read_bytes())
    temporary.replace(output)


def _input(path: Path) -> tuple[int, ...]:
    model = tflite.read(path.read_bytes())
    if len(model.inputs) != 1:
        raise InvalidModel(f"the model has {len(model.inputs)} inputs; only models of one input are quantised here")
    spec = model.inputs[0]
    if spec.datatype != "FP32":
        raise InvalidModel(f"the model's input is {spec.datatype}: it is quantised already, or was never float")
    if not spec.shape or spec.shape[0] != 1 or any(d < 1 for d in spec.shape):
        raise InvalidModel(f"the model's input {list(spec.shape)} must have batch size 1 and fixed dimensions")
    return spec.shape


def _tensorflow(job: Job, source: str, directory: Path, more: dict[str, Any], say: LogLine, progress: Progress) -> None:
    request = {
        "model": str(job.model.resolve()), "kind": source, "inputs": list(job.inputs), "outputs": list(job.outputs),
        "shape": list(job.shape), "schemes": {}, "io": job.io, "per_channel": job.per_channel, **more,
    }  # fmt: skip
    answer = run_child("tensorflow", "tf_convert", request, directory, say)
    if answer.get("note"):
        say(answer["note"])
    progress(1, 1)


def run_child(
    environment: str, script: str, request: dict[str, Any], directory: Path, say: LogLine, children: Path = _CHILDREN
) -> dict[str, Any]:
    """Run a script of `children` in a converter's environment; its JSON answer. Raises InvalidModel if it fails."""
    python = environments.python(environment, say)
    ask, answer = directory / "request.json", directory / "answer.json"
    answer.unlink(missing_ok=True)
    ask.write_text(json.dumps({**request, "answer": str(answer)}), "utf-8")
    done = child([python, children / f"{script}.py", ask], timeout=_TIMEOUT, env={"PYTHONPATH": ""}, cwd=directory)
    if done.status is not None and done.status < 0:
        raise InvalidModel(
            f"{environment} crashed ({done.reason}) on this model, which is a fault of its own; `edgeai model check` "
            "names what compilers are known to crash on"
        )
    if done.status != 0 or not answer.is_file():
        raise InvalidModel(f"the converter ({environment}) failed: {done.reason or 'it gave no answer'}")
    reply: dict[str, Any] = json.loads(answer.read_text("utf-8"))
    return {**reply, "log": done.output[-20_000:] + done.error[-20_000:]}


def _measure(job: Job, floats: Path, made: Mapping[str, Path], data: Array, progress: Progress) -> list[Result]:
    chosen = data[:: max(1, len(data) // _COMPARED)][:_COMPARED]
    a, _, float_us = compare.run(floats, chosen)
    samples = _samples(job, floats, progress)
    total = (1 + len(made)) * len(samples)
    right = compare.accuracy(floats, samples, lambda n: progress(n, total))
    results = []
    for number, (scheme, path) in enumerate(made.items(), 1):
        b, _, us = compare.run(path, chosen)
        accuracy: dict[str, float] = {}
        if samples:
            before = number * len(samples)
            top1 = compare.accuracy(path, samples, partial(_forward, progress, before, total))
            accuracy = {"float": right, "quantised": top1, "samples": len(samples)}
        results.append(
            Result(
                job.files[scheme], scheme, floats.stat().st_size, path.stat().st_size, float_us, us,
                compare.difference(a, b), tuple(compare.layers(floats, path, chosen[:8])), accuracy,
            )
        )  # fmt: skip
    return results


def _forward(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _samples(job: Job, floats: Path, progress: Progress) -> Sequence[tuple[Array, int]]:
    if job.accuracy is None:
        return []
    if not job.accuracy.is_dir():
        raise NotFound(f"{job.accuracy} is not a directory; accuracy needs one with a subdirectory per class")
    shape = _input(floats)[1:]
    listed = list(representative.labelled(job.accuracy, job.labels))
    if not listed:
        raise InvalidModel(f"{job.accuracy} has no subdirectories with pictures; make one per class")
    if len(listed) > job.accuracy_samples:
        order = np.random.default_rng(0).permutation(len(listed))[: job.accuracy_samples]
        listed = [listed[i] for i in sorted(order)]
    samples = []
    for number, (path, label) in enumerate(listed):
        samples.append((representative.picture(path, shape, job.rules), label))
        progress(number + 1, len(listed))
    return samples
