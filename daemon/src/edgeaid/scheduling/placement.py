"""Which device answers a request for a model that has artifacts for several: pure, decided anew for every request.

First choice: the device expected to answer first, from its measured latency and what already waits there; that is the
fastest free one, unless all free ones are slower than a faster device including its queue. The rest follow in the
manifest's order, for fail-over. A device that comes back is a candidate again at once, with the latency measured
before, so requests return to it without anything having to remember that they left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Availability:
    """One device on which the model is loaded, as it is now."""

    #: Device id, for instance `cpu` or `usb:1-1.4`.
    device: str
    #: Artifact target it runs: cpu, edgetpu, ncs, ncs2, k210.
    target: str
    #: Its worker accepts requests (device state ready or busy).
    usable: bool
    #: Nothing runs and nothing waits there.
    free: bool
    #: Seconds until a request made now would start: running job, queue and switch included.
    wait_s: float = 0.0
    #: Measured seconds of one inference of this model there; None = never measured.
    run_s: float | None = None


def place(
    targets: Sequence[str], devices: Iterable[Availability], *, remaining_s: float | None = None
) -> tuple[Availability, ...]:
    """Order the devices to try for one request; empty = the model has no usable device now.

    `targets` is the manifest's order of artifacts, `remaining_s` the time left until the request's deadline (None = no
    deadline). Call it again after a failure, without the device that failed: what remains of the deadline and the other
    queues have changed by then. Devices expected to be too late come last but are not left out: the expectation may be
    wrong, and no other device would answer in time.
    """
    rank = {target: number for number, target in enumerate(targets)}
    usable = sorted((p for p in devices if p.usable and p.target in rank), key=lambda p: rank[p.target])
    if not usable:
        return ()
    # Never measured: taken for as fast as the fastest, so that the manifest's order decides and a measurement follows.
    guess = min((p.run_s for p in usable if p.run_s is not None), default=0.0)

    def expected(device: Availability) -> float:
        return device.wait_s + (guess if device.run_s is None else device.run_s)

    def late(device: Availability) -> bool:
        return remaining_s is not None and expected(device) > remaining_s

    # A free device may still have to fetch the model's parameters: that is its wait. Ties: free ones, manifest order.
    first = min([p for p in usable if not late(p)] or usable, key=lambda p: (expected(p), not p.free))
    return (first, *sorted((p for p in usable if p is not first), key=late))
