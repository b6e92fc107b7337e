"""What `/metrics` says of streams, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..serving.metrics import head, label
from .memory import Count
from .runner import StreamRunner
from .states import State

#: Part of the work in a stream's own process -> counter of its nanoseconds.
_WORK = {
    "gate": Count.GATE_NS, "prepare": Count.PREPARE_NS, "decode": Count.DECODE_NS, "stages": Count.AFTER_NS,
}  # fmt: skip


def render(runners: Iterable[StreamRunner]) -> str:
    """Metrics of all streams."""
    return "".join(_lines(list(runners)))


def _lines(runners: list[StreamRunner]) -> Iterator[str]:
    if not runners:
        return
    yield head("edgeai_stream_up", "gauge", "1 while the stream shows frames.")
    for r in runners:
        yield f"edgeai_stream_up{label(stream=r.stream.name)} {int(r.state is State.RUNNING)}\n"
    yield head("edgeai_stream_frames_total", "counter", "Frames by where they ended.")
    for r in runners:
        frames = r.frames()
        ends = {"captured": frames["captured"], "gated": frames["gated"], "inferred": frames["inferred"]}
        ends |= {f"dropped_{why}": count for why, count in frames["dropped"].items()}
        for end, count in ends.items():
            yield f"edgeai_stream_frames_total{label(stream=r.stream.name, end=end)} {count}\n"
    for name, which, text in (
        ("late_frames", Count.LATE, "Frames answered after the stream's deadline."),
        ("requests", Count.REQUESTS, "Requests to models."),
        ("events", Count.EVENTS, "Events published."),
        ("connections", Count.CONNECTIONS, "Connections to the source."),
        ("lost_webhooks", Count.LOST_WEBHOOKS, "Webhook calls given up."),
        ("lost_files", Count.LOST_FILES, "Snapshots and journal lines that could not be written."),
    ):
        yield head(f"edgeai_stream_{name}_total", "counter", text)
        for r in runners:
            yield f"edgeai_stream_{name}_total{label(stream=r.stream.name)} {r.count(which)}\n"
    yield head("edgeai_stream_restarts_total", "counter", "Times the stream's process ended and was started again.")
    for r in runners:
        yield f"edgeai_stream_restarts_total{label(stream=r.stream.name)} {r.restarts}\n"
    yield head("edgeai_stream_work_seconds_total", "counter", "Time of each part of the work in the stream's process.")
    for r in runners:
        for part, which in _WORK.items():
            seconds = r.count(which) / 1e9
            yield f"edgeai_stream_work_seconds_total{label(stream=r.stream.name, part=part)} {seconds:.6f}\n"
    yield head("edgeai_stream_latency_seconds", "gauge", "From capture to result, of the last 256 frames.")
    for r in runners:
        for key, value in r.status.get("latency", {}).items():
            which_one = key.removesuffix("_ms")
            yield f"edgeai_stream_latency_seconds{label(stream=r.stream.name, quantile=which_one)} {value / 1e3:.6f}\n"
