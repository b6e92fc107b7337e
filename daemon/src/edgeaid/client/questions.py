"""Questions about pictures, once for both clients: coroutines over a `Core`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode

from .. import errors
from . import results
from .arguments import check_number, check_timeout, model_name
from .core import Core, edgeai_path
from .pictures import picture_bytes

#: What may be asked about a picture.
_TASKS: Final = ("classify", "detect", "pose", "segment")


@dataclass(frozen=True, slots=True)
class Options:
    """What a question may say; what is None is left to the daemon."""

    threshold: float | None
    max_results: int | None
    #: Seconds.
    timeout: float | None


async def classify(core: Core, model: str, picture: Any, options: Options) -> results.Classification:
    """See Client.classify."""
    return results.Classification.from_json(await _answer(core, "classify", model, picture, options))


async def objects(core: Core, task: str, model: str, picture: Any, options: Options) -> results.Detection:
    """See Client.detect and Client.pose."""
    return results.Detection.from_json(await _answer(core, task, model, picture, options))


async def segment(core: Core, model: str, picture: Any, options: Options) -> results.Segmentation:
    """See Client.segment."""
    return results.Segmentation.from_json(await _answer(core, "segment", model, picture, options))


async def draw(core: Core, task: str, model: str, picture: Any, options: Options) -> bytes:
    """See Client.draw."""
    return await _ask(core, task, model, picture, options, "image/png")


async def _answer(core: Core, task: str, model: str, picture: Any, options: Options) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await _ask(core, task, model, picture, options, "application/json"))
    return answer


async def _ask(core: Core, task: str, model: str, picture: Any, options: Options, accept: str) -> bytes:
    check_timeout(options.timeout)
    check_number(options.threshold, "threshold")
    check_number(options.max_results, "max_results", whole=True)
    if task not in _TASKS:
        raise errors.InvalidArgument(f"a picture is asked about as one of {', '.join(_TASKS)}, not {task!r}")
    data = picture_bytes(picture)
    path = _path(model_name(model), task, options)
    return (await core.request("POST", path, data, {"Accept": accept}))[0]


@lru_cache(16)
def _path(model: str, task: str, options: Options) -> str:
    """Remembered, because the same question is mostly asked about many pictures."""
    query = urlencode({name: value for name, value in asdict(options).items() if value is not None})
    return edgeai_path(model, task) + (f"?{query}" if query else "")


async def detect_tensor(core: Core, model: str, tensor: bytes, threshold: float | None) -> results.Detection:
    """See Client.detect_tensor."""
    check_number(threshold, "threshold")
    query = "" if threshold is None else f"?threshold={threshold}"
    headers = {"Content-Type": "application/octet-stream"}
    data, _ = await core.request("POST", edgeai_path(model, "detect") + query, bytes(tensor), headers)
    return results.Detection.from_json(json.loads(data))
