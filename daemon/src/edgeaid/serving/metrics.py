"""`/metrics` in Prometheus' text format, written by hand: it is sixty lines."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from .model import LiveModel
from .plane import Plane
from .stats import BUCKETS_NS, PHASES


def label(**labels: str) -> str:
    """Labels of one sample."""
    escaped = (f'{k}="{_escape(v)}"' for k, v in labels.items())
    return "{" + ",".join(escaped) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def head(name: str, kind: str, text: str) -> str:
    """What stands before the samples of a metric."""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def render(plane: Plane) -> str:
    """All metrics."""
    live = plane.registry.loaded()
    own = "".join((*_process(plane), *_requests(live), *_devices(plane), *_slots(live)))
    return own + plane.more_metrics()


def _process(plane: Plane) -> Iterator[str]:
    yield head("edgeai_build_info", "gauge", "Version of the daemon.")
    yield f"edgeai_build_info{label(version=__version__)} 1\n"
    yield head("edgeai_process_resident_bytes", "gauge", "Resident memory of the daemon and its workers.")
    yield f"edgeai_process_resident_bytes{label(process='daemon')} {rss_bytes()}\n"
    for device in plane.devices.values():
        if device.handle is not None:
            yield f"edgeai_process_resident_bytes{label(process=device.id)} {rss_bytes(device.handle.pid)}\n"


def _requests(live: list[LiveModel]) -> Iterator[str]:
    yield head("edgeai_requests_total", "counter", "Requests by result.")
    for model in live:
        s = model.stats
        for result, count in (
            ("success", s.success), ("fail", s.fail), ("cancelled", s.cancelled),
            ("rejected", s.rejected), ("expired", s.expired),
        ):  # fmt: skip
            yield f"edgeai_requests_total{label(model=model.name, version=model.version, result=result)} {count}\n"
    for phase in PHASES:
        name = f"edgeai_{phase}_seconds"
        yield head(name, "histogram", f"Time in phase {phase}.")
        for model in live:
            for identity, histograms in model.stats.phases.items():
                h = histograms[phase]
                labels = {"model": model.name, "version": model.version, "device": identity}
                total = 0
                for bound, count in zip(BUCKETS_NS, h.counts, strict=False):
                    total += count
                    yield f"{name}_bucket{label(**labels, le=f'{bound / 1e9:g}')} {total}\n"
                yield f"{name}_bucket{label(**labels, le='+Inf')} {h.count}\n"
                yield f"{name}_sum{label(**labels)} {h.total_ns / 1e9:.9f}\n"
                yield f"{name}_count{label(**labels)} {h.count}\n"


def _devices(plane: Plane) -> Iterator[str]:
    devices = list(plane.devices.values())
    yield head("edgeai_queue_length", "gauge", "Requests waiting for a device.")
    for device in devices:
        yield f"edgeai_queue_length{label(device=device.id)} {len(device.queue)}\n"
    yield head("edgeai_device_up", "gauge", "1 when the device is ready.")
    for device in devices:
        yield f"edgeai_device_up{label(device=device.id, target=device.target)} {int(device.state == 'ready')}\n"
    yield head("edgeai_worker_restarts_total", "counter", "Workers that died and were replaced.")
    for device in devices:
        yield f"edgeai_worker_restarts_total{label(device=device.id)} {device.restarts}\n"
    yield f"edgeai_worker_restarts_total{label(device='media')} {plane.media.restarts}\n"
    yield from _recovery(plane, "step", "Recovery steps that were tried.")
    yield from _recovery(plane, "rung", "Deprecated, goes with 0.2: edgeai_recovery_steps_total.")
    yield head("edgeai_device_busy_seconds_total", "counter", "Time a device spent on requests.")
    for device in devices:
        yield f"edgeai_device_busy_seconds_total{label(device=device.id)} {device.requests.busy_ns / 1e9:.6f}\n"
    yield head("edgeai_model_switches_total", "counter", "Times a device had to load other parameters.")
    for device in devices:
        yield f"edgeai_model_switches_total{label(device=device.id)} {device.queue.snapshot().get('switches', 0)}\n"


def _recovery(plane: Plane, name: str, text: str) -> Iterator[str]:
    yield head(f"edgeai_recovery_{name}s_total", "counter", text)
    for device in plane.devices.values():
        for step, count in device.recovery.tried().items():
            yield f"edgeai_recovery_{name}s_total{label(**{'device': device.id, name: step})} {count}\n"


def _slots(live: list[LiveModel]) -> Iterator[str]:
    yield head("edgeai_slots_in_use", "gauge", "Requests that hold a slot of a model's shared memory.")
    for model in live:
        yield f"edgeai_slots_in_use{label(model=model.name, version=model.version)} {model.busy}\n"
