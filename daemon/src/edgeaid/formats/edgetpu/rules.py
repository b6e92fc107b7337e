"""What the Edge TPU runtime accepts, as findings about a file that was read.

Sources: google-coral/libedgetpu:driver/package_registry.cc, api/runtime_version.h, tflite/custom_op_data.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..finding import NOTE, REFUSED, WARNING, Finding
from ..tflite.reader import Tensor
from .reader import (
    EXECUTION_ONLY,
    PARAMETER_CACHING,
    STAND_ALONE,
    EdgetpuModel,
    EdgetpuOperator,
    Executable,
    Layer,
    Package,
)

#: Runtime version of the current libedgetpu.
RUNTIME: Final = 14
#: Older minimum versions than this make the runtime print a warning.
OLDEST_RUNTIME: Final = 10
#: What a minimum runtime version brought.
RUNTIME_BROUGHT: Final[dict[int, str]] = {
    11: "batches",
    12: "int8 inputs and outputs",
    13: "16-bit floats",
    14: "variable tensors",
}


def check(model: EdgetpuModel, runtime: int = RUNTIME) -> tuple[Finding, ...]:
    """Findings about a model under a given runtime version; any REFUSED means that loading fails."""
    findings: list[Finding] = []
    if len(model.operators) > 1:
        text = f"{len(model.operators)} compiled operators evict each other's parameters unless they share a token"
        findings.append(Finding(NOTE, "several-operators", text))
    for operator in model.operators:
        if operator.chips is None:
            findings.append(Finding(NOTE, "old-options", "options in the oldest style: only one package is used"))
        for package in operator.packages:
            findings += _package(package, runtime)
        findings += _layers(model, operator)
    cpu = model.cpu_operators
    if cpu:
        names = ", ".join(sorted({o.label for o in cpu}))
        findings.append(Finding(NOTE, "cpu-operators", f"{len(cpu)} operators stay on the CPU: {names}"))
    if model.streamed_bytes:
        text = (
            f"{model.streamed_bytes} bytes of parameters do not fit in the chip and are sent with every inference, "
            f"about {model.streamed_bytes / 1048576 / 33.5 * 1000:.1f} ms each on the USB 2 of a Raspberry Pi 3B+"
        )
        findings.append(Finding(NOTE, "streamed", text))
    return tuple(findings)


def _package(package: Package, runtime: int) -> Iterator[Finding]:
    if package.identifier != "DWN1":
        yield Finding(WARNING, "identifier", f"package identifier {package.identifier!r} instead of 'DWN1'")
    version = package.min_runtime
    if version > runtime:
        brought = f" ({RUNTIME_BROUGHT[version]})" if version in RUNTIME_BROUGHT else ""
        text = f"needs Edge TPU runtime {version}{brought}, this one is {runtime}; compile with -m {runtime} or update"
        yield Finding(REFUSED, "min-runtime", text)
    elif version < OLDEST_RUNTIME:
        yield Finding(
            WARNING, "min-runtime", f"minimum runtime {version} is older than {OLDEST_RUNTIME}; compile again"
        )
    if package.virtual_chip_id == -1:
        yield Finding(REFUSED, "multi-chip", "a package for several chips at once (virtual chip -1)")
    programs = package.executables
    kinds = [e.type for e in programs]
    if not programs:
        yield Finding(REFUSED, "no-executable", "the package holds no executable")
    elif len(set(kinds)) != len(kinds):
        yield Finding(REFUSED, "same-type-twice", f"two executables of one type: {', '.join(kinds)}")
    elif len(programs) == 2 and set(kinds) != {PARAMETER_CACHING, EXECUTION_ONLY}:
        yield Finding(REFUSED, "executables", f"{' and '.join(kinds)} do not belong together")
    elif len(programs) == 3 and set(kinds) != {PARAMETER_CACHING, EXECUTION_ONLY, STAND_ALONE}:
        yield Finding(REFUSED, "executables", f"three executables must be of all three types, not {', '.join(kinds)}")
    elif len(programs) > 3:
        yield Finding(REFUSED, "executables", f"{len(programs)} executables, three at most")
    elif len(programs) == 3:
        yield Finding(
            NOTE, "no-caching", "the stand-alone executable is used: parameters are sent with every inference"
        )
    for program in programs:
        if program.batch_size < 1:
            yield Finding(REFUSED, "batch", f"{program.type} executable has batch size {program.batch_size}")
    caching, main = package.caching, package.main
    if caching and main and (caching.token != main.token or not caching.token):
        text = f"caching token {caching.token:016x} and execution token {main.token:016x} must be equal and not 0"
        yield Finding(WARNING, "token", text)
    if main and not main.deterministic_dma:
        yield Finding(NOTE, "dma", "transfers are not deterministic (variable tensors): slower start of each inference")


def _layers(model: EdgetpuModel, operator: EdgetpuOperator) -> Iterator[Finding]:
    graph = next((g for g in model.tflite.subgraphs if operator.operator in g.operators), None)
    main = operator.packages[0].main
    if graph is None or main is None:
        return
    node = operator.operator
    sides = (("input", node.inputs, main.inputs), ("output", node.outputs, main.outputs))
    for what, indices, layers in sides:
        tensors = [graph.tensors[i] for i in indices if i >= 0]
        # Variable tensors add layers that no TFLite tensor belongs to.
        if len(layers) < len(tensors):
            text = f"{len(tensors)} {what} tensors but {len(layers)} {what} layers; the interpreter fails to prepare"
            yield Finding(REFUSED, "layers", text)
        yield from _sizes(what, tensors, layers, main)


def _sizes(what: str, tensors: list[Tensor], layers: tuple[Layer, ...], main: Executable) -> Iterator[Finding]:
    by_name = {layer.name: layer for layer in layers}
    for tensor in tensors:
        layer = by_name.get(tensor.name)
        if layer is None:
            yield Finding(REFUSED, "layers", f"{what} tensor {tensor.name!r} has no layer in the compiled part")
            continue
        expected = main.batch_size * layer.actual_bytes
        if expected != tensor.nbytes:
            text = f"{what} {tensor.name!r} has {tensor.nbytes} bytes, its layer {expected}"
            yield Finding(REFUSED, "layer-size", text)
        if layer.datatype != tensor.datatype:
            text = f"{what} {tensor.name!r} is {tensor.datatype}, its layer {layer.datatype}"
            yield Finding(REFUSED, "layer-type", text)
