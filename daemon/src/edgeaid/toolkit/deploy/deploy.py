"""From a training framework's file to what each target runs: convert, quantise, check, compile; every step is kept.

A step that cannot be done here (a compiler that is not installed) is said with what to do, and the other targets go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ...errors import EdgeaiError, InvalidModel, InvalidRequest, Unsupported
from ...formats.tflite import reader as tflite
from ..check.check import Options as CheckOptions
from ..check.check import check
from ..compile.compilers import compile_models
from ..compile.request import Compiled, Request
from ..convert.conversion import Options
from ..convert.convert import convert, source_kind
from ..convert.quantize import Job as QuantizeJob
from ..convert.quantize import LogLine, quantize
from ..convert.representative import PIXELS, Normalisation
from ..files import load

TARGETS: Final = ("cpu", "edgetpu", "k210", "ncs2")
#: Sources that a converter turns into a float .tflite first.
_CONVERTED: Final = frozenset({"onnx", "pytorch", "caffe-prototxt", "openvino-ir"})
#: Sources that the quantiser takes as they are.
_TENSORFLOW: Final = frozenset({"keras", "keras-h5", "saved-model", "graphdef"})
#: Targets that take the float model; the others take the quantised one, and the cpu whichever there is.
_FLOAT: Final = frozenset({"k210", "ncs2"})


@dataclass(frozen=True, slots=True)
class Job:
    """What to prepare."""

    model: Path
    name: str
    targets: tuple[str, ...]
    #: Directory for everything that is made.
    work: Path
    #: Directory of pictures, .npy, or file.py:function; "" = nothing is quantised.
    representative: str = ""
    rules: Normalisation = PIXELS
    options: Options = field(default_factory=Options)
    #: Directory with one subdirectory per class, to measure accuracy on.
    accuracy: Path | None = None
    labels: tuple[str, ...] = ()
    input_node: str = ""
    output_node: str = ""


@dataclass(slots=True)
class Step:
    """One thing that was done, or not."""

    name: str
    target: str = ""
    #: done, left out (what to do is in `text`) or failed.
    state: str = "done"
    seconds: float = 0.0
    text: str = ""
    files: list[str] = field(default_factory=list)
    #: The step's own report.
    report: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(slots=True)
class Prepared:
    """What came out."""

    steps: list[Step] = field(default_factory=list)
    #: The .tflite for the cpu: quantised where that was possible.
    main: Path | None = None
    floats: Path | None = None
    compiled: list[Compiled] = field(default_factory=list)


@contextmanager
def step(steps: list[Step], name: str, target: str, tell: Callable[[Step], None]) -> Any:
    """Time a step and keep its end; errors of ours end the step, not the others."""
    made = Step(name, target)
    start = time.monotonic()
    try:
        yield made
    except Unsupported as error:
        made.state, made.text = "left out", str(error)
    except EdgeaiError as error:
        made.state, made.text = "failed", str(error)
    made.seconds = round(time.monotonic() - start, 1)
    steps.append(made)
    tell(made)


def prepare(job: Job, say: LogLine = lambda _: None, tell: Callable[[Step], None] = lambda _: None) -> Prepared:
    """Convert, quantise, check and compile. Raises InvalidRequest for a wrong target, and for nothing to serve."""
    if unknown := set(job.targets) - set(TARGETS):
        raise InvalidRequest(f"deploy knows no target {', '.join(sorted(unknown))}; choose {', '.join(TARGETS)}")
    job.work.mkdir(parents=True, exist_ok=True)
    done = Prepared()
    _to_tflite(job, done, say, tell)
    if done.main is None:
        reason = next((s.text for s in reversed(done.steps) if s.text), "nothing was made")
        raise InvalidModel(f"{job.model.name} cannot be deployed: {reason}")
    for target in job.targets:
        file = done.floats if target in _FLOAT else done.main
        if file is None:
            with step(done.steps, "compile", target, tell):
                raise Unsupported(f"{target} starts from the float model, and {job.model.name} is quantised already")
            continue
        if _checked(job, file, target, done, tell) and target != "cpu":
            _compile(job, file, target, done, say, tell)
    return done


def input_shape(file: Path) -> tuple[int, ...]:
    """Shape of the first input of a .tflite."""
    return tflite.read(load(file)).inputs[0].shape


def _to_tflite(job: Job, done: Prepared, say: LogLine, tell: Callable[[Step], None]) -> None:
    """The float and the quantised .tflite, as far as the source gives them."""
    kind, source = source_kind(job.model), job.model
    floats, made = job.work / f"{job.name}_float.tflite", job.work / f"{job.name}.tflite"
    if kind in _CONVERTED:
        with step(done.steps, "convert", "", tell) as this:
            result = convert(source, "tflite", floats, job.options, say)
            d = result.difference
            this.files, this.report = [str(floats)], result.as_dict()
            this.text = f"{result.route}: largest error {d.relative:.2%} of the range in {d.samples} runs"
            done.floats = done.main = source = floats
        if done.floats is None:
            return
    elif kind == "tflite":
        quantised = tflite.read(load(source)).inputs[0].datatype != "FP32"
        done.main, done.floats = source, None if quantised else source
        if quantised:
            return
    elif kind not in _TENSORFLOW:
        raise InvalidModel(
            f"{source} is {kind}: deploy takes Keras, SavedModel, frozen graphs, ONNX, PyTorch, Caffe, OpenVINO IR "
            "and .tflite"
        )
    with step(done.steps, "quantise", "", tell) as this:
        if not job.representative:
            raise Unsupported("no representative data: --representative DIRECTORY makes it smaller and faster")
        nodes = tuple(filter(None, [job.input_node])), tuple(filter(None, [job.output_node]))
        (int8,) = quantize(
            QuantizeJob(
                source, {"int8": made}, job.representative, job.rules, inputs=nodes[0], outputs=nodes[1],
                shape=job.options.shape, accuracy=job.accuracy, labels=job.labels,
                float_output=floats if done.floats is None else None,
            ),
            say,
        )  # fmt: skip
        this.files, this.report = [str(made)], int8.as_dict()
        this.text = (
            f"{int8.quantised_bytes} bytes (float {int8.float_bytes}), correlation {int8.difference.correlation:.4f}"
        )
        if int8.accuracy:
            this.text += f", accuracy {int8.accuracy['quantised']:.2%} (float {int8.accuracy['float']:.2%})"
        done.main, done.floats = made, done.floats or floats


def _checked(job: Job, file: Path, target: str, done: Prepared, tell: Callable[[Step], None]) -> bool:
    """Whether the rules of the target let the file pass."""
    with step(done.steps, "check", target, tell) as this:
        report = check(file, target, CheckOptions(mean=job.rules.mean, std=job.rules.std))
        errors = [v for v in report.violations if v.rule.severity == "error"]
        this.report = {"facts": dict(report.facts), "rules": [v.rule.id for v in report.violations]}
        this.text = report.worst or "no findings"
        # An IR is made from the .tflite, which the stick itself cannot take.
        if errors and target != "ncs2":
            this.state = "failed"
            this.text = "; ".join(f"{v.rule.id} {v.rule.title}: {v.value}. {v.rule.remedy}" for v in errors[:3])
            return False
    return True


def _compile(job: Job, file: Path, target: str, done: Prepared, say: LogLine, tell: Callable[[Step], None]) -> None:
    with step(done.steps, "compile", target, tell) as this:
        request = Request((file,), target, job.work, calibration=job.representative, rules=job.rules)
        compiled = compile_models(request, say)
        this.files = [str(path) for path in compiled.files]
        this.report = {name: dict(facts) for name, facts in compiled.facts.items()}
        this.text = "; ".join(compiled.remarks) or ", ".join(path.name for path in compiled.files)
        done.compiled.append(compiled)
