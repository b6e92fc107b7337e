"""Self-test of a loaded model in its worker: golden inputs in, golden outputs compared.

A model whose outputs are the same for different golden inputs is refused too: that is what a broken conversion or a
failed parameter upload looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import errors
from ..tensors import NUMPY, TensorSpec

if TYPE_CHECKING:
    from ..backends.base import Array, Backend
    from .loaded import Loaded


#: The first run brings parameters to an accelerator, the second shows what a run costs once they are there.
WARM_UPS: Final = 2


def _read(path: str, spec: TensorSpec) -> Array:
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise errors.InvalidModel(f"golden file {path}: {error}") from error
    if data.dtype != np.dtype(NUMPY[spec.datatype]) or tuple(data.shape) != spec.shape:
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

    Ends with warm-up runs on zeros. Returns {"cases", "worst", "infer_ns"}; raises InvalidModel when a case differs.
    """
    inputs = {s.name: s for s in loaded.inputs}
    outputs = {s.name: s for s in loaded.outputs}
    produced = [np.zeros(s.shape, NUMPY[s.datatype]) for s in loaded.outputs]
    tolerance = float(body["tolerance"])
    worst = 0.0
    infer_ns: list[int] = []
    seen: list[tuple[bytes, bytes]] = []
    for number, case in enumerate(body["cases"]):
        unknown = [n for n in (*case["inputs"], *case["outputs"]) if n not in inputs and n not in outputs]
        if unknown:
            raise errors.InvalidModel(f"golden case {number} names unknown tensor {unknown[0]!r}")
        missing = inputs.keys() - case["inputs"].keys()
        if missing:
            raise errors.InvalidModel(f"golden case {number} has no value for input {sorted(missing)[0]!r}")
        given = [_read(case["inputs"][s.name], s) for s in loaded.inputs]
        for array in produced:
            array.fill(0)
        infer_ns.append(backend.infer(loaded.key, given, produced).infer_ns)
        for spec, got in zip(loaded.outputs, produced, strict=True):
            if spec.name not in case["outputs"]:
                continue
            far = difference(got, _read(case["outputs"][spec.name], spec))
            worst = max(worst, far)
            if far > tolerance:
                raise errors.InvalidModel(
                    f"self-test failed: golden case {number}, output {spec.name!r} differs by {far:g} "
                    f"(allowed {tolerance:g}); the runtime computes something else than the one of the golden files"
                )
        seen.append((b"".join(a.tobytes() for a in given), b"".join(a.tobytes() for a in produced)))
    if len({i for i, _ in seen}) > 1 and len({o for _, o in seen}) == 1:
        raise errors.InvalidModel(f"self-test failed: the output is the same for {len(seen)} different golden inputs")
    zeros = [np.zeros(s.shape, NUMPY[s.datatype]) for s in loaded.inputs]
    for _ in range(WARM_UPS):
        infer_ns.append(backend.infer(loaded.key, zeros, produced).infer_ns)
    return {"cases": len(seen), "worst": worst, "infer_ns": min(infer_ns)}
