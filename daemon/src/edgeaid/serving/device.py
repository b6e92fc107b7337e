"""One device: its worker process, and what happens when the worker dies or hangs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from time import monotonic as clock
from typing import Any, Final

from .. import errors
from ..config import Device as DeviceConfig
from ..config import Limits
from ..devices.discovery import Hardware
from ..devices.ladder import Action, LadderPolicy, Step
from ..devices.states import State
from ..scheduling.costs import CostModel, link_rate
from ..scheduling.placement import Availability
from ..scheduling.policy import Policy
from ..scheduling.queue import DEFAULT_POLICY
from ..worker.handle import WorkerHandle
from ..worker.spawner import Spawner
from ..worker.wire import Kind
from .device_models import LoadedModels
from .dispatch import Dispatch
from .events import EventLog
from .model import LiveModel, Request
from .patience import Patience
from .probation import Probation
from .recovery import Recovery

log = logging.getLogger(__name__)

#: The first opening of a device may upload firmware and re-enumerate it.
OPEN_SECONDS: Final = 60.0
PING_SECONDS: Final = 5.0
#: Starts of a CPU worker in a row that requests wait for; after that they are refused until it is there.
QUICK_TRIES: Final = 3
#: Runs of a CPU worker that replaces one which died after each of which the heap is looked at (about 1 ms): damage may
#: have been done by another model than the one that ran when the worker died.
WATCHED_RUNS: Final = 200
#: Answers after which a crash of a model's worker is forgotten. Other ends (killed from outside, hung) are not such
#: evidence against it: one answer is enough.
ANSWERS_AFTER_CRASH: Final = 100
#: Targets without hardware of their own: changing models costs nothing, and there is nothing to reset.
SOFTWARE: Final = ("cpu", "ensemble")


class DeviceRunner:
    """Keeps one device's worker alive and feeds it."""

    def __init__(
        self,
        config: DeviceConfig,
        limits: Limits,
        events: EventLog,
        on_failed: Callable[[Request, str], None],
        quarantine_after: int,
        ladder: LadderPolicy,
        spawner: Spawner,
        probation: Probation,
        hardware: Hardware | None = None,
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        self.config = config
        self.id = config.id
        self.target = config.target
        self.limits = limits
        self.handle: WorkerHandle | None = None
        self.state = State.BOOTING
        self.reason = ""
        self.events = events
        self.models = LoadedModels(self)
        #: Looks at the buses; called after whatever may load firmware, so that the device's leaving the bus and coming
        #: back is known by then. When it does so later it was pulled or reset.
        self.look: Callable[[], object] = lambda: None
        self._spawner = spawner
        self._probation = probation
        #: Starts that failed since the device was last ready.
        self._tries = 0
        self._starting = False
        self._opens = Patience()
        self.runtime = ""
        self.description = ""
        self.facts: dict[str, Any] = {}
        self.restarts = 0
        self.recovered_ms: float | None = None
        self.recovery = Recovery(config.id, config.target, events, ladder, hardware)
        # Where switching models costs something, the queue learns how much and keeps to the cached group.
        software = config.target in SOFTWARE
        costs = None if software else CostModel(link_mib_s=link_rate(hardware.speed if hardware else None))
        self.requests = Dispatch(self, costs, policy, config.depth or (2 if software else 1), on_failed)
        self.queue = self.requests.queue
        #: Called when the device is ready again, so that models that came meanwhile are loaded.
        self.on_ready: Callable[[DeviceRunner], None] = lambda _: None
        self._quarantine_after = quarantine_after
        self._opening = False
        #: It was plugged in while a worker was already trying to open it.
        self._plugged = False
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the worker, open the device, load what it had.

        DeviceError, Unsupported or DeadlineExceeded when that fails; it is tried again in the background.
        """
        self._starting = True
        try:
            self.handle = None
            try:
                handle = await self._spawn()
            except errors.DeviceError as error:
                self._try_again(Action(Step.REOPEN, self.recovery.backoff(self._tries), self._tries + 1, str(error)))
                raise
            self.handle = handle
            if self._stopped:
                await handle.stop()
                raise errors.DeviceError("the daemon is stopping")
            await self._open(handle)
            await self.models.reload()
        finally:
            self._starting = False
        self._tries = 0
        self._set_state(State.READY)

    async def _spawn(self) -> WorkerHandle:
        return await WorkerHandle.spawn(self._spawner, self.id, self.requests.on_result, self._on_exit)

    async def _open(self, handle: WorkerHandle) -> None:
        self._opening, self._plugged = True, False
        body = {
            "target": self.target,
            "device": self.config.device,
            "options": dict(self.config.options),
            "watched": WATCHED_RUNS if self.restarts and self.target == "cpu" else 0,
        }
        started = clock()
        try:
            answer, _ = await handle.call(Kind.OPEN, body, timeout=self._opens.limit(OPEN_SECONDS))
        except errors.EdgeaiError as error:
            if isinstance(error, errors.DeadlineExceeded):
                self._opens.gave_up()
            handle.kill("did not open the device")
            self._set_state(State.FAILED, str(error))
            raise
        self._opens.succeeded(clock() - started)
        self._opening = False
        self.look()
        self.runtime, self.description, self.facts = answer["runtime"], answer["description"], answer["facts"]

    async def stop(self) -> None:
        """End the worker; requests left fail with Unavailable."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        self.requests.stop(errors.Unavailable("the daemon is stopping"))
        if self.handle is not None:
            await self.handle.stop()
        self._set_state(State.ABSENT)

    def _set_state(self, state: State, reason: str = "") -> None:
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason = state, reason
        level = logging.WARNING if state in (State.FAILED, State.RECOVERING) else logging.INFO
        self.events.publish(
            "device-state",
            f"device {self.id} is {state}{': ' + reason if reason else ''}",
            level=level,
            device=self.id,
            state=str(state),
        )

    def _on_exit(self, cause: str) -> None:
        """The worker is gone: fail or move what it had, start another."""
        crashed = self.handle is not None and self.handle.crashed
        self.handle = None
        quiet = self._opening and self.state is State.FAILED  # start() has said why; the device may be plugged in later
        if not quiet:
            self._lost_worker(cause, crashed=crashed)
        if self._stopped:
            return
        if not self.recovery.present:
            if self.state is not State.QUARANTINED:
                self._set_state(State.ABSENT, "unplugged")
            return
        action = self.recovery.next(clock(), cause)
        if quiet and self._plugged:
            action = Action(Step.REOPEN, 0.0, 1, "plugged in meanwhile")
        self._try_again(action, quiet=quiet)

    def _try_again(self, action: Action, *, quiet: bool = False) -> None:
        """Start a worker as the action says. `quiet`: the state says already what is wrong."""
        if self._stopped:
            return
        self._tries += 1
        if not quiet:
            self._set_state(State.FAILED if action.gives_up else State.RECOVERING, action.cause)
        if not self.accepts:
            self.requests.move_waiting(f"device {self.id} is {self.state}: {self.reason}")
        self._task = asyncio.get_running_loop().create_task(self._recover(action, clock()))

    def _lost_worker(self, cause: str, *, crashed: bool) -> None:
        under_way = self.requests.in_flight
        current = self.models.loading or (under_way[0].live if under_way else None)
        doing = "loaded" if self.models.loading else "ran"
        self.restarts += 1
        self.queue.reset()
        text = f"worker of {self.id} {cause}" + (f" while it {doing} model {current.key!r}" if current else "")
        fields = {"device": self.id, "model": current.key if current else "", "cause": cause}
        self.events.publish("worker-died", text, level=logging.ERROR, **fields)
        loading_here_only = current is self.models.loading and current is not None and not current.devices
        # An accelerator that fails is not a fault of a model that it ran, nor of one that serves elsewhere.
        if current is not None and (self.target == "cpu" or loading_here_only):
            self._count_death(current, cause, ANSWERS_AFTER_CRASH if crashed else 1)
        self.requests.lost(current, text)

    def _count_death(self, live: LiveModel, cause: str, answers: int) -> None:
        """Count it against the model until it has given so many answers."""
        live.kills += 1
        live.owed = max(live.owed, answers)
        if live.kills < self._quarantine_after or live.quarantined:
            return
        live.quarantined = f"its worker on {self.id} died {live.kills} times, last: it {cause}"
        self.events.publish(
            "model-quarantined",
            f"model {live.key!r} is quarantined: {live.quarantined}",
            level=logging.ERROR,
            model=live.key,
            device=self.id,
        )
        error = errors.Unavailable(f"model {live.key!r} is quarantined: {live.quarantined}")
        self.requests.fail_model(live, error)

    async def _recover(self, action: Action, died: float) -> None:
        """Do what the ladder says, then start a worker."""
        await self.recovery.perform(action)
        try:
            await self.start()
        except Exception as error:  # whatever it is, it must not be the last try
            if isinstance(error, errors.EdgeaiError):
                log.warning("device %s: %s", self.id, error)
            else:
                log.exception("device %s cannot be started", self.id)
            if self.handle is not None:
                self.handle.kill(f"did not take its models back: {error}")  # its exit starts the next try
            elif self._task is asyncio.current_task():  # nothing has started one yet
                self._try_again(Action(Step.REOPEN, self.recovery.backoff(self._tries), self._tries + 1, str(error)))
            return
        self.recovered_ms = (clock() - died) * 1e3
        text = f"device {self.id} is ready again after {self.recovered_ms:.0f} ms"
        self.events.publish("recovery", text, device=self.id, ms=round(self.recovered_ms, 1))
        self.on_ready(self)
        self.requests.pump()

    def plugged(self, hardware: Hardware, name: str | None = None) -> None:
        """The device is on the bus: whatever was waited for, try now. `name` = how the backend calls it from now on."""
        before = self.recovery.hardware
        self.recovery.plugged(hardware, clock())
        self._plugged = True
        if name is not None:
            self.config = dataclasses.replace(self.config, device=name)
        moved = before is not None and (before.number, before.nodes) != (hardware.number, hardware.nodes)
        if moved and self.handle is not None and self.state is State.READY and not self.requests.lock.locked():
            self.handle.kill("lost its device: it left the bus and came back")
        if self.handle is None and not self._stopped:
            if self._task is not None:
                self._task.cancel()
            pause = self.recovery.pause(clock())
            self._set_state(State.QUARANTINED if pause else State.BOOTING)
            action = Action(Step.REOPEN, pause, 1, "plugged in")
            self._task = asyncio.get_running_loop().create_task(self._recover(action, clock()))

    def unplugged(self, now: float) -> None:
        """The device has left the bus for good; its worker ends, requests go elsewhere."""
        pause = self.recovery.unplugged(now)
        if pause:
            self._set_state(State.QUARANTINED, f"it comes and goes; left alone for {pause:.0f} s")
        if self.handle is not None:
            self.handle.kill("lost its device: it was unplugged")
        elif not pause:
            if self._task is not None:
                self._task.cancel()
            self._set_state(State.ABSENT, "unplugged")

    async def check(self) -> bool:
        """True when the worker answers or is being replaced; a silent one is killed. For the watchdog."""
        if self.handle is None:
            waiting = self.state in (State.ABSENT, State.QUARANTINED) or self._stopped
            return waiting or self._starting or (self._task is not None and not self._task.done())
        if not self.handle.alive or self.requests.in_flight or self.requests.lock.locked() or self._starting:
            return True  # being replaced, or watched by a limit of its own
        try:
            answer, _ = await self.handle.call(Kind.PING, {}, timeout=PING_SECONDS)
            self.facts |= answer.get("health", {})
        except errors.DeadlineExceeded:
            if self.handle is not None and not self.requests.in_flight:
                self.handle.kill(f"did not answer for {PING_SECONDS:g} s")
            return False
        except errors.EdgeaiError:
            return True  # died meanwhile: recovery is under way
        return True

    # --- models -----------------------------------------------------------------------------------------------------

    async def load(self, live: LiveModel, slots: int) -> None:
        """Load a model that was never run here; requests to other models lose nothing by it.

        On the CPU it is tried in a worker of its own first. An accelerator can be opened once only: there it is tried
        while nothing else is under way. InvalidModel says what is wrong with it, DeviceError what with the device,
        Unavailable that there was no time for it.
        """
        if self.target == "cpu":
            passed = await self._probation.test(live, self.config, self.limits)
        else:
            passed = None
            await self.requests.pause(self.limits.load_seconds / 2)
        async with self.requests.exclusive(self.limits.load_seconds):
            await self.models.load(live, slots, passed)
            self.look()

    async def unload(self, live: LiveModel) -> None:
        """Take a model off this device."""
        async with self.requests.exclusive():
            await self.models.unload(live)

    # --- requests ---------------------------------------------------------------------------------------------------

    @property
    def accepts(self) -> bool:
        """Ready, or expected to be in a moment: an accelerator that recovers, a CPU worker that has just ended."""
        if self.state is State.READY:
            return True
        return self.state is State.RECOVERING and (self.target != "cpu" or self._tries <= QUICK_TRIES)

    @property
    def load_factor(self) -> int:
        """Requests waiting or running."""
        return self.requests.load_factor

    def availability(self, model: str) -> Availability:
        """What placement needs to know."""
        return self.requests.availability(model)

    def submit(self, request: Request) -> None:
        """Queue a request whose inputs lie in its slot. QueueFull when there is no room."""
        self.requests.submit(request)

    def cancel(self, request: Request) -> None:
        """The client is gone: drop it from the queue, or let it finish unseen."""
        self.requests.cancel(request)

    def snapshot(self) -> dict[str, Any]:
        """For `GET /edgeai/v1/devices`: JSON values only."""
        return {
            "id": self.id,
            "target": self.target,
            "state": str(State.BUSY if self.state is State.READY and self.requests.in_flight else self.state),
            "reason": self.reason,
            "runtime": self.runtime,
            "description": self.description,
            "facts": self.facts,
            "pid": self.handle.pid if self.handle else None,
            "restarts": self.restarts,
            "last_recovery_ms": self.recovered_ms,
            **self.recovery.snapshot(),
            "busy_seconds": self.requests.busy_ns / 1e9,
            "in_flight": len(self.requests.in_flight),
            "queue": self.queue.snapshot(),
            "models": [m.key for m in self.models.live.values()],
        }
