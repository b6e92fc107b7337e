"""What one device's worker holds: models loaded, attached to their shared memory, self-tested."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

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
from .patience import Patience
from .probation import Passed, load_body

log = logging.getLogger(__name__)


class Host(Protocol):
    """What the models of a worker need of its device."""

    id: str
    target: str
    config: DeviceConfig
    limits: Limits
    handle: WorkerHandle | None
    state: State
    reason: str
    queue: DeviceQueue
    #: What the backend said when it opened the device.
    facts: dict[str, Any]


class LoadedModels:
    """The models in one device's worker."""

    def __init__(self, host: Host) -> None:
        self.host = host
        #: By their number.
        self.live: dict[int, LiveModel] = {}
        #: The model being loaded: the cause when the worker dies meanwhile.
        self.loading: LiveModel | None = None
        #: How long loading takes, by the model's number.
        self._loads: dict[int, Patience] = {}

    async def load(self, live: LiveModel, slots: int, passed: Passed | None) -> None:
        """Load and attach a model; one that has not `passed` a self-test elsewhere is tested here.

        Nothing else may be under way in the worker. What fails leaves nothing of the model in it.
        """
        host = self.host
        self.loading = live
        try:
            await self.bring(live, slots)
            if passed is None:
                cases, tolerance = selftest_cases(live.stored, str(host.facts.get("family", "")))
                body = {"model": live.number, "cases": cases, "tolerance": tolerance}
                answer = await self.call(Kind.SELFTEST, body, host.limits.trial_seconds)
                passed = Passed(answer["cases"], answer["worst"], answer["infer_ns"])
        except BaseException as error:
            await self._forget(live)
            if isinstance(error, errors.DeviceError) and host.handle is not None:
                host.handle.kill(f"could not load {live.key!r}: {error}")  # the device's fault: reopen it
            if live.kills and isinstance(error, errors.EdgeaiError):
                text = f"model {live.key!r} ended its worker on {host.id}: {error}"
                raise errors.InvalidModel(text) from error
            raise
        finally:
            self.loading = None
        if passed.infer_ns:
            host.queue.costs.learn(live.key, passed.infer_ns / 1e9, switched=False)
        self.live[live.number] = live

    async def reload(self) -> None:
        """Give a fresh worker the models that the one before it had. DeviceError or DeadlineExceeded when it ends.

        A model that cannot be loaded any more is quarantined; it does not keep the others from serving.
        """
        for live in list(self.live.values()):
            if live.quarantined or (live.retiring and live.region is None):
                continue
            self.loading = live
            try:
                await self.bring(live)
            except (errors.DeviceError, errors.DeadlineExceeded):
                raise
            except (errors.EdgeaiError, OSError) as error:
                live.quarantined = f"it cannot be loaded again on {self.host.id}: {error}"
                log.error("model %s is quarantined: %s", live.key, live.quarantined)
            finally:
                self.loading = None

    async def bring(self, live: LiveModel, slots: int = 0) -> None:
        """Verify the artifact's digest and give it to the worker, with the shared memory."""
        host = self.host
        path = await asyncio.get_running_loop().run_in_executor(None, repository.verify, live.stored, host.target)
        answer = await self._load(live, path)
        inputs = tuple(spec_from(t) for t in answer["inputs"])
        outputs = tuple(spec_from(t) for t in answer["outputs"])
        facts = answer["facts"]
        if live.region is None:
            _check_servable(live.key, inputs + outputs)
            live.set_io(inputs, outputs, slots, noted=answer["noted"])
            live.state, live.max_batch = answer["state"], answer["batch"]
        elif _forms(inputs + outputs) != _forms(live.inputs + live.outputs) or answer["noted"] != live.noted:
            raise errors.InvalidModel(
                f"model {live.key!r}: the artifact for {host.target} has other tensors than the first one"
            )
        live.facts[host.id] = facts
        live.groups[host.id] = str(facts.get("token") or live.key)
        # An Edge TPU's parameters, or the whole graph of a stick that holds one at a time.
        cached, streamed = facts.get("cached_bytes", facts.get("switch_bytes", 0)), facts.get("streamed_bytes", 0)
        host.queue.costs.seed(live.key, cached_bytes=cached, streamed_bytes=streamed)
        await attach(self._load_call, live, None)

    async def _load(self, live: LiveModel, path: Path) -> dict[str, Any]:
        """Have the worker load an artifact; one that it had before takes about as long again."""
        patience = self._loads.setdefault(live.number, Patience())
        started = time.monotonic()
        try:
            body = load_body(live, self.host.target, path)
            answer = await self.call(Kind.LOAD, body, patience.limit(self.host.limits.load_seconds))
        except errors.DeadlineExceeded:
            patience.gave_up()
            raise
        patience.succeeded(time.monotonic() - started)
        return answer

    async def unload(self, live: LiveModel) -> None:
        """Take a model off this device."""
        self.live.pop(live.number, None)
        if all(other.key != live.key for other in self.live.values()):
            self.host.queue.forget(live.key)
        await self._forget(live)

    async def _forget(self, live: LiveModel) -> None:
        self._loads.pop(live.number, None)
        if self.host.handle is not None and self.host.handle.alive:
            try:
                await self._load_call(Kind.UNLOAD, {"model": live.number})
            except errors.EdgeaiError as error:
                log.warning("unload of %s from %s: %s", live.key, self.host.id, error)

    async def _load_call(self, kind: Kind, body: dict[str, Any], fds: tuple[int, ...] = ()) -> dict[str, Any]:
        return await self.call(kind, body, self.host.limits.load_seconds, fds)

    async def call(self, kind: Kind, body: dict[str, Any], seconds: float, fds: tuple[int, ...] = ()) -> dict[str, Any]:
        """Ask the worker; one that does not answer within `seconds` is killed."""
        handle = self.host.handle
        if handle is None:
            raise errors.DeviceError(f"device {self.host.id} is {self.host.state}: {self.host.reason}")
        try:
            answer, _ = await handle.call(kind, body, fds, timeout=seconds)
        except errors.DeadlineExceeded:
            handle.kill(f"did not answer {kind.name} within {seconds:g} s")
            await handle.ended()  # so that the cause is known
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


def rules_of(live: LiveModel) -> dict[str, Any]:
    """How pictures become a model's input and what its outputs mean, for a process that prepares pictures."""
    manifest = live.stored.manifest
    return {
        "picture": asdict(manifest.picture) if manifest.picture is not None else None,
        "output": asdict(manifest.output) if manifest.output is not None else None,
        "labels": str(live.stored.path / manifest.labels_file) if manifest.labels_file else "",
        "classes": live.classes,
    }


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
