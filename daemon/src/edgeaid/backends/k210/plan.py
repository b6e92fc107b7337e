"""How a kmodel is put on a board: which tensors it has for clients, what the board needs. No I/O.

Options of an artifact (all optional):
    outputs       [[w, h, channels], ...]: shapes of a v4 model's outputs, which the file does not store
    layout        "nchw" (as the KPU has it) or "nhwc" (as TFLite has it): how clients see pictures and outputs
    input_name    name of the input tensor; default as in the file, input0
    output_names  names of the outputs; default output0, ...
    address       flash address of the model (from a kfpkg), instead of sending the file; a number or "0x500000"
    encoding      "auto" (compressed when that is much smaller), "raw", "zlib", "jpeg" (lossy)
    camera        true or { mirror, flip, interval_ms }: the board's camera feeds the model, which then has no inputs
    timeout_s     limit for one inference, default 10
    watchdog_ms   > 0: the board resets itself when the KPU takes longer than this
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel, Unsupported
from ...formats.finding import REFUSED
from ...formats.k210 import kmodel
from ...tensors import TensorSpec
from ..base import Array

RAW: Final = 0
JPEG: Final = 1
ZLIB: Final = 2
FLOATS: Final = 3
#: A list of floats lives in MicroPython's 512 KiB heap, 24 bytes an element.
MAX_FLOATS: Final = 4096
#: Bytes of general RAM when the board does not say what is free: 6 MiB less firmware and the Python heap.
USUAL_FREE: Final = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Camera:
    """The board's camera as the source."""

    mirror: bool = False
    flip: bool = False
    interval_ms: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """All that loading and running needs to know."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    #: Width, height, channels of the picture; 0, 0, n for n floats.
    size: tuple[int, int, int]
    #: Arguments (idx, w, h, ch) of KPU.set_outputs; empty for v3.
    set_outputs: tuple[tuple[int, int, int, int], ...]
    #: Bytes of each output on the wire.
    output_bytes: tuple[int, ...]
    channels_last: bool
    #: Bit i = output i is fetched.
    mask: int
    address: int | None
    encoding: str
    camera: Camera | None
    timeout: float
    watchdog_ms: int
    #: Bytes of the board's system heap: model, its memory, and the picture.
    need: int
    version: int


def plan(name: str, data: bytes, options: Mapping[str, Any], *, free: int = 0, v4: bool | None = True) -> Plan:
    """Read a kmodel and decide. `free` = bytes of the board's system heap (0 = unknown), `v4` = whether it takes v4.

    Raises InvalidModel for everything that cannot work on the board, with the reason.
    """
    try:
        model = kmodel.read(data)
    except Unsupported as error:
        raise InvalidModel(f"{name}: {error}") from None
    if model.version not in (3, 4):
        raise InvalidModel(
            f"{name} is a kmodel v{model.version}, MaixPy runs v3 and v4; compile it with ncc of nncase 0.2.0-beta4"
        )
    if model.version == 4 and not v4:
        raise InvalidModel(
            f"{name} is a kmodel v4, the board's firmware takes v3 only; flash MaixPy 0.5.1 or newer with v4 support"
        )
    if len(model.inputs) != 1 or not 1 <= len(model.outputs) <= 8:
        raise InvalidModel(f"{name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; MaixPy feeds one")
    layout = _one_of(name, options, "layout", ("nchw", "nhwc"))
    last = layout == "nhwc"
    source = model.inputs[0]
    size = _input_size(name, source)
    camera = _camera(name, options.get("camera"), size)
    shapes = _output_shapes(name, model, options.get("outputs"))
    picture = size[0] * size[1] * (2 + 3) if size[0] else 4 * size[2]
    need = model.ram_need + picture
    budget = free or USUAL_FREE
    for finding in kmodel.check(model, budget):
        if finding.severity == REFUSED:
            raise InvalidModel(f"{name}: {finding.text}")
    if need > budget:
        raise InvalidModel(
            f"{name} needs {need} bytes of the board's memory ({model.ram_need} for the model, {picture} for the "
            f"picture), {budget} are free; unload a model, use a smaller one or the minimum firmware"
        )
    timeout, watchdog = float(options.get("timeout_s", 10.0)), int(options.get("watchdog_ms", 0))
    if not 0 < timeout <= 600 or not 0 <= watchdog <= 60000:
        raise InvalidModel(f"{name}: timeout_s must be in (0, 600] and watchdog_ms in [0, 60000]")
    encoding = _one_of(name, options, "encoding", ("auto", "raw", "zlib", "jpeg"))
    if encoding == "jpeg" and not size[0]:
        raise InvalidModel(f"{name}: encoding 'jpeg' is for pictures; use auto, raw or zlib")
    w, h, c = size
    shape = source.shape if not w else (1, h, w, c) if last else (1, c, h, w)
    outputs = _outputs(name, model, options.get("output_names"), shapes, last)
    settings = []
    if model.version == 4:
        for i, (spec, dims) in enumerate(zip(model.outputs, shapes, strict=True)):
            settings.append((i, *(dims or flat(math.prod(spec.shape)))))
    return Plan(
        inputs=() if camera else (TensorSpec(str(options.get("input_name", source.name)), source.datatype, shape),),
        outputs=tuple(outputs),
        size=size,
        set_outputs=tuple(settings),
        output_bytes=tuple(spec.nbytes for spec in model.outputs),
        channels_last=last,
        mask=(1 << len(outputs)) - 1,
        address=_address(name, options.get("address")),
        encoding=encoding,
        camera=camera,
        timeout=timeout,
        watchdog_ms=watchdog,
        need=need,
        version=model.version,
    )


def _one_of(name: str, options: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    """A text option, the first of `known` by default."""
    value = str(options.get(key, known[0]))
    if value not in known:
        raise InvalidModel(f"{name}: {key} {value!r} is unknown; use {', '.join(known)}")
    return value


def _outputs(
    name: str, model: kmodel.Kmodel, given: Any, shapes: Sequence[tuple[int, int, int] | None], last: bool
) -> list[TensorSpec]:
    """Tensors of the answer: names from the manifest or the file, shapes [1, ...] where the manifest gives them."""
    names = given or [spec.name for spec in model.outputs]
    if len(names) != len(model.outputs):
        raise InvalidModel(f"{name}: {len(names)} output_names for {len(model.outputs)} outputs")
    outputs = []
    for text, spec, dims in zip(names, model.outputs, shapes, strict=True):
        if dims is None:
            outputs.append(TensorSpec(str(text), spec.datatype, (1, math.prod(spec.shape))))
        else:
            ow, oh, oc = dims
            outputs.append(TensorSpec(str(text), spec.datatype, (1, oh, ow, oc) if last else (1, oc, oh, ow)))
    return outputs


def flat(count: int) -> tuple[int, int, int]:
    """A w, h, 1 whose product is `count`, each at most 65535: for set_outputs where the real one is not known.

    Raises InvalidModel when there is none (a large prime).
    """
    for rows in range(-(-count // 65535), 65536):
        if count % rows == 0:
            return count // rows, rows, 1
    raise InvalidModel(f"an output of {count} elements has no default shape; give `outputs` in the manifest")


def encode_input(plan: Plan, value: Array) -> tuple[int, bytes]:
    """(encoding number, bytes) of one input for the wire; `value` has the shape and dtype of the plan's input."""
    if not plan.size[0]:
        return FLOATS, np.ascontiguousarray(value, dtype="<f4").tobytes()
    if plan.encoding == "jpeg":
        return JPEG, _jpeg(plan, value)
    planes = value[0].transpose(2, 0, 1) if plan.channels_last else value[0]
    raw = np.ascontiguousarray(planes).tobytes()
    if plan.encoding == "raw":
        return RAW, raw
    # A 4 KiB dictionary: the board's decompressor takes it from the same small heap.
    packer = zlib.compressobj(1, zlib.DEFLATED, 12)
    packed = packer.compress(raw) + packer.flush()
    return (ZLIB, packed) if plan.encoding == "zlib" or len(packed) < 0.6 * len(raw) else (RAW, raw)


