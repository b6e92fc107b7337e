"""`edgeai model quantize`, `convert`, `lighten` and `environments`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..errors import InvalidRequest
from ..toolkit.convert.quantize import SCHEMES, Result
from ..toolkit.convert.representative import Normalisation


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Comma-separated numbers. Raises InvalidRequest."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidRequest(f"{option} {text!r} is not a list of numbers") from error
    return values


def shape_of(text: str) -> tuple[int, ...]:
    """A shape such as 1,3,224,224 or 1x3x224x224; () for "". Raises InvalidRequest."""
    if not text:
        return ()
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise InvalidRequest(f"--shape {text!r} is not of the form 1,3,224,224") from error
    if any(d < 1 for d in shape):
        raise InvalidRequest(f"--shape {text!r}: dimensions start at 1")
    return shape


def constants_of(pairs: tuple[str, ...]) -> dict[str, float]:
    """NAME=VALUE options. Raises InvalidRequest."""
    constants = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        try:
            constants[name] = float(value)
        except ValueError as error:
            raise InvalidRequest(f"--constant {pair!r} is not of the form NAME=VALUE") from error
        if not (equals and name):
            raise InvalidRequest(f"--constant {pair!r} is not of the form NAME=VALUE")
    return constants


def normalisation(mean: str, std: str, color: str, invert: bool) -> Normalisation:
    """As the [input] table of a manifest. Raises InvalidRequest."""
    means, stds = numbers(mean, "--mean"), numbers(std, "--std")
    if any(s == 0 for s in stds):
        raise InvalidRequest("--std must not be 0")
    return Normalisation(means, stds, color, invert)


def picture_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how pictures become real values."""
    for option in (
        click.option("--mean", default="0", show_default=True, help="real = (pixel - mean) / std; comma for channels."),
        click.option("--std", default="255", show_default=True),
        click.option("--color", default="RGB", show_default=True, type=click.Choice(["RGB", "BGR"])),
        click.option("--invert", is_flag=True, help="Use 255 - pixel."),
    ):
        function = option(function)
    return function


def say(text: str) -> None:
    """What takes long is announced on stderr."""
    click.echo(text, err=True)


