"""Messages between the daemon and a stream's process, beside those of `worker.wire`, whose header they share.

Frames stay in the shared memory and tensors in the slots of the models' memory; these are the few bytes about them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

#: Kinds from this number on are those below; smaller ones are a worker's.
OWN: Final = 64


class Message(IntEnum):
    """First byte of a message."""

    # daemon -> process, JSON
    #: With a model's memory: its tensors, rules and labels.
    ATTACH = 64
    #: A model is gone; its lease, if one is held, is void.
    DETACH = 65
    #: No lease: why.
    REFUSE = 66
    #: Whether a client follows the result of each frame.
    LISTEN = 67
    #: Finish what is under way and end.
    HALT = 68
    #: The newest frame as JPEG; answered with a memfd.
    PICTURE = 69
    # daemon -> process, binary
    #: A lease: slot, model number and number of the lease.
    GRANT = 72
    #: The lease's inference is done: status and times, as in a worker's RESULT; with slot 1, it may be used again.
    ANSWER = 73
    # process -> daemon, JSON
    #: A lease on a model is wanted, by the model's name.
    WANT = 80
    STATE = 81
    EVENT = 82
    RESULT = 83
    #: Rates and latencies, once a second.
    STATUS = 84
    # process -> daemon, binary
    #: The slot is filled.
    INFER = 88
    #: The lease is not needed any more; with status 1, another one of the same model is wanted.
    GIVE = 89
