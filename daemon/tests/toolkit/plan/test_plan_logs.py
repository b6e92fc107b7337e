"""Plans from the compiler's own logs and from plain and compiled files: sizes, transfers, and what is recommended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeaid.formats.edgetpu import reader as edgetpu
from edgeaid.formats.tflite import reader as tflite
from edgeaid.toolkit.files import edgetpu_parameters
from edgeaid.toolkit.plan import sources
from edgeaid.toolkit.plan.cost import MIB, STREAM_OVERHEAD, USB2_BANDWIDTH
from edgeaid.toolkit.plan.plan import Conditions, Plan, plans

from ..check_cases import conv, dense, relu

#: Input size, output size, available, cached, streamed of each model as the published article prints them, MiB.
BIRD, PLANT, INCEPTION = "bird", "plant", "inception"
LOGS = {
    "bird first": ((BIRD, 3.37, 3.89, 6.91, 3.75, 0.0), (PLANT, 4.76, 5.22, 3.16, 2.49, 2.59)),
    "inception first": ((INCEPTION, 6.38, 6.93, 6.53, 6.53, 0.178), (PLANT, 4.76, 6.04, 0.0015, 0.0012, 5.86)),
    "plant first": ((PLANT, 4.76, 5.22, 6.53, 5.08, 0.0), (INCEPTION, 6.38, 6.95, 1.45, 1.45, 5.16)),
}
#: Measured milliseconds of later inferences of the same runs.
MEASURED = {
    "bird first": {BIRD: 10.61, PLANT: 86.31}, "inception first": {INCEPTION: 18.91, PLANT: 183.40},
    "plant first": {PLANT: 11.18, INCEPTION: 169.28},
}  # fmt: skip


def log(directory: Path, name: str) -> str:
    lines = ["Edge TPU Compiler version 1.0.249710469", "", "Models compiled successfully in 1390 ms."]
    for model, given, made, available, cached, streamed in LOGS[name]:
        lines += [
            "", f"Input model: {model}.tflite", f"Input size: {given}MiB", f"Output model: {model}_edgetpu.tflite",
            f"Output size: {made}MiB", f"On-chip memory available for caching model parameters: {available}MiB",
            f"On-chip memory used for caching model parameters: {cached}MiB",
            f"Off-chip memory used for streaming uncached model parameters: {streamed}MiB",
            "Number of Edge TPU subgraphs: 1", "Total number of operations: 65",
        ]  # fmt: skip
    path = directory / "compile.log"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def ranked(directory: Path, name: str, rates: Mapping[str, float] | None = None) -> list[Plan]:
    source = log(directory, name)
    models, _ = sources.candidates((source,), rates or {}, {})
    budget = sources.log_budget([source])
    assert budget is not None
    return plans(models, Conditions(budget=budget * MIB, stream_overhead=STREAM_OVERHEAD))


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_log_gives_the_published_times_within_8_percent(name: str, tmp_path: Path) -> None:
    (built,) = [p for p in ranked(tmp_path, name) if p.as_built]
    times = {m.name: m.warm_ms for s in built.sticks for m in s.models}
    assert times == pytest.approx(MEASURED[name], rel=0.08)


@pytest.mark.parametrize("name", sorted(LOGS))
def test_the_command_that_made_a_log_is_not_recommended_as_an_improvement(name: str, tmp_path: Path) -> None:
    ranking = ranked(tmp_path, name)
    (built,) = [p for p in ranking if p.as_built]
    assert [p.title for p in ranking].count(built.title) == 1
    assert built.commands() == []


def test_streamed_bytes_are_not_taken_for_the_size_of_a_model(tmp_path: Path) -> None:
    models, _ = sources.candidates((log(tmp_path, "inception first"),), {}, {})
    plant = next(m for m in models if m.name == PLANT)
    assert plant.parameters / MIB == pytest.approx(5.08, rel=0.01)


def test_swapping_is_recommended_where_it_brought_something_and_not_where_it_would_lose(tmp_path: Path) -> None:
    assert ranked(tmp_path, "inception first")[0].title == "[plant + inception]"
    assert ranked(tmp_path, "plant first")[0].as_built


def test_a_large_input_costs_its_transfer(tmp_path: Path) -> None:
    times = []
    for size in (32, 513):
        path = tmp_path / f"m{size}.tflite"
        path.write_bytes(relu((1, size, size, 3)))
        ((candidate,), _) = sources.candidates((str(path),), {}, {})
        (model,) = plans([candidate])[0].sticks[0].models
        times.append((candidate.transfer, model.warm_ms))
    (small, _), (large, milliseconds) = times
    assert large - small >= 2 * (513 * 513 - 32 * 32) * 3
    assert milliseconds > 2 * 22.5


def test_what_a_plain_model_moves_and_caches_is_near_what_its_compiled_file_does(shared_data: Path) -> None:
    directory = shared_data / "coral"
    tried = 0
    for compiled in sorted(directory.glob("*_edgetpu.tflite")):
        plain = compiled.with_name(compiled.name.replace("_edgetpu.tflite", ".tflite"))
        if not plain.is_file():
            continue
        tried += 1
        content = plain.read_bytes()
        work, size = sources.plain_work(content, tflite.read(content))
        built = edgetpu.read(compiled.read_bytes(), tflite.read(compiled.read_bytes()))
        worst, _, _ = sources.ERRORS[sources.kind_of(tflite.read(content))]
        assert size == pytest.approx(built.cached_bytes + built.streamed_bytes, rel=worst / 100)
        ((known,), _) = sources.candidates((str(compiled),), {}, {})
        # Milliseconds are what a plan adds up.
        assert abs(work.transfer - known.transfer) * 1000 / MIB / USB2_BANDWIDTH < 3
        assert known.compute_ms < 4
    assert tried >= 3


def test_how_sure_a_prediction_is_is_said_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(conv())
    _, (remark,) = sources.candidates((str(tmp_path / "m.tflite"),), {}, {})
    assert "classification" in remark
    assert "+-3 %" not in remark


#: Inputs and outputs of a fully connected layer -> bytes that public compiled files have for it.
DENSE = {
    (784, 10): 12_608, (784, 20): 25_216, (784, 128): 100_864, (784, 200): 201_728, (784, 784): 655_616,
    (450, 10): 7_296, (200, 200): 52_224, (16_384, 1): 262_208,
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "outputs"), DENSE)
def test_parameters_of_a_dense_layer_are_those_of_compiled_files(inputs: int, outputs: int) -> None:
    assert edgetpu_parameters(tflite.read(dense(inputs, outputs))) == DENSE[inputs, outputs]


@pytest.mark.parametrize(
    ("name", "compiled"),
    [("mobilenet_v2_1.0_224_quant", 3_900_864), ("mobilenet_v1_1.0_224_quant_embedding_extractor", 3_363_072)],
)
def test_parameters_of_whole_networks_are_those_of_their_compiled_files(
    name: str, compiled: int, shared_data: Path
) -> None:
    content = (shared_data / "coral" / f"{name}.tflite").read_bytes()
    assert sources.plain_work(content, tflite.read(content))[1] == compiled
