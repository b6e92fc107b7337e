"""Requests whose tensors vary in size: batches, texts, outputs whose shape follows from the data; and sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

import numpy as np

from ..backends.base import Array, Backend, ModelIO, OpenBackend, Phases
from ..errors import InvalidModel, InvalidRequest, TooLarge
from ..tensors import NUMPY, TensorSpec
from . import note
from .loaded import Loaded
from .note import Form

#: Requests in one batch where the file takes batches and the manifest does not say how large.
DEFAULT_BATCH: Final = 8


def served(key: str, io: ModelIO, batch: int, names: Mapping[str, str]) -> tuple[Loaded, int]:
    """A model as it is served, and how many requests one batch of it may have (0 = it takes none).

    `batch` and `names` (the file's name -> the client's) are the manifest's. InvalidModel when they do not fit.
    """
    inputs, outputs = renamed(io.inputs, io.outputs, names)
    loops = False
    variable = all(s.shape[:1] == (-1,) for s in (*inputs, *outputs))
    if batch and io.state:
        raise InvalidModel(
            f"model {key.partition('#')[0]!r} keeps state between runs, so its requests cannot be run as a batch; "
            "leave max_batch_size out"
        )
    if (batch or io.batched) and inputs and not variable and not io.state:
        loops = _loops(key, (*inputs, *outputs), must=bool(batch))
        if loops:
            inputs, outputs = (_widened(inputs, batch or DEFAULT_BATCH), _widened(outputs, batch or DEFAULT_BATCH))
    takes_batches = loops or ((io.batched or bool(batch)) and variable)
    noted = bool(io.state) or any(not s.fixed for s in (*inputs, *outputs))
    loaded = Loaded(key, inputs, outputs, noted=noted, loops=loops)
    return loaded, (batch or DEFAULT_BATCH) if takes_batches else 0


def _loops(key: str, specs: Sequence[TensorSpec], *, must: bool) -> bool:
    """Whether a batch can be run one after the other; InvalidModel where the manifest asks for what cannot be."""
    for spec in specs:
        if spec.shape[:1] != (1,) or not spec.fixed:
            if must:
                raise InvalidModel(
                    f"model {key.partition('#')[0]!r}: max_batch_size is set, but tensor {spec.name!r} has shape "
                    f"{list(spec.shape)}, whose first dimension is not a batch of 1; leave max_batch_size out"
                )
            return False
    return True


def _widened(specs: Sequence[TensorSpec], batch: int) -> tuple[TensorSpec, ...]:
    return tuple(replace(s, shape=(-1, *s.shape[1:]), room=max(1, batch * s.nbytes)) for s in specs)


def renamed(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], names: Mapping[str, str]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Tensors with the names that the manifest gives them. InvalidModel for a name that no tensor or two have."""
    known = {n for s in (*inputs, *outputs) for n in (s.name, s.alias) if n}
    if unknown := [n for n in names if n not in known]:
        raise InvalidModel(f"[names] renames {unknown[0]!r}; the model's tensors are: {', '.join(sorted(known))}")
    sides = []
    for specs in (inputs, outputs):
        side = []
        for spec in specs:
            name = names.get(spec.name) or names.get(spec.alias) or spec.name
            side.append(spec if name == spec.name else replace(spec, name=name, alias=spec.alias or spec.name))
        if len({s.name for s in side}) != len(side):
            raise InvalidModel(f"[names] gives one name to several tensors: {', '.join(s.name for s in side)}")
        sides.append(tuple(side))
    return sides[0], sides[1]


def opened(backend: Backend) -> OpenBackend:
    """The backend as one that takes inputs of variable size; only such a backend says that it has them."""
    return cast("OpenBackend", backend)


def inputs(loaded: Loaded, slot: int) -> list[Array]:
    """Inputs of a slot as its note says. BYTES tensors are object arrays of bytes."""
    region = loaded.attached
    return _arrays(region.notes[slot], 0, loaded.inputs, region.inputs[slot])


