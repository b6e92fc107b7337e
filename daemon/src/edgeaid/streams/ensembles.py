"""The device that ensembles run on: a process that does their stages, with the models that others loaded.

To the plane it is a device as others are, with a queue, a worker and statistics. Its worker asks the members as a
stream's process does: the daemon leases it slots of their memory, so that pixels and tensors stay where they are.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic as clock
from typing import Any, ClassVar, Final

from ..models.ensemble import TARGET
from ..serving.device import DeviceRunner
from ..serving.plane import Plane
from ..worker.handle import OnResult, WorkerHandle
from .handle import StreamHandle
from .leases import Leases, Terms

#: How often leases on models that are being replaced are given back.
SWEEP_SECONDS: Final = 1.0


class EnsembleHandle(StreamHandle):
    """The process."""

    module: ClassVar[str] = "edgeaid.streams.process.ensemble"

    def tell_results(self, on_result: OnResult) -> None:
        """Who is called with answers, which follow requests only."""
        self._on_result = on_result


class EnsembleRunner(DeviceRunner):
    """Made with the first ensemble that is loaded."""

    def __init__(self, plane: Plane, *args: Any) -> None:
        super().__init__(*args)
        # Members may be waited for as long as any request, and have limits of their own.
        self.requests.waits = lambda: self.limits.request_seconds
        self._plane = plane
        self._leases: Leases | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def _spawn(self) -> WorkerHandle:
        handle = await EnsembleHandle.spawn(self._spawner, self.id, self._on_message, self._on_exit)
        handle.tell_results(self.requests.on_result)
        self._leases = Leases(self._plane, handle, self._terms)
        self._sweep()
        return handle

    def _on_message(self, kind: int, status: int, number: int, body: dict[str, Any]) -> None:
        if self._leases is not None:
            self._leases.take(kind, status, number, body)

    def _terms(self) -> Terms:
        """Those of the request that is being worked on: requests are answered in their order."""
        seconds = self.limits.request_seconds
        if not self.requests.in_flight:
            return Terms(0, seconds)
        request = self.requests.in_flight[0]
        left = request.deadline - clock() if request.deadline is not None else seconds
        return Terms(request.priority, max(left, 0.001))

    def _sweep(self) -> None:
        if self._leases is not None:
            self._leases.sweep()
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _close_leases(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._leases is not None:
            self._leases.close()
            self._leases = None

    def _on_exit(self, cause: str) -> None:
        self._close_leases()
        super()._on_exit(cause)

    async def stop(self) -> None:
        """End the process; what it asked for is withdrawn."""
        await super().stop()
        self._close_leases()


def install(plane: Plane) -> None:
    """Let the plane make the device when the first ensemble is loaded."""
    plane.makers[TARGET] = partial(EnsembleRunner, plane)
