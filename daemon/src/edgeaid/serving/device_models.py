"""What one device's worker holds: models loaded, attached to their shared memory, self-tested."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .. import errors
from ..config import Device as DeviceConfig
from ..config import Limits
from ..devices.states import State
from ..models import repository
from ..models.gate import selftest_cases
from ..scheduling.queue import DeviceQueue
from ..tensors import TensorSpec
from ..worker.handle import WorkerHandle
from ..worker.loaded import spec_from
from ..worker.note import MAX_RANK
from ..worker.wire import Kind
from .model import LiveModel

log = logging.getLogger(__name__)


class ModelHost:
    """Base of a device: its worker and the models in it."""

    queue: DeviceQueue
    facts: dict[str, Any]

    def __init__(self, config: DeviceConfig, limits: Limits) -> None:
        self.config = config
        self.id = config.id
        self.target = config.target
        self.limits = limits
        self.handle: WorkerHandle | None = None
        self.state = State.BOOTING
        self.reason = ""
        self.models: dict[int, LiveModel] = {}
        #: The model being loaded: to blame when the worker dies meanwhile.
        self.loading: LiveModel | None = None
        #: Held while a model is loaded.
        self.lock = asyncio.Lock()
        #: Looks at the buses; called after whatever may load firmware, so that the device's leaving the bus and coming
        #: back is known by then. When it does so later it was pulled or reset.
        self.look: Callable[[], object] = lambda: None

    async def load(self, live: LiveModel, slots: int) -> dict[str, Any]:
        """Load, attach and self-test a model here. Returns the self-test's figures."""
        async with self.lock:
            self.loading = live
            try:
                await self.bring(live, slots)
                cases, tolerance = selftest_cases(live.found, str(self.facts.get("family", "")))
                body = {"model": live.number, "cases": cases, "tolerance": tolerance}
                result = await self.call(Kind.SELFTEST, body)
                self.look()
                if result["infer_ns"]:
                    self.queue.costs.learn(live.key, result["infer_ns"] / 1e9, switched=False)
            except errors.EdgeaiError as error:
                await self._forget(live)
                if isinstance(error, errors.DeviceError) and self.handle is not None:
                    self.handle.kill(f"could not load {live.key!r}: {error}")  # the device is to blame: reopen it
                if live.kills:
                    text = f"model {live.key!r} made its worker die on {self.id}: {error}"
                    raise errors.InvalidModel(text) from error
                raise
            finally:
                self.loading = None
            self.models[live.number] = live
            return result

    async def bring(self, live: LiveModel, slots: int = 0) -> None:
        """Verify the artifact's digest and give it to the worker, with the shared memory."""
        path = await asyncio.get_running_loop().run_in_executor(None, repository.verify, live.found, self.target)
        artifact = next(a for a in live.found.manifest.artifacts if a.target == self.target)
        # The number tells a reloaded model from the one it replaces: both are in the worker for a moment.
        body = {"model": live.number, "key": f"{live.key}#{live.number}", "artifact": str(path)}
        manifest = live.found.manifest
        body |= {"max_batch_size": manifest.max_batch_size, "names": dict(manifest.names)}
        answer = await self.call(Kind.LOAD, {**body, "options": dict(artifact.options)})
        inputs = tuple(spec_from(t) for t in answer["inputs"])
        outputs = tuple(spec_from(t) for t in answer["outputs"])
        facts = answer["facts"]
        if live.region is None:
            _check_servable(live.key, inputs + outputs)
            live.set_io(inputs, outputs, slots, noted=answer["noted"])
            live.state, live.max_batch = answer["state"], answer["batch"]
        elif _forms(inputs + outputs) != _forms(live.inputs + live.outputs) or answer["noted"] != live.noted:
            raise errors.InvalidModel(
                f"model {live.key!r}: the artifact for {self.target} has other tensors than the first one"
            )
        live.facts[self.id] = facts
        live.groups[self.id] = str(facts.get("token") or live.key)
        # An Edge TPU's parameters, or the whole graph of a stick that holds one at a time.
        cached, streamed = facts.get("cached_bytes", facts.get("switch_bytes", 0)), facts.get("streamed_bytes", 0)
        self.queue.costs.seed(live.key, cached_bytes=cached, streamed_bytes=streamed)
        await attach(self.call, live, None)

    async def unload(self, live: LiveModel) -> None:
        """Take a model off this device."""
        self.models.pop(live.number, None)
        if all(other.key != live.key for other in self.models.values()):
            self.queue.forget(live.key)
        await self._forget(live)

    async def _forget(self, live: LiveModel) -> None:
        if self.handle is not None and self.handle.alive:
            try:
                await self.call(Kind.UNLOAD, {"model": live.number})
            except errors.EdgeaiError as error:
                log.warning("unload of %s from %s: %s", live.key, self.id, error)

    async def call(self, kind: Kind, body: dict[str, Any], fds: tuple[int, ...] = ()) -> dict[str, Any]:
        """Ask the worker; one that does not answer in time is killed."""
        handle = self.handle
        if handle is None:
            raise errors.DeviceError(f"device {self.id} is {self.state}: {self.reason}")
        try:
            answer, _ = await handle.call(kind, body, fds, timeout=self.limits.load_seconds)
        except errors.DeadlineExceeded:
            handle.kill(f"did not answer {kind.name} within {self.limits.load_seconds:g} s")
            raise
        return answer


async def attach(call: Callable[..., Any], live: LiveModel, media: dict[str, Any] | None) -> None:
    """Give a worker the model's shared memory (and, for the media worker, its picture rules)."""
    region = live.region
    if region is None:
        raise errors.Unavailable(f"model {live.key!r} was unloaded")
    body = {
        "model": live.number,
        "key": f"{live.key}#{live.number}",
        "inputs": [asdict(s) for s in live.inputs],
        "outputs": [asdict(s) for s in live.outputs],
        "slots": region.layout.slots,
        "noted": live.noted,
        "media": media,
    }
    await call(Kind.ATTACH, body, (region.fd,))


def _forms(specs: tuple[TensorSpec, ...]) -> list[tuple[str, tuple[int, ...], int]]:
    return [(s.datatype, s.shape, s.room) for s in specs]


def _check_servable(key: str, specs: tuple[TensorSpec, ...]) -> None:
    for spec in specs:
        if spec.fixed and -1 in spec.shape:
            raise errors.InvalidModel(
                f"model {key!r}: tensor {spec.name!r} has the variable shape {list(spec.shape)}; "
                "fix it with `shapes` in the artifact's table"
            )
        if len(spec.shape) > MAX_RANK:
            raise errors.InvalidModel(f"model {key!r}: tensor {spec.name!r} has more than {MAX_RANK} dimensions")
        _ = spec.capacity  # refuses absurd sizes
