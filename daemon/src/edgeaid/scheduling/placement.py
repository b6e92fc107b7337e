"""Which device answers a request for a model that has artifacts for several: pure, decided anew for every request.

First choice: the device expected to answer first, from its measured latency and what already waits there; that is the
fastest free one, unless all free ones are slower than a faster device including its queue. The rest follow in the
manifest's order, for fail-over. A device that comes back is a candidate again at once, with the latency measured
before, so requests return to it without anything having to remember that they left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Seat:
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


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device to try, and why it is where it is in the list."""

    device: str
    target: str
    #: Expected seconds until the answer; inf = unknown.
    expected_s: float
    #: Expected to answer before the deadline.
    in_time: bool
    #: `fastest free`, `first to answer` or `fail-over`.
    why: str


def place(targets: Sequence[str], seats: Iterable[Seat], *, remaining_s: float | None = None) -> tuple[Candidate, ...]:
    """Order the devices to try for one request; empty = the model has no usable device now.

    `targets` is the manifest's order of artifacts, `remaining_s` the time left until the request's deadline (None = no
    deadline). Call it again after a failure, without the device that failed: what remains of the deadline and the other
    queues have changed by then. Devices expected to be too late come last but are not left out: the expectation may be
    wrong, and an answer in time cannot be had elsewhere.
    """
    rank = {target: number for number, target in enumerate(targets)}
    usable = sorted((seat for seat in seats if seat.usable and seat.target in rank), key=lambda s: rank[s.target])
    if not usable:
        return ()
    # Never measured: taken for as fast as the fastest, so that the manifest's order decides and a measurement follows.
    guess = min((seat.run_s for seat in usable if seat.run_s is not None), default=0.0)

    def run(seat: Seat) -> float:
        return guess if seat.run_s is None else seat.run_s

    def expected(seat: Seat) -> float:
        return seat.wait_s + run(seat)

    def fits(seat: Seat) -> bool:
        return remaining_s is None or expected(seat) <= remaining_s

    fitting = [seat for seat in usable if fits(seat)] or usable
    # A free device may still have to fetch the model's parameters: that is its wait. Ties: free ones, manifest order.
    first = min(fitting, key=lambda seat: (expected(seat), not seat.free))
    why = "fastest free" if first.free else "first to answer"
    rest = [seat for seat in usable if seat is not first]
    ordered = [(first, why), *((seat, "fail-over") for seat in sorted(rest, key=lambda seat: not fits(seat)))]
    return tuple(
        Candidate(
            seat.device, seat.target, inf if seat.run_s is None and guess == 0.0 else expected(seat), fits(seat), reason
        )
        for seat, reason in ordered
    )