@contextmanager
def bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("working", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@click.command("quantize")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--representative", required=True, help="Directory of pictures, .npy/.npz, or file.py:function.")
@click.option(
    "--scheme",
    "schemes",
    multiple=True,
    type=click.Choice([*SCHEMES, "all"]),
    help="Repeat to compare several, or all.  [default: int8]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: <model>_<scheme>.tflite.")
@click.option("--io", default="int8", show_default=True, type=click.Choice(["int8", "uint8", "float32"]))
@click.option("--per-tensor", is_flag=True, help="One scale per weight tensor instead of one per channel.")
@click.option("--samples", default=200, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--input-node", default="", help="Frozen graphs: name of the first node.")
@click.option("--output-node", default="", help="Frozen graphs: name of the last node.")
@click.option("--shape", default="", help="Frozen graphs: input shape, 1,224,224,3.")
@click.option("--accuracy", type=click.Path(path_type=Path), help="Directory with one subdirectory per class.")
@click.option("--labels", type=click.Path(path_type=Path), help="Label file, if subdirectories are named by label.")
@click.option("--float-output", type=click.Path(path_type=Path), help="Also keep the float .tflite (for the K210).")
@click.option("--model-dir", type=click.Path(path_type=Path), help="Also make a model directory <name>/<version> here.")
@click.option("--json", "as_json", is_flag=True)
@picture_options
def quantize(model: Path, *, representative: str, schemes: tuple[str, ...], output: Path | None, io: str,
             per_tensor: bool, samples: int, input_node: str, output_node: str, shape: str, accuracy: Path | None,
             labels: Path | None, float_output: Path | None, model_dir: Path | None, as_json: bool, mean: str, std: str,
             color: str, invert: bool) -> None:  # fmt: skip
    """Turn a float model into a smaller TFLite file: integers throughout, or another scheme.

    MODEL is a .keras or .h5 file, a SavedModel directory, a frozen graph (.pb) or a float .tflite. The result is
    compared with the float model: outputs, every layer, and accuracy if a labelled directory is given. A report lies
    beside it. Schemes: int8 (what accelerators take), int16x8 (activations of 16 bits), float16 (weights of half the
    size), dynamic (weights of 8 bits, activations rounded at run time), weights (weights of 8 bits, computed in float).
    Several schemes end in a table of size, time and accuracy.
    """
    from ..toolkit.convert.quantize import Job
    from ..toolkit.convert.quantize import quantize as run
    from ..toolkit.files import read_labels

    rules = normalisation(mean, std, color, invert)
    names = read_labels(labels) if labels else ()
    wanted = list(SCHEMES) if "all" in schemes else list(dict.fromkeys(schemes)) or ["int8"]
    if len(wanted) > 1 and (output or model_dir):
        raise InvalidRequest("-o and --model-dir take one scheme; several are written beside the model")
    job = Job(
        model, {scheme: output or model.with_name(f"{model.stem}_{scheme}.tflite") for scheme in wanted},
        representative, rules, io, not per_tensor, samples, tuple(filter(None, [input_node])),
        tuple(filter(None, [output_node])), shape_of(shape), accuracy, names, float_output=float_output,
    )  # fmt: skip
    with bar() as progress:
        results = run(job, say, progress)
    if model_dir:
        from ..toolkit.bundle.model_dir import from_quantised

        say(f"model directory: {from_quantised(model_dir, results[0], rules, labels)}")
    if as_json:
        made = [result.as_dict() for result in results]
        click.echo(json.dumps(made if len(made) > 1 else made[0], indent=2))
    elif len(results) > 1:
        _show_schemes(results)
    else:
        _show_quantised(results[0])


def _show_schemes(results: Sequence[Result]) -> None:
    def line(name: str, size: int, us: float, error: str, right: float | None, file: str) -> None:
        click.echo(f"{name:10} {size:>10} {us:>8.0f} {error:>8} {'' if right is None else f'{right:.2%}':>9}  {file}")

    first = results[0]
    click.echo(f"{'scheme':10} {'bytes':>10} {'us':>8} {'error':>8} {'accuracy':>9}")
    line("float", first.float_bytes, first.float_us, "", first.accuracy.get("float"), "")
    for r in results:
        error, right = f"{r.difference.relative:.2%}", r.accuracy.get("quantised")
        line(r.scheme, r.quantised_bytes, r.quantised_us, error, right, r.output.name)


def _show_quantised(result: Result) -> None:
    d = result.difference
    click.echo(f"{result.output}: {result.quantised_bytes} bytes (float {result.float_bytes})")
    click.echo(f"one inference here, one thread: {result.quantised_us:.0f} us (float {result.float_us:.0f} us)")
    click.echo(
        f"outputs: largest error {d.max_error:.4g} ({d.relative:.1%} of the range), mean {d.mean_error:.4g}, "
        f"correlation {d.correlation:.4f}, same best class in {d.top1_agreement:.1%} of {d.samples} samples"
    )
    if result.accuracy:
        a = result.accuracy
        click.echo(
            f"accuracy on {a['samples']:.0f} pictures: float {a['float']:.2%}, {result.scheme} {a['quantised']:.2%}"
        )
    if result.layers:
        click.echo("layers with the largest error (rmse of the range, signal to noise):")
        for layer in result.layers[:8]:
            click.echo(f"  {layer.rmse:8.3%}  {layer.sqnr:6.1f} dB  {layer.name.split(';')[0][:90]}")


def torch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of what is converted through ONNX: PyTorch weights with their class, Caffe's two files."""
    for option in (
        click.option("--weights", type=click.Path(path_type=Path), help="Caffe: the .caffemodel, if named otherwise."),
        click.option("--via-onnx", is_flag=True, help="PyTorch to TFLite: through ONNX instead of litert-torch."),
        click.option(
            "--import-path", multiple=True, metavar="DIRECTORY", help="PyTorch: where the class imports from."
        ),
        click.option("--arguments", default="", metavar="JSON", help="PyTorch weights: what the class is made with."),
        click.option("--class", "cls", default="", metavar="NAME", help="PyTorch weights: the class they belong to."),
        click.option("--module", default="", metavar="FILE.py", help="PyTorch weights: where it is; or a dotted name."),
    ):
        function = option(function)
    return function


@click.command("convert")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, type=click.Choice(["tflite", "openvino", "onnx", "tfjs", "coreml"]))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: beside the model.")
@click.option(
    "--shape", default="", help="Fixed shape of the first input, 1,3,224,224; needed where the file leaves it open."
)
@click.option("--constant", multiple=True, metavar="NAME=VALUE", help="ONNX: an input that becomes a constant.")
@click.option("--fp32", is_flag=True, help="OpenVINO: keep float32 weights.")
@torch_options
@click.option("--input-names", default="", help="PyTorch: names of the inputs of the ONNX model, comma-separated.")
@click.option("--output-names", default="", help="PyTorch: names of its outputs.")
@click.option(
    "--model-dir", type=click.Path(path_type=Path), help="Note the report in this model directory's manifest."
)
@click.option("--json", "as_json", is_flag=True)
def convert(model: Path, *, target: str, output: Path | None, shape: str, constant: tuple[str, ...], fp32: bool,
            input_names: str, output_names: str, model_dir: Path | None, as_json: bool,
            **torch: Any) -> None:  # fmt: skip
    """Convert between model formats and compare both models on the same inputs.

    Routes: ONNX to TFLite (onnx2tf) and OpenVINO; TFLite to OpenVINO and ONNX (tf2onnx); SavedModel and frozen graphs
    to OpenVINO; PyTorch to TFLite (litert-torch), ONNX and OpenVINO; Caffe and OpenVINO IR to TFLite and ONNX. PyTorch
    weights (.pth) need the class that they belong to: --module and --class. Each converter runs in an environment of
    its own.
    """
    from ..toolkit.convert.conversion import Options, TorchSource
    from ..toolkit.convert.convert import convert as run

    options = Options(
        shape_of(shape), constants_of(constant), not fp32, torch=TorchSource.of(torch), weights=torch["weights"],
        via_onnx=torch["via_onnx"], input_names=tuple(filter(None, input_names.split(","))),
        output_names=tuple(filter(None, output_names.split(","))),
    )  # fmt: skip
    suffix = {"openvino": ".xml", "onnx": ".onnx", "tflite": ".tflite"}.get(target, f".{target}")
    result = run(model, target, output or model.with_suffix(suffix), options, say)
    if model_dir:
        from ..toolkit.bundle.model_dir import note_conversion

        note_conversion(model_dir, result)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
        return
    click.echo(f"{result.route} by {result.tool}: {', '.join(str(p) for p in result.files)}")
    d = result.difference
    click.echo(
        f"same inputs, {d.samples} runs: largest error {d.max_error:.4g} ({d.relative:.2%} of the range), "
        f"correlation {d.correlation:.6f}"
    )
    click.echo(f"transposes in the result: {result.transposes}")
    for note in result.notes:
        click.echo(f"note: {note}")


@click.command("lighten")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--train", required=True, help="Labelled directory to fine-tune on: one subdirectory of pictures per class."
)
@click.option("--test", "test", required=True, help="Labelled directory to measure accuracy on.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Directory for the variants; default <model>_light."
)
@click.option("--sparsity", default=0.6, show_default=True, type=click.FloatRange(0.1, 0.98))
@click.option("--clusters", default=16, show_default=True, type=click.IntRange(2, 256))
@click.option("--epochs", default=4, show_default=True, type=click.IntRange(1, 200))
@click.option("--channels", default=0.5, show_default=True, type=click.FloatRange(0.05, 0.95), help="Share to remove.")
@click.option("--teacher", type=click.Path(path_type=Path), help="A Keras classifier whose answers are learnt, too.")
@click.option("--temperature", default=3.0, show_default=True, type=click.FloatRange(1, 50), help="Of the teacher.")
@click.option("--json", "as_json", is_flag=True)
@picture_options
def lighten(model: Path, *, train: str, test: str, output: Path | None, sparsity: float, clusters: int, epochs: int,
            channels: float, teacher: Path | None, temperature: float, as_json: bool, mean: str, std: str, color: str,
            invert: bool) -> None:  # fmt: skip
    """Make a Keras classifier lighter in several ways and measure what each brings.

    Prints size (plain and compressed), latency on this machine and accuracy of the model as it is, pruned, clustered,
    trained while it is rounded to 8 bits (aware), with channels removed (slim; taught by the model or --teacher), and
    of each as int8, and with weights of one bit between the first and the last layer (binary). Pruned and clustered
    files have the same plain size: the zeros compress, no runtime skips them; a slim network is smaller and faster.
    The column `shared` is a report: so many bytes the file would have if equal weights were indices into a table
    (sharing: clustered; one bit: binary), which no runtime here computes with.
    """
    from ..toolkit.convert.lighten import Job
    from ..toolkit.convert.lighten import lighten as run

    rules = normalisation(mean, std, color, invert)
    directory = output or model.with_name(model.stem + "_light")
    job = Job(
        model, Path(train), Path(test), directory, rules, sparsity, clusters, epochs, channels, teacher, temperature
    )
    rows = run(job, say)
    if as_json:
        click.echo(json.dumps([r.as_dict() for r in rows], indent=2))
        return
    click.echo(f"{'variant':24} {'bytes':>10} {'gzip':>10} {'shared':>10} {'zeros':>7} {'us':>8} {'accuracy':>9}")
    for r in rows:
        sizes = f"{r.size:>10} {r.compressed:>10} {r.shared:>10}"
        click.echo(f"{r.name:24} {sizes} {r.zeros:>7.1%} {r.us:>8.0f} {r.accuracy:>9.2%}")


@click.command("environments")
@click.argument("name", default="")
@click.option("--create", is_flag=True, help="Create it now instead of on first use.")
@click.option("--remove", is_flag=True, help="Delete it.")
def environments(name: str, *, create: bool, remove: bool) -> None:
    """List, create or remove the converters' environments."""
    from ..toolkit.convert import environments as envs

    if (create or remove) and name not in envs.ENVIRONMENTS:
        raise InvalidRequest(f"name one of {', '.join(envs.ENVIRONMENTS)}")
    if remove:
        for path in envs.remove(name):
            click.echo(f"removed {path}")
        return
    if create:
        click.echo(envs.python(name, say))
        return
    for env in envs.ENVIRONMENTS.values():
        if name in ("", env.name):
            where = envs.ready(env.name) or "not created yet"
            click.echo(f"{env.name:12} Python {' or '.join(env.pythons):20} {env.size:>7}  {env.purpose}: {where}")
