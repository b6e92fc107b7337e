"""A request about a picture: what its path and query ask for, and the answer. For the routes and the short way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..errors import InvalidRequest
from ..serving.model import LiveModel
from ..serving.pictures import Question
from ..serving.plane import Plane

TASKS: Final = ("classify", "detect", "segment", "pose")
_DECODERS: Final = {"classify": "classification", "detect": "ssd", "segment": "segmentation"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish(Question):
    """A question, and the model that it is for."""

    model: str
    task: str
    version: str = ""


def wish(model: str, task: str, query: Mapping[str, str]) -> Wish:
    """From a path's parts and its query. InvalidRequest for what is not a number."""
    limit = _number(query, "max_results")
    return Wish(
        model=model,
        task=task,
        version=query.get("version", ""),
        priority=int(_number(query, "priority") or 0),
        timeout=_number(query, "timeout"),
        threshold=_number(query, "threshold"),
        max_results=int(limit) if limit is not None else None,
    )


def _number(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e9:
        raise InvalidRequest(f"query parameter {name!r} must be a number >= 0")
    return value


def model(plane: Plane, wish: Wish) -> LiveModel:
    """The model that is asked; InvalidRequest when it is made for another task."""
    live = plane.registry.model(wish.model, wish.version)
    if live.stored.manifest.task != wish.task:
        raise InvalidRequest(wrong_task(live, wish.task))
    return live


def wrong_task(live: LiveModel, task: str) -> str:
    """Why a model does not answer `task`, and the lines of its manifest that would make it."""
    manifest = live.stored.manifest
    lines = [f'task = "{task}"']
    if manifest.picture is None:
        lines += ["[input]", 'color = "RGB"']
    lines += ["[output]", f'decoder = "{_DECODERS.get(task, "none")}"']
    verb = "infer" if manifest.task in ("other", "embed") else manifest.task
    return (
        f"model {live.name!r} is made for the task '{manifest.task}', not '{task}': ask it with edgeai {verb} "
        f"{live.name}. If it is made for '{task}', push it with --task {task}, or write it into its model.toml: "
        f"{'; '.join(lines)} (docs/models.md has the other keys)"
    )
