"""Comparing a converted model with its source: all inputs, all outputs, whatever happened to the axes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel
from ...formats.tflite import reader as tflite
from ..run import litert
from . import compare
from .compare import Difference
from .conversion import Conversion
from .representative import Array

#: Channels of a picture; an input [n, c, h, w] with other numbers keeps its layout.
_PICTURE_CHANNELS: Final = (1, 3, 4)
_NUMPY: Final = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8, "BOOL": np.bool_}
#: Name, shape, dtype.
Spec = tuple[str, tuple[int, ...], str]
#: Name, and a value per run.
Named = tuple[str, list[Array]]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the source model computes."""

    #: [run][input] and [run][output], in the model's order.
    inputs: list[list[Array]]
    outputs: list[list[Array]]
    #: Name, shape and dtype of each.
    input_specs: list[Spec]
    output_specs: list[Spec]
    #: Per output: how far the runtime is from itself, by the output's range.
    itself: tuple[float, ...]
    notes: tuple[str, ...]
    #: Inputs that were made constants.
    constants: Mapping[str, float] = field(default_factory=dict)
    #: Largest error by the range that still counts as the same; more where the source quantises at run time.
    tolerance: float = 0.01

    @classmethod
    def of(cls, inputs: Sequence[Named], outputs: Sequence[Named]) -> Reference:
        """From each input's and output's name and values, one per run."""

        def runs(values: Sequence[Named]) -> list[list[Array]]:
            return [list(run) for run in zip(*(v for _, v in values), strict=True)]

        def specs(values: Sequence[Named]) -> list[Spec]:
            return [(name, v[0].shape, v[0].dtype.name) for name, v in values]

        nothing = (0.0,) * len(outputs)
        return cls(runs(inputs), runs(outputs), specs(inputs), specs(outputs), nothing, ())


def read_runs(path: Path, count: int) -> list[list[Array]]:
    """[run][value] of an .npz whose keys are `<run>_<number>`."""
    with np.load(path, allow_pickle=False) as loaded:
        runs = len({key.split("_")[0] for key in loaded.files})
        return [[loaded[f"{r}_{i}"] for i in range(count)] for r in range(runs)]


def write_runs(path: Path, runs: list[list[Array]]) -> None:
    """The counterpart of `read_runs`."""
    arrays: dict[str, Any] = {f"{r}_{i}": value for r, run in enumerate(runs) for i, value in enumerate(run)}
    np.savez(path, **arrays)


def is_picture(shape: Sequence[int]) -> bool:
    """Whether [n, c, h, w] is a picture with channels first, which becomes channels last."""
    return len(shape) == 4 and shape[1] in _PICTURE_CHANNELS and min(shape[2:]) > shape[1]


def compared(route: str, tool: str, output: Path, wanted: Reference) -> Conversion:
    """Run the TFLite result on the same inputs and compare every output."""
    model = tflite.read(output.read_bytes())
    order = pair([n for n, _, _ in wanted.input_specs], [s.name for s in model.inputs])
    request: dict[str, Any] = {"runs": len(wanted.inputs), "threads": 1}
    moved: tuple[str, ...] = ()
    for number, spec in enumerate(model.inputs):
        for run, values in enumerate(wanted.inputs):
            value, changed = _laid_out(values[order[number]], spec.shape)
            request[f"input_{run}_{number}"] = value.astype(_NUMPY.get(spec.datatype, value.dtype))
            if changed and run == 0:
                picture = is_picture(values[order[number]].shape)
                text = "pictures go in as NHWC now" if picture else f"input {spec.name} is {list(spec.shape)} now"
                moved += (text,)
    answer = litert(output, request, 600.0)
    back = pair([s.name for s in model.outputs], [n for n, _, _ in wanted.output_specs])
    made = [[answer[f"output_{run}_{i}"] for i in back] for run in range(len(wanted.outputs))]
    worst, notes = judge(wanted, made)
    notes = (*wanted.notes, *moved, *notes)
    return Conversion(route, tool, (output,), worst, compare.transposes(output), bool(moved), notes)


def judge(wanted: Reference, made: list[list[Array]]) -> tuple[Difference, tuple[str, ...]]:
    """The output that differs most, and remarks. `made` is [run][output] in the order of `wanted`."""
    differences: list[tuple[str, Difference]] = []
    notes: list[str] = []
    for number, (name, shape, _) in enumerate(wanted.output_specs):
        a, b = (np.stack([run[number] for run in runs]) for runs in (wanted.outputs, made))
        if not a.size:
            continue
        sound = np.isfinite(a.astype(np.float64)).reshape(len(a), -1).all(1)
        if not sound.any():
            raise InvalidModel(f"the model gives no finite numbers in output {name}; other inputs are needed: --shape")
        differences.append((name, compare.difference(a[sound], compare.aligned(a, b)[sound], wanted.itself[number])))
        if b.shape[1:] != shape:
            notes.append(f"output {name or number} is {list(b.shape[1:])} now, it was {list(shape)}")
    if not differences:
        raise InvalidModel("the model has no output that could be compared")
    name, worst = max(differences, key=lambda d: d[1].relative)
    return worst, (*notes, *verdict(name, worst, wanted.tolerance))


def verdict(name: str, worst: Difference, tolerance: float) -> list[str]:
    """What to make of the largest error."""
    notes = []
    if worst.reference_error > 1e-3:
        notes.append(
            f"the reference disagrees with itself: onnxruntime with and without its optimisations differs by "
            f"{worst.reference_error:.2%} of the range in {name}"
        )
    if worst.relative > max(tolerance, 3 * worst.reference_error):
        notes.append(f"output {name} does not compute the same: do not use the result before you know why")
    return notes


def pair(names: Sequence[str], others: Sequence[str]) -> list[int]:
    """For each of `others` the index of the name that is the same but for signs that a converter replaced."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]+", "_", name.lower().removeprefix("serving_default_")).strip("_")

    left = list(range(len(names)))
    result = []
    for number, other in enumerate(others):
        same = [i for i in left if plain(names[i]) == plain(other)]
        chosen = same[0] if same else number if number in left else left[0]
        left.remove(chosen)
        result.append(chosen)
    return result


def _laid_out(value: Array, shape: tuple[int, ...]) -> tuple[Array, bool]:
    """An input as the result takes it, and whether its axes were moved."""
    if value.shape == shape and not (is_picture(value.shape) and value.shape[1] == value.shape[-1]):
        return value, False
    moved = np.moveaxis(value, 1, -1) if value.ndim >= 3 else value
    if moved.shape == shape:
        return np.ascontiguousarray(moved), True
    if value.size == int(np.prod(shape)) and sorted(d for d in value.shape if d > 1) == [d for d in shape if d > 1]:
        return value.reshape(shape), False
    raise InvalidModel(f"the result's input {list(shape)} has nothing to do with {list(value.shape)}")
