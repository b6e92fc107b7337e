"""Recovery of a device, each step harder than the last: retry, reopen, USB reset, authorized, port power, fall back.

Pure logic: it says what to try and how long to wait before; `recovery_steps.py` carries it out. Every step is counted.
The steps are settings ([recovery] in the configuration).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class Step(StrEnum):
    """What can be tried."""

    #: Send the request once more to the same worker: only where one is left.
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


#: Steps that a ladder can be made of; the others are what happens when they do not help.
TRIES: Final = (Step.RETRY, Step.REOPEN, Step.USB_RESET, Step.AUTHORIZED, Step.PORT_POWER)


@dataclass(frozen=True, slots=True)
class Tries:
    """A step of a ladder, and how often it is tried."""

    step: Step
    #: How often in a row before the next step.
    attempts: int = 1
    #: Seconds to wait before each.
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LadderPolicy:
    """Settings of a ladder; times in seconds."""

    steps: tuple[Tries, ...] = (
        Tries(Step.RETRY),
        Tries(Step.REOPEN, attempts=2, wait_s=0.1),
        Tries(Step.USB_RESET, wait_s=0.5),
        Tries(Step.AUTHORIZED, wait_s=1.0),
        Tries(Step.PORT_POWER, wait_s=2.0),
    )
    #: A device that worked for so long starts at the first step again. Less, and the ladder goes on where it was:
    #: a reopen that helps for one second has not helped.
    settle_s: float = 30.0
    #: Wait after the last step, doubled each time the whole ladder failed, up to `longest_wait_s`.
    first_wait_s: float = 15.0
    longest_wait_s: float = 600.0
    #: More disappearances than this within the window are flapping.
    flaps: int = 5
    flap_window_s: float = 60.0
    #: First quarantine; doubled for each that follows within an hour of the one before, up to `longest_wait_s`.
    quarantine_s: float = 60.0


#: Libraries that never work again in a process that saw an error from them: sending the request again is lost time.
_NO_RETRY: Final = ("ncs", "ncs2")

#: A device that leaves the bus within so many seconds of one of these does so because of it.
AWAY_S: Final = 15.0
#: Steps after which the device re-enumerates.
_LEAVES_BUS: Final = (Step.USB_RESET, Step.AUTHORIZED, Step.PORT_POWER)


def policy_for(policy: LadderPolicy, target: str, *, usb: bool = True) -> LadderPolicy:
    """`policy` without the steps that one kind of device does not have; `usb` False = a PCIe card."""
    missing = (() if usb else _LEAVES_BUS) + ((Step.RETRY,) if target in _NO_RETRY else ())
    return replace(policy, steps=tuple(tries for tries in policy.steps if tries.step not in missing))


@dataclass(frozen=True, slots=True)
class Action:
    """What to do now."""

    step: Step
    #: Seconds to wait before doing it.
    wait_s: float
    #: Which attempt of this step, from 1.
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
    _position: int = 0
    _attempt: int = 0
    _rounds: int = 0
    _working_since: float | None = None
    _last: Action | None = None
    _acted: float = 0.0
    _flaps: deque[float] = field(default_factory=deque)
    _quarantines: int = 0
    _released: float = 0.0
    _counts: dict[Step, _Counts] = field(default_factory=dict)
    _failures: int = 0
    _gone: bool = False

    def retry(self, now: float, cause: str) -> Action | None:
        """A request failed and its worker lives: send it once more? None = no, end the worker and ask `failed`."""
        self._look_back(now)
        tries = self._next()
        return self._try(tries, now, cause) if tries is not None and tries.step is Step.RETRY else None

    def failed(self, now: float, cause: str) -> Action:
        """The device's worker is gone, or the last action did not help: what to try next."""
        self._look_back(now)
        while (tries := self._next()) is not None and tries.step is Step.RETRY:
            self._attempt = tries.attempts  # there is no worker to send anything to
        if tries is not None:
            return self._try(tries, now, cause)
        self._failures += 1
        wait = min(self.policy.first_wait_s * 2**self._rounds, self.policy.longest_wait_s)
        self._rounds = min(self._rounds + 1, 30)
        self._restart()
        return self._act(Action(Step.FALL_BACK, wait, self._rounds, cause, now + wait), now)

    def _look_back(self, now: float) -> None:
        """A device that worked for long enough begins at the first step again."""
        if self._working_since is not None:
            if now - self._working_since >= self.policy.settle_s:
                self._restart()
                self._rounds = 0
            self._working_since = None

    def _next(self) -> Tries | None:
        """What is due; None = all have been tried."""
        steps = self.policy.steps
        while self._position < len(steps) and self._attempt >= steps[self._position].attempts:
            self._position += 1
            self._attempt = 0
        return steps[self._position] if self._position < len(steps) else None

    def _try(self, tries: Tries, now: float, cause: str) -> Action:
        self._failures += 1
        self._attempt += 1
        return self._act(Action(tries.step, tries.wait_s, self._attempt, cause), now)

    def succeeded(self, now: float) -> None:
        """The device answered."""
        if self._working_since is None:
            self._working_since = now
            if self._last is not None:
                self._counts[self._last.step].helped += 1
                self._last = None

    def vanished(self, now: float) -> Action | None:
        """The device fell off the bus; an action only if it does so too often. What a step caused does not count."""
        if self._own_doing(now):
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
        return self._act(Action(Step.QUARANTINE, wait, self._quarantines, cause, now + wait), now)

    def plugged(self, now: float) -> None:
        """It is on the bus (again). After a person plugged it in, whatever failed before is not a guide.

        A reset makes a device re-enumerate, and opening one may load its firmware, which looks the same from outside:
        on those the ladder goes on where it was.
        """
        trying = self._last is not None and not self._last.gives_up
        if self._own_doing(now) or (trying and not self._gone):
            return
        self._gone = False
        self._restart()
        self._rounds = 0
        self._working_since = None
        self._last = None

    def change(self, policy: LadderPolicy) -> None:
        """Other settings from now on; the next failure begins at the first step."""
        self.policy = policy
        self._restart()

    def _own_doing(self, now: float) -> bool:
        """A step that makes the device leave the bus was the last thing that happened to it, a moment ago."""
        last = self._last
        return last is not None and last.step in _LEAVES_BUS and now - self._acted <= last.wait_s + AWAY_S

    def snapshot(self) -> dict[str, Any]:
        """JSON values: failures, and per step how often it was tried and how often it helped."""
        steps = {step.value: {"tried": count.tried, "helped": count.helped} for step, count in self._counts.items()}
        return {
            "failures": self._failures,
            "rounds": self._rounds,
            "quarantines": self._quarantines,
            "steps": steps,
            "rungs": steps,  # the name until 0.1; goes with 0.2
            "last": None
            if self._last is None
            else {"step": self._last.step.value, "attempt": self._last.attempt, "cause": self._last.cause},
        }

    def _restart(self) -> None:
        self._position = self._attempt = 0

    def _act(self, action: Action, now: float) -> Action:
        self._acted = now
        self._counts.setdefault(action.step, _Counts()).tried += 1
        self._last = action
        return action
