"""`edgeai model profile`."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from ..errors import InvalidModel, InvalidRequest, NotFound, Unavailable, Unsupported
from ..models import foreign
from ..toolkit.profile.profile import Cost, Profile, page
from ..toolkit.profile.profile import profile as measure
from .common import write_text

_BAR: Final = 30
#: Bytes that tell what a file is.
_HEAD: Final = 4096
#: Reads the model from standard input, as a device has no copy of it.
_REMOTE: Final = (
    'set -e; f=$(mktemp --suffix=.tflite); trap \'rm -f "$f"\' EXIT; cat > "$f"; '
    'edgeai model profile --json --threads {threads} --runs {runs} "$f"'
)


@click.command("profile")
@click.argument("model", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--runs", default=10, show_default=True, type=click.IntRange(1, 1000), help="Runs per operator, at least."
)
@click.option("--host", default="", metavar="USER@PI", help="Measure there, through ssh; it needs edgeaid-toolkit.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(1, 2000), help="Show this many operators.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write one self-contained page.")
@click.option("--json", "as_json", is_flag=True, help="All operators as JSON.")
def profile(model: Path, *, threads: int, runs: int, host: str, top: int, html: Path | None, as_json: bool) -> None:
    """Show where the time of a .tflite model goes on this machine's CPU, operator by operator.

    The model is run with its first operator only, then with two, and so on: an operator costs what it adds. It is
    measured where it stands, with the runtime's own fused kernels. With --host this is done on the device.
    """
    if not model.is_file():
        raise NotFound(f"{model}: there is no such file")
    if what := foreign.name_of(model.read_bytes()[:_HEAD]):
        raise InvalidModel(f"{model} is {what}; a profile is of a .tflite file")
    measured = _remote(model, host, threads, runs) if host else measure(model, threads, runs)
    if html:
        write_text(html, page(measured))
    if as_json:
        click.echo(json.dumps(measured.as_dict(), indent=2))
    else:
        _show(measured, top)


def _remote(model: Path, host: str, threads: int, runs: int) -> Profile:
    if host.startswith("-"):
        raise InvalidRequest(f"--host {host!r} is not a host name")
    command = ["ssh", "--", host, "sh -c " + shlex.quote(_REMOTE.format(threads=threads, runs=runs))]
    try:
        with model.open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unsupported("--host needs the OpenSSH client (ssh)") from error
    if done.returncode != 0:
        last = next(iter(reversed(done.stderr.strip().splitlines())), f"ended with status {done.returncode}")
        raise Unavailable(f"{host}: {last}; the device needs the package edgeaid-toolkit")
    told = json.loads(done.stdout)
    costs = tuple(Cost(**{**cost, "shape": tuple(cost["shape"])}) for cost in told["operators"])
    made = Profile(told["model"], told["threads"], told["best_us"], told["median_us"], told["p99_us"], costs)
    return replace(made, model=model.name)


def _show(measured: Profile, top: int) -> None:
    click.echo(
        f"{measured.model}: median {measured.median_us:.0f} us, best {measured.best_us:.0f} us, "
        f"99 % below {measured.p99_us:.0f} us, {measured.threads} thread(s)"
    )
    if measured.median_us > 1.5 * measured.best_us:
        click.echo("the times differ much between runs: something else is busy here; measure again when it is not")
    click.echo("\nby type")
    for kind, count, share in measured.types():
        click.echo(f"  {kind:28} {count:>4} {share:>7.1%}  {'#' * round(_BAR * share)}")
    shown = sorted(measured.operators, key=lambda c: -c.us)[:top]
    click.echo(f"\nthe {len(shown)} that take longest of {len(measured.operators)}")
    most = shown[0].share or 1.0
    for cost in shown:
        shape = "x".join(map(str, cost.shape))
        click.echo(
            f"  #{cost.index:<4} {cost.type:24} {shape:>16} {cost.us:>10.1f} us {cost.share:>6.1%}  "
            f"{'#' * round(_BAR * cost.share / most)}"
        )
