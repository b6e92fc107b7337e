"""The members of an ensemble: loaded with it, fit for what it asks of them, and still there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .. import errors
from ..models.ensemble import Ensemble
from ..models.repository import Repository
from ..models.stages import Crop, Detect
from .model import LiveModel


class Served(Protocol):
    """One model name."""

    @property
    def default(self) -> LiveModel | None:
        """The version that requests without one get."""


class Registry(Protocol):
    """What is needed of `registry.Registry`."""

    repository: Repository

    @property
    def served(self) -> Mapping[str, Served]:
        """Loaded models by name."""

    def model(self, name: str, version: str = "") -> LiveModel:
        """The serving model."""

    def loaded(self) -> list[LiveModel]:
        """Every loaded version of every model."""

    def why_not_now(self, live: LiveModel) -> str:
        """Why no device serves a loaded model."""

    async def load(self, name: str) -> None:
        """Load a model."""

    async def run(self, function: Any, *args: Any) -> Any:
        """Call what blocks in a thread."""


async def bring(registry: Registry, name: str, ensemble: Ensemble) -> None:
    """Load the members that do not serve yet, and check what their manifests say of them.

    InvalidModel: a member does not exist, is an ensemble itself (so there are no cycles) or does not fit its stage.
    Otherwise what loading a member raises.
    """
    for member in ensemble.models:
        await _load(registry, name, member)
    stages: tuple[Detect | Crop, ...] = (ensemble.detect, *ensemble.crops)
    for position, stage in enumerate(stages):
        wanted = stage.kind if isinstance(stage, Crop) else "detect"
        why = _unfit(registry.model(stage.model), wanted)
        if why:
            raise errors.InvalidModel(f"ensemble {name!r}: stage[{position}] {wanted} = {stage.model!r}: {why}")


async def _load(registry: Registry, name: str, member: str) -> None:
    versions = await registry.run(registry.repository.versions, member)
    served = registry.served.get(member)
    if not versions and served is None:
        raise errors.InvalidModel(f"ensemble {name!r}: there is no model {member!r}; push it first")
    for version in versions:
        stored = await registry.run(registry.repository.find, member, version)
        if stored.manifest.ensemble is not None:
            raise errors.InvalidModel(
                f"ensemble {name!r}: its member {member!r} is an ensemble too, which could lead to a cycle; "
                "name the models that it asks"
            )
    if served is None or served.default is None:
        try:
            await registry.load(member)
        except errors.EdgeaiError as error:
            raise type(error)(f"ensemble {name!r}: {error}") from error


def _unfit(member: LiveModel, kind: str) -> str:
    """Why a model does not fit a stage; "" when it does."""
    manifest = member.stored.manifest
    if kind not in ("embed", manifest.task):
        return f"the model is made for the task '{manifest.task}', not '{kind}'"
    if manifest.picture is None or len(member.inputs) != 1:
        return "the model takes no pictures: its manifest needs an [input] table, and the model one input"
    if kind != "embed" and (manifest.output is None or manifest.output.decoder == "none"):
        return "the model's answer has no meaning: its manifest needs an [output] table with a decoder"
    return ""


def why_not_now(registry: Registry, live: LiveModel) -> str:
    """Why the members of an ensemble cannot answer at this moment; "" when they can, or when it is not an ensemble."""
    ensemble = live.stored.manifest.ensemble
    for member in ensemble.models if ensemble is not None else ():
        served = registry.served.get(member)
        if served is None or served.default is None:
            return f"model {live.key!r} asks {member!r}, which is not loaded"
        why = served.default.quarantined or registry.why_not_now(served.default)
        if why:
            return f"model {live.key!r} asks {member!r}: {why}"
    return ""


def of(registry: Registry, name: str) -> list[str]:
    """Members of the loaded versions of an ensemble that no other loaded ensemble asks."""
    asked: dict[str, set[str]] = {}
    for live in registry.loaded():
        ensemble = live.stored.manifest.ensemble
        for member in ensemble.models if ensemble is not None else ():
            asked.setdefault(member, set()).add(live.name)
    return [member for member, by in asked.items() if by == {name}]