def decode_outputs(plan: Plan, data: bytes | bytearray, outputs: tuple[Array, ...] | list[Array]) -> None:
    """Copy the concatenated outputs of the board into clients' arrays."""
    at = 0
    for spec, n, target in zip(plan.outputs, plan.output_bytes, outputs, strict=True):
        dtype = "<f4" if spec.datatype == "FP32" else "u1"
        values = np.frombuffer(data, dtype, count=n // (4 if dtype == "<f4" else 1), offset=at)
        if plan.channels_last and len(spec.shape) == 4:
            _, h, w, c = spec.shape
            target[0] = values.reshape(c, h, w).transpose(1, 2, 0)
        else:
            target[...] = values.reshape(spec.shape)
        at += n


def input_head(plan: Plan, encoding: int, data: bytes) -> bytes:
    """Payload of the INPUT frame."""
    w, h, c = plan.size
    return struct.pack("<IIBHHB", len(data), zlib.crc32(data), encoding, w, h, c if w else 0)


def _input_size(name: str, source: TensorSpec) -> tuple[int, int, int]:
    if source.datatype == "FP32":
        count = math.prod(source.shape)
        if count > MAX_FLOATS:
            raise InvalidModel(
                f"{name} takes {count} floats, the board's heap holds {MAX_FLOATS}; compile it with --input-type uint8"
            )
        return 0, 0, count
    if source.datatype != "UINT8" or len(source.shape) != 4 or source.shape[0] != 1 or source.shape[1] not in (1, 3):
        raise InvalidModel(
            f"{name} takes {source.datatype} {list(source.shape)}; MaixPy feeds pictures of 1 or 3 channels, one at a "
            "time, or floats"
        )
    _, c, h, w = source.shape
    return w, h, c


def _output_shapes(name: str, model: kmodel.Kmodel, given: Any) -> list[tuple[int, int, int] | None]:
    if given is None:
        return [None] * len(model.outputs)
    ok = isinstance(given, list) and len(given) == len(model.outputs)
    ok = ok and all(isinstance(s, list) and len(s) == 3 for s in given)
    if not ok or not all(isinstance(x, int) and 0 < x < 65536 for s in given for x in s):
        raise InvalidModel(f"{name}: `outputs` must be one [width, height, channels] for each of {len(model.outputs)}")
    for i, (shape, spec) in enumerate(zip(given, model.outputs, strict=True)):
        if math.prod(shape) != math.prod(spec.shape):
            raise InvalidModel(
                f"{name}: output {i} has {math.prod(spec.shape)} elements, not {' x '.join(map(str, shape))}"
            )
    return [tuple(shape) for shape in given]


def _camera(name: str, given: Any, size: tuple[int, int, int]) -> Camera | None:
    if not given:
        return None
    if not size[0] or size[0] > 320 or size[1] > 240:
        raise InvalidModel(f"{name} cannot be fed by the camera, which gives pictures up to 320x240")
    table = given if isinstance(given, Mapping) else {}
    unknown = set(table) - {"mirror", "flip", "interval_ms"}
    if unknown:
        raise InvalidModel(f"{name}: unknown camera option {min(unknown)!r}; there are mirror, flip and interval_ms")
    return Camera(bool(table.get("mirror")), bool(table.get("flip")), int(table.get("interval_ms", 0)))


def _address(name: str, given: Any) -> int | None:
    if given is None:
        return None
    try:
        address = int(given, 0) if isinstance(given, str) else int(given)
    except (TypeError, ValueError):
        address = 0
    if not 0 < address < 1 << 24:
        raise InvalidModel(f"{name}: address {given!r} is not inside the board's 16 MiB of flash")
    return address


def _jpeg(plan: Plan, value: Array) -> bytes:
    import io

    from PIL import Image

    pixels = value[0] if plan.channels_last else value[0].transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if plan.size[2] == 1 else pixels))
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=92)
    return out.getvalue()
