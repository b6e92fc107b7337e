"""The states of a device and what moves it from one to the next. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a device is in its life."""

    #: Not plugged in, or fallen off the bus.
    ABSENT = "absent"
    #: Seen, firmware or runtime not up yet.
    BOOTING = "booting"
    #: Open and idle.
    READY = "ready"
    #: Working.
    BUSY = "busy"
    #: A rung of the ladder is being tried.
    RECOVERING = "recovering"
    #: All rungs failed; tried again after a wait, or when it is plugged in anew.
    FAILED = "failed"
    #: Comes and goes too often; left alone until its time is up, or until a person says otherwise.
    QUARANTINED = "quarantined"


class Signal(StrEnum):
    """What happened to it."""

    SEEN = "seen"
    OPENED = "opened"
    STARTED = "started"
    FINISHED = "finished"
    ERROR = "error"
    GAVE_UP = "gave up"
    FLAPPED = "flapped"
    RELEASED = "released"
    GONE = "gone"


_NEXT: Final[dict[tuple[State, Signal], State]] = {
    (State.ABSENT, Signal.SEEN): State.BOOTING,
    (State.ABSENT, Signal.OPENED): State.READY,
    (State.BOOTING, Signal.OPENED): State.READY,
    (State.BOOTING, Signal.ERROR): State.RECOVERING,
    (State.READY, Signal.STARTED): State.BUSY,
    (State.READY, Signal.ERROR): State.RECOVERING,
    (State.BUSY, Signal.FINISHED): State.READY,
    (State.BUSY, Signal.ERROR): State.RECOVERING,
    (State.RECOVERING, Signal.OPENED): State.READY,
    (State.RECOVERING, Signal.GAVE_UP): State.FAILED,
    (State.FAILED, Signal.SEEN): State.BOOTING,
    (State.FAILED, Signal.OPENED): State.READY,
    (State.FAILED, Signal.RELEASED): State.RECOVERING,
    (State.QUARANTINED, Signal.RELEASED): State.RECOVERING,
}


def after(state: State, signal: Signal) -> State:
    """The state that follows. Signals that mean nothing in a state leave it: a late `finished` of a worker that died
    must not make a recovering device ready."""
    if signal is Signal.FLAPPED:
        return State.QUARANTINED
    if signal is Signal.GONE:
        # A quarantined device stays so while it comes and goes: that is what it is quarantined for.
        return State.QUARANTINED if state is State.QUARANTINED else State.ABSENT
    if signal is Signal.SEEN and state is State.RECOVERING:
        return State.RECOVERING  # re-enumeration is part of a reset
    return _NEXT.get((state, signal), state)


@dataclass(slots=True)
class Life:
    """One device's state over time. Times are seconds of the caller's monotonic clock."""

    device: str
    state: State = State.ABSENT
    since: float = 0.0
    reason: str = ""
    changes: int = 0

    def apply(self, signal: Signal, now: float, reason: str = "") -> bool:
        """Take in a signal; True if the state changed."""
        state = after(self.state, signal)
        if state is self.state:
            return False
        self.state, self.since, self.reason = state, now, reason
        self.changes += 1
        return True

    @property
    def usable(self) -> bool:
        """Requests may be sent to it."""
        return self.state in (State.READY, State.BUSY)
