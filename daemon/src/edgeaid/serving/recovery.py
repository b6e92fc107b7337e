"""What to try when a device's worker died: a pause for the CPU, the ladder of `devices.ladder` for everything else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from .. import errors
from ..devices import rungs
from ..devices.discovery import Found
from ..devices.ladder import Action, Ladder, Rung, policy_for
from .events import EventLog

log = logging.getLogger(__name__)

#: Pause before the n-th restart in a row of a CPU worker that dies before it answered anything.
BACKOFF: Final = (0.0, 0.1, 0.5, 2.0, 5.0, 10.0)


class Recovery:
    """One device's way back. Times are seconds of the monotonic clock."""

    def __init__(self, device: str, target: str, events: EventLog, found: Found | None = None) -> None:
        self.device = device
        self.events = events
        #: The hardware, where discovery knows it.
        self.found = found
        #: False between unplugging and plugging in.
        self.present = True
        self.ladder = (
            None if target == "cpu" else Ladder(policy_for(target, usb=found is None or found.usb_ids is not None))
        )
        self._failures = 0
        self._quiet_until = 0.0

    def next(self, now: float, cause: str) -> Action:
        """What to try, and how long to wait before."""
        self._failures += 1
        if self.ladder is None:
            return Action(Rung.REOPEN, BACKOFF[min(self._failures - 1, len(BACKOFF) - 1)], self._failures, cause)
        return self.ladder.failed(now, cause)

    async def perform(self, action: Action) -> None:
        """Wait, then touch the hardware as far as the rung does. A refused rung is logged: the next one follows."""
        if action.rung not in (Rung.RETRY, Rung.REOPEN):
            text = f"device {self.device}: trying {action.rung} in {action.wait_s:g} s, because: {action.cause}"
            self.events.publish("recovery", text, level=logging.WARNING, device=self.device, rung=str(action.rung))
        await asyncio.sleep(action.wait_s)
        if self.found is None:
            return
        try:
            await rungs.perform(action.rung, self.found)
        except errors.DeviceError as error:
            log.warning("%s", error)

    def worked(self, now: float) -> None:
        """The device answered a request."""
        self._failures = 0
        if self.ladder is not None:
            self.ladder.succeeded(now)

    def plugged(self, found: Found) -> None:
        """It is on the bus (again)."""
        self.found, self.present = found, True
        if self.ladder is not None:
            self.ladder.plugged()

    def unplugged(self, now: float) -> float:
        """It left the bus; returns seconds to leave it alone when it comes and goes too often."""
        self.present = False
        action = self.ladder.vanished(now) if self.ladder is not None else None
        if action is not None:
            self._quiet_until = now + action.wait_s
        return action.wait_s if action is not None else 0.0

    def pause(self, now: float) -> float:
        """Seconds that a device which comes and goes is still left alone."""
        return max(self._quiet_until - now, 0.0)

    def snapshot(self) -> dict[str, Any]:
        """JSON values: the hardware and what was tried."""
        return {
            "hardware": self.found.to_json() if self.found else None,
            "ladder": self.ladder.snapshot() if self.ladder else None,
        }
