"""Two protocols of home automation and video recorders: DeepStack's and DOODS', for models that detect.

Off unless [dialects] switches them on. Both are adapters to the one data plane; what they cannot say (devices,
versions, timings) they leave out. Both kinds of client bring the TCP token in a place of their own: DeepStack
in the form field `api_key`, DOODS in the header `doods-auth-key`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from typing import Any, Final

from aiohttp import BodyPartReader, ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from ... import errors
from ...serving.access import Role
from ...serving.model import LiveModel
from ...serving.pictures import Question, ask
from .. import inference, json_text, large_json
from ..http.bodies import UnsupportedMediaType, encoding_of, proceed
from ..http.replies import reply
from ..http.server import Call, Routes
from ..inference import JSON
from ..pictures import wrong_task

#: Parts of a form that are read: a picture, a key, a threshold and what a client may add.
MAX_PARTS: Final = 16
#: Bytes of a form field that is not a picture.
MAX_FIELD: Final = 4096
#: What a DeepStack server answers without `min_confidence`.
CONFIDENCE: Final = 0.4
MAX_REGIONS: Final = 64


def register(routes: Routes, *, deepstack: bool, doods: bool) -> None:
    """Add the routes of the dialects that are on."""
    if deepstack:
        # The key is in the form: the handler asks for it, where the connection does not say who it is.
        routes.add("POST", "/v1/vision/detection", Role.NOBODY, takes=("multipart/form-data",))(detection)
        routes.add("POST", "/v1/vision/custom/list", Role.NOBODY, takes=("multipart/form-data",))(custom_models)
        routes.add("POST", "/v1/vision/custom/{m}", Role.NOBODY, takes=("multipart/form-data",))(detection)
    if doods:
        routes.add("GET", "/detectors", Role.OBSERVE)(detectors)
        routes.add("POST", "/detect", Role.INFER, takes=(JSON,))(detect)


def _detector(call: Call, name: str = "") -> LiveModel:
    """The model called `name`, or the one that clients get which name none."""
    plane = call.plane
    name = name or plane.config.dialects.model
    if name:
        live = plane.registry.model(name)
        if live.stored.manifest.task != "detect":
            raise errors.InvalidRequest(wrong_task(live, "detect"))
        return live
    candidates = _all(call)
    if len(candidates) != 1:
        names = ", ".join(live.name for live in candidates) or "none"
        raise errors.NotFound(f"which model? Set `model` in [dialects]; models that detect: {names}")
    return candidates[0]


def _all(call: Call) -> list[LiveModel]:
    served = (s.default for _, s in sorted(call.plane.registry.served.items()))
    return [live for live in served if live is not None and live.stored.manifest.task == "detect"]


# --- DeepStack ------------------------------------------------------------------------------------------------------


async def detection(call: Call) -> web.Response:
    """Objects in a picture, as DeepStack answers.

    The body is multipart/form-data with `image`, `api_key`, `min_confidence`; boxes in pixels, best first.
    """
    try:
        if call.token is None:
            call.require(Role.INFER)
        form = await _form(call)
        call.require(Role.INFER, form.get("api_key", b"").decode(errors="replace"))
        if not form.get("image"):
            raise errors.InvalidRequest("the form has no picture in the field 'image'")
        confidence = _share(form.get("min_confidence", b"").decode(errors="replace") or CONFIDENCE, "min_confidence")
        live = _detector(call, call.args.get("m", ""))
        answer = await ask(call.plane, live, form["image"], call.peer, Question(threshold=confidence))
    except errors.EdgeaiError as error:
        response = reply({"success": False, "error": str(error), "predictions": []}, error.http)
        if call.request.body_exists and not call.request.content.is_eof():
            response.force_close()
        return response
    predictions = [
        {
            "label": detected["label"],
            "confidence": detected["score"],
            "x_min": detected["pixels"]["xmin"],
            "y_min": detected["pixels"]["ymin"],
            "x_max": detected["pixels"]["xmax"],
            "y_max": detected["pixels"]["ymax"],
        }
        for detected in answer["objects"]
    ]
    return reply({"success": True, "predictions": predictions})


async def custom_models(call: Call) -> web.Response:
    """Models that find objects, as DeepStack answers: names for `/v1/vision/custom/NAME`."""
    try:
        if call.token is None:
            call.require(Role.INFER)
        form = await _form(call) if call.request.body_exists else {}
        call.require(Role.INFER, form.get("api_key", b"").decode(errors="replace"))
    except errors.EdgeaiError as error:
        return reply({"success": False, "error": str(error), "models": []}, error.http)
    return reply({"success": True, "models": [live.name for live in _all(call)]})


async def _form(call: Call) -> dict[str, bytes]:
    """Fields of a multipart form; TooLarge and InvalidRequest for what is over a limit or no form."""
    limits = call.plane.config.limits
    if not call.request.headers.get("Content-Type", "").startswith("multipart/form-data"):
        raise errors.InvalidRequest("the body must be multipart/form-data with the picture in the field 'image'")
    if encoding_of(call.request):
        raise UnsupportedMediaType("a form must not have a Content-Encoding")
    await proceed(call.request)
    length, limit = call.request.content_length, limits.picture_bytes + MAX_PARTS * MAX_FIELD
    if length is not None and length > limit:
        raise errors.TooLarge(f"the body has {length} bytes, the limit is {limit}")
    form: dict[str, bytes] = {}
    try:
        async with asyncio.timeout(limits.idle_seconds):
            reader = await call.request.multipart()
            while (part := await reader.next()) is not None:
                if len(form) >= MAX_PARTS or not isinstance(part, BodyPartReader) or not part.name:
                    raise errors.InvalidRequest(f"the form must have at most {MAX_PARTS} named parts")
                form[part.name] = await _part(call, part, limits.picture_bytes if part.name == "image" else MAX_FIELD)
    except TimeoutError:
        raise errors.InvalidRequest(f"the form was not complete after {limits.idle_seconds:g} s") from None
    except (ValueError, AssertionError, RuntimeError, LookupError, ClientPayloadError, HttpProcessingError) as error:
        # everything that the parser raises for damage
        raise errors.InvalidRequest(f"the form cannot be read: {error}") from error
    return form


async def _part(call: Call, part: BodyPartReader, limit: int) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk(1 << 16):
        data += chunk
        if len(data) > limit:
            raise errors.TooLarge(f"the form's field {part.name!r} has more than {limit} bytes")
    call.hold(len(data))
    return bytes(data)


# --- DOODS ----------------------------------------------------------------------------------------------------------


async def detectors(call: Call) -> web.Response:
    """Models that detect, as DOODS answers."""
    rows = []
    for live in _all(call):
        sides = [d for d in live.inputs[0].shape if d not in (1, 3)] if live.inputs else []
        rows.append(
            {
                "name": live.name,
                "type": "tflite",
                "model": f"{live.name}/{live.version}",
                "labels": [label for label in live.labels if label],
                "width": sides[-1] if sides else -1,
                "height": sides[0] if sides else -1,
            }
        )
    return reply({"detectors": rows})


async def detect(call: Call) -> web.Response:
    """Objects in a picture, as DOODS answers.

    The body has a picture in base64, thresholds per label in percent; boxes as shares of the picture.
    """
    identity: Any = ""
    try:
        data = await call.body(call.plane.config.limits.picture_bytes * 4 // 3 + (64 << 10))
        depth = call.plane.config.limits.json_depth
        if len(data) > large_json.LARGE:
            body = await inference.in_thread(call.plane, large_json.parse, data, depth)
        else:
            body = json_text.loads(data, depth) if data else {}
        if not isinstance(body, dict):
            raise errors.InvalidRequest("the body must be a JSON object")
        identity = body.get("id", "")
        wanted = _thresholds(body.get("detect"), "detect")
        regions = _regions(body.get("regions"))
        name = body.get("detector_name") or ""
        if not isinstance(name, str):
            raise errors.InvalidRequest("'detector_name' must be a text")
        live = _detector(call, "" if name == "default" else name)
        lowest = min((*wanted.values(), *(t for r in regions for t in r["detect"].values())), default=0.0)
        answer = await ask(
            call.plane,
            live,
            await inference.in_thread(call.plane, _picture, body.get("data")),
            call.peer,
            Question(threshold=lowest),
        )
    except errors.EdgeaiError as error:
        errors.answered(error)
        return reply({"id": identity, "error": str(error)}, error.http)
    everything = not wanted and not regions
    rows = [_row(o) for o in answer["objects"]]
    kept = [r for r in rows if everything or _passes(r, wanted) or any(_inside(r, region) for region in regions)]
    return reply({"id": identity, "detections": kept})


def _picture(data: object) -> bytes | bytearray:
    if not isinstance(data, str | large_json.Text) or not data:
        raise errors.InvalidRequest("'data' must be a picture in base64")
    try:
        if isinstance(data, large_json.Text):
            return data.base64()
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.InvalidRequest(f"'data' is not base64: {error}") from error


def _row(detected: dict[str, Any]) -> dict[str, Any]:
    box = detected["box"]
    return {
        "top": box["ymin"],
        "left": box["xmin"],
        "bottom": box["ymax"],
        "right": box["xmax"],
        "label": detected["label"],
        "confidence": round(detected["score"] * 100, 3),
    }


def _thresholds(value: object, what: str) -> dict[str, float]:
    """Label (`*` = any other) -> least score as a share."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.InvalidRequest(f"'{what}' must be an object of labels and percentages")
    return {label: _share(percent, f"{what}.{label}", 100.0) for label, percent in value.items()}


