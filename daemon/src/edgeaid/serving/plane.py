"""The data plane: models and devices, and requests between them.

Protocol adapters use this and hold no state of models.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable

from .. import config as configuration
from .. import errors
from ..config import Config
from ..devices.discovery import Found as Hardware
from ..models.repository import Repository
from ..models.trust import trust_of
from ..scheduling.placement import place
from .access import Denials
from .device import DeviceRunner, clock, fail
from .events import EventLog
from .holdings import Holdings
from .model import Device, LiveModel, Request, State
from .poller import Poller
from .recovery import policy_of
from .registry import NO_DEVICE, Registry
from .settings import Settings
from .shm import Regions

log = logging.getLogger(__name__)


class Plane(Registry):
    """Everything that serves."""

    def __init__(self, config: Config, events: EventLog | None = None, poller: Poller | None = None) -> None:
        super().__init__(config, events or EventLog())
        #: The event loop's, where it has one that can be told when answers are expected.
        self.poller = poller
        self._configure_poller()
        self.denials = Denials(self.events)
        self.holdings = Holdings(lambda: self.config.limits)
        self.settings = Settings()
        self.regions = Regions(config.shared_memory)
        #: What others add to `/metrics`.
        self.more_metrics: Callable[[], str] = str
        self.ready = False
        self.stopping = False
        #: Looks for devices that came, went or changed; set by hot-plug.
        self.look: Callable[[], object] = lambda: None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the devices and load the models; a device or model that fails is reported and left out."""
        await self.spawner.start()
        self.pins.read()
        await asyncio.get_running_loop().run_in_executor(None, self.repository.clean)
        for entry in self.config.device or (configuration.Device(id="cpu0", target="cpu"),):
            await self.add_device(entry)
        if self.config.models.load_all:
            for name in self.repository.names():
                with contextlib.suppress(errors.EdgeaiError):  # published as an event and kept in the index
                    await self.load(name)
        self.ready = True
        for served in self.served.values():
            for live in served.versions.values():
                if live.found.manifest.picture is not None:
                    self._later(self.media.warm(live))

    async def add_device(self, entry: configuration.Device, found: Hardware | None = None) -> DeviceRunner:
        """Take a device into service; it stays listed, with its reason, when it cannot be opened."""
        after = self.config.models.quarantine_after
        ladder = policy_of(self.config.recovery)
        device = DeviceRunner(
            entry, self.config.limits, self.events, self._on_failed, after, ladder, self.spawner, self.probation, found
        )
        if self.poller is not None:
            device.expect = self.poller.expect
        device.on_answered = self._answered
        device.on_ready = lambda ready: self._later(self.adopt(ready))
        device.look = lambda: self.look()  # noqa: PLW0108  hot-plug replaces it after the first devices were made
        self.devices[device.id] = device
        try:
            await device.start()
        except errors.EdgeaiError as error:
            log.warning("device %s: %s", device.id, error)
        return device

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
        self.spawner.close()

    async def reconfigure(self, fresh: Config) -> list[str]:
        """Take over what can change while serving; returns the names of sections that cannot and did."""
        self.trust = trust_of(fresh.models.trusted_keys, fresh.models.require_signature)
        old, self.config = self.config, fresh
        self.repository = Repository(self.directories(), max_file_bytes=fresh.limits.bundle_bytes)
        for device in self.devices.values():
            device.limits = fresh.limits
            device.queue.capacity = fresh.limits.queue
            device.queue.per_client = fresh.limits.queue_per_client
            if fresh.recovery != old.recovery:
                device.recovery.change(policy_of(fresh.recovery))
        self.media.limits = fresh.limits
        self._configure_poller()
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
        return kept + [n for n in ("tcp", "device", "dialects") if getattr(fresh, n) != getattr(old, n)]

    def _configure_poller(self) -> None:
        if self.poller is not None:
            self.poller.configure(self.config.server.poll_microseconds / 1e6)

    async def check(self) -> bool:
        """True when every worker answers (or is being replaced)."""
        return all(await asyncio.gather(*(d.check() for d in self.devices.values())))

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
        request = Request(
            model=live.key,
            group=live.key,
            client=client,
            priority=priority,
            deadline=now + (timeout or self.config.limits.request_seconds),
            enqueued=now,
            live=live,
            slot=slot,
        )
        if live.noted:
            request.describe_one()
        return request

    def submit(self, request: Request) -> None:
        """Send a request on its way; `request.done` follows unless this raises QueueFull or Unavailable."""
        device = self._place(request) if not request.turn.number else self._place_turn(request)
        if not request.tried:
            request.enqueued = clock()  # what came before (preparing a picture) is not waiting
        try:
            device.submit(request)
        except errors.QueueFull:
            request.live.stats.rejected += 1
            raise

    def _place(self, request: Request) -> Device:
        """The device to serve a request: the only one there is, or the one expected to answer first."""
        devices = request.live.devices
        if len(devices) == 1 and not request.tried:
            if devices[0].accepts:
                return devices[0]
            raise errors.Unavailable(
                self.why_not_now(request.live) or f"model {request.live.key!r}: its devices failed this request"
            )
        seats = {d.id: d for d in devices if d.id not in request.tried}
        remaining = request.deadline - clock() if request.deadline is not None else None
        targets = [a.target for a in request.live.found.manifest.artifacts]
        found = place(targets, [d.seat(request.live.key) for d in seats.values()], remaining_s=remaining)
        if not found:
            raise errors.Unavailable(
                self.why_not_now(request.live) or f"model {request.live.key!r}: its devices failed this request"
            )
        return seats[found[0].device]

    def _place_turn(self, request: Request) -> Device:
        """The device that has a sequence's state; for the first request of one, any that serves."""
        live, turn = request.live, request.turn
        if turn.start:
            chosen: Device | None = self._place(request)
        else:
            owner = live.sequences.device(turn.number)
            chosen = next((d for d in live.devices if d.id == owner and owner not in request.tried), None)
        if chosen is None or chosen.state not in ("ready", "recovering"):
            raise errors.Unavailable(
                f"the device that had the sequence's state of model {live.key!r} is gone, and the state with it; begin "
                "the sequence again with sequence_start"
            )
        live.sequences.settle(turn, chosen.id)
        return chosen

    def _why_no_device(self, live: LiveModel) -> str:
        return self.why_not_now(live) or f"every device that serves model {live.key!r} has failed this request"

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
            self.withdraw(request)
            raise
        if request.error is not None:
            raise request.error

    def withdraw(self, request: Request) -> None:
        """The client is gone: its request needs no answer any more."""
        request.live.stats.cancelled += 1
        if request.device is not None:
            request.device.cancel(request)

    def _answered(self, request: Request, total_ns: int) -> None:
        if self.settings.tracing:
            times = dict(zip(("queue", "input", "compute", "output"), (request.queue_ns, *request.phases), strict=True))
            device = request.device.id if request.device else ""
            self.settings.traced(request.live.name, {"device": device, **times, "total": total_ns})

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
