"""A loaded TFLite model: its tensors as clients see them, the state that it keeps, and its runs.

A model with variables answers each request as a fresh interpreter would: variable tensors are set back, resources get
a new interpreter. A sequence has an interpreter of its own from its first request to its last.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from ...errors import EdgeaiError, InvalidModel, InvalidRequest, Unavailable
from ...formats.tflite import entry
from ...formats.tflite.entry import State
from ...formats.tflite.model import TfliteModel as Contents
from ...tensors import FROM_NUMPY, Quantization, TensorSpec, Turn, elements, nbytes
from ..base import Array, ModelIO, Phases
from .graph import Graph, Shape
from .interpreter import shapes_option

#: Sequences of one model that may be open at once: each has an interpreter of its own.
MAX_SEQUENCES: Final = 32
#: A sequence that is not continued for so long may be replaced by a new one.
IDLE_SECONDS: Final = 60.0
#: Requests that a dynamic first dimension takes at once, unless the manifest says otherwise.
BATCH: Final = 8
#: Bytes kept for a tensor of unknown size, and at least for one of known element count.
UNKNOWN_ROOM: Final = 4 << 20
LEAST_ROOM: Final = 1 << 20
MAX_ROOM: Final = 256 << 20
#: What variable dimensions other than the batch are tried with when the model does not run with 1.
_SIZES: Final = (1, 32, 224)


@dataclass(frozen=True, slots=True)
class Options:
    """What the manifest says about the model's tensors."""

    #: Input name -> fixed shape.
    shapes: Mapping[str, Sequence[int]]
    #: Requests in one batch, 0 = not said.
    batch: int = 0
    #: Bytes kept for each tensor whose size varies, 0 = not said.
    room: int = 0


def options_of(table: Mapping[str, Any]) -> Options:
    """From an artifact's table. InvalidModel names the option and what it may be."""
    room = table.get("room", 0)
    if not isinstance(room, int) or isinstance(room, bool) or not 0 <= room <= MAX_ROOM:
        raise InvalidModel(f"option room = {room!r} is not a whole number of bytes up to {MAX_ROOM}")
    batch = table.get("max_batch_size", 0)
    return Options(shapes_option(table), batch if isinstance(batch, int) else 0, room)


