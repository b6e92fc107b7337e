"""`edgeai model freeze`: a checkpoint of TensorFlow 1 becomes the small graph that the NCSDK's guide describes.

Variables become constants; what only training needs is cut off; dropout is taken out; the placeholder gets a fixed
batch; first and last node get the names that the compiler is asked for. The result is compared with the graph before.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import InvalidModel, InvalidRequest, NotFound
from ...formats.exchange import tensorflow
from ..files import load
from .conversion import RUNS
from .quantize import LogLine, run_child


@dataclass(frozen=True, slots=True)
class Job:
    """What to do."""

    #: .meta with its checkpoint beside it, or .pb.
    model: Path
    output: Path
    input_node: str
    output_node: str
    #: Of the input, with batch; () = as the graph says, with batch 1.
    shape: tuple[int, ...] = ()
    #: New names, "" = as they are.
    first: str = "input"
    last: str = "output"


@dataclass(frozen=True, slots=True)
class Frozen:
    """What came out."""

    output: Path
    #: Nodes before and after.
    before: int
    after: int
    #: Names of the dropouts that were taken out, operator types that are gone, and placeholders that became constants.
    dropout: tuple[str, ...]
    removed: tuple[str, ...]
    values: dict[str, Any]
    shape: tuple[int, ...]
    #: Largest difference by the range; None where the dropout's rate was constant, so that there is nothing to compare.
    error: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "output": self.output.name}


def freeze(job: Job, say: LogLine = lambda _: None) -> Frozen:
    """Freeze and compare. Raises NotFound, InvalidRequest, and InvalidModel when TensorFlow refuses the graph."""
    if not job.model.is_file():
        raise NotFound(f"{job.model}: there is no such file")
    if job.model.suffix == ".meta":
        if not job.model.with_suffix(".index").is_file():
            raise NotFound(f"{job.model.with_suffix('.index')} is missing: a checkpoint is .meta, .index and .data-...")
        graph = tensorflow.read_meta(load(job.model)).graph
    elif job.model.suffix == ".pb":
        graph = tensorflow.read_graphdef(load(job.model))
    else:
        raise InvalidModel(f"{job.model} is neither a .meta with its checkpoint nor a .pb")
    shape = job.shape or _shape(graph, job.input_node)
    say("TensorFlow freezes the graph and compares it with what it was")
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "model": str(job.model.resolve()), "inputs": [job.input_node], "outputs": [job.output_node],
            "names": [job.first, job.last], "shape": list(shape), "frozen": str(job.output.resolve()), "count": RUNS,
            "seed": 0,
        }  # fmt: skip
        answer = run_child("tensorflow", "tf_freeze", request, Path(name), say)
    before, after = answer["nodes"]
    return Frozen(
        job.output, before, after, tuple(answer["dropout"]), tuple(answer["removed"]), answer["frozen_values"],
        tuple(shape), answer["error"],
    )  # fmt: skip


def _shape(graph: tensorflow.GraphDef, name: str) -> tuple[int, ...]:
    spec = next((s for s in graph.inputs if s.name == name), None)
    if spec is None:
        known = ", ".join(s.name for s in graph.inputs) or "none"
        raise InvalidRequest(
            f"the graph has no placeholder {name!r} (there are: {known}); give --shape for another node"
        )
    fixed = (1, *spec.shape[1:]) if spec.shape else ()
    if not fixed or any(d < 1 for d in fixed):
        raise InvalidRequest(f"{name} is {list(spec.shape)}: give its shape with --shape 1,28,28,1")
    return fixed
