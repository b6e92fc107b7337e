"""One interpreter with its tensors allocated, for one set of input shapes at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from ...errors import EdgeaiError, InvalidModel, InvalidRequest
from ..base import Array, Phases
from .interpreter import explain

Shape = tuple[int, ...]


class Graph:
    """The shortest way from arrays in to arrays out.

    Inputs are copied once (SetTensor's memcpy), outputs once. No view of the interpreter's memory survives a call:
    the runtime refuses to invoke while one exists.
    """

    def __init__(self, interpreter: Any, shapes: Mapping[int, Shape], failure: type[EdgeaiError]) -> None:
        """Allocate, with the inputs of `shapes` (position -> shape) resized. `failure` is what a bad invoke raises.

        Raises InvalidModel when tensors cannot be allocated.
        """
        self.interpreter = interpreter
        self._failure = failure
        self.indexes = tuple(int(d["index"]) for d in interpreter.get_input_details())
        self.outputs = tuple(int(d["index"]) for d in interpreter.get_output_details())
        self.shapes: tuple[Shape, ...] = ()
        self._resize(shapes)
        # The bound methods are looked up once: a microsecond per inference on a Pi.
        self._set: Callable[[int, Array], None] = interpreter.set_tensor
        self._invoke: Callable[[], None] = interpreter.invoke
        self._views: tuple[Callable[[], Array], ...] = tuple(interpreter.tensor(index) for index in self.outputs)
        #: True once it ran: variables may have other values than at the start.
        self.used = False

    def _resize(self, shapes: Mapping[int, Shape]) -> None:
        interpreter = self.interpreter
        details = interpreter.get_input_details()
        try:
            for position, shape in shapes.items():
                if tuple(int(d) for d in details[position]["shape"]) != shape:
                    interpreter.resize_tensor_input(self.indexes[position], list(shape), strict=False)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise InvalidModel(explain(str(error))) from None
        self.shapes = tuple(tuple(int(d) for d in i["shape"]) for i in interpreter.get_input_details())

    def fit(self, shapes: tuple[Shape, ...]) -> None:
        """Make the inputs have these shapes. InvalidModel when the graph cannot: it is of no use then."""
        if shapes != self.shapes:
            self.shapes = ()
            self._resize(dict(enumerate(shapes)))

    def reset(self) -> None:
        """Set variable tensors back to what they were before the first run."""
        if self.used:
            self.interpreter.reset_all_variables()

    def known(self, position: int) -> bool:
        """Whether the size of an output is known before a run."""
        if np.dtype(self.interpreter.get_output_details()[position]["dtype"]).kind in "SUO":
            return False  # the runtime crashes when it is asked for the memory of texts that are not there yet
        try:
            self._views[position]()
        except ValueError:  # no memory yet: its size follows from the data
            return False
        return True

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array] | None) -> tuple[Phases, list[Array]]:
        """One inference into `outputs`, or into new arrays where that is None."""
        start = perf_counter_ns()
        self.used = True
        try:
            for index, array in zip(self.indexes, inputs, strict=True):
                self._set(index, array)
            filled = perf_counter_ns()
            self._invoke()
            done = perf_counter_ns()
        except ValueError as error:  # SetTensor: wrong shape or dtype
            raise InvalidRequest(f"an input does not fit the model: {explain(str(error))}") from None
        except RuntimeError as error:
            raise self._failure(f"inference failed: {explain(str(error))}") from None
        made: list[Array] = []
        if outputs is None:
            made = [self._read(position) for position in range(len(self.outputs))]
        else:
            for view, array in zip(self._views, outputs, strict=True):
                _copy_out(view, array)
        return Phases(filled - start, done - filled, perf_counter_ns() - done), made

    def _read(self, position: int) -> Array:
        details = self.interpreter.get_output_details()[position]
        if 0 in details["shape"]:  # no memory to read from
            return np.empty(tuple(details["shape"]), dtype=details["dtype"])
        return np.asarray(self.interpreter.get_tensor(self.outputs[position]))


def _copy_out(view: Callable[[], Array], target: Array) -> None:
    """A function of its own so that the view dies here, even when an exception keeps the caller's frame alive."""
    data = view()
    if data.shape != target.shape:  # copyto would broadcast
        shape = list(data.shape)
        del data
        raise InvalidRequest(
            f"the model produced an output of shape {shape} for this input where {list(target.shape)} was expected"
        )
    np.copyto(target, data, casting="no")
