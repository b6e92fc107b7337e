"""Requests on their way through one device: queued, handed to its worker, answered, failed or expired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from math import inf
from time import monotonic as clock
from typing import Final, Protocol

from .. import errors
from ..config import Limits, ModelScheduling, Scheduling
from ..devices.states import State
from ..scheduling.costs import CostModel
from ..scheduling.placement import Availability
from ..scheduling.policy import ModelPolicy, Policy
from ..scheduling.queue import DeviceQueue
from ..worker import wire
from ..worker.handle import WorkerHandle
from .locks import held
from .model import Device, LiveModel, Request
from .recovery import Recovery

log = logging.getLogger(__name__)

#: How often deadlines and hangs are looked for while there is work; a hang is noticed this much late at most.
TICK: Final = 0.02


def policy_of(settings: Scheduling) -> Policy:
    """The rule that [scheduling] describes."""

    def of(table: Scheduling | ModelScheduling) -> ModelPolicy:
        return ModelPolicy(table.threshold, table.timeout_seconds, table.starvation_seconds)

    return Policy(
        default=of(settings),
        models={name: of(table) for name, table in settings.model.items()},
        burst=settings.burst or None,
        deadlines=settings.deadlines,
        preempt=settings.preempt,
        idle_rule=settings.idle_rule,
        shed=settings.shed,
    )


class Host(Device, Protocol):
    """What the requests of a device need of it."""

    limits: Limits
    #: None while there is no worker.
    handle: WorkerHandle | None
    recovery: Recovery


class Dispatch:
    """The requests that wait for a device, and those that its worker has."""

    def __init__(
        self,
        host: Host,
        costs: CostModel | None,
        policy: Policy,
        depth: int,
        on_failed: Callable[[Request, str], None],
    ) -> None:
        self.host = host
        limits = host.limits
        self.queue = DeviceQueue(capacity=limits.queue, per_client=limits.queue_per_client, costs=costs, policy=policy)
        #: Requests that the worker may have at once.
        self.depth = depth
        self.busy_ns = 0
        #: Called with every request that was answered and its nanoseconds since it was queued.
        self.on_answered: Callable[[Request, int], None] = lambda *_: None
        #: Called with the time at which the next answer is expected, infinity when that does not matter, and the number
        #: of threads that compute it.
        self.expect: Callable[[float, int], None] = lambda *_: None
        #: Held while something is done to the worker during which it must have nothing else to do.
        self.lock = asyncio.Lock()
        #: Those that the worker has, in the order that it answers them.
        self.in_flight: deque[Request] = deque()
        #: Seconds that a run may wait for others before it counts as hung.
        self.waits: Callable[[], float] = lambda: 0.0
        self._on_failed = on_failed
        #: Requests stay in the queue.
        self._held = False
        #: Set when the worker has nothing under way.
        self._idle = asyncio.Event()
        self._numbers = 0
        self._last_client: object = None
        self._tick: asyncio.TimerHandle | None = None

    # --- from the client to the worker ------------------------------------------------------------------------------

    @property
    def load_factor(self) -> int:
        """Requests waiting or running."""
        return len(self.queue) + len(self.in_flight)

    def availability(self, model: str) -> Availability:
        """What placement needs to know."""
        cost = self.queue.costs.get(model)
        run = cost.run if cost is not None and cost.runs else None
        now = clock()
        left = sum(self.queue.costs.run(r.model) for r in self.in_flight)
        if self.in_flight:
            left = max(left - (now - self.in_flight[0].started), 0.0)
        free = not self.in_flight and not self.queue
        # Bringing parameters to an idle device is paid once and serves what follows: it is not a reason to stay away.
        wait = self.queue.wait_s(None if free else model) + left
        return Availability(self.host.id, self.host.target, self.host.state is State.READY, free, wait, run)

    def submit(self, request: Request) -> None:
        """Queue a request whose inputs lie in its slot. QueueFull when there is no room."""
        host = self.host
        request.device = host
        if (
            self.queue.is_open
            and len(self.in_flight) < self.depth
            and host.state is State.READY
            and host.handle is not None
            and host.handle.sound
            and not self._held
        ):
            # One that another device failed was enqueued long ago: that time is not this device's.
            self._hand_over(host.handle, request, clock() if request.tried else request.enqueued)
        else:
            request.group = request.live.groups.get(host.id, request.model)
            self.queue.push(request, request.enqueued)
            self.pump()
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(TICK, self._on_tick)

    def pump(self) -> None:
        """Hand queued requests to the worker while it has room."""
        handle = self.host.handle
        if handle is None or not handle.sound or self.host.state is not State.READY or self._held:
            return
        while len(self.in_flight) < self.depth:
            now = clock()
            request: Request | None = self.queue.take(now)  # type: ignore[assignment]  # only Requests are pushed
            if request is None:
                return
            request.queue_ns = int((now - request.enqueued) * 1e9)
            if not self._hand_over(handle, request, now):
                return

    def _hand_over(self, handle: WorkerHandle, request: Request, now: float) -> bool:
        """Give a request to the worker; False when it does not take it: the request waits for the next worker."""
        self._numbers += 1
        request.number = self._numbers
        request.running = True
        if not self.in_flight:
            request.started = now
        self.in_flight.append(request)
        # With several clients the CPU that looking would take is theirs.
        alone = len(self.in_flight) == 1 and request.client == self._last_client
        self._last_client = request.client
        if alone:
            threads = request.live.facts.get(self.host.id, {}).get("threads", 0)
            self.expect(now + self.queue.costs.run(request.model), threads)
        else:
            self.expect(inf, 0)
        try:
            handle.infer(request.live.number, request.slot, request.number, request.question)
        except OSError as error:  # nothing of the request has reached it: the next worker gets it
            handle.doubt(f"does not take messages: {error}")
            self.in_flight.pop()
            request.running = False
            if request.abandoned:
                request.release()
                return False
            try:
                self.queue.push(request, now)
            except errors.QueueFull:
                self._on_failed(request, f"worker of {self.host.id} does not take messages: {error}")
            return False
        return True

    def cancel(self, request: Request) -> None:
        """The client is gone: drop it from the queue, or let it finish unseen."""
        request.done = None
        self.queue.cancel(request)
        request.release()

    @contextlib.asynccontextmanager
    async def exclusive(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Nothing else is under way in the worker: what comes waits in the queue, and its clock has not started.

        `seconds`: a worker that is ready is needed, which is waited for so long while the device is being restarted,
        but not when it is out of use; then Unavailable. None: whatever the device does, as long as it takes.
        """
        until = clock() + (inf if seconds is None else seconds)
        busy = f"device {self.host.id} was busy with changes, or being restarted, for {seconds} s"
        async with held(self.lock, seconds, busy):
            self._held = True
            try:
                while self.in_flight or (seconds and self.host.state is not State.READY and self.host.accepts):
                    if clock() > until:
                        raise errors.Unavailable(f"{busy}; nothing was changed, ask again")
                    self._idle.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await self._idle.wait()
                yield
            finally:
                self._held = False
                self.pump()

    async def pause(self, seconds: float) -> None:
        """Return when nothing waits or runs here, or after `seconds`: a device that is never idle is made to pause."""
        until = clock() + seconds
        while self.load_factor and clock() < until:
            await asyncio.sleep(0.01)

    # --- from the worker to the client ------------------------------------------------------------------------------

    def on_result(self, number: int, status: int, phases: tuple[int, int, int], text: str) -> None:
        """The worker has answered the request of this number; `phases` = input, compute, output nanoseconds."""
        in_flight = self.in_flight
        if not in_flight or in_flight[0].number != number:
            log.error("device %s: answer to unknown request %d", self.host.id, number)
            return
        request = in_flight.popleft()
        now = clock()
        if in_flight:
            in_flight[0].started = now
        else:
            self._idle.set()
        request.running = False
        request.phases = phases
        if text and not status:
            request.ranked = text
        if self.queue:
            self.pump()
        if status:
            error = wire.error_of(status, text)
            if isinstance(error, errors.DeviceError):
                self._on_device_error(request, text)
                return
            fail(request, error)
            return
        live, done = request.live, request.done
        if request.abandoned:
            request.release()
        elif done is not None:
            done(request)
        # Statistics are updated after the answer, so that no client waits for them.
        if live.kills:
            live.owed -= 1
            if live.owed <= 0:
                live.kills = 0
        self.busy_ns += phases[0] + phases[1] + phases[2]
        self.queue.finished(request, now, phases[1] / 1e9)
        self.host.recovery.worked(now)
        total_ns = int((now - request.enqueued) * 1e9)
        if request.error is None:  # else it was answered at its deadline
            live.stats.succeeded(self.host.id, request.queue_ns, phases, total_ns)
            self.on_answered(request, total_ns)

    def _on_device_error(self, request: Request, text: str) -> None:
        """The runtime says that its device fails: once more if the ladder begins so; else this request moves or fails
        and the worker is replaced."""
        now = clock()
        useful = not request.abandoned and (request.deadline is None or request.deadline > now)
        handle = self.host.handle
        if useful and handle is not None and handle.alive and self.host.recovery.retry(now, text):
            self._hand_over(handle, request, now)
            return
        self._on_failed(request, f"device {self.host.id}: {text}")
        if self.host.handle is not None:
            self.host.handle.kill(f"reported: {text}")

    def lost(self, current: LiveModel | None, text: str) -> None:
        """The worker is gone, with what it had: those requests fail or move. `current`: what it was doing."""
        hit, self.in_flight = self.in_flight, deque()
        self._idle.set()
        for number, request in enumerate(hit):
            request.running = False
            # What the CPU had not begun yet is not touched by the end of its worker: the next one runs it.
            if number and self.host.target == "cpu" and not request.abandoned and request.live is not current:
                with contextlib.suppress(errors.QueueFull):
                    self.queue.push(request, clock())
                    continue
            self._on_failed(request, text)

    # --- those that wait --------------------------------------------------------------------------------------------

    def move_waiting(self, text: str) -> None:
        """Requests in the queue go to another device, or fail."""
        for request in self._drain():
            self._on_failed(request, text)

    def fail_model(self, live: LiveModel, error: errors.EdgeaiError) -> None:
        """Requests in the queue for a model fail; the others stay."""
        waiting = self._drain()
        for request in waiting:
            if request.live is not live:
                self.queue.push(request, clock())
        for request in waiting:
            if request.live is live:
                fail(request, error)

    def stop(self, error: errors.EdgeaiError) -> None:
        """Fail all that is left."""
        if self._tick is not None:
            self._tick.cancel()
        for request in [*self.in_flight, *self._drain()]:
            fail(request, error)
        self.in_flight.clear()

    def _drain(self) -> list[Request]:
        return self.queue.drain(clock())  # type: ignore[return-value]  # only Requests are pushed

    def _on_tick(self) -> None:
        self._tick = None
        now = clock()
        for job in self.queue.expire(now):
            self._expired(job, now, "in the queue of")  # type: ignore[arg-type]  # only Requests are pushed
        for request in self.in_flight:
            if request.deadline is not None and request.deadline <= now and request.error is None:
                self._expired(request, now, "on")
        seconds, handle = self.host.limits.invoke_seconds + self.waits(), self.host.handle
        if self.in_flight and now - self.in_flight[0].started > seconds and handle is not None:
            handle.kill(f"hung for {seconds:g} s")
        self.pump()
        if self.in_flight or self.queue:
            self._tick = asyncio.get_running_loop().call_later(TICK, self._on_tick)

    def _expired(self, request: Request, now: float, where: str) -> None:
        """Its deadline passed: the caller gets the error now, even when the device still works on it."""
        request.live.stats.expired += 1
        text = f"deadline passed after {now - request.enqueued:.3f} s {where} {self.host.id}"
        fail(request, errors.DeadlineExceeded(text))


def fail(request: Request, error: errors.EdgeaiError) -> None:
    """End a request with an error and notify its caller."""
    request.error = error
    request.live.stats.failed(int((clock() - request.enqueued) * 1e9))
    if request.abandoned:
        request.release()
    elif request.done is not None:
        request.done(request)
