"""The states of a device, as users see them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a device is in its life."""

    #: Not plugged in, or fallen off the bus.
    ABSENT = "absent"
    #: Seen, firmware or runtime not up yet.
    BOOTING = "booting"
    #: Open and idle.
    READY = "ready"
    #: Open and working.
    BUSY = "busy"
    #: A step of the ladder is being tried.
    RECOVERING = "recovering"
    #: All steps failed; tried again after a wait, or when it is plugged in anew.
    FAILED = "failed"
    #: Comes and goes too often; left alone until its time is up.
    QUARANTINED = "quarantined"
