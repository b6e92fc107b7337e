"""`edgeai model kfpkg`."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import InvalidRequest
from ..toolkit.compile.kfpkg import MODEL, write


@click.command("kfpkg")
@click.argument("files", metavar="[ADDRESS=]FILE...", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Package to write."
)
@click.option("--replace", is_flag=True, help="Write over a package that is there.")
def kfpkg(files: tuple[str, ...], *, output: Path, replace: bool) -> None:
    """Pack models (and firmware) into a flash package for kflash: each FILE goes to its ADDRESS.

    Without an address a file goes to 0x500000, where the firmware of the M5StickV expects a model. At address 0 what is
    not a model is firmware. What overlaps or does not fit into the flash is refused.
    """
    parts: dict[int, Path] = {}
    for text in files:
        address, equals, name = text.rpartition("=")
        try:
            place = int(address, 0) if equals else MODEL
        except ValueError as error:
            raise InvalidRequest(f"{text!r} is not of the form ADDRESS=FILE, such as 0x300000=net.kmodel") from error
        if place in parts:
            raise InvalidRequest(f"two files go to {place:#x}; give each an address of its own")
        parts[place] = Path(name)
    for finding in write(output, parts, replace=replace):
        click.echo(f"note: {finding.text}", err=True)
    click.echo(f"{output}  {output.stat().st_size} bytes")
    for place, path in sorted(parts.items()):
        click.echo(f"  {place:#08x}  {path}")
