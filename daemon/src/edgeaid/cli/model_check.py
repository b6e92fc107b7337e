"""`edgeai model check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import InvalidRequest
from ..toolkit.check import rules as rulebook
from ..toolkit.check.check import Options, check
from ..toolkit.check.rules import PROFILES, SEVERITIES, TARGETS, Checked
from .common import write_text

#: How often one rule is shown for one model.
_REPEATS = 3


@click.command("check")
@click.argument("models", nargs=-1, type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, type=click.Choice(TARGETS), help="Repeat for several.")
@click.option("--device-profile", default="default", show_default=True, help=f"{', '.join(PROFILES)} or a TOML file.")
@click.option("--mean", default="", help="Mean of the normalisation, comma-separated: (pixel - mean) / std.")
@click.option("--std", default="", help="Standard deviation of the normalisation, comma-separated.")
@click.option("--no-run", is_flag=True, help="Do not run the model on random inputs.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds for that run.")
@click.option("--fail-on", default="error", show_default=True, type=click.Choice([*SEVERITIES, "never"]),
              help="Least severity that makes the exit status 1.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write one self-contained page.")
@click.option("--sarif", type=click.Path(path_type=Path, dir_okay=False), help="Also write a SARIF file.")
@click.option("--rules", "list_rules", is_flag=True, help="List all rules and stop.")
def check_command(
    models: tuple[Path, ...], *, targets: tuple[str, ...], device_profile: str, mean: str, std: str, no_run: bool,
    timeout: float, fail_on: str, as_json: bool, html: Path | None,
    sarif: Path | None, list_rules: bool,
) -> None:  # fmt: skip
    """Compare models with every documented limit of a target.

    MODELS are what `inspect` takes. Rules there are for what the target's tools take: .tflite (plain or compiled),
    kmodels, Caffe prototxt, TensorFlow graphs (frozen or .meta with checkpoint), NCSDK graphs, OpenVINO IR, and logs of
    edgetpu_compiler and mvNCCompile; of model directories, bundles and flash packages the artifact for the target is
    checked, of other kinds it is said how to get there. The exit status is 0 without errors, 1 with.
    """
    profile = rulebook.profile(device_profile)
    if list_rules:
        _list(as_json)
        return
    if not models or not targets:
        raise InvalidRequest("name a model and a target: edgeai model check MODEL --target edgetpu")
    options = Options(profile, _floats(mean, "--mean"), _floats(std, "--std"), not no_run, timeout)
    if bool(options.mean) != bool(options.std):
        raise InvalidRequest("--mean and --std belong together")
    reports = [check(path, target, options) for path in models for target in targets]
    if html:
        from ..toolkit.check.html import page

        write_text(html, page(reports))
    if sarif:
        from ..toolkit.check.sarif import sarif as as_sarif

        write_text(sarif, json.dumps(as_sarif(reports, _version()), indent=2) + "\n")
    if as_json:
        click.echo(json.dumps([as_dict(r) for r in reports], indent=2))
    else:
        for report in reports:
            _show(report)
    reached = SEVERITIES[: SEVERITIES.index(fail_on) + 1] if fail_on != "never" else ()
    if any(r.worst in reached for r in reports):
        raise click.exceptions.Exit(1)


def as_dict(report: Checked) -> dict[str, Any]:
    """A report as JSON values."""
    return {
        "path": report.path, "kind": report.kind, "target": report.target, "worst": report.worst,
        "facts": dict(report.facts),
        "findings": [
            {**asdict(v.rule), "limit": v.limit, "layer": v.layer, "value": v.value} for v in report.violations
        ],
    }  # fmt: skip


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edgeaid")
    except PackageNotFoundError:
        return "0"


def _floats(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidRequest(f"{option} {text!r} is not a list of numbers") from error


def _list(as_json: bool) -> None:
    table = rulebook.rules()
    if as_json:
        click.echo(json.dumps([asdict(r) for r in table.values()], indent=2))
        return
    for rule in table.values():
        click.echo(f"{rule.id}  {rule.severity:7}  {rule.title}: {rule.limit}")


def _show(report: Checked) -> None:
    from rich.console import Console
    from rich.markup import escape

    colors = {"error": "red", "warning": "yellow", "note": "cyan"}
    console = Console(highlight=False, soft_wrap=True)
    state = {"": "[green]no findings[/]", "note": "[green]fits[/]"}.get(
        report.worst, f"[{colors.get(report.worst, 'red')}]{report.worst}[/]"
    )
    console.print(f"[bold]{escape(report.path)}[/] for [bold]{report.target}[/]: {state}")
    shown: dict[str, int] = {}
    for v in report.violations:
        count = shown[v.rule.id] = shown.get(v.rule.id, 0) + 1
        if count > _REPEATS:
            continue
        color = colors[v.rule.severity]
        where = f" [dim]at[/] {escape(v.layer)}" if v.layer else ""
        console.print(f"  [{color}]{v.rule.id} {v.rule.severity}[/] {escape(v.rule.title)}{where}")
        console.print(f"         [dim]is:[/] {escape(v.value)}   [dim]limit:[/] {escape(v.limit)}")
        console.print(f"         [dim]do:[/] {escape(v.rule.remedy)}   [dim]({escape(v.rule.source)})[/]")
        if count == _REPEATS and (more := sum(o.rule.id == v.rule.id for o in report.violations) - _REPEATS):
            console.print(f"         [dim]and {more} more of {v.rule.id} (all with --json)[/]")
    if report.facts:
        console.print("  [dim]" + escape("; ".join(f"{k} {v}" for k, v in report.facts.items())) + "[/]")
