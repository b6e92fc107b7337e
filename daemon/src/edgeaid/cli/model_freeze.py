"""`edgeai model freeze`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .model_convert import say, shape_of


@click.command("freeze")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input-node", required=True, help="Name of the first node.")
@click.option("--output-node", required=True, help="Name of the last node.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: <model>_frozen.pb.")
@click.option("--shape", default="", help="Shape of the input, 1,28,28,1.  [default: as the graph says, batch 1]")
@click.option("--rename-input", default="input", show_default=True, help='New name of the first node; "" keeps it.')
@click.option("--rename-output", default="output", show_default=True, help='New name of the last node; "" keeps it.')
@click.option("--json", "as_json", is_flag=True)
def freeze(
    model: Path, *, input_node: str, output_node: str, output: Path | None, shape: str, rename_input: str,
    rename_output: str, as_json: bool,
) -> None:  # fmt: skip
    """Turn a TensorFlow 1 checkpoint or graph into a frozen graph for the first Neural Compute Stick.

    MODEL is a .meta with its checkpoint beside it, or a .pb. Variables become constants, training nodes are cut off,
    dropout is taken out, placeholders of training become constants (no training, keep everything), the batch is 1, and
    the first and last node get their names. The graph is compared with what it was.
    """
    from ..toolkit.convert.freeze import Job
    from ..toolkit.convert.freeze import freeze as run

    target = output or model.with_name(model.stem + "_frozen.pb")
    done = run(Job(model, target, input_node, output_node, shape_of(shape), rename_input, rename_output), say)
    if as_json:
        click.echo(json.dumps(done.as_dict(), indent=2))
        return
    click.echo(f"{done.output}: {done.after} nodes, {done.before} before; input {list(done.shape)}")
    if done.dropout:
        click.echo(f"dropout taken out: {', '.join(done.dropout)}")
    for name, value in done.values.items():
        click.echo(f"placeholder {name} is the constant {value} now")
    if done.error is None:
        click.echo("not compared: the graph draws its dropout at random")
    else:
        click.echo(f"same inputs: largest difference {done.error:.2%} of the range")
    click.echo(
        f"then: mvNCCompile {done.output} -s 12 -in {rename_input or input_node} -on {rename_output or output_node}"
    )
