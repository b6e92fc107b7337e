"""A TensorFlow SavedModel through full TensorFlow, when that is installed. Slow to import (seconds) and large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from ...errors import InvalidModel, InvalidRequest, Unsupported
from ...tensors import FROM_NUMPY, TensorSpec
from ..base import Array, ModelIO, Phases


class SavedModel:
    """The signature `serving_default` (or the only one) of a SavedModel."""

    def __init__(self, artifact: Path, shapes: Mapping[str, Sequence[int]]) -> None:
        """Load; unknown dimensions become 1 unless `shapes` says otherwise. Raises Unsupported without TensorFlow."""
        directory = artifact if artifact.is_dir() else artifact.parent
        if not (directory / "saved_model.pb").is_file():
            raise InvalidModel(f"{artifact.name} is not a SavedModel: there is no saved_model.pb in that directory")
        try:
            import tensorflow as tf
        except ImportError as error:
            raise Unsupported(
                f"{directory.name} is a TensorFlow SavedModel and full TensorFlow is not installed ({error}); convert "
                "it to .tflite, or add tensorflow (pip) or python3-tensorflow (image feature tensorflow)"
            ) from None
        self._tf = tf
        try:
            # The object owns the variables: without it the signature would point at freed memory.
            self._loaded = tf.saved_model.load(str(directory))
            signatures = self._loaded.signatures
            name = "serving_default" if "serving_default" in signatures else next(iter(signatures))
            self._function = signatures[name]
        except (OSError, ValueError, StopIteration, tf.errors.OpError) as error:
            raise InvalidModel(
                f"SavedModel {directory.name} cannot be loaded: {error or 'it has no signature'}"
            ) from None
        self._signature = name
        self.inputs = tuple(
            _spec(key, tensor, shapes) for key, tensor in sorted(self._function.structured_input_signature[1].items())
        )
        # Output sizes follow from input sizes only by running.
        zeros = {spec.name: tf.zeros(spec.shape, _dtype(tf, spec)) for spec in self.inputs}
        results = self._function(**zeros)
        self.outputs = tuple(
            TensorSpec(key, _datatype(key, value.dtype), tuple(int(d) for d in value.shape))
            for key, value in sorted(results.items())
        )

    def io(self) -> ModelIO:
        """What Backend.load returns."""
        facts = {"family": "tensorflow", "runtime": f"tensorflow {self._tf.__version__}", "signature": self._signature}
        return ModelIO(self.inputs, self.outputs, facts)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """One inference; errors as Backend.infer."""
        start = perf_counter_ns()
        arguments = {s.name: self._tf.constant(a) for s, a in zip(self.inputs, inputs, strict=True)}
        filled = perf_counter_ns()
        try:
            results = self._function(**arguments)
        except (ValueError, self._tf.errors.OpError) as error:
            raise InvalidModel(f"inference failed: {error}") from None
        done = perf_counter_ns()
        for spec, array in zip(self.outputs, outputs, strict=True):
            value = results[spec.name].numpy()
            if value.shape != array.shape:
                raise InvalidRequest(f"output {spec.name!r} came out as {value.shape} instead of {array.shape}")
            np.copyto(array, value, casting="no")
        return Phases(filled - start, done - filled, perf_counter_ns() - done)


def _datatype(name: str, dtype: Any) -> str:
    datatype = FROM_NUMPY.get(np.dtype(dtype.as_numpy_dtype).name)
    if datatype is None:
        raise InvalidModel(f"tensor {name!r} has element type {dtype.name}, which cannot be served")
    return datatype


def _dtype(tf: Any, spec: TensorSpec) -> Any:
    from ...tensors import NUMPY

    return tf.as_dtype(NUMPY[spec.datatype])


def _spec(name: str, tensor: Any, shapes: Mapping[str, Sequence[int]]) -> TensorSpec:
    if tensor.shape.rank is None and name not in shapes:
        raise InvalidModel(f"input {name!r} has no known rank; set option shapes")
    shape = shapes.get(name) or [1 if d is None else d for d in tensor.shape.as_list()]
    if not tensor.shape.is_compatible_with(list(shape)):
        raise InvalidModel(f"input {name!r} of shape {tensor.shape} cannot become {list(shape)}")
    return TensorSpec(name, _datatype(name, tensor.dtype), tuple(int(d) for d in shape))
