"""`edgeai model plan`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import InvalidRequest
from ..toolkit.plan import sources as plan_sources
from ..toolkit.plan.cost import MIB, ON_CHIP_MIB, STREAM_OVERHEAD, USB2_BANDWIDTH
from ..toolkit.plan.plan import Conditions, Plan, plans
from .common import write_text
from .text import plain, table, width


@click.command("plan")
@click.argument("models", nargs=-1, required=True)
@click.option("--rates", default="", help="Wanted inferences per second: a=10,b=2. Default: 1 each.")
@click.option(
    "--from-device", metavar="HOST|SOCKET", help="Take the rates from a running edgeaid: a host (ssh) or a socket."
)
@click.option("--interval", default=10.0, show_default=True, help="Seconds to watch the device for.")
@click.option("--compute", default="", help="Milliseconds per inference without transfers: a=10.3,b=13.6.")
@click.option("--bandwidth", default=USB2_BANDWIDTH, show_default=True, help="MiB/s to the accelerator.")
@click.option("--budget", type=float, help=f"On-chip parameter memory, MiB; as a log says, else {ON_CHIP_MIB}.")
@click.option("--sticks", default=1, show_default=True, type=click.IntRange(1, 8), help="Accelerators at hand.")
@click.option("--top", default=6, show_default=True, help="How many plans to show.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the comparison as a page.")
@click.option("--json", "as_json", is_flag=True, help="All plans as JSON.")
def plan(
    models: tuple[str, ...], *, rates: str, from_device: str | None, interval: float, compute: str, bandwidth: float,
    budget: float | None, sticks: int, top: int, html: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Find the best way to compile Edge TPU models together.

    MODELS are quantised .tflite files, compiled _edgetpu.tflite files (their own cached and streamed bytes are used),
    logs of edgetpu_compiler, or sizes such as bird=3.75MiB. NAME=FILE.tflite names a file as the device names the
    model. Models compiled by one command share the chip's parameter memory; models that are not evict each other at
    every change. Every order and grouping is costed.
    """
    if rates and from_device:
        raise InvalidRequest("rates come either from --rates or from --from-device")
    wanted = plan_sources.assignments(rates, "--rates")
    if from_device:
        measured = _rates(from_device, interval)
        names = {c.name for c in plan_sources.candidates(models, {}, {})[0]}
        wanted = {name: rate for name, rate in measured.items() if name in names}
        if not wanted:
            raise InvalidRequest(
                f"none of {', '.join(sorted(names))} ran on {from_device} within {interval:g} s"
                f" (there ran: {', '.join(sorted(measured)) or 'nothing'}); name models as the device does"
                " (NAME=FILE.tflite), or give --rates"
            )
    candidates, remarks = plan_sources.candidates(models, wanted, plan_sources.assignments(compute, "--compute"))
    # Compiled files of today stream exactly what found no room; predictions and logs of version 1.0 need the surcharge.
    known = all(c.built is not None for c in candidates) and not any(m.endswith(".log") for m in models)
    if budget is None:
        budget = plan_sources.log_budget(models) or ON_CHIP_MIB
    conditions = Conditions(bandwidth, budget * MIB, 1.0 if known else STREAM_OVERHEAD, sticks)
    ranked = plans(candidates, conditions)
    if html:
        from ..toolkit.plan.html import page

        write_text(html, page(ranked[: max(top, 1)], conditions))
    if as_json:
        click.echo(json.dumps([as_dict(p) for p in ranked], indent=2))
        return
    _show(ranked, max(top, 1), remarks, conditions)
    if html:
        click.echo(f"\nComparison: {html}")


def _rates(device: str, seconds: float) -> dict[str, float]:
    """Rates of a device given as the path of a socket or as a host that ssh knows."""
    from .common import Session

    session = Session(device, None, 10.0, False) if "/" in device else Session(None, device, 10.0, False)
    try:
        client = session.client
        return plan_sources.device_rates(lambda: plan_sources.counts(client.stats()), seconds)
    finally:
        session.close()


def as_dict(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    return {
        "title": plan.title, "as_built": plan.as_built, "holds": plan.holds, "load": round(plan.load, 4),
        "mean_ms": round(plan.mean_ms, 3), "commands": plan.commands(),
        "sticks": [
            {"load": round(stick.load, 4), "groups": [[asdict(m) for m in group] for group in stick.groups]}
            for stick in plan.sticks
        ],
    }  # fmt: skip


def _show(ranked: list[Plan], top: int, remarks: list[str], conditions: Conditions) -> None:
    worst = max(m.alternating_ms for p in ranked[:top] for s in p.sticks for m in s.models)
    longest = max(len(m.name) for m in ranked[0].sticks[0].models)
    bar = max(8, min(40, width() - 68 - longest))
    for number, plan in enumerate(ranked[:top], 1):
        state = (
            click.style("holds the rates", fg="green") if plan.holds else click.style("cannot hold the rates", fg="red")
        )
        built = " (as the files are now)" if plan.as_built else ""
        title = click.style(f"{number}. {plain(plan.title)}", bold=True)
        click.echo(f"\n{title}{built}: load {plan.load:.0%}, {state}")
        rows = [
            (
                m.name, f"{m.rate:.4g}", f"{m.cached / MIB:.2f}", f"{m.streamed / MIB:.2f}", f"{m.warm_ms:.1f}",
                f"{m.cold_ms:.1f}", f"{m.mean_ms:.1f}", _bar(m.mean_ms, m.alternating_ms, worst, bar),
            )
            for stick in plan.sticks
            for m in stick.models
        ]  # fmt: skip
        click.echo(
            table(
                ("MODEL", "PER s>?1", "CACHED MiB>?2", "STREAMED MiB>?3", "STAYS ms>?4", "RE-SENT ms>?5", "MEAN ms>",
                 "MEAN # WORST -?6"),
                rows,
            )
        )  # fmt: skip
    if len(ranked) > top:
        click.echo(f"\n{len(ranked) - top} more plans: --top {len(ranked)} or --json")
    best = ranked[0]
    click.echo(f"\n{click.style('Recommended:', bold=True)} {plain(best.title)}")
    for command in best.commands():
        click.echo(f"  {plain(command)}")
    missing = sorted({m.path for s in best.sticks for m in s.models if not Path(m.path).is_file()})
    if missing and best.commands():
        click.echo(f"  Not here: {plain(', '.join(missing))}; put the paths of the plain .tflite files there.")
    if best.as_built:
        click.echo("  The files are already compiled that way.")
    if not best.holds:
        click.echo("  The rates cannot be held: lower them, add an accelerator (--sticks), or use smaller models.")
    memory = (
        f"Bandwidth {conditions.bandwidth:g} MiB/s, on-chip memory {conditions.budget / MIB:.2f} MiB; the compiler's "
        "own log is the last word on memory (1.1 to 8.2 MiB have been seen)."
    )
    for remark in (*remarks, memory):
        click.echo(click.style(plain(remark), dim=True))


def _bar(mean: float, worst_case: float, worst: float, width: int) -> str:
    filled = round(mean / worst * width)
    return "#" * filled + "-" * (round(worst_case / worst * width) - filled)
