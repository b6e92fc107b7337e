"""Compiler output of every generation is understood; any other text only ever gives our own error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeaid.errors import InvalidModel
from edgeaid.toolkit import compiler_logs as compile_logs
from edgeaid.toolkit.check.rules import rules
from edgeaid.toolkit.plan import sources

from ..plan.test_plan_command import LOG

LOG_16 = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1532 ms.

Input model: deeplab.tflite
Input size: 743.07KiB
Output model: deeplab_edgetpu.tflite
Output size: 1.02MiB
On-chip memory used for caching model parameters: 604.50KiB
On-chip memory remaining for caching model parameters: 511.50KiB
Off-chip memory used for streaming uncached model parameters: 3.45MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 72
Operation log: deeplab_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower.
Number of operations that will run on Edge TPU: 70
Number of operations that will run on CPU: 2

Operator                       Count      Status

RESIZE_BILINEAR                1          Operation is otherwise supported, but not mapped due to \
some unspecified limitation
RESIZE_BILINEAR                2          Mapped to Edge TPU
ARG_MAX                        1          Operation not supported
CONV_2D                        38         Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def test_the_log_of_a_pair_lists_both_models() -> None:
    log = compile_logs.edgetpu(LOG)
    assert (log.version, log.succeeded, log.milliseconds) == ("1.0.249710469", True, 1093)
    bird, plant = log.models
    assert (bird.input, bird.cached, bird.streamed) == ("bird.tflite", round(3.75 * 2**20), 0)
    assert (plant.available, plant.streamed) == (round(3.16 * 2**20), round(2.59 * 2**20))


def test_the_newest_log_has_memory_left_and_an_operator_table() -> None:
    log = compile_logs.edgetpu(LOG_16)
    (model,) = log.models
    assert log.succeeded
    assert (model.cached, model.remaining, model.on_tpu, model.on_cpu) == (619008, 523776, 70, 2)
    assert [(r.name, r.count, r.rule) for r in model.operators] == [
        ("RESIZE_BILINEAR", 1, "ETP012"), ("RESIZE_BILINEAR", 2, ""), ("ARG_MAX", 1, "ETP010"), ("CONV_2D", 38, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["Invalid model: m.tflite\nModel not quantized", "Internal compiler error. Aborting!", "Compilation failed!", "",
     "terminating with uncaught exception of type std::bad_alloc"],
)  # fmt: skip
def test_a_failed_run_is_no_success(text: str) -> None:
    assert not compile_logs.edgetpu("Edge TPU Compiler version 16.0.384591198\n" + text).succeeded


def test_every_status_text_points_to_a_rule_that_exists() -> None:
    assert {number for number in compile_logs.STATUS.values() if number} <= rules().keys()


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ('[Error 25] Myriad Error: "Matmul scratch memory [112640] lower than required [225792]"', "NCS012"),
        (
            "[Error 35] Setup Error: Not enough resources on Myriad to process this network: layer buffer exceeds",
            "NCS011",
        ),
        ("[Error 5] Toolkit Error: Stage Details Not Supported: Abs", "NCS006"),
        (
            "[Error 13] Toolkit Error: Provided OutputNode/InputNode name does not exist or does not match with one",
            "NCS034",
        ),
        ("[Error 17] Toolkit Error: Internal Error: Could not build graph. Missing link: x", ""),
    ],
)
def test_errors_of_mvnccompile_are_explained(line: str, rule: str) -> None:
    log = compile_logs.mvncc(f"mvNCCompile v02.00, Copyright @ Intel Corporation 2017\n\n{line}\n")
    assert (log.version, log.succeeded) == ("v02.00", False)
    assert log.errors[0][2] == rule


def test_a_log_of_mvnccompile_without_errors_is_a_success() -> None:
    assert compile_logs.mvncc("mvNCCompile v02.00, Copyright @ Intel Corporation 2017\n").succeeded


@pytest.mark.parametrize(("text", "size"), [("0.00B", 0), ("182.19KiB", 186563), ("3.75MiB", 3932160), ("1 B", 1)])
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert compile_logs.size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1.5", "-1B", "1e9MiB", "1.5GB", "nanMiB", "9" * 40 + "B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidModel):
        compile_logs.size(text)


def test_a_log_without_end_is_refused() -> None:
    for huge in ("x" * (compile_logs.MAX_LOG + 1), "\n" * (compile_logs.MAX_LINES + 1)):
        with pytest.raises(InvalidModel, match="at most"):
            compile_logs.edgetpu(huge)


#: Lines of real logs, torn and mixed.
LINES = st.sampled_from(
    [*LOG.splitlines(), *LOG_16.splitlines(), "[Error 25] x", "main memory usage: 3.1 MB", "what(): y"]
)
TEXT = st.lists(st.one_of(LINES, st.text(max_size=80), LINES.map(lambda s: s[: len(s) // 2])), max_size=40).map(
    "\n".join
)


def read_all(text: str | bytes) -> None:
    with suppress(InvalidModel):
        log = compile_logs.edgetpu(text)
        assert all(m.cached is None or m.cached >= 0 for m in log.models)
    with suppress(InvalidModel):
        compile_logs.mvncc(text)
    with suppress(InvalidModel):
        compile_logs.ncc(text)


@given(TEXT)
def test_torn_and_mixed_lines_raise_nothing_else(text: str) -> None:
    read_all(text)


@given(st.binary(max_size=2000))
def test_any_bytes_raise_nothing_else(raw: bytes) -> None:
    read_all(raw)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXT)
def test_twenty_thousand_mixed_logs_raise_nothing_else(text: str) -> None:
    read_all(text)


#: The file that the compiler writes beside a model: other keys than on the screen, and no sizes.
OPERATORS = """Edge TPU Compiler version 15.0.340273435
Input: /home/someone/digits.tflite
Output: digits_edgetpu.tflite

Operator                       Count      Status

CONV_2D                        2          Mapped to Edge TPU
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified \
limitation
DEQUANTIZE                     1          Operation is working on an unsupported data type
"""


def test_the_file_beside_a_compiled_model_lists_its_operators() -> None:
    (model,) = compile_logs.edgetpu(OPERATORS).models
    assert (model.input, model.output) == ("/home/someone/digits.tflite", "digits_edgetpu.tflite")
    assert [(o.name, o.count, o.rule) for o in model.operators] == [
        ("CONV_2D", 2, ""), ("QUANTIZE", 1, "ETP012"), ("DEQUANTIZE", 1, "ETP002"),
    ]  # fmt: skip


def test_a_plan_says_which_log_it_needs_instead(tmp_path: Path) -> None:
    (tmp_path / "digits_edgetpu.log").write_text(OPERATORS)
    with pytest.raises(InvalidModel, match="give what the compiler printed"):
        sources.candidates((str(tmp_path / "digits_edgetpu.log"),), {}, {})
