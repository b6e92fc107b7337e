"""`edgeai model inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import EdgeaiError
from .common import write_text


@click.command("inspect")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--operators", is_flag=True, help="List every operator instead of counting them by type.")
@click.option("--target", type=click.Choice(["edgetpu"]), help="Where each operator would run there, and a verdict.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one self-contained page.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
def inspect(files: tuple[Path, ...], *, operators: bool, target: str | None, html: Path | None, as_json: bool) -> None:
    """Show what a model file holds and where each operator will run.

    FILES are TensorFlow Lite (compiled for the Edge TPU or not), graphs for the Neural Compute Stick, OpenVINO IR and
    blobs, kmodels and kfpkg for the K210, ONNX, TensorFlow graphs, SavedModel directories and checkpoints, Caffe
    networks, and bundles. Several Edge TPU files are also compared: which share a caching token, and whether they fit
    together.

    A file that cannot be read does not keep the others from being shown; the exit code then is that of the first error.
    """
    from ..toolkit.inspect.files import inspect_path
    from ..toolkit.inspect.report import Report
    from ..toolkit.inspect.report import as_json as to_json

    reports: list[Report] = []
    failures: list[EdgeaiError] = []
    for file in files:
        try:
            report = inspect_path(file)
            if target is not None:
                from ..toolkit.inspect.target import placed

                report = placed(report, file.read_bytes())
            reports.append(report)
        except EdgeaiError as error:
            failures.append(error)
            if len(files) > 1:
                click.echo(f"Error: {error}", err=True)
    if len(files) == 1 and failures:
        raise failures[0]
    if html and reports:
        from ..toolkit.inspect.html import page

        write_text(html, page(reports))
    if as_json:
        click.echo(json.dumps(to_json(reports), indent=1, ensure_ascii=False))
    elif reports and not html:
        from rich.console import Console

        from ..toolkit.inspect.text import show

        console = Console()
        # In a pipe the width is unknown; wrapped tables are hard to search.
        show(reports, console if console.is_terminal else Console(width=160), every_operator=operators)
    elif html and reports:
        click.echo(f"wrote {html}")
    if failures:
        raise SystemExit(failures[0].exit_code)