class TfliteModel:
    """One model on one device."""

    def __init__(
        self,
        opener: Callable[[], Any],
        contents: Contents | None,
        options: Options,
        failure: type[EdgeaiError],
        *,
        resizable: bool = True,
    ) -> None:
        """`opener` makes a fresh interpreter. `contents` = the file as read, None = names are the interpreter's own.

        `failure` is raised when a later invoke goes wrong. `resizable` is False where a delegate fixes the shapes.
        Raises InvalidModel when tensors cannot be allocated or an option does not fit.
        """
        self._opener = opener
        self._failure = failure
        self.state = entry.state_of(contents) if contents is not None else State.NONE
        first = opener()
        details = [first.get_input_details(), first.get_output_details()]
        names = (entry.input_names(contents), entry.output_names(contents)) if contents is not None else None
        raw = [[str(d["name"]) for d in side] for side in details]
        chosen = names or (entry.unique(raw[0], "input"), entry.unique(raw[1], "output"))
        inputs = [_spec(d, n, raw) for d, n, raw in zip(details[0], chosen[0], raw[0], strict=True)]
        fixed = _fixed_shapes(inputs, options.shapes)
        signatures = [_signature(d, fixed.get(i)) for i, d in enumerate(details[0])]
        #: Whether the file means its first dimension to be the batch.
        self.batched = bool(signatures) and all(len(s) > 1 and s[0] == -1 for s in signatures)
        self._start: dict[int, Shape] = {}
        self._graph = self._first(first, signatures, fixed)
        if not resizable:
            signatures = list(self._graph.shapes)
        grown = self._grown(signatures) if any(-1 in s for s in signatures) else None
        if grown is None:
            signatures = list(self._graph.shapes)
        batch = options.batch or BATCH
        self.inputs = tuple(
            _with_room(replace(spec, shape=signature), shape, batch if self.batched else BATCH, options.room)
            for spec, signature, shape in zip(inputs, signatures, self._graph.shapes, strict=True)
        )
        shapes = self._output_shapes(grown)
        self.outputs = tuple(
            _with_room(replace(_spec(d, n, r), shape=shape), None if unknown else now, batch, options.room)
            for d, n, r, (shape, now, unknown) in zip(details[1], chosen[1], raw[1], shapes, strict=True)
        )
        self._open: OrderedDict[int, tuple[Graph, float]] = OrderedDict()

    # --- what it is -------------------------------------------------------------------------------------------------

    def _first(self, interpreter: Any, signatures: list[Shape], fixed: Mapping[int, Shape]) -> Graph:
        """The graph with 1 for variable dimensions; where it does not run with that, with the first size that does."""
        failure: InvalidModel | None = None
        for size in _SIZES:
            start = dict(fixed)
            for position, signature in enumerate(signatures):
                if -1 in signature:
                    first = 1 if self.batched else size
                    sizes = (first, *(size,) * (len(signature) - 1))
                    start[position] = tuple(s if d < 0 else d for d, s in zip(signature, sizes, strict=True))
            try:
                graph = Graph(interpreter, start, self._failure)
            except InvalidModel as error:
                failure = failure or error
                if not any(-1 in s[1 if self.batched else 0 :] for s in signatures):
                    break
                interpreter = self._opener()
                continue
            self._start = start
            return graph
        raise failure or InvalidModel("the model has no inputs that can be allocated")

    def _grown(self, signatures: list[Shape]) -> Graph | None:
        """The graph with other sizes in its variable dimensions, None when it does not take them."""
        shapes = {
            position: tuple(2 * now if d < 0 else now for d, now in zip(signature, shape, strict=True))
            for position, (signature, shape) in enumerate(zip(signatures, self._graph.shapes, strict=True))
        }
        try:
            graph = Graph(self._opener(), shapes, self._failure)
            if not all(graph.known(p) for p in range(len(graph.outputs))):
                graph.run([filled(s, i) for s, i in zip(graph.shapes, self._dtypes(), strict=True)], None)
        except EdgeaiError:
            return None
        return graph

    def _dtypes(self) -> list[Any]:
        return [d["dtype"] for d in self._graph.interpreter.get_input_details()]

    def _output_shapes(self, grown: Graph | None) -> list[tuple[Shape, Shape, bool]]:
        """Of each output: shape with -1 where it varies, shape now, whether only a run shows its size."""
        graph = self._graph
        unknown = [not graph.known(p) for p in range(len(graph.outputs))]
        details = self._graph.interpreter.get_output_details()
        before = [tuple(int(d) for d in detail["shape"]) for detail in details]
        measured = self._measured() if any(unknown) else None
        other = [tuple(int(d) for d in o["shape"]) for o in grown.interpreter.get_output_details()] if grown else before
        shapes = []
        for position, now in enumerate(before):
            if unknown[position]:
                # One run shows only how many dimensions there are; of texts the file's shape holds as well.
                run = measured[position] if measured is not None else (-1,) * max(1, len(now))
                texts = np.dtype(details[position]["dtype"]).kind in "SUO"
                shapes.append((now if texts and run == now and grown is None else (-1,) * len(run), now, True))
            elif len(other[position]) != len(now):
                shapes.append(((-1,) * len(now), now, True))
            else:
                both = zip(now, other[position], strict=True)
                shapes.append((tuple(a if a == b else -1 for a, b in both), now, False))
        return shapes

    def _measured(self) -> list[Shape] | None:
        """Shapes of the outputs of a run on an example, None when it does not run on any."""
        for value in (0, 1):
            graph = Graph(self._opener(), self._start, self._failure)
            example = [filled(s, d, value) for s, d in zip(graph.shapes, self._dtypes(), strict=True)]
            try:
                return [tuple(a.shape) for a in graph.run(example, None)[1]]
            except EdgeaiError:
                continue
        return None

    def operators(self) -> tuple[str, ...]:
        """Operator names in execution order, delegated parts as DELEGATE."""
        return tuple(str(op["op_name"]) for op in self._graph.interpreter._get_ops_details())

    def io(self, facts: Mapping[str, Any]) -> ModelIO:
        """What Backend.load returns."""
        return ModelIO(self.inputs, self.outputs, facts, state=str(self.state), batched=self.batched)

    # --- runs -------------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """One inference of fixed shapes; errors as Backend.infer."""
        return (self._graph if not self.state else self._fresh()).run(inputs, outputs)[0]

    def run_open(self, inputs: Sequence[Array], turn: Turn) -> tuple[Phases, list[Array]]:
        """One inference on inputs of any shape that the specs take, in a sequence where the request names one."""
        graph = self._of(turn) if self.state and turn.number else self._fresh()
        try:
            graph.fit(tuple(tuple(a.shape) for a in inputs))
        except InvalidModel as error:
            self._graph = Graph(self._opener(), self._start, self._failure)
            shapes = ", ".join(str(list(a.shape)) for a in inputs)
            raise InvalidRequest(f"the model cannot run on inputs of shape {shapes}: {error}") from None
        return graph.run(inputs, None)

    def _fresh(self) -> Graph:
        """A graph that behaves as if nothing had run in it."""
        if self.state == State.VARIABLES:
            self._graph.reset()
        elif self.state == State.RESOURCES and self._graph.used:
            self._graph = Graph(self._opener(), self._start, self._failure)
        return self._graph

    def _of(self, turn: Turn) -> Graph:
        number, now = turn.number, time.monotonic()
        if turn.start:
            self._open.pop(number, None)
            if len(self._open) >= MAX_SEQUENCES:
                oldest, (_, last) = next(iter(self._open.items()))
                if now - last < IDLE_SECONDS:
                    raise Unavailable(f"{MAX_SEQUENCES} sequences of this model are open, the limit; end one, or wait")
                del self._open[oldest]
            graph = Graph(self._opener(), self._start, self._failure)
        else:
            known = self._open.pop(number, None)
            if known is None:
                raise InvalidRequest("the sequence is not known here any more; begin it again with sequence_start")
            graph = known[0]
        if not turn.end:
            self._open[number] = (graph, now)
        return graph


