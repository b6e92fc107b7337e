"""Getting a stuck device back, one step harder at a time: retry, reopen, USB reset, authorized, port power, fall back.

Pure logic: it says what to try and how long to wait before; `rungs.py` carries it out. Every step is counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class Rung(StrEnum):
    """What can be tried."""

    #: Send the request once more.
    RETRY = "retry"
    #: Replace the worker: close and open the device.
    REOPEN = "reopen"
    #: Reset its USB port.
    USB_RESET = "usb-reset"
    #: Let the kernel forget and find it again (sysfs `authorized` 0, 1).
    AUTHORIZED = "authorized"
    #: Cut the power of its port for a moment, where the hub can.
    PORT_POWER = "port-power"
    #: Nothing helped: other devices answer (CPU artifact) until it is tried again.
    FALL_BACK = "fall-back"
    #: It comes and goes too often: left alone for a while.
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Step:
    """One rung of a ladder."""

    rung: Rung
    #: How often in a row before the next rung.
    attempts: int = 1
    #: Seconds to wait before each.
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LadderPolicy:
    """Settings of a ladder; times in seconds."""

    steps: tuple[Step, ...] = (
        Step(Rung.RETRY),
        Step(Rung.REOPEN, attempts=2, wait_s=0.1),
        Step(Rung.USB_RESET, wait_s=0.5),
        Step(Rung.AUTHORIZED, wait_s=1.0),
        Step(Rung.PORT_POWER, wait_s=2.0),
    )
    #: A device that worked for so long starts at the first rung again. Less, and the ladder goes on where it was:
    #: a reopen that helps for one second has not helped.
    settle_s: float = 30.0
    #: Wait after the last rung, doubled each time the whole ladder failed, up to `longest_wait_s`.
    first_wait_s: float = 15.0
    longest_wait_s: float = 600.0
    #: More disappearances than this within the window are flapping.
    flaps: int = 5
    flap_window_s: float = 60.0
    #: First quarantine; doubled for each that follows within an hour of the one before, up to `longest_wait_s`.
    quarantine_s: float = 60.0


#: Devices on which not every rung exists.
RUNGS_OF: Final[dict[str, tuple[Rung, ...]]] = {
    "cpu": (Rung.RETRY, Rung.REOPEN),
    "k210": (Rung.RETRY, Rung.REOPEN, Rung.USB_RESET, Rung.AUTHORIZED, Rung.PORT_POWER),
    # libmvnc never works again in a process that saw an error from it, so retrying is lost time.
    "ncs": (Rung.REOPEN, Rung.USB_RESET, Rung.AUTHORIZED, Rung.PORT_POWER),
}

#: Rungs after which the device re-enumerates.
_LEAVES_BUS: Final = (Rung.USB_RESET, Rung.AUTHORIZED, Rung.PORT_POWER)


def policy_for(target: str, *, usb: bool = True, base: LadderPolicy | None = None) -> LadderPolicy:
    """The ladder of one kind of device; `usb` False = a PCIe card or the CPU, where USB rungs mean nothing."""
    base = base or LadderPolicy()
    allowed = RUNGS_OF.get(target, tuple(Rung))
    if not usb:
        allowed = tuple(rung for rung in allowed if rung in (Rung.RETRY, Rung.REOPEN))
    return replace(base, steps=tuple(step for step in base.steps if step.rung in allowed))


@dataclass(frozen=True, slots=True)
class Action:
    """What to do now."""

    rung: Rung
    #: Seconds to wait before doing it.
    wait_s: float
    #: Which attempt of this rung, from 1.
    attempt: int
    #: What went wrong.
    cause: str
    #: When the device may be tried again: absolute, only for `FALL_BACK` and `QUARANTINE`.
    until: float | None = None

    @property
    def gives_up(self) -> bool:
        """The device is out of use until `until`."""
        return self.until is not None


@dataclass(slots=True)
class _Counts:
    tried: int = 0
    helped: int = 0


@dataclass(slots=True)
class Ladder:
    """One device's ladder. Times are seconds of the caller's monotonic clock."""

    policy: LadderPolicy = field(default_factory=LadderPolicy)
    _step: int = 0
    _attempt: int = 0
    _rounds: int = 0
    _working_since: float | None = None
    _last: Action | None = None
    _flaps: deque[float] = field(default_factory=deque)
    _quarantines: int = 0
    _released: float = 0.0
    _counts: dict[Rung, _Counts] = field(default_factory=dict)
    _failures: int = 0
    _gone: bool = False

    def failed(self, now: float, cause: str) -> Action:
        """The device failed, or the last action did not help: what to try next."""
        self._failures += 1
        if self._working_since is not None:
            if now - self._working_since >= self.policy.settle_s:
                self._restart()
                self._rounds = 0
            self._working_since = None
        steps = self.policy.steps
        while self._step < len(steps) and self._attempt >= steps[self._step].attempts:
            self._step += 1
            self._attempt = 0
        if self._step == len(steps):
            wait = min(self.policy.first_wait_s * 2**self._rounds, self.policy.longest_wait_s)
            self._rounds = min(self._rounds + 1, 30)
            self._restart()
            return self._act(Action(Rung.FALL_BACK, wait, self._rounds, cause, now + wait))
        self._attempt += 1
        step = steps[self._step]
        return self._act(Action(step.rung, step.wait_s, self._attempt, cause))

    def succeeded(self, now: float) -> None:
        """The device answered."""
        if self._working_since is None:
            self._working_since = now
            if self._last is not None:
                self._counts[self._last.rung].helped += 1
                self._last = None

    def vanished(self, now: float) -> Action | None:
        """The device fell off the bus; an action only if it does so too often. What a rung caused does not count."""
        if self._own_doing():
            return None
        self._gone = True
        self._flaps.append(now)
        while self._flaps and now - self._flaps[0] > self.policy.flap_window_s:
            self._flaps.popleft()
        if len(self._flaps) <= self.policy.flaps:
            return None
        self._flaps.clear()
        self._quarantines = self._quarantines + 1 if now - self._released < 3600.0 and self._quarantines else 1
        wait = min(self.policy.quarantine_s * 2 ** (self._quarantines - 1), self.policy.longest_wait_s)
        self._released = now + wait
        cause = f"came and went more than {self.policy.flaps} times in {self.policy.flap_window_s:g} s"
        return self._act(Action(Rung.QUARANTINE, wait, self._quarantines, cause, now + wait))

    def plugged(self) -> None:
        """It is on the bus (again). After a person plugged it in, whatever failed before is no guide.

        A reset makes a device re-enumerate, and opening one may load its firmware, which looks the same from outside:
        on those the ladder goes on where it was.
        """
        trying = self._last is not None and not self._last.gives_up
        if self._own_doing() or (trying and not self._gone):
            return
        self._gone = False
        self._restart()
        self._rounds = 0
        self._working_since = None
        self._last = None

    def _own_doing(self) -> bool:
        """A rung that makes the device leave the bus was the last thing that happened to it."""
        return self._last is not None and self._last.rung in _LEAVES_BUS

    def snapshot(self) -> dict[str, Any]:
        """JSON values: failures, and per rung how often it was tried and how often it helped."""
        return {
            "failures": self._failures,
            "rounds": self._rounds,
            "quarantines": self._quarantines,
            "rungs": {
                rung.value: {"tried": count.tried, "helped": count.helped} for rung, count in self._counts.items()
            },
            "last": None
            if self._last is None
            else {"rung": self._last.rung.value, "attempt": self._last.attempt, "cause": self._last.cause},
        }

    def _restart(self) -> None:
        self._step = self._attempt = 0

    def _act(self, action: Action) -> Action:
        self._counts.setdefault(action.rung, _Counts()).tried += 1
        self._last = action
        return action
