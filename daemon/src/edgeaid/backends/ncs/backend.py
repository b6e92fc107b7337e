"""Intel Movidius Neural Compute Stick (Myriad 2) through libmvnc of NCSDK 2 or NCSDK 1.

Device names: "" (the first that opens), a number, or the library's own name such as "1.2-ma2450".
Options of `open`: `library` (file of libmvnc; default EDGEAI_MVNC_LIBRARY, else libmvnc.so.0).
Options of an artifact:
    datatype       "FP32" (default; converted here) or "FP16" (what the stick computes in)
    input, output  names of the two tensors, which graph files do not keep; default "input" and "output"
    shapes         { "input" = [1, 3, 28, 38] }: another shape with as many elements as the graph has
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DeviceError, InvalidModel, InvalidRequest, NotFound
from ...tensors import TensorSpec
from ..base import Array, DeviceFacts, ModelIO, Phases
from ..tflite import interpreter as _tflite
from . import mvnc as _mvnc

if TYPE_CHECKING:
    from ...formats.ncs.reader import NcsGraph


@dataclass(frozen=True, slots=True)
class _Graph:
    """A loaded graph's buffers, flat and FP16 as the stick has them."""

    input: Array
    output: Array


class NcsBackend:
    """Backend for target `ncs`; one object holds one stick."""

    def __init__(self) -> None:
        self._stick: _mvnc.Stick | None = None
        self._graphs: dict[str, _Graph] = {}

    def open(self, device: str, options: Mapping[str, Any]) -> DeviceFacts:
        """Boot and open a stick (2 to 5 s).

        Raises Unsupported without library or firmware, DeviceError without a stick that opens.
        """
        self.close()
        library = _mvnc.load_library(str(options.get("library") or os.environ.get("EDGEAI_MVNC_LIBRARY") or ""))
        kind = _mvnc.StickV1 if library.generation == 1 else _mvnc.StickV2
        names = kind.names(library)
        fits = [n for i, n in enumerate(names) if device in {"", n, str(i)}]
        if not fits:
            wanted = f"Neural Compute Stick {device!r}" if device else "Neural Compute Stick"
            raise DeviceError(f"no {wanted} is present (seen: {', '.join(names) or 'none'}); plug one in")
        failure: DeviceError | None = None
        for name in fits:
            _mvnc.require_firmware(library, name)
            try:
                self._stick = kind(library, name)
                break
            except DeviceError as error:
                failure = failure or error
        if self._stick is None:
            raise failure or DeviceError("the Neural Compute Stick went away while it was being opened")
        facts = {"library": str(library.path), "api": library.generation, "stick": name, **self._stick.facts()}
        runtime = f"libmvnc (NCSDK {library.generation})"
        return DeviceFacts(runtime, f"Neural Compute Stick {name}", {**facts, **self._stick.health()})

    def load(self, key: str, artifact: Path, options: Mapping[str, Any]) -> ModelIO:
        """Check a graph file, send it to the stick, and describe its one input and one output.

        Raises InvalidModel before the library sees a file that it would read out of bounds.
        """
        from ...formats.finding import REFUSED
        from ...formats.ncs import reader as ncs

        if self._stick is None:
            raise InvalidRequest("open the ncs backend before loading a model")
        graph = _tflite.read_file(artifact, ncs.read)
        for finding in ncs.check(graph):
            if finding.severity == REFUSED:
                raise InvalidModel(f"{artifact.name}: {finding.text}")
        if graph.generation != self._stick.generation:
            raise InvalidModel(
                f"{artifact.name} was compiled by NCSDK {graph.generation}, the library here is of NCSDK "
                f"{self._stick.generation}; the two cannot read each other's graphs: compile it with the other one"
            )
        sizes = self._stick.load(key, artifact.read_bytes())
        shape_in = sizes.input or _hwc(graph.inputs[0].shape)
        shape_out = sizes.output or _output_of(graph)
        datatype = _datatype(options)
        spec_in = _spec(options, "input", datatype, shape_in)
        spec_out = _spec(options, "output", datatype, shape_out)
        self._graphs[key] = _Graph(
            np.zeros(math.prod(shape_in), np.float16), np.zeros(math.prod(shape_out), np.float16)
        )
        facts = {
            "generation": graph.generation,
            "stages": graph.stage_count,
            # What travels when the stick can hold one graph only and must change it.
            "switch_bytes": graph.size if self._stick.generation == 1 else 0,
        }
        return ModelIO((spec_in,), (spec_out,), facts)

    def infer(self, key: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """Convert, run, convert back. Any status but OK is a DeviceError, after which this object is of no more use."""
        graph = self._graphs.get(key)
        if graph is None or self._stick is None:
            raise NotFound(f"model {key!r} is not loaded on the stick")
        start = perf_counter_ns()
        with np.errstate(over="ignore"):  # values beyond 65504 become infinite, as on the stick
            graph.input[...] = inputs[0].reshape(-1)
        filled = perf_counter_ns()
        self._stick.infer(key, graph.input, graph.output)
        done = perf_counter_ns()
        outputs[0][...] = graph.output.reshape(outputs[0].shape)
        return Phases(filled - start, done - filled, perf_counter_ns() - done)

    def health(self) -> Mapping[str, Any]:
        """Temperature (hottest sensor, Celsius) and throttling of the last inference."""
        return self._stick.health() if self._stick is not None else {}

    def unload(self, key: str) -> None:
        """Free the graph on the stick."""
        if self._graphs.pop(key, None) is not None and self._stick is not None:
            self._stick.unload(key)

    def close(self) -> None:
        """Reset the stick (0.5 to 1 s), unless an error has made touching the library dangerous."""
        self._graphs.clear()
        stick, self._stick = self._stick, None
        if stick is not None:
            stick.close()


def create() -> NcsBackend:
    """A closed backend."""
    return NcsBackend()


def _hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    padded = (1, 1, 1, *shape)[-3:]
    return padded[0], padded[1], padded[2]


def _output_of(graph: NcsGraph) -> tuple[int, int, int]:
    """Height, width, channels of a v1 graph's result.

    What lies between two pixels of the last stage counts as channels: networks that end in a concatenation (face
    detection cascades) have the other branch there.
    """
    if not graph.stages:
        return 1, 1, graph.output_elements
    width, height, _ = graph.stages[-1].output
    return height, width, graph.stages[-1].output_stride // 2


def _datatype(options: Mapping[str, Any]) -> str:
    datatype = options.get("datatype", "FP32")
    if datatype not in {"FP32", "FP16"}:
        raise InvalidModel(f"option datatype = {datatype!r}: the stick's tensors are served as FP32 or FP16")
    return str(datatype)


def _spec(options: Mapping[str, Any], side: str, datatype: str, hwc: tuple[int, int, int]) -> TensorSpec:
    """The tensor as clients see it: [1, channels] for a vector, else [1, height, width, channels]."""
    name = str(options.get(side, side))
    shape: tuple[int, ...] = (1, hwc[2]) if hwc[:2] == (1, 1) else (1, *hwc)
    wanted = _tflite.shapes_option(options).get(name)
    if wanted is not None:
        if math.prod(wanted) != math.prod(hwc):
            raise InvalidModel(f"option shapes: {name!r} = {list(wanted)}, but the graph has {math.prod(hwc)} values")
        shape = tuple(int(d) for d in wanted)
    return TensorSpec(name, datatype, shape)