def filled(shape: Shape, dtype: Any, value: int = 0) -> Array:
    """An example of an input: all zeros, or all `value`."""
    if np.dtype(dtype).kind in "SUO":
        return np.full(shape, str(value).encode() if value else b"", dtype=object)
    return np.full(shape, value, dtype=dtype)


def _spec(details: Mapping[str, Any], name: str, own: str) -> TensorSpec:
    """TensorSpec of one entry of get_input_details/get_output_details; InvalidModel for types without a name in OIP."""
    dtype = np.dtype(details["dtype"])
    # ml_dtypes' bfloat16 has a name too, but none that FROM_NUMPY knows.
    datatype = "BYTES" if dtype.kind in "SUO" else FROM_NUMPY.get(dtype.name)
    if datatype is None:
        raise InvalidModel(
            f"tensor {name!r} has element type {dtype.name}, which the Open Inference Protocol has no name for"
        )
    parameters = details["quantization_parameters"]
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    quantization = None
    if len(scales):
        # Compressed zero points (a LiteRT option and some exporters): one entry for all channels.
        points = tuple(int(z) for z in zero_points) or (0,)
        if len(points) != len(scales):
            points = points[:1] * len(scales)
        quantization = Quantization(tuple(float(s) for s in scales), points, int(parameters["quantized_dimension"]))
    shape = tuple(int(d) for d in details["shape"])
    return TensorSpec(name, datatype, shape, quantization, alias=own if own != name else "")


def _signature(details: Mapping[str, Any], fixed: Shape | None) -> Shape:
    """Shape with -1 where it is variable."""
    shape = tuple(int(d) for d in details["shape"])
    signature = tuple(int(d) for d in details["shape_signature"])
    return fixed or (signature if len(signature) == len(shape) else shape)


def _with_room(spec: TensorSpec, now: Shape | None, batch: int, room: int) -> TensorSpec:
    """`spec` with the bytes that it needs where its size varies. `now` = its shape at the moment, None = unknown."""
    if spec.datatype == "BYTES":
        return replace(spec, room=room or LEAST_ROOM)
    if -1 not in spec.shape:
        return spec
    if now is None:
        return replace(spec, room=room or UNKNOWN_ROOM)
    elements(now)
    return replace(spec, room=room or max(LEAST_ROOM, batch * nbytes(spec.datatype, now)))


def _fixed_shapes(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> dict[int, Shape]:
    """The option `shapes` by position; InvalidModel when it does not fit."""
    position = {n: i for i, s in enumerate(inputs) for n in (s.alias, s.name) if n}
    fixed = {}
    for name, shape in shapes.items():
        if name not in position:
            names = ", ".join(s.name for s in inputs)
            raise InvalidModel(f"option shapes names input {name!r}; the model's inputs are: {names}")
        if not all(isinstance(d, int) and d > 0 for d in shape):
            raise InvalidModel(f"option shapes: {name!r} = {list(shape)} must be positive whole numbers")
        fixed[position[name]] = tuple(shape)
    return fixed
