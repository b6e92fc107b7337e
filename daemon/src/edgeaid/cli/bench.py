"""`edgeai bench`: latency and throughput of a served model, as a client sees it."""

from __future__ import annotations

import threading
import time
from typing import Any

import click

from .. import errors
from .common import Session, model_argument, pass_session
from .text import hint, table


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


@click.command()
@model_argument
@click.option("-n", "--requests", type=click.IntRange(1), default=500, show_default=True, help="Requests in all.")
@click.option("-c", "--clients", type=click.IntRange(1, 64), default=1, show_default=True, help="Clients at once.")
@click.option(
    "--transport",
    type=click.Choice(["fast", "http"]),
    default="fast",
    show_default=True,
    help="fast falls back to http where there is no fast socket.",
)
@pass_session
def bench(session: Session, model: str, requests: int, clients: int, transport: str) -> None:
    """Measure a model: latency as clients see it, throughput, and where the time goes. Ctrl-C ends it early."""
    import numpy as np

    from ..client import Client
    from ..tensors import NUMPY

    path = session.client.path
    metadata = session.client.metadata(model)
    rng = np.random.default_rng(1)
    inputs: dict[str, Any] = {}
    for spec in metadata["inputs"]:
        if spec["datatype"] not in NUMPY:
            raise errors.Unsupported(f"bench makes numbers; the input {spec['name']!r} takes {spec['datatype']}")
        dtype = np.dtype(NUMPY[spec["datatype"]])
        shape = [max(size, 1) for size in spec["shape"]]  # -1: of any size
        inputs[spec["name"]] = (rng.random(shape) * (127 if dtype.kind in "iu" else 1)).astype(dtype)
    before = session.client.stats(model)[0]["inference_stats"]
    latencies: list[float] = []
    failures: list[str] = []
    used: set[str] = set()  # what really carried the answers
    ended = threading.Event()

    def work(count: int) -> None:
        with Client(path, fast=transport == "fast" and session.host is None, timeout=session.timeout) as client:
            for _ in range(count):
                if ended.is_set():
                    return
                started = time.perf_counter()
                try:
                    client.infer(model, inputs)
                except errors.EdgeaiError as error:
                    failures.append(str(error))
                    continue
                latencies.append(time.perf_counter() - started)
                used.add("fast" if client.is_fast(model) else "http")

    threads = [
        threading.Thread(target=work, args=(requests // clients + (i < requests % clients),)) for i in range(clients)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        hint("interrupted: this is what was measured until then")
        ended.set()
        for thread in threads:
            thread.join()
    elapsed = time.perf_counter() - started
    if not latencies:
        raise errors.Unavailable(f"no request succeeded; the last error: {failures[-1] if failures else 'interrupted'}")
    after = session.client.stats(model)[0]["inference_stats"]
    phases = {}
    for phase in ("queue", "compute_input", "compute_infer", "compute_output"):
        count = after[phase]["count"] - before[phase]["count"]
        phases[phase] = (after[phase]["ns"] - before[phase]["ns"]) / count / 1e6 if count else 0.0
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    latency = {name: _quantile(latencies, q) * 1e3 for name, q in quantiles.items()}
    per_second = len(latencies) / elapsed
    carried = " and ".join(sorted(used))
    result = {
        "model": model,
        "transport": carried,
        "clients": clients,
        "requests": len(latencies),
        "failures": len(failures),
        "per_second": per_second,
        "latency_ms": latency,
        "mean_phase_ms": phases,
    }
    rows = [("requests", str(len(latencies))), ("failures", str(len(failures))), ("per second", f"{per_second:.1f}")]
    rows += [(f"latency {k}", f"{v:.3f} ms") for k, v in latency.items()]
    rows += [(f"mean {k}", f"{v:.3f} ms") for k, v in phases.items()]
    session.show(result, table(("", ">"), rows, title=f"{model}: {clients} client(s) over {carried}"))
