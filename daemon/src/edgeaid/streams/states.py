"""What a stream is doing."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a stream is doing."""

    #: Opening the source; no frame yet.
    STARTING = "starting"
    RUNNING = "running"
    #: The source gives nothing; it is tried again and again.
    NO_SIGNAL = "no-signal"
    #: The stream's process ended and is started again.
    RESTARTING = "restarting"
    #: Another attempt cannot succeed before something is changed.
    FAILED = "failed"
    #: A file's last frame is through.
    ENDED = "ended"
    STOPPED = "stopped"
