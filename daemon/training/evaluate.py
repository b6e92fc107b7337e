"""How good a model is, measured on the quantised file through the same code that answers requests. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image
from synth import Scene, intersection_over_union

from edgeaid.models.rules import OutputRules, PictureRules
from edgeaid.tensors import FROM_NUMPY, NUMPY, Quantization, TensorSpec
from edgeaid.vision import postprocess, preprocess
from edgeaid.vision.results import Detections, Result

Array = npt.NDArray[Any]


class Runner:
    """One model file on the CPU, one thread; `reference` takes the slow kernels that define what is right."""

    def __init__(self, file: Path, *, reference: bool = False) -> None:
        kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        self._interpreter = Interpreter(model_path=str(file), num_threads=1, experimental_op_resolver_type=kernels)
        self._interpreter.allocate_tensors()
        (self._in,), (self._out,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.input, self.output = _spec(self._in), _spec(self._out)

    def run(self, tensor: Array) -> Array:
        """Stored values in, stored values out."""
        self._interpreter.set_tensor(self._in["index"], tensor)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._out["index"]))

    def ask(
        self,
        image: Image.Image,
        rules: PictureRules,
        output: OutputRules,
        labels: Sequence[str],
        *,
        threshold: float | None = None,
    ) -> Result:
        """A picture in, a decoded result out."""
        tensor = np.zeros(self.input.shape, NUMPY[self.input.datatype])
        placement = preprocess.place(image, self.input, rules, tensor)
        outputs = [self.run(tensor)]
        return postprocess.results(output, [self.output], outputs, labels, placement, threshold=threshold)


def _spec(detail: dict[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        detail["name"],
        FROM_NUMPY[np.dtype(detail["dtype"]).name],
        tuple(int(d) for d in detail["shape"]),
        Quantization((float(scale),), (int(zero_point),)),
    )


def mean_average_precision(
    answers: Sequence[Detections], truth: Sequence[Scene], classes: int = 10, overlap: float = 0.5
) -> float:
    """mAP: the area under the precision-recall curve (every point, precision made monotone), mean over the classes.

    A detection is right when its box overlaps an object of its class, not yet taken by a better
    one, by at least `overlap`.
    """
    values = []
    for wanted in range(classes):
        entries = [
            (o.score, picture, o.pixels)
            for picture, result in enumerate(answers)
            for o in result.objects
            if o.index == wanted
        ]
        objects = [[tuple(b) for b, d in zip(s.boxes, s.digits, strict=True) if d == wanted] for s in truth]
        total = sum(map(len, objects))
        if not total:
            continue
        taken: set[tuple[int, int]] = set()
        right = np.zeros(len(entries))
        for position, (_, picture, box) in enumerate(sorted(entries, key=lambda e: -e[0])):
            overlaps = [intersection_over_union(box, other) for other in objects[picture]]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] >= overlap and (picture, best) not in taken:
                taken.add((picture, best))
                right[position] = 1
        hits = np.cumsum(right)
        recall = np.concatenate([[0.0], hits / total])
        precision = np.concatenate([hits / np.arange(1, len(hits) + 1), [0.0]])
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        values.append(float(np.sum(np.diff(recall) * precision[: len(recall) - 1])))
    return float(np.mean(values))


def mean_intersection_over_union(answers: Sequence[Array], truth: Sequence[Array], classes: int) -> float:
    """mIoU over the classes that occur, counted over all pictures together; masks of equal shape, class numbers."""
    confusion = np.zeros((classes, classes), dtype=np.int64)
    for mask, expected in zip(answers, truth, strict=True):
        pairs = expected.astype(np.int64).reshape(-1) * classes + mask.reshape(-1)
        confusion += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    both = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return float(np.mean(both[union > 0] / union[union > 0]))