def _regions(value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_REGIONS or not all(isinstance(r, dict) for r in value):
        raise errors.InvalidRequest(f"'regions' must be an array of at most {MAX_REGIONS} objects")
    return [
        {
            **{side: _share(r.get(side), f"regions.{side}") for side in ("top", "left", "bottom", "right")},
            "detect": _thresholds(r.get("detect"), "regions.detect") or {"*": 0.0},
            "covers": r.get("covers") is True,
        }
        for r in value
    ]


def _share(value: object, what: str, whole: float = 1.0) -> float:
    try:
        number = float(value) / whole  # type: ignore[arg-type]  # anything else raises
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise errors.InvalidRequest(f"{what!r} must be a number from 0 to {whole:g}")
    return number


def _passes(row: dict[str, Any], wanted: dict[str, float]) -> bool:
    least = wanted.get(row["label"], wanted.get("*"))
    return least is not None and row["confidence"] >= least * 100


def _inside(row: dict[str, Any], region: dict[str, Any]) -> bool:
    """In a region: the whole box where it `covers`, else any part of it."""
    if not _passes(row, region["detect"]):
        return False
    if region["covers"]:
        return bool(
            row["top"] >= region["top"]
            and row["left"] >= region["left"]
            and row["bottom"] <= region["bottom"]
            and row["right"] <= region["right"]
        )
    return bool(
        row["top"] < region["bottom"]
        and row["bottom"] > region["top"]
        and row["left"] < region["right"]
        and row["right"] > region["left"]
    )
