"""Models by name and version: which ones serve, which do not and why, and how one takes another's place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic as clock
from typing import Any

from .. import errors
from ..config import Config
from ..devices.states import State as DeviceState
from ..models import repository
from ..models.gate import check_formats
from ..models.manifest import Manifest
from ..models.repository import Repository, StoredModel
from ..models.trust import trust_of
from ..scheduling.queue import RESERVE
from . import members, policies
from .device import DeviceRunner
from .events import EventLog
from .locks import held
from .media import MediaRunner
from .model import LiveModel, State
from .pins import Pins
from .probation import AT_ONCE
from .tasks import Tasks

log = logging.getLogger(__name__)

#: States of a device that is being started.
COMING = (DeviceState.BOOTING, DeviceState.RECOVERING)


class NoDevice(errors.Unavailable):
    """No device for a model is there; it is loaded as soon as one comes."""


class NoDeviceYet(NoDevice):
    """One is being started: a client may ask for the model again."""


@dataclass(frozen=True, slots=True)
class Unserved:
    """Why a version does not serve."""

    state: State
    reason: str
    #: Class of the error that ended its loading.
    error: type[BaseException] | None = None

    def failed_with(self, kind: type[BaseException]) -> bool:
        """Whether its loading ended with such an error."""
        return self.error is not None and issubclass(self.error, kind)


class Served:
    """One model name: its loaded versions and the one that requests without a version get."""

    def __init__(self) -> None:
        self.versions: dict[str, LiveModel] = {}
        self.default: LiveModel | None = None


class Registry:
    """The models of the data plane, loaded on devices that are not the registry's to start or stop."""

    def __init__(
        self, config: Config, events: EventLog, devices: Mapping[str, DeviceRunner], media: MediaRunner, tasks: Tasks
    ) -> None:
        """`devices` by id: the plane's own table, which changes as devices come."""
        self.config = config
        self.events = events
        self.repository = Repository(self.directories(), max_file_bytes=config.limits.bundle_bytes)
        self.served: dict[str, Served] = {}
        #: name/version -> why it does not serve.
        self.failures: dict[tuple[str, str], Unserved] = {}
        self.pins = Pins(config.server.state_directory)
        self.trust = trust_of(config.models.trusted_keys, config.models.require_signature)
        self._numbers = 0
        #: Model name -> its lock, and how many hold it or wait for it.
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._devices = devices
        #: Makes a device of a target that has no hardware, where there is none yet.
        self.need: Callable[[str], Awaitable[None]] = _nothing
        self._media = media
        self._tasks = tasks

    def reconfigure(self, fresh: Config) -> None:
        """Take over trusted keys and repositories; what is loaded stays."""
        self.trust = trust_of(fresh.models.trusted_keys, fresh.models.require_signature)
        self.config = fresh
        self.repository = Repository(self.directories(), max_file_bytes=fresh.limits.bundle_bytes)

    def directories(self) -> list[Path]:
        """Where models lie, the writable directory first."""
        models = self.config.models
        return [*models.repositories, *([repository.EMBEDDED] if models.embedded else [])]

    def model(self, name: str, version: str = "") -> LiveModel:
        """The serving model; NotFound or Unavailable say why there is none."""
        served = self.served.get(name)
        if served is not None:
            live = served.versions.get(version) if version else served.default
            if live is not None:
                return live
        wanted = f"{name!r}" + (f" version {version}" if version else "")
        why = next((f for (n, v), f in self.failures.items() if n == name and version in ("", v)), None)
        if why is not None and why.state == State.LOADING:
            raise errors.Unavailable(f"model {wanted} is loading")
        if why is not None and why.failed_with(NoDeviceYet):
            raise NoDeviceYet(why.reason)
        because = f": {why.reason}" if why is not None else ""
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
                    reason = live.quarantined or self.why_not_now(live)
                    state = State.UNAVAILABLE if reason else State.READY
                else:
                    why = self.failures.get((name, version), Unserved(State.UNAVAILABLE, "not loaded"))
                    state, reason = why.state, why.reason
                rows.append({"name": name, "version": version, "state": str(state), "reason": reason})
        return rows

    def why_not_now(self, live: LiveModel) -> str:
        """Why no device serves a loaded model at this moment; "" when one does."""
        if any(device.state is DeviceState.READY for device in live.devices):
            return members.why_not_now(self, live)
        states = "; ".join(f"{d.id} is {d.state}{': ' + d.reason if d.reason else ''}" for d in live.devices)
        return f"no device can serve model {live.key!r} now ({states or 'none is present'})"

    def loaded(self) -> list[LiveModel]:
        """Every loaded version of every model."""
        return [live for served in self.served.values() for live in served.versions.values()]

    @contextlib.asynccontextmanager
    async def changing(self, name: str) -> AsyncIterator[None]:
        """One change of a model name at a time: load, unload, push, rollback, removal.

        Unavailable when others keep changing it for longer than a request may take.
        """
        seconds = self.config.limits.request_seconds
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with held(lock, seconds, f"others have been changing model {name!r} for {seconds:g} s"):
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)

    async def load(self, name: str, config: dict[str, Any] | None = None, *, unpin: bool = False) -> None:
        """Load or reload what the version policy says of `name`; `unpin` forgets a rollback before.

        NotFound; InvalidModel `failed to load ...`.
        """
        async with self.changing(name):
            if unpin:
                await self.pins.store(name, None)
            await self.load_locked(name, config)

    async def load_locked(self, name: str, config: dict[str, Any] | None = None) -> None:
        """`load` for those who have the name's lock."""
        versions = await self.run(self.repository.versions, name)
        if not versions:
            raise errors.NotFound(
                f"failed to load {name!r}: no such model in {', '.join(map(str, self.repository.directories))}"
            )
        wanted = self._wanted(name, versions, config or {})
        fresh: dict[str, LiveModel] = {}
        try:
            for version in wanted:
                fresh[version] = await self._load_version(name, version, config or {})
        except BaseException as error:
            for live in fresh.values():
                await self.retire(live)
            if not isinstance(error, errors.EdgeaiError):
                raise
            text = f"failed to load {name!r}: {error}"
            self.events.publish("model-failed", text, level=logging.ERROR, model=name)
            raise type(error)(text) from error
        self.swap(name, fresh)

    def swap(self, name: str, fresh: dict[str, LiveModel]) -> None:
        """Replace a name's versions in one step, the one for requests without a version first.

        Those that are in `fresh` no more finish what they have.
        """
        served = self.served.setdefault(name, Served())
        old = [live for live in served.versions.values() if live not in fresh.values()]
        served.versions = fresh
        served.default = next(iter(fresh.values()))
        for live in old:
            live.retire(lambda gone: self._tasks.start(self._drop(gone)))
        for version in fresh:
            self.failures.pop((name, version), None)

    async def add_version(self, live: LiveModel) -> bool:
        """Serve a version that has just been stored; False, and it is retired, if the version policy selects others."""
        served = self.served.get(live.name)
        loaded = served.versions if served is not None else {}
        newest = max((int(v) for v in loaded), default=0)
        wanted = self._wanted(live.name, await self.run(self.repository.versions, live.name), {}, pinned=False)
        if live.version not in wanted or int(live.version) < newest:
            await self.retire(live)
            return False
        await self.pins.store(live.name, None)
        every = {**loaded, live.version: live}
        self.swap(live.name, {v: every[v] for v in sorted(every, key=int, reverse=True) if v in wanted})
        return True

    def _wanted(self, name: str, versions: list[str], config: dict[str, Any], *, pinned: bool = True) -> list[str]:
        if pinned and self.pins.get(name) in versions:
            return [self.pins[name]]
        return policies.wanted(self.config.models, name, versions, config)

    async def _load_version(self, name: str, version: str, config: dict[str, Any]) -> LiveModel:
        self.failures[name, version] = Unserved(State.LOADING, "")
        try:
            stored = await self.run(self.repository.find, name, version)
            if stored.path.is_relative_to(self.repository.writable):
                await self.run(self.trust.check, stored)
            if batch := config.get("max_batch_size", 0):
                stored = replace(stored, manifest=replace(stored.manifest, max_batch_size=batch))
            live = await self.bring_up(stored)
        except BaseException as error:
            reason = str(error) or "loading was cancelled"
            self.failures[name, version] = Unserved(State.UNAVAILABLE, reason, type(error))
            raise
        live.config = config
        return live

    async def bring_up(self, stored: StoredModel) -> LiveModel:
        """Load a model version on every device it has an artifact for, self-tested; not yet visible to requests."""
        started = clock()
        await self.run(check_formats, stored)
        self._numbers += 1
        live = LiveModel(self._numbers, stored, (await self.run(repository.labels, stored)).names)
        try:
            await self._load_on_devices(live)
            # How many scores there are, which settles doubts about labels, is known now.
            labels = await self.run(repository.labels, stored, live.classes)
        except BaseException:
            await self.retire(live)
            raise
        live.labels, live.notes = labels.names, labels.notes
        for note in live.notes:
            log.warning("model %s: %s", live.key, note)
        ms = (clock() - started) * 1e3
        self.events.publish(
            "model-loaded",
            f"model {live.key!r} is ready on {', '.join(d.id for d in live.devices)} after {ms:.0f} ms",
            model=live.key,
        )
        return live

    async def _load_on_devices(self, live: LiveModel) -> None:
        manifest = live.stored.manifest
        if manifest.ensemble is not None:
            await members.bring(self, live.name, manifest.ensemble)
        failures: list[errors.EdgeaiError] = []
        for target in manifest.targets:
            await self.need(target)
            ready = [d for d in self._devices.values() if d.target == target and d.state is DeviceState.READY]
            for device in ready:
                try:
                    await device.load(live, self.config.limits.queue * (RESERVE + 1) // RESERVE + 8)
                except errors.EdgeaiError as error:
                    failures.append(error)
                    continue
                live.devices.append(device)
        if not live.devices:
            raise failures[0] if failures else self._no_device(manifest)

    def _no_device(self, manifest: Manifest) -> NoDevice:
        targets = manifest.targets
        coming = [d for d in self._devices.values() if d.target in targets and d.state in COMING]
        if coming:
            states = "; ".join(f"{d.id} is {d.state}{': ' + d.reason if d.reason else ''}" for d in coming)
            return NoDeviceYet(f"no device yet for model {manifest.name!r}: {states}")
        needed = " or ".join(targets)
        have = ", ".join(f"{d.id} ({d.state})" for d in self._devices.values())
        return NoDevice(
            f"no device for model {manifest.name!r}: it needs {needed}, present: {have or 'none'}; "
            "add an artifact for a device that is there or plug one in"
        )

    async def load_all(self) -> None:
        """Load every stored model that is not loaded; one that fails is published as an event and kept in the index.

        Ensembles come last, when their members are there; of the others as many at once as are tried at once.
        """
        names = [name for name in await self.run(self.repository.names) if name not in self.served]
        ensembles = await self.run(self._ensembles, names)
        alone = iter([name for name in names if name not in ensembles])
        await asyncio.gather(*(self._load_each(alone) for _ in range(AT_ONCE)))
        await self._load_each(iter(ensembles))

    async def _load_each(self, names: Iterator[str]) -> None:
        for name in names:
            if name not in self.served:
                with contextlib.suppress(errors.EdgeaiError):
                    await self.load(name)

    def _ensembles(self, names: list[str]) -> list[str]:
        """Those that are ensembles. Blocking."""
        ensembles = []
        for name in names:
            with contextlib.suppress(errors.EdgeaiError, OSError):  # loading it will say what is wrong
                wanted = self._wanted(name, self.repository.versions(name), {})
                if any(self.repository.find(name, version).manifest.ensemble is not None for version in wanted):
                    ensembles.append(name)
        return ensembles

    async def adopt(self, device: DeviceRunner) -> None:
        """A device is there (again): load what serves elsewhere and has an artifact for it, and what waited for it."""
        for live in self.loaded():
            targets = live.stored.manifest.targets
            if device in live.devices or device.target not in targets or live.retiring:
                continue
            try:
                await device.load(live, 0)
            except errors.EdgeaiError as error:
                log.warning("model %s on %s: %s", live.key, device.id, error)
                continue
            live.devices.append(device)
            live.devices.sort(key=lambda d: targets.index(d.target))
        waiting = {n for (n, _), why in self.failures.items() if why.failed_with(NoDevice)}
        for name in waiting:
            with contextlib.suppress(errors.EdgeaiError):  # published and kept in the index
                await self.load(name)

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """Stop serving a model; requests under way finish. `dependents`: also the members that only it asks."""
        gone = members.of(self, name) if dependents else []
        async with self.changing(name):
            served = self.served.get(name)
            if served is None or not served.versions:
                raise errors.NotFound(f"failed to unload {name!r}: it is not loaded")
            del self.served[name]
            for live in served.versions.values():
                self.failures[name, live.version] = Unserved(State.UNAVAILABLE, "unloaded")
                live.retire(lambda gone: self._tasks.start(self._drop(gone)))
            self.events.publish("model-unloaded", f"model {name!r} is unloaded", model=name)
        for member in gone:
            with contextlib.suppress(errors.NotFound):  # unloaded by another request meanwhile
                await self.unload(member)

    async def rollback(self, name: str) -> str:
        """Serve the next older version on disk and pin it; returns its number."""
        async with self.changing(name):
            live = self.model(name)
            older = [v for v in await self.run(self.repository.versions, name) if int(v) < int(live.version)]
            if not older:
                raise errors.NotFound(f"model {name!r} has no version older than {live.version}")
            before = self.pins.get(name)
            await self.pins.store(name, older[0])
            try:
                await self.load_locked(name)
            except BaseException:
                await self.pins.store(name, before)
                raise
            return str(older[0])

    async def remove(self, name: str, version: str) -> None:
        """Delete a version that is not being served from the writable repository."""
        async with self.changing(name):
            served = self.served.get(name)
            if served is not None and version in served.versions:
                raise errors.InvalidRequest(
                    f"model {name!r} version {version} is being served; unload it or load another version first"
                )
            await self.run(self.repository.remove, name, version)
            self.failures.pop((name, version), None)

    async def retire(self, live: LiveModel) -> None:
        """Take a model that never served off its devices, and free its memory."""
        await self._drop(live)
        live.retire(lambda _: None)

    async def _drop(self, live: LiveModel) -> None:
        for device in live.devices:
            await device.unload(live)
        await self._media.forget(live)

    async def run(self, function: Any, *args: Any) -> Any:
        """Call what blocks in a thread."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def _nothing(_target: str) -> None:
    """No devices are made."""
