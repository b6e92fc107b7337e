"""What to try when a device failed: a pause for the CPU, the ladder of `devices.ladder` for everything else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from .. import config, errors
from ..devices import recovery_steps
from ..devices.discovery import Hardware
from ..devices.ladder import (
    Action,
    Ladder,
    LadderPolicy,
    Step,
    Tries,
    policy_for,
)
from .events import EventLog

log = logging.getLogger(__name__)

#: Pause before the n-th restart in a row of a CPU worker that dies before it answered anything.
BACKOFF: Final = (0.0, 0.1, 0.5, 2.0, 5.0, 10.0)


def policy_of(settings: config.Recovery) -> LadderPolicy:
    """The ladder that [recovery] describes."""
    return LadderPolicy(
        steps=tuple(Tries(Step(name), wait_s=settings.wait.get(name, 0.0)) for name in settings.steps),
        settle_s=settings.settle_seconds,
        first_wait_s=settings.first_wait_seconds,
        longest_wait_s=settings.longest_wait_seconds,
        flaps=settings.flaps,
        flap_window_s=settings.flap_seconds,
        quarantine_s=settings.quarantine_seconds,
    )


class Recovery:
    """One device's way back. Times are seconds of the monotonic clock."""

    def __init__(
        self, device: str, target: str, events: EventLog, policy: LadderPolicy, hardware: Hardware | None = None
    ) -> None:
        self.device = device
        self.target = target
        self.events = events
        #: The hardware, where discovery knows it.
        self.hardware = hardware
        #: False between unplugging and plugging in.
        self.present = True
        self.ladder = None if target in ("cpu", "ensemble") else Ladder(self._own(policy))
        self._failures = 0
        self._quiet_until = 0.0

    def _own(self, policy: LadderPolicy) -> LadderPolicy:
        return policy_for(policy, self.target, usb=self.hardware is None or self.hardware.usb_ids is not None)

    def change(self, policy: LadderPolicy) -> None:
        """Other settings from now on."""
        if self.ladder is not None:
            self.ladder.change(self._own(policy))

    def retry(self, now: float, cause: str) -> bool:
        """Send the request that failed once more to the worker that it failed in?"""
        action = self.ladder.retry(now, cause) if self.ladder is not None else None
        if action is not None:
            self._publish(action)
        return action is not None

    def next(self, now: float, cause: str) -> Action:
        """What to try with a worker gone, and how long to wait before."""
        self._failures += 1
        if self.ladder is None:
            return Action(Step.REOPEN, self.backoff(self._failures - 1), self._failures, cause)
        return self.ladder.failed(now, cause)

    @staticmethod
    def backoff(failures: int) -> float:
        """Seconds to wait before the next start of a worker after so many in a row that failed."""
        return BACKOFF[min(failures, len(BACKOFF) - 1)]

    async def perform(self, action: Action) -> None:
        """Wait, then touch the hardware as far as the step does. A refused step is logged: the next one follows."""
        self._publish(action)
        await asyncio.sleep(action.wait_s)
        if self.hardware is None:
            return
        try:
            await recovery_steps.perform(action.step, self.hardware)
        except errors.DeviceError as error:
            log.warning("%s", error)

    def _publish(self, action: Action) -> None:
        wait = f" in {action.wait_s:g} s" if action.wait_s else ""
        text = f"device {self.device}: trying {action.step}{wait} (attempt {action.attempt}), because: {action.cause}"
        self.events.publish(
            "recovery", text, level=logging.WARNING,
            device=self.device, step=str(action.step), attempt=action.attempt, cause=action.cause,
            rung=str(action.step),  # the name until 0.1; goes with 0.2
        )  # fmt: skip

    def worked(self, now: float) -> None:
        """The device answered a request."""
        self._failures = 0
        if self.ladder is not None:
            self.ladder.succeeded(now)

    def plugged(self, hardware: Hardware, now: float) -> None:
        """It is on the bus (again)."""
        self.hardware, self.present = hardware, True
        if self.ladder is not None:
            self.ladder.plugged(now)

    def unplugged(self, now: float) -> float:
        """It left the bus; returns seconds to leave it alone when it comes and goes too often."""
        self.present = False
        action = self.ladder.vanished(now) if self.ladder is not None else None
        if action is None:
            return 0.0
        self._publish(action)
        self._quiet_until = now + action.wait_s
        return action.wait_s

    def pause(self, now: float) -> float:
        """Seconds that a device which comes and goes is still left alone."""
        return max(self._quiet_until - now, 0.0)

    def tried(self) -> dict[str, int]:
        """Step -> how often it was tried."""
        tried = self.ladder.snapshot()["steps"] if self.ladder is not None else {}
        return {step: count["tried"] for step, count in tried.items()}

    def snapshot(self) -> dict[str, Any]:
        """JSON values: the hardware and what was tried."""
        return {
            "hardware": self.hardware.to_json() if self.hardware else None,
            "ladder": self.ladder.snapshot() if self.ladder else None,
        }
