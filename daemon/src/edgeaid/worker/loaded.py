"""A model that a worker process has loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..tensors import Quantization, TensorSpec
from .regions import Region

if TYPE_CHECKING:
    from ..backends.base import Array


@dataclass(slots=True)
class Loaded:
    """A model in this worker."""

    key: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    region: Region | None = None
    #: Per slot: numpy views of the region, made at the first use of the slot.
    views: list[tuple[Sequence[Array], Sequence[Array]] | None] = None  # type: ignore[assignment]  # set by attach
    #: Media worker only: how it sees pictures and what its outputs mean (`labelling.Rules`).
    media: Any = None
    #: Whether slots have notes: tensors vary in size, or requests may belong to sequences.
    noted: bool = False
    #: Inputs whose first dimension is a batch that the backend does not take: it runs once for each request in it.
    loops: bool = False

    @property
    def attached(self) -> Region:
        """The region: the daemon sends ATTACH before the first slot."""
        assert self.region is not None  # noqa: S101  see above
        return self.region


def spec_from(table: dict[str, Any]) -> TensorSpec:
    """TensorSpec from its JSON form (dataclasses.asdict)."""
    q = table.get("quantization")
    quantization = Quantization(tuple(q["scale"]), tuple(q["zero_point"]), q["axis"]) if q else None
    shape = tuple(table["shape"])
    return TensorSpec(table["name"], table["datatype"], shape, quantization, table["alias"], table["room"])
