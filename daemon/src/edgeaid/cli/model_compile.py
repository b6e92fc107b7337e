"""`edgeai model compile`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import click

from .model_convert import normalisation, picture_options, say

TARGETS = ["edgetpu", "ncs", "ncs2", "ncs2-blob", "k210", "k210-v4", "k210-v3"]


@click.command("compile")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--target", required=True, type=click.Choice(TARGETS))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("."), show_default=True)
@click.option("--compiler", default="", help="Path of the compiler, if it is not on PATH.")
@click.option("--container", default="", help="Container image that holds the compiler.")
@click.option("--min-runtime", default=0, help="edgetpu: oldest runtime the result must load on (-m).")
@click.option("--shaves", default=12, show_default=True, help="ncs: SHAVE processors (-s).")
@click.option("--input-node", default="", help="ncs: first node (-in).")
@click.option("--output-node", default="", help="ncs: last node (-on).")
@click.option("--weights", type=click.Path(path_type=Path), help="ncs: Caffe weights (-w).")
@click.option("--calibration", default="", help="k210: directory of pictures, .npy/.npz, or file.py:function.")
@click.option("--compiler-option", "extra", multiple=True, metavar="NAME[=VALUE]", help="Passed on to the compiler.")
@click.option("--samples", default=50, show_default=True, help="k210: calibration samples.")
@click.option("--model-dir", type=click.Path(path_type=Path), help="Add the result to this model directory's manifest.")
@click.option("--json", "as_json", is_flag=True)
@picture_options
def compile_(models: tuple[Path, ...], *, target: str, output: Path, compiler: str, container: str, min_runtime: int,
             shaves: int, input_node: str, output_node: str, weights: Path | None, calibration: str,
             extra: tuple[str, ...], samples: int, model_dir: Path | None, as_json: bool, mean: str, std: str,
             color: str, invert: bool) -> None:  # fmt: skip
    """Compile MODELS for an accelerator and read the compiler's log.

    edgetpu: edgetpu_compiler (several models are co-compiled). ncs: mvNCCompile. ncs2: OpenVINO IR; ncs2-blob:
    compile_tool. k210: nncase 1.x (kmodel v5, compared in its simulator). k210-v4 and
    k210-v3: ncc 0.2 and 0.1 (kmodel v4, v3, for MaixPy).
    Without the compiler the exact command for another machine is printed. --compiler-option gives a compiler any option
    of its own: for nncase 1.x those of CompileOptions and PTQTensorOptions, for the others what their --help lists.
    """
    from ..toolkit.compile.compilers import compile_models
    from ..toolkit.compile.request import Request

    request = Request(
        models, target, output, compiler, container, min_runtime, shaves, input_node, output_node, weights, calibration,
        normalisation(mean, std, color, invert), samples,
        {name.lstrip("-"): value for name, _, value in (option.partition("=") for option in extra)},
    )  # fmt: skip
    result = compile_models(request, say)
    if model_dir:
        from ..toolkit.bundle.model_dir import add_artifact

        add_artifact(model_dir, result)
    if as_json:
        shown = {**asdict(result), "files": [str(p) for p in result.files]}
        click.echo(json.dumps(shown, indent=2))
        return
    if result.command:
        click.echo(shlex.join(result.command))
    for path in result.files:
        facts = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
            for k, v in result.facts.get(path.name, {}).items()
            if v is not None and k != "sha256"
        )
        click.echo(f"{path}  {path.stat().st_size} bytes" + (f"  ({facts})" if facts else ""))
    for remark in result.remarks:
        click.echo(f"note: {remark}")
