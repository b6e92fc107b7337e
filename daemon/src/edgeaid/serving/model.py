"""A loaded model version, and a request to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from ..devices.states import State as DeviceState
from ..errors import EdgeaiError, QueueFull
from ..models.repository import StoredModel
from ..scheduling.placement import Availability
from ..scheduling.queue import RESERVE, Job
from ..tensors import ALONE, TensorSpec, Turn
from ..worker import note
from ..worker.regions import Layout, Region
from .sequences import Sequences
from .stats import ModelStats


class State(StrEnum):
    """States of the model repository extension."""

    READY = "READY"
    LOADING = "LOADING"
    UNAVAILABLE = "UNAVAILABLE"


class Device(Protocol):
    """What a model and a request need of a device that serves them (`device.DeviceRunner`)."""

    id: str
    target: str
    state: DeviceState
    reason: str

    @property
    def load_factor(self) -> int:
        """Requests waiting or running."""

    @property
    def accepts(self) -> bool:
        """Ready, or expected to be in a moment."""

    def availability(self, model: str) -> Availability:
        """What placement needs to know."""

    def submit(self, request: Request) -> None:
        """Queue a request whose inputs lie in its slot."""

    def cancel(self, request: Request) -> None:
        """Drop a request whose client is gone."""

    async def unload(self, live: LiveModel) -> None:
        """Take a model off this device."""


#: Shared memory of one model's slots at most; bounds what a burst of requests can pin.
MAX_REGION_BYTES = 256 << 20
#: One part in so many of the slots is for others than the user who has most.
SLOTS_LEFT = 4
#: Of outputs above this the media worker finds the best classes: the device has other things to do.
MAX_SCORES_BYTES = 64 << 10


class LiveModel:
    """A model version that workers have loaded. `retire` lets requests under way finish, then frees its memory."""

    def __init__(self, number: int, stored: StoredModel, labels: tuple[str, ...]) -> None:
        self.number = number
        self.stored = stored
        self.name = stored.manifest.name
        self.version = stored.version
        self.key = stored.key
        self.labels = labels
        #: What of its description is not certain.
        self.notes: tuple[str, ...] = ()
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        #: Whether a request says how large its tensors are and which sequence it belongs to.
        self.noted = False
        #: Requests that one batch may have, 0 = the model takes no batches.
        self.max_batch = 0
        #: What a run leaves behind ("" = nothing), and the sequences that share it.
        self.state = ""
        self.sequences = Sequences()
        self.region: Region | None = None
        self.free: list[int] = []
        #: Slots by user.
        self.held: dict[Hashable, int] = {}
        self.busy = 0
        self.retiring = False
        #: Devices in the manifest's fail-over order, each with what its backend said of the model.
        self.devices: list[Device] = []
        self.facts: dict[str, dict[str, Any]] = {}
        #: Jobs of one group switch for free on a device; by device id.
        self.groups: dict[str, str] = {}
        #: Overrides given to load, shown by /config.
        self.config: dict[str, Any] = {}
        self.stats = ModelStats()
        #: Workers that died while this model ran, and answers until they are forgotten.
        self.kills = 0
        self.owed = 0
        self.quarantined = ""
        self._on_drained: Callable[[LiveModel], None] | None = None

    def set_io(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], slots: int, *, noted: bool = False
    ) -> None:
        """Fix the tensors and make the shared memory for up to `slots` requests at once."""
        self.inputs, self.outputs, self.noted = inputs, outputs, noted
        one = Layout.of(inputs, outputs, 1, noted=noted)
        slots = max(2, min(slots, MAX_REGION_BYTES // one.stride))
        self.region = Region.create(Layout.of(inputs, outputs, slots, noted=noted), self.key)
        self.free = list(range(slots))

    @property
    def classes(self) -> int | None:
        """Scores of a classifier's answer, None for other models: so many labels it should have."""
        if self.stored.manifest.task != "classify" or len(self.outputs) != 1 or not self.outputs[0].shape:
            return None
        count = self.outputs[0].shape[-1]
        return count if count > 1 else None

    @property
    def ranked_by_worker(self) -> bool:
        """Whether the worker that ran a request says the best classes too: cheap where the output is their scores."""
        output = self.stored.manifest.output
        if output is None or output.decoder != "classification" or self.noted or not self.outputs:
            return False
        return self.outputs[0].capacity <= MAX_SCORES_BYTES

    def take_slot(self, user: Hashable = None, *, privileged: bool = True) -> int:
        """A free slot. QueueFull when there is none, or when others than privileged users have all that they may."""
        slots = self.busy + len(self.free)
        kept = 0 if privileged else slots // RESERVE
        held = self.held.get(user, 0)
        if len(self.free) <= kept:
            raise self._full(f"all {slots} slots of {self.name!r} are in use")
        if not privileged and held >= slots - slots // SLOTS_LEFT:
            raise self._full(f"user id {user} has {held} of the {slots} slots of {self.name!r} in use, its share")
        self.busy += 1
        self.held[user] = held + 1
        return self.free.pop()

    @staticmethod
    def _full(why: str) -> QueueFull:
        error = QueueFull(f"{why}; ask again")
        error.retry_after = 0.1
        return error

    def give_slot(self, slot: int, user: Hashable = None) -> None:
        """Return a slot of a user."""
        self.free.append(slot)
        self.busy -= 1
        held = self.held.pop(user) - 1
        if held:
            self.held[user] = held
        if self.retiring and not self.busy:
            self._finish()

    def retire(self, on_drained: Callable[[LiveModel], None]) -> None:
        """No new requests; `on_drained` runs when the last one is through, and the memory is freed after it."""
        self.retiring = True
        self._on_drained = on_drained
        if not self.busy:
            self._finish()

    def _finish(self) -> None:
        if self._on_drained is not None:
            self._on_drained(self)
            self._on_drained = None
        if self.region is not None:
            self.region.close()
            self.region = None