def outputs(loaded: Loaded, slot: int) -> list[Array]:
    """The same of its outputs; after a run only, which writes what they are like."""
    region = loaded.attached
    return _arrays(region.notes[slot], len(loaded.inputs), loaded.outputs, region.outputs[slot])


def _arrays(view: memoryview, first: int, specs: Sequence[TensorSpec], buffers: Sequence[memoryview]) -> list[Array]:
    pairs = enumerate(zip(specs, buffers, strict=True), first)
    return [_array(buffer, spec, note.read_form(view, position)) for position, (spec, buffer) in pairs]


def _array(buffer: memoryview, spec: TensorSpec, form: Form) -> Array:
    data = buffer[: form.nbytes]
    if spec.datatype == "BYTES":
        return texts(data, form.shape)
    return np.frombuffer(data, dtype=NUMPY[spec.datatype]).reshape(form.shape)


def texts(data: memoryview, shape: tuple[int, ...]) -> Array:
    """Elements with their lengths as an object array. InvalidRequest when they are not as many as the shape says."""
    items, offset = [], 0
    while offset + 4 <= len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        items.append(bytes(data[offset + 4 : offset + 4 + size]))
        offset += 4 + size
    result = np.empty(len(items), dtype=object)
    result[:] = items
    if offset != len(data) or len(items) != int(np.prod(shape, dtype=np.int64)):
        raise InvalidRequest(f"a BYTES tensor of shape {list(shape)} does not have {len(items)} elements")
    return result.reshape(shape)


def infer(backend: Backend, loaded: Loaded, slot: int) -> Phases:
    """One request of a slot with a note; sizes and shapes of the outputs are in the note afterwards."""
    region = loaded.attached
    view = region.notes[slot]
    given = inputs(loaded, slot)
    if loaded.loops:
        return _one_by_one(backend, loaded, slot, given)
    phases, made = opened(backend).infer_open(loaded.key, given, note.read_turn(view))
    for position, (spec, buffer, array) in enumerate(zip(loaded.outputs, region.outputs[slot], made, strict=True)):
        size = _put(buffer, spec, array)
        note.write_form(view, len(given) + position, Form(size, tuple(array.shape)))
    return phases


def _put(buffer: memoryview, spec: TensorSpec, array: Array) -> int:
    """Copy an output into its place; returns its bytes. TooLarge when it does not fit."""
    if spec.datatype == "BYTES":
        items = [i if isinstance(i, bytes) else str(i).encode() for i in array.reshape(-1)]
        data: bytes | memoryview = b"".join(len(i).to_bytes(4, "little") + i for i in items)
    else:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    if len(data) > len(buffer):
        raise TooLarge(
            f"output {spec.name!r} came out with {len(data)} bytes (shape {list(array.shape)}), {len(buffer)} are kept "
            "for it; set `room` in the artifact's table of model.toml"
        )
    buffer[: len(data)] = data
    return len(data)


def _one_by_one(backend: Backend, loaded: Loaded, slot: int, inputs: list[Array]) -> Phases:
    """A batch on a device that takes one request at a time."""
    region = loaded.attached
    batch = inputs[0].shape[0]
    outputs = []
    for position, (spec, buffer) in enumerate(zip(loaded.outputs, region.outputs[slot], strict=True)):
        shape = (batch, *spec.shape[1:])
        form = Form(batch * spec.one.nbytes, shape)
        note.write_form(region.notes[slot], len(inputs) + position, form)
        outputs.append(_array(buffer, spec, form))
    total = Phases(0, 0, 0)
    for row in range(batch):
        one = slice(row, row + 1)
        phases = backend.infer(loaded.key, [a[one] for a in inputs], [a[one] for a in outputs])
        total = Phases(*(a + b for a, b in zip(total, phases, strict=True)))
    return total
