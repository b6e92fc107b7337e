"""The data plane: models and devices, and requests between them.

Protocols are skins over this and hold no state of models.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

from .. import config as configuration
from .. import errors
from ..config import Config
from ..devices.discovery import Found as Hardware
from ..models import repository
from ..models.manifest import Manifest
from ..models.repository import Found, Repository
from ..scheduling.placement import place
from .device import DeviceRunner, clock, fail
from .events import EventLog
from .loader import check_formats
from .media import MediaRunner
from .model import LiveModel, Request, State
from .pins import Pins
from .settings import Settings
from .shm import Regions

log = logging.getLogger(__name__)

#: Begins the reason of models that are loaded as soon as a device for them comes.
NO_DEVICE = "no device"


class Served:
    """One model name: its loaded versions and the one that requests without a version get."""

    def __init__(self) -> None:
        self.versions: dict[str, LiveModel] = {}
        self.default: LiveModel | None = None
        self.lock = asyncio.Lock()


class Plane:
    """Everything that serves."""

    def __init__(self, config: Config, events: EventLog | None = None) -> None:
        self.config = config
        self.events = events or EventLog()
        self.repository = Repository(self._directories(), max_file_bytes=config.limits.bundle_bytes)
        self.devices: dict[str, DeviceRunner] = {}
        self.media = MediaRunner(config.limits, self.events)
        self.served: dict[str, Served] = {}
        #: name/version -> why it does not serve.
        self.failures: dict[tuple[str, str], tuple[State, str]] = {}
        self.pins = Pins(config.server.state_directory)
        self.settings = Settings()
        self.regions = Regions(config.shared_memory)
        self.ready = False
        self.stopping = False
        self._numbers = 0
        #: Keeps tasks from being collected while they run.
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the devices and load the models; a device or model that fails is reported and left out."""
        self.pins.read()
        await asyncio.get_running_loop().run_in_executor(None, self.repository.clean)
        for entry in self.config.device or (configuration.Device(id="cpu0", target="cpu"),):
            await self.add_device(entry)
        if self.config.models.load_all:
            for name in self.repository.names():
                with contextlib.suppress(errors.EdgeaiError):  # published as an event and kept in the index
                    await self.load(name)
        self.ready = True

    async def add_device(self, entry: configuration.Device, found: Hardware | None = None) -> DeviceRunner:
        """Take a device into service; it stays listed, with its reason, when it cannot be opened."""
        after = self.config.models.quarantine_after
        device = DeviceRunner(entry, self.config.limits, self.events, self._on_failed, after, found)
        device.on_ready = lambda ready: self._later(self.adopt(ready))
        self.devices[device.id] = device
        try:
            await device.start()
        except errors.EdgeaiError as error:
            log.warning("device %s: %s", device.id, error)
        return device

    async def remove_device(self, identity: str) -> None:
        """Take a device out of service; its models go on elsewhere or wait for it."""
        device = self.devices.pop(identity, None)
        if device is None:
            return
        for live in device.models.values():
            if device in live.devices:
                live.devices.remove(device)
        await device.stop()

    async def adopt(self, device: DeviceRunner) -> None:
        """A device is there (again): load what serves elsewhere and has an artifact for it, and what waited for it."""
        for served in list(self.served.values()):
            for live in list(served.versions.values()):
                targets = [a.target for a in live.found.manifest.artifacts]
                if device in live.devices or device.target not in targets or live.retiring:
                    continue
                try:
                    await device.load(live, 0)
                except errors.EdgeaiError as error:
                    log.warning("model %s on %s: %s", live.key, device.id, error)
                    continue
                live.devices.append(device)
                live.devices.sort(key=lambda d: targets.index(d.target))
        waiting = {
            n
            for (n, _), (state, reason) in self.failures.items()
            if state == State.UNAVAILABLE and reason.startswith(NO_DEVICE)
        }
        for name in waiting:
            with contextlib.suppress(errors.EdgeaiError):  # published and kept in the index
                await self.load(name)

    async def stop(self) -> None:
        """No new requests, wait for those under way, end the workers."""
        self.stopping = True
        until = clock() + self.config.server.drain_seconds
        while any(d.load_factor for d in self.devices.values()) and clock() < until:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(d.stop() for d in self.devices.values()), self.media.stop())

    async def reconfigure(self, fresh: Config) -> list[str]:
        """Take over what can change while serving; returns the names of sections that cannot and did."""
        old, self.config = self.config, fresh
        self.repository = Repository(self._directories(), max_file_bytes=fresh.limits.bundle_bytes)
        for device in self.devices.values():
            device.limits = fresh.limits
            device.queue.capacity = fresh.limits.queue
            device.queue.per_client = fresh.limits.queue_per_client
        self.media.limits = fresh.limits
        self.regions.config = fresh.shared_memory
        if fresh.models.load_all:
            for name in await self._run(self.repository.names):
                if name not in self.served:
                    with contextlib.suppress(errors.EdgeaiError):  # published and kept in the index
                        await self.load(name)
        server = [
            f.name
            for f in dataclasses.fields(fresh.server)
            if getattr(fresh.server, f.name) != getattr(old.server, f.name)
        ]
        kept = [f"server.{n}" for n in server if n.endswith("socket")]
        return kept + [n for n in ("tcp", "device") if getattr(fresh, n) != getattr(old, n)]

    def _directories(self) -> list[Path]:
        models = self.config.models
        return [*models.repositories, *([repository.EMBEDDED] if models.embedded else [])]

    async def check(self) -> bool:
        """True when every worker answers (or is being replaced)."""
        return all(await asyncio.gather(*(d.check() for d in self.devices.values())))

    # --- looking up -------------------------------------------------------------------------------------------------

    def model(self, name: str, version: str = "") -> LiveModel:
        """The serving model; NotFound or Unavailable say why there is none."""
        served = self.served.get(name)
        if served is not None:
            live = served.versions.get(version) if version else served.default
            if live is not None:
                return live
        wanted = f"{name!r}" + (f" version {version}" if version else "")
        reasons = [(s, r) for (n, v), (s, r) in self.failures.items() if n == name and version in ("", v)]
        if reasons and reasons[0][0] == State.LOADING:
            raise errors.Unavailable(f"model {wanted} is loading")
        because = f": {reasons[0][1]}" if reasons else ""
        raise errors.NotFound(f"Request for unknown model: {wanted} is not found{because}")

    def index(self) -> list[dict[str, str]]:
        """Rows of the repository index: every version on disk or loaded."""
        rows = []
        for name in sorted({*self.repository.names(), *self.served}):
            served = self.served.get(name)
            loaded = served.versions if served else {}
            for version in sorted({*self.repository.versions(name), *loaded}, key=int):
                live = loaded.get(version)
                if live is not None:
                    state, reason = (State.UNAVAILABLE, live.quarantined) if live.quarantined else (State.READY, "")
                else:
                    state, reason = self.failures.get((name, version), (State.UNAVAILABLE, "not loaded"))
                rows.append({"name": name, "version": version, "state": str(state), "reason": reason})
        return rows

    # --- requests ---------------------------------------------------------------------------------------------------

    def request(self, live: LiveModel, client: object, *, priority: int = 0, timeout: float | None = None) -> Request:
        """A request with a slot to write inputs into. `timeout` in seconds. QueueFull, Unavailable."""
        if self.stopping:
            raise errors.Unavailable("the daemon is stopping")
        if live.quarantined:
            raise errors.Unavailable(
                f"model {live.key!r} is quarantined: {live.quarantined}; load it again to lift this"
            )
        if live.retiring:
            raise errors.Unavailable(f"model {live.key!r} is being unloaded")
        try:
            slot = live.take_slot()
        except errors.QueueFull:
            live.stats.rejected += 1
            raise
        now = clock()
        return Request(
            model=live.key,
            group=live.key,
            client=client,
            priority=priority,
            deadline=now + (timeout or self.config.limits.request_seconds),
            enqueued=now,
            live=live,
            slot=slot,
        )

    def submit(self, request: Request) -> None:
        """Send a request on its way; `request.done` follows unless this raises QueueFull or Unavailable."""
        device = self._place(request)
        if not request.tried:
            request.enqueued = clock()  # what came before (preparing a picture) is not waiting
        try:
            device.submit(request)
        except errors.QueueFull:
            request.live.stats.rejected += 1
            raise

    def _place(self, request: Request) -> DeviceRunner:
        """The device to serve a request: the only one there is, or the one expected to answer first."""
        devices = request.live.devices
        if len(devices) == 1 and not request.tried:
            if devices[0].state in ("ready", "recovering"):
                return devices[0]
            raise errors.Unavailable(self._why_no_device(request.live))
        seats = {d.id: d for d in devices if d.id not in request.tried}
        remaining = request.deadline - clock() if request.deadline is not None else None
        targets = [a.target for a in request.live.found.manifest.artifacts]
        found = place(targets, [d.seat(request.live.key) for d in seats.values()], remaining_s=remaining)
        if not found:
            raise errors.Unavailable(self._why_no_device(request.live))
        return seats[found[0].device]

    def _why_no_device(self, live: LiveModel) -> str:
        states = "; ".join(f"{d.id} is {d.state}{': ' + d.reason if d.reason else ''}" for d in live.devices)
        return f"no device can serve model {live.key!r} now ({states or 'none is present'})"

    async def infer(self, request: Request) -> None:
        """Submit and wait. Raises the request's error; cancelling this withdraws the request."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_: Request) -> None:
            if not future.done():
                future.set_result(None)

        request.done = done
        self.submit(request)
        try:
            await future
        except asyncio.CancelledError:
            request.live.stats.cancelled += 1
            if request.device is not None:
                request.device.cancel(request)
            raise
        if request.error is not None:
            raise request.error

    def _on_failed(self, request: Request, text: str) -> None:
        """A device failed under a request: move it to another device while its deadline allows, else fail it."""
        if request.abandoned:
            request.release()
            return
        request.tried = (*request.tried, request.device.id if request.device else "")
        if request.deadline is None or request.deadline > clock():
            with contextlib.suppress(errors.Unavailable):
                self.submit(request)
                return
        fail(request, errors.DeviceError(f"{text}; ask again"))

    # --- models -----------------------------------------------------------------------------------------------------

    async def load(self, name: str, config: dict[str, Any] | None = None) -> None:
        """Load or reload what the version policy says of `name`. NotFound; InvalidModel `failed to load ...`."""
        versions = await self._run(self.repository.versions, name)
        if not versions:
            raise errors.NotFound(
                f"failed to load {name!r}: no such model in {', '.join(map(str, self.repository.directories))}"
            )
        wanted = self._wanted(name, versions, config or {})
        served = self.served.setdefault(name, Served())
        async with served.lock:
            fresh: dict[str, LiveModel] = {}
            try:
                for version in wanted:
                    fresh[version] = await self._load_version(name, version, config or {})
            except errors.EdgeaiError as error:
                for live in fresh.values():
                    await self.retire(live)
                text = f"failed to load {name!r}: {error}"
                self.events.publish("model-failed", text, level=logging.ERROR, model=name)
                raise type(error)(text) from error
            self.swap(name, served, fresh)

    def swap(self, name: str, served: Served, fresh: dict[str, LiveModel]) -> None:
        """Replace a name's versions in one step; the old ones finish what they have."""
        old = served.versions
        served.versions = fresh
        served.default = next(iter(fresh.values()))
        for live in old.values():
            live.retire(lambda gone: self._later(self._drop(gone)))
        for version in fresh:
            self.failures.pop((name, version), None)

    def _wanted(self, name: str, versions: list[str], config: dict[str, Any]) -> list[str]:
        if self.pins.get(name) in versions:
            return [self.pins[name]]
        policy = self.config.models.version_policy.get(name, self.config.models.versions)
        kind, numbers = configuration.parse_policy(_policy_of(config) or policy)
        if kind == "all":
            return versions
        if kind == "latest":
            return versions[: numbers[0]]
        wanted = [v for v in versions if int(v) in numbers]
        if not wanted:
            raise errors.NotFound(
                f"failed to load {name!r}: none of the versions {list(numbers)} is there, only {', '.join(versions)}"
            )
        return wanted

    async def _load_version(self, name: str, version: str, config: dict[str, Any]) -> LiveModel:
        self.failures[name, version] = (State.LOADING, "")
        try:
            found = await self._run(self.repository.find, name, version)
            live = await self.bring_up(found)
        except errors.EdgeaiError as error:
            self.failures[name, version] = (State.UNAVAILABLE, str(error))
            raise
        live.config = config
        return live

    async def bring_up(self, found: Found) -> LiveModel:
        """Load a model version on every device it has an artifact for, self-tested; not yet visible to requests."""
        started = clock()
        await self._run(check_formats, found)
        self._numbers += 1
        live = LiveModel(self._numbers, found, await self._run(repository.labels, found))
        failures: list[errors.EdgeaiError] = []
        for artifact in found.manifest.artifacts:
            for device in [d for d in self.devices.values() if d.target == artifact.target and d.state == "ready"]:
                try:
                    result = await device.load(live, self.config.limits.queue + 8)
                except errors.EdgeaiError as error:
                    failures.append(error)
                    continue
                live.devices.append(device)
                log.info("model %s on %s: %s", live.key, device.id, result)
        if not live.devices:
            if live.region is not None:
                live.retire(lambda _: None)
            raise failures[0] if failures else errors.Unavailable(self._needs(found.manifest))
        ms = (clock() - started) * 1e3
        self.events.publish(
            "model-loaded",
            f"model {live.key!r} is ready on {', '.join(d.id for d in live.devices)} after {ms:.0f} ms",
            model=live.key,
        )
        return live

    def _needs(self, manifest: Manifest) -> str:
        wants = " or ".join(a.target for a in manifest.artifacts)
        have = ", ".join(f"{d.id} ({d.state})" for d in self.devices.values())
        return (
            f"{NO_DEVICE} for model {manifest.name!r}: it needs {wants}, present: {have or 'none'}; "
            "add an artifact for a device that is there or plug one in"
        )

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests under way finish."""
        served = self.served.get(name)
        if served is None or not served.versions:
            raise errors.NotFound(f"failed to unload {name!r}: it is not loaded")
        async with served.lock:
            old, served.versions, served.default = served.versions, {}, None
            for live in old.values():
                self.failures[name, live.version] = (State.UNAVAILABLE, "unloaded")
                live.retire(lambda gone: self._later(self._drop(gone)))
            self.events.publish("model-unloaded", f"model {name!r} is unloaded", model=name)

    async def rollback(self, name: str) -> str:
        """Serve the next older version on disk and pin it; returns its number."""
        live = self.model(name)
        older = [v for v in await self._run(self.repository.versions, name) if int(v) < int(live.version)]
        if not older:
            raise errors.NotFound(f"model {name!r} has no version older than {live.version}")
        before = self.pins.get(name)
        self.pins[name] = older[0]
        try:
            await self.load(name)
        except errors.EdgeaiError:
            if before is None:
                self.pins.pop(name)
            else:
                self.pins[name] = before
            raise
        await self._run(self.pins.write)
        return str(older[0])

    async def unpin(self, name: str) -> None:
        """Forget a rollback: the version policy decides again."""
        if self.pins.pop(name, None) is not None:
            await self._run(self.pins.write)

    async def retire(self, live: LiveModel) -> None:
        """Take a model that never served, or serves no more, off its devices."""
        live.retire(lambda _: None)
        await self._drop(live)

    async def _drop(self, live: LiveModel) -> None:
        for device in live.devices:
            await device.unload(live)
        await self.media.forget(live)

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def _policy_of(config: dict[str, Any]) -> str:
    """Version policy of a ModelConfig override in our notation; "" when it has none."""
    policy = config.get("version_policy")
    if not isinstance(policy, dict):
        return ""
    if "all" in policy:
        return "all"
    if isinstance(policy.get("latest"), dict):
        return f"latest:{policy['latest'].get('num_versions', 1)}"
    if isinstance(policy.get("specific"), dict):
        return "specific:" + ",".join(str(v) for v in policy["specific"].get("versions", []))
    return ""
