"""What a client of the fast socket has attached and bound: its memory, and where a model's tensors lie in it."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ... import errors
from ...serving.holdings import Kind
from ...serving.model import LiveModel
from ...serving.plane import Plane
from ...tensors import TensorSpec
from ..descriptors import closer

MAX_REGIONS: Final = 8
MAX_BINDINGS: Final = 64
MAX_REGION_BYTES: Final = 256 << 20


@dataclass(slots=True)
class Binding:
    """A model's tensors and where they lie in the client's regions."""

    live: LiveModel
    name: str
    version: str
    #: Views of the client's memory, in the model's order; None = output not wanted.
    inputs: list[memoryview]
    outputs: list[memoryview | None]
    places: dict[str, Any] = field(default_factory=dict)

    @property
    def regions(self) -> set[int]:
        """Numbers of the regions that it lies in."""
        return {place["region"] for side in self.places.values() for place in side or ()}

    def release(self) -> None:
        """Let go of the client's memory."""
        for view in (*self.inputs, *self.outputs):
            if view is not None:
                view.release()


class ClientMemory:
    """Regions and bindings of one connection."""

    def __init__(self, plane: Plane, uid: int) -> None:
        self.plane = plane
        self.uid = uid
        self.regions: dict[int, tuple[mmap.mmap, memoryview]] = {}
        self.bindings: dict[int, Binding] = {}
        self._numbers = 0

    def close(self) -> None:
        """Unmap everything."""
        for binding in self.bindings.values():
            binding.release()
        self.bindings.clear()
        for region, view in self.regions.values():
            self._give(region, view)
        self.regions.clear()

    def _give(self, region: mmap.mmap, view: memoryview) -> None:
        self.plane.holdings.give(self.uid, Kind.REGIONS, len(view))
        view.release()
        closer.run(region.close)  # giving back a quarter of a gigabyte takes its time

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def attach(self, fds: list[int]) -> dict[str, Any]:
        """Map a sealed memfd and close its descriptor.

        InvalidRequest, TooLarge, Unavailable: then nothing is closed.
        """
        if len(fds) != 1:
            raise errors.InvalidRequest(f"attach needs exactly one descriptor, {len(fds)} came")
        if len(self.regions) >= MAX_REGIONS:
            raise errors.TooLarge(f"{MAX_REGIONS} regions are attached, the limit")
        try:
            seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)  # asks nothing of the file itself, which might not answer
        except OSError as error:
            raise errors.InvalidRequest("the descriptor is not a memfd") from error
        if not seals & fcntl.F_SEAL_SHRINK:
            raise errors.InvalidRequest(
                "the memfd is not sealed: add F_SEAL_SHRINK (and F_SEAL_GROW, F_SEAL_SEAL) before passing it"
            )
        if os.fstatvfs(fds[0]).f_bsize != mmap.PAGESIZE:
            # A hole that its owner makes in one is filled from a pool that may be empty: reading it would be fatal.
            raise errors.InvalidRequest("the memfd has huge pages; make it without MFD_HUGETLB")
        size = os.fstat(fds[0]).st_size
        if not 0 < size <= MAX_REGION_BYTES:
            raise errors.TooLarge(f"the memfd has {size} bytes, allowed are 1 to {MAX_REGION_BYTES}")
        # By size, whatever is in it now: to read a page that was never written makes one, and on our account.
        self.plane.holdings.take(self.uid, Kind.REGIONS, size)
        try:
            region = mmap.mmap(fds[0], size)
        except (OSError, ValueError) as error:
            self.plane.holdings.give(self.uid, Kind.REGIONS, size)
            raise errors.InvalidRequest(f"the memfd cannot be mapped for reading and writing: {error}") from error
        os.close(fds[0])  # not the last reference: the mapping is another
        number = self._next()
        self.regions[number] = (region, memoryview(region))
        return {"region": number, "size": size}

    def detach(self, message: dict[str, Any]) -> dict[str, Any]:
        """Give a region back, and every binding that lies in it. NotFound."""
        number = message.get("region")
        if type(number) is not int or number not in self.regions:
            raise errors.NotFound(f"no region {number!r:.200}")
        for key, binding in tuple(self.bindings.items()):
            if number in binding.regions:
                self.bindings.pop(key).release()
        self._give(*self.regions.pop(number))
        return {}

    def bind(self, message: dict[str, Any]) -> dict[str, Any]:
        """Give a model's tensors their places. NotFound, InvalidRequest, TooLarge."""
        if len(self.bindings) >= MAX_BINDINGS:
            raise errors.TooLarge(f"{MAX_BINDINGS} bindings exist, the limit; unbind one")
        name, version = message.get("model"), message.get("version", "")
        if not isinstance(name, str) or not isinstance(version, str):
            raise errors.InvalidRequest("'model' and 'version' must be texts")
        binding = self._bound(name, version, message)
        number = self._next()
        self.bindings[number] = binding
        live = binding.live
        return {
            "binding": number,
            "version": live.version,
            "inputs": _described(_ones(live.inputs)),
            "outputs": _described(_ones(live.outputs)),
        }

    def unbind(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take a binding away. NotFound."""
        number = message.get("binding")
        binding = self.bindings.pop(number, None) if type(number) is int else None
        if binding is None:
            raise errors.NotFound(f"no binding {number!r:.200}")
        binding.release()
        return {}

    def current(self, number: int) -> Binding:
        """A binding whose model serves: the new version, if its tensors still fit, after a reload."""
        binding = self.bindings.get(number)
        if binding is None:
            raise errors.NotFound(f"no binding {number}")
        if binding.live.retiring or binding.live.quarantined:
            fresh = self._bound(binding.name, binding.version, binding.places)
            binding.release()
            self.bindings[number] = binding = fresh
        return binding

    def _bound(self, name: str, version: str, places: dict[str, Any]) -> Binding:
        live = self.plane.registry.model(name, version)
        inputs = self._views(places.get("inputs"), _ones(live.inputs), "input")
        given = [view for view in inputs if view is not None]
        if len(given) != len(inputs):
            raise errors.InvalidRequest(f"model {name!r} has {len(inputs)} inputs, give a place for each")
        outputs = self._views(places.get("outputs"), _ones(live.outputs), "output")
        wanted = {"inputs": places.get("inputs"), "outputs": places.get("outputs")}
        return Binding(live, name, version, given, outputs, wanted)

    def _views(self, places: object, specs: Sequence[TensorSpec], what: str) -> list[memoryview | None]:
        if not isinstance(places, list) or len(places) > len(specs):
            raise errors.InvalidRequest(f"'{what}s' must be an array of at most {len(specs)} places")
        index = {s.name: i for i, s in enumerate(specs)}
        views: list[memoryview | None] = [None] * len(specs)
        for place in places:
            name = place.get("name") if isinstance(place, dict) else None
            if not isinstance(name, str) or name not in index:
                raise errors.InvalidRequest(
                    f"unexpected inference {what} {place!r:.200}; the model has {', '.join(map(repr, index))}"
                )
            spec = specs[index[name]]
            number, offset = place.get("region"), place.get("offset", 0)
            region = self.regions.get(number) if type(number) is int else None
            if region is None or type(offset) is not int or not 0 <= offset <= len(region[1]) - spec.nbytes:
                raise errors.InvalidRequest(
                    f"{what} {spec.name!r} ({spec.nbytes} bytes) does not lie within an attached region"
                )
            views[index[name]] = region[1][offset : offset + spec.nbytes]
        return views


def _ones(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The tensors of a batch of one; InvalidRequest where even those vary in size."""
    for spec in specs:
        if spec.datatype == "BYTES" or -1 in spec.shape[1:]:
            raise errors.InvalidRequest(
                f"tensor {spec.name!r} is {spec.datatype}{list(spec.shape)}: its size varies; ask over HTTP or gRPC"
            )
    return [spec.one for spec in specs]


def _described(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape), "size": s.nbytes} for s in specs]
