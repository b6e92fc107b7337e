"""The data plane: models and devices, and requests between them.

Protocol adapters use this and hold no state of models.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Hashable
from time import monotonic as clock
from typing import Final

from .. import config as configuration
from .. import errors
from ..config import Config
from ..devices.discovery import Hardware
from ..scheduling.placement import place
from ..worker.launch import ForkServer
from ..worker.spawner import Spawner
from .access import Denials, Peer, Role
from .device import DeviceRunner
from .dispatch import fail
from .dispatch import policy_of as scheduling_of
from .events import EventLog
from .holdings import Holdings
from .media import MediaRunner
from .model import Device, LiveModel, Request
from .poller import Poller
from .probation import Probation
from .recovery import policy_of
from .registry import Registry
from .settings import Settings
from .shm import Regions
from .tasks import Tasks
from .turns import Turns

log = logging.getLogger(__name__)

#: Threads that compute at once: that read or write large JSON.
COMPUTING: Final = 2


class Plane:
    """Everything that serves: the devices, the registry of models that run on them, and requests on their way."""

    def __init__(
        self,
        config: Config,
        events: EventLog | None = None,
        poller: Poller | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        self.config = config
        self.events = events or EventLog()
        self.spawner = Spawner(fork_server)
        self.probation = Probation(self.spawner)
        self.media = MediaRunner(config.limits, self.events, self.spawner)
        self.devices: dict[str, DeviceRunner] = {}
        self._tasks = Tasks()
        self.registry = Registry(config, self.events, self.devices, self.media, self._tasks)
        #: The event loop's, where it has one that takes the time at which answers are expected.
        self.poller = poller
        self._configure_poller()
        self.denials = Denials(self.events)
        self.holdings = Holdings(lambda: self.config.limits)
        self.turns = Turns(poller)
        #: Held by a thread that computes.
        self.computing = asyncio.Semaphore(COMPUTING)
        self.settings = Settings()
        self.regions = Regions(config.shared_memory, self.holdings)
        #: What makes devices of targets that have no hardware, by target: others' than those of runtimes.
        self.makers: dict[str, Callable[..., DeviceRunner]] = {}
        self.registry.need = self._need
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
        self.registry.pins.read()
        await asyncio.get_running_loop().run_in_executor(None, self.registry.repository.clean)
        for entry in self.config.device or (configuration.Device(id="cpu0", target="cpu"),):
            await self.add_device(entry)
        if self.config.models.load_all:
            await self.registry.load_all()
        self.ready = True
        for live in self.registry.loaded():
            if live.stored.manifest.picture is not None:
                self._tasks.start(self.media.warm(live))

    async def add_device(self, entry: configuration.Device, hardware: Hardware | None = None) -> DeviceRunner:
        """Take a device into service; it stays listed, with its reason, when it cannot be opened."""
        after = self.config.models.quarantine_after
        ladder = policy_of(self.config.recovery)
        device = self.makers.get(entry.target, DeviceRunner)(
            entry,
            self.config.limits,
            self.events,
            self._on_failed,
            after,
            ladder,
            self.spawner,
            self.probation,
            hardware,
            scheduling_of(self.config.scheduling),
        )
        if self.poller is not None:
            device.requests.expect = self.poller.expect
        device.requests.on_answered = self._answered
        device.on_ready = lambda ready: self._tasks.start(self.registry.adopt(ready))
        device.look = lambda: self.look()  # noqa: PLW0108  hot-plug replaces it after the first devices were made
        self.devices[device.id] = device
        try:
            await device.start()
        except errors.EdgeaiError as error:
            log.warning("device %s: %s", device.id, error)
        return device

    async def _need(self, target: str) -> None:
        """Make the one device of a target that has no hardware, where it does not exist yet."""
        if target in self.makers and all(d.target != target for d in self.devices.values()):
            await self.add_device(configuration.Device(id=f"{target}0", target=target))

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
        old, self.config = self.config, fresh
        self.registry.reconfigure(fresh)
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
            await self.registry.load_all()
        server = [
            f.name
            for f in dataclasses.fields(fresh.server)
            if getattr(fresh.server, f.name) != getattr(old.server, f.name)
        ]
        kept = [f"server.{n}" for n in server if n.endswith("socket")]
        return kept + [n for n in ("tcp", "device", "dialects", "scheduling") if getattr(fresh, n) != getattr(old, n)]

    def _configure_poller(self) -> None:
        if self.poller is not None:
            self.poller.configure(self.config.server.poll_microseconds / 1e6)

    async def check(self) -> bool:
        """True when every worker answers (or is being replaced)."""
        return all(await asyncio.gather(*(d.check() for d in self.devices.values())))

    # --- requests ---------------------------------------------------------------------------------------------------

    def request(self, live: LiveModel, client: Hashable, *, priority: int = 0, timeout: float | None = None) -> Request:
        """A request with a slot to write inputs into. `timeout` in seconds. QueueFull, Unavailable.

        `client` is a Peer, whose user has a share, or something of the daemon's own.
        """
        self._check_taken(live)
        user: Hashable = client
        privileged = True
        if isinstance(client, Peer):
            user, privileged = client.uid, client.role >= Role.CONTROL or self.holdings.privileged(client.uid)
            client = client.pid
        if live.retiring:
            raise errors.Unavailable(f"model {live.key!r} is being unloaded")
        try:
            slot = live.take_slot(user, privileged=privileged)
        except errors.QueueFull:
            live.stats.rejected += 1
            raise
        return self._request(live, slot, (client, user, privileged), priority, timeout)

    def again(self, answered: Request, *, priority: int = 0, timeout: float | None = None) -> Request:
        """A request in the slot of an answered one, which has it no more. Unavailable.

        A model that is being replaced takes it: whoever held a slot may use it once more.
        """
        self._check_taken(answered.live)
        slot, answered.slot = answered.slot, -1
        caller = (answered.client, answered.user, answered.privileged)
        return self._request(answered.live, slot, caller, priority, timeout)

    def _check_taken(self, live: LiveModel) -> None:
        """Unavailable when no requests are taken for a model."""
        if self.stopping:
            raise errors.Unavailable("the daemon is stopping")
        if live.quarantined:
            raise errors.Unavailable(
                f"model {live.key!r} is quarantined: {live.quarantined}; load it again to lift this"
            )

    def _request(
        self,
        live: LiveModel,
        slot: int,
        caller: tuple[Hashable, Hashable, bool],
        priority: int,
        timeout: float | None,
    ) -> Request:
        now = clock()
        client, user, privileged = caller
        request = Request(
            model=live.key,
            group=live.key,
            client=client,
            priority=priority,
            deadline=now + (timeout or self.config.limits.request_seconds),
            enqueued=now,
            live=live,
            slot=slot,
            user=user,
            privileged=privileged,
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
        live = request.live
        if len(live.devices) == 1 and not request.tried:
            if live.devices[0].accepts:
                return live.devices[0]
            raise errors.Unavailable(self._why_no_device(live))
        devices = {d.id: d for d in live.devices if d.id not in request.tried}
        remaining = request.deadline - clock() if request.deadline is not None else None
        targets = live.stored.manifest.targets
        order = place(targets, [d.availability(live.key) for d in devices.values()], remaining_s=remaining)
        if not order:
            raise errors.Unavailable(self._why_no_device(live))
        return devices[order[0].device]

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
        return self.registry.why_not_now(live) or f"model {live.key!r}: its devices failed this request"

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
