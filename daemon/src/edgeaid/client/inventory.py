"""What a daemon has: models and devices, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class _Row(Mapping[str, Any]):
    """A row of the daemon's answer. It is a mapping too: everything of the JSON form is in `row["key"]`."""

    _json: Mapping[str, Any] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The daemon's JSON: only dicts, lists, numbers and texts."""
        return dict(self._json)

    def __getitem__(self, key: str) -> Any:
        return self._json[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._json)

    def __len__(self) -> int:
        return len(self._json)


@dataclass(frozen=True, slots=True)
class Model(_Row):
    """A version of a model, on disk or loaded."""

    name: str
    version: str
    #: LOADING, READY or UNAVAILABLE.
    state: str
    #: Why it is UNAVAILABLE; "" otherwise.
    reason: str
    #: Whether a request that names no version gets this one.
    default: bool
    #: classify, detect, segment, pose, embed or other; "" where the version is not loaded.
    task: str
    description: str
    #: Number of labels.
    labels: int
    #: Ids of the devices that answer for it.
    devices: tuple[str, ...]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """From a row of /edgeai/v1/models."""
        return cls(
            row, row["name"], row.get("version", ""), row["state"], row.get("reason", ""), row.get("default", False),
            row.get("task", ""), row.get("description", ""), row.get("labels", 0), tuple(row.get("devices", ())),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device(_Row):
    """A device that runs models."""

    id: str
    #: cpu, edgetpu, ncs, ncs2 or k210.
    target: str
    #: absent, booting, ready, busy, recovering or failed.
    state: str
    #: Why it is not ready; "" otherwise.
    reason: str
    #: Product and place, to tell two sticks apart.
    description: str
    #: Name and version of the library that runs the models; "" before its worker is ready.
    runtime: str
    #: How often its worker was replaced.
    restarts: int
    #: Requests under way.
    in_flight: int
    #: Requests in its queue.
    waiting: int
    #: `name/version` of the models that it serves.
    models: tuple[str, ...]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """From a row of /edgeai/v1/devices."""
        return cls(
            row, row["id"], row["target"], row["state"], row.get("reason", ""), row.get("description", ""),
            row.get("runtime", "") or "", row.get("restarts", 0), row.get("in_flight", 0),
            row.get("queue", {}).get("length", 0), tuple(row.get("models", ())),
        )  # fmt: skip
