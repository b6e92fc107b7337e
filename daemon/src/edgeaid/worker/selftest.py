"""Self-test of a loaded model in its worker: golden inputs in, golden outputs compared.

A model whose outputs are the same for different golden inputs is refused too: that is what a broken conversion or a
failed parameter upload looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import errors
from ..tensors import ALONE, NUMPY, TensorSpec
from .variable import opened

if TYPE_CHECKING:
    from ..backends.base import Array, Backend, Phases
    from .loaded import Loaded


#: Datatypes of inputs that may be sizes, positions or texts, which a model need not take in any combination.
_ARBITRARY: Final = frozenset({"INT32", "INT64", "BYTES", "BOOL"})
#: The first run brings parameters to an accelerator, the second shows what a run costs once they are there.
WARM_UPS: Final = 2


def _read(path: str, spec: TensorSpec) -> Array:
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise errors.InvalidModel(f"golden file {path}: {error}") from error
    if spec.datatype == "BYTES":
        raise errors.InvalidModel(f"golden file {path}: tensor {spec.name!r} holds texts, which .npy files cannot")
    if data.dtype != np.dtype(NUMPY[spec.datatype]) or not spec.takes(tuple(data.shape)):
        raise errors.InvalidModel(
            f"golden file {path} is {data.dtype}{list(data.shape)}, "
            f"tensor {spec.name!r} is {spec.datatype}{list(spec.shape)}"
        )
    return np.ascontiguousarray(data)


def difference(got: Array, want: Array) -> float:
    """Largest absolute difference; 0 for equal NaNs, infinity where only one is NaN."""
    if got.dtype.kind == "f":
        delta = np.abs(got.astype(np.float64) - want.astype(np.float64))
        same = np.isnan(got) & np.isnan(want) | (got == want)
        return float(np.nan_to_num(np.where(same, 0.0, delta), nan=np.inf, posinf=np.inf).max(initial=0.0))
    return float(np.abs(got.astype(np.int64) - want.astype(np.int64)).max(initial=0))


def run(backend: Backend, loaded: Loaded, body: dict[str, Any]) -> dict[str, Any]:
    """Run the golden cases of `body`: cases [{inputs, outputs: {name: path}}], tolerance (LSB or absolute).

    Ends with warm-up runs on zeros, or on ones where zeros are not input that the graph runs on. No run leaves a trace
    in the model's state: each begins anew, as a request's does.
    Returns {"cases", "worst", "infer_ns"} (0 = nothing could be run).
    Raises InvalidModel when a case differs or no warm-up runs.
    """
    tolerance = float(body["tolerance"])
    worst = 0.0
    infer_ns: list[int] = []
    seen: list[tuple[bytes, bytes]] = []
    for number, case in enumerate(body["cases"]):
        given = _given(loaded, case, number)
        phases, produced = run_once(backend, loaded, given)
        infer_ns.append(phases.infer_ns)
        worst = max(worst, _compare(loaded, case, number, produced, tolerance))
        seen.append((b"".join(a.tobytes() for a in given), b"".join(a.tobytes() for a in produced)))
    if len({i for i, _ in seen}) > 1 and len({o for _, o in seen}) == 1:
        raise errors.InvalidModel(f"self-test failed: the output is the same for {len(seen)} different golden inputs")
    infer_ns += _warm_up(backend, loaded)
    return {"cases": len(seen), "worst": worst, "infer_ns": min(infer_ns, default=0)}


def _named(specs: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    """By the names that clients use and those that the file has: golden files may have been made before a renaming."""
    return {n: s for s in specs for n in (s.alias, s.name) if n}


def _given(loaded: Loaded, case: dict[str, Any], number: int) -> list[Array]:
    inputs, outputs = _named(loaded.inputs), _named(loaded.outputs)
    unknown = [n for n in case["inputs"] if n not in inputs] + [n for n in case["outputs"] if n not in outputs]
    if unknown:
        raise errors.InvalidModel(f"golden case {number} names unknown tensor {unknown[0]!r}")
    given = []
    for spec in loaded.inputs:
        path = case["inputs"].get(spec.name) or case["inputs"].get(spec.alias)
        if path is None:
            raise errors.InvalidModel(f"golden case {number} has no value for input {spec.name!r}")
        given.append(_read(path, spec))
    return given


def _compare(loaded: Loaded, case: dict[str, Any], number: int, produced: list[Array], tolerance: float) -> float:
    """Largest difference of a golden case; InvalidModel above `tolerance`."""
    worst = 0.0
    for spec, got in zip(loaded.outputs, produced, strict=True):
        path = case["outputs"].get(spec.name) or case["outputs"].get(spec.alias)
        if path is None:
            continue
        want = _read(path, spec)
        far = difference(got, want) if got.shape == want.shape else float("inf")
        worst = max(worst, far)
        if far > tolerance:
            raise errors.InvalidModel(
                f"self-test failed: golden case {number}, output {spec.name!r} differs by {far:g} "
                f"(allowed {tolerance:g}); the runtime computes something else than the one of the golden files"
            )
    return worst


def _warm_up(backend: Backend, loaded: Loaded) -> list[int]:
    failure: errors.InvalidModel | None = None
    for value in (0, 1):
        example = [_example(spec.one, value) for spec in loaded.inputs]
        try:
            return [run_once(backend, loaded, example)[0].infer_ns for _ in range(WARM_UPS)]
        except (errors.InvalidModel, errors.InvalidRequest) as error:
            if not loaded.noted and value == 0 and isinstance(error, errors.InvalidRequest):
                raise
            failure = failure or errors.InvalidModel(str(error))
    if any(spec.datatype in _ARBITRARY for spec in loaded.inputs):
        return []  # sizes, positions, texts: only those who know the model have such that go together
    raise errors.InvalidModel(f"the model runs neither on zeros nor on ones: {failure}")


def _example(spec: TensorSpec, value: int) -> Array:
    if spec.datatype == "BYTES":
        return np.full(spec.shape, str(value).encode() if value else b"", dtype=object)
    return np.full(spec.shape, value, NUMPY[spec.datatype])


def run_once(backend: Backend, loaded: Loaded, inputs: list[Array]) -> tuple[Phases, list[Array]]:
    """One inference outside any slot and any sequence."""
    if loaded.noted and not loaded.loops:
        return opened(backend).infer_open(loaded.key, inputs, ALONE)
    outputs = [np.zeros(s.one.shape, NUMPY[s.datatype]) for s in loaded.outputs]
    return backend.infer(loaded.key, inputs, outputs), outputs