@dataclass(slots=True, eq=False)
class Request(Job):
    """One inference under way. `done` is called once, with the request, when it has been answered or has failed.

    The slot stays the caller's until `release`.
    """

    live: LiveModel = None  # type: ignore[assignment]  # always given; a default is needed behind Job's defaults
    slot: int = -1
    number: int = 0
    done: Callable[[Request], None] | None = None
    error: EdgeaiError | None = None
    device: Device | None = None
    #: Device ids that failed this request.
    tried: tuple[str, ...] = ()
    running: bool = False
    abandoned: bool = False
    started: float = 0.0
    queue_ns: int = 0
    phases: tuple[int, int, int] = (0, 0, 0)
    turn: Turn = ALONE
    #: JSON with `activation` and `max_results`: the worker is to say the best classes; empty = only tensors are wanted.
    question: bytes = b""
    #: JSON with `classes` ([class, score] each) and `ns` that it took; empty where the worker cannot say.
    ranked: str = ""

    @property
    def _region(self) -> Region:
        region = self.live.region
        assert region is not None  # noqa: S101  a slot keeps its region open
        return region

    def describe(self, shapes: Sequence[tuple[int, ...]], sizes: Sequence[int], turn: Turn = ALONE) -> None:
        """Say what the inputs of this request are like; only for a model whose requests differ in that (`noted`)."""
        view = self._region.notes[self.slot]
        self.turn = turn
        note.write_turn(view, turn)
        for position, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
            note.write_form(view, position, note.Form(size, shape))

    def describe_one(self) -> None:
        """The inputs have 1 for every variable dimension: what clients without batches send."""
        specs = [spec.one for spec in self.live.inputs]
        self.describe([s.shape for s in specs], [0 if s.datatype == "BYTES" else s.nbytes for s in specs])

    @property
    def inputs(self) -> tuple[memoryview, ...]:
        """Writable bytes of each input tensor: as many as described, where the model's requests differ in that."""
        views = self._region.inputs[self.slot]
        return self._cut(views, 0) if self.live.noted else views

    @property
    def outputs(self) -> tuple[memoryview, ...]:
        """Bytes of each output tensor; valid after `done` and until `release`."""
        views = self._region.outputs[self.slot]
        return self._cut(views, len(self.live.inputs)) if self.live.noted else views

    def _cut(self, views: tuple[memoryview, ...], first: int) -> tuple[memoryview, ...]:
        view = self._region.notes[self.slot]
        return tuple(v[: note.read_form(view, first + i).nbytes] for i, v in enumerate(views))

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """The outputs of this request: with the shapes that they came out with."""
        live = self.live
        if not live.noted:
            return live.outputs
        view, first = self._region.notes[self.slot], len(live.inputs)
        return tuple(replace(spec, shape=note.read_form(view, first + i).shape) for i, spec in enumerate(live.outputs))

    @property
    def answered_by(self) -> str:
        """Id of the device that it went to last, which after `done` is the one that answered."""
        return self.device.id if self.device is not None else ""

    def release(self) -> None:
        """Give the slot back; safe to call twice, and while a worker still uses it (then it is given back later)."""
        if self.running:
            self.abandoned = True
        elif self.slot >= 0:
            slot, self.slot = self.slot, -1
            self.live.give_slot(slot, self.user)
