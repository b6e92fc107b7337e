"""`edgeai model compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .common import write_text

#: Operators listed per file in the terminal.
_LISTED = 20


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one self-contained page.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
def compare(first: Path, second: Path, *, html: Path | None, as_json: bool) -> None:
    """Show in what two model files differ: operators, shapes, types, sizes.

    FIRST and SECOND are what `inspect` takes. Operators are matched by type and output shape, in order. The page has
    both graphs beside each other: they zoom, are searched, and a click shows an operator's tensors, quantisation and
    how its weights are spread. Whether both compute the same is what `convert` measures.
    """
    from ..toolkit.inspect import differences
    from ..toolkit.inspect.files import inspect_path

    a, b = inspect_path(first), inspect_path(second)
    result = differences.differences(a, b)
    if html:
        write_text(html, differences.page(a, b))
    if as_json:
        click.echo(json.dumps(asdict(result), indent=1, ensure_ascii=False))
        return
    for what, left, right in result.facts:
        click.echo(f"{what}: {left} -> {right}")
    click.echo(f"operators that both have: {len(result.same)}")
    for report, places in ((a, result.only_first), (b, result.only_second)):
        click.echo(f"only in {report.name}: {len(places)}")
        lines = differences.named(report.operators, places)
        for line in lines[:_LISTED]:
            click.echo(f"  {line}")
        if len(lines) > _LISTED:
            click.echo(f"  and {len(lines) - _LISTED} more (--json or --html lists all)")
    if html:
        click.echo(f"wrote {html}")
