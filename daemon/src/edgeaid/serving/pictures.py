"""A picture through a model: prepared, inferred, decoded. What every protocol that takes pictures shares."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable
from typing import Any

from .model import LiveModel
from .plane import Plane


async def ask(
    plane: Plane,
    live: LiveModel,
    body: bytes | bytearray,
    client: Hashable,
    *,
    priority: int = 0,
    timeout: float | None = None,
    threshold: float | None = None,
    max_results: int | None = None,
    draw: bool = False,
    tensor: bool = False,
) -> Any:
    """Labelled answer as JSON values with the device and times in ms, or PNG bytes when it is to be drawn.

    `body` = a JPEG, PNG or BMP file; with `tensor`, when it has exactly that many bytes, the only input's bytes.
    """
    request = plane.request(live, client, priority=priority, timeout=timeout)
    clock = asyncio.get_running_loop().time
    result: dict[str, Any] | bytes
    asked: dict[str, Any] = {"threshold": threshold, "max_results": max_results}
    try:
        started = clock()
        if tensor and _is_tensor(live, body):
            request.inputs[0][:] = body
            placement = _whole_picture(live.inputs[0].one.shape)
        else:
            placement = await plane.media.prepare(live, request.slot, body)
        prepared = clock()
        if live.ranked_by_worker and not draw:
            request.question = _question(live, max_results)
        await plane.infer(request)
        answered = clock()
        if request.ranked:
            ranked = json.loads(request.ranked)
            result, decoding = _named(live, placement, ranked["classes"]), ranked["ns"] / 1e9
        else:
            result = await plane.media.decode(live, request.slot, placement, **asked, drawn_on=body if draw else None)
            decoding = clock() - answered
    finally:
        request.release()
    if isinstance(result, bytes):
        return result
    phases = request.phases
    timing = {
        "prepare_ms": (prepared - started) * 1e3,
        "queue_ms": request.queue_ns / 1e6,
        "input_ms": phases[0] / 1e6,
        "compute_ms": phases[1] / 1e6,
        "output_ms": phases[2] / 1e6,
        "decode_ms": decoding * 1e3,
    }
    return {
        "model": live.name,
        "version": live.version,
        "device": request.answered_by,
        "timing": {k: round(v, 3) for k, v in timing.items()},
        **result,
    }


def _question(live: LiveModel, max_results: int | None) -> bytes:
    """For the worker: which classes are wanted of a classifier's scores."""
    rules = live.stored.manifest.output
    assert rules is not None  # noqa: S101  `ranked_by_worker` has looked
    count = rules.max_results if max_results is None else max_results
    return json.dumps({"activation": rules.activation, "max_results": count}).encode()


def _named(live: LiveModel, placement: dict[str, Any], classes: list[tuple[int, float]]) -> dict[str, Any]:
    """What `vision.results.Classification.to_json` gives, of classes and their scores."""
    labels = live.labels
    return {
        "width": placement["width"],
        "height": placement["height"],
        "classes": [
            {"index": index, "label": (labels[index] if index < len(labels) else "") or str(index), "score": score}
            for index, score in classes
        ],
    }


def _is_tensor(live: LiveModel, body: bytes | bytearray) -> bool:
    """Whether a body has exactly the bytes of the model's only input."""
    spec = live.inputs[0].one if len(live.inputs) == 1 else None
    return spec is not None and spec.fixed and len(body) == spec.nbytes


def _whole_picture(shape: tuple[int, ...]) -> dict[str, Any]:
    """Placement of an input tensor that is a whole picture."""
    sides = [d for d in shape if d not in (1, 3)] or [1]
    return {"width": sides[-1], "height": sides[0]}
