"""Where a model's operators would run on a target that it is not compiled for yet."""

from __future__ import annotations

from dataclasses import replace

from ...errors import InvalidModel
from ...formats.tflite import reader as tflite
from ..check import edgetpu
from ..check.rules import PROFILES, Findings
from .report import Report

#: Targets whose rules tell operator by operator.
TARGETS = ("edgetpu",)


def placed(report: Report, data: bytes) -> Report:
    """The report with each operator on the Edge TPU that its compiler would map there, and a verdict.

    InvalidModel for files that are not plain TFLite.
    """
    if report.kind == "edgetpu":
        mapped = sum(o.device == "Edge TPU" for o in report.operators)
        left = len(report.operators) - mapped
        return replace(report, verdict=f"compiled for the Edge TPU: {left} operators on the CPU")
    if report.kind != "tflite":
        raise InvalidModel(f"{report.path}: --target edgetpu is for .tflite files")
    model = tflite.read(data)
    mapped_operators = edgetpu.mapped(data, model, Findings(PROFILES["default"]))
    first = len(model.subgraphs[0].operators)
    operators = tuple(
        replace(o, device="Edge TPU" if i < first and i in mapped_operators else "CPU")
        for i, o in enumerate(report.operators)
    )
    count, total = len(mapped_operators), len(operators)
    if count == total:
        text = f"fits Edge TPU: all {total} operators"
    elif count:
        text = f"fits Edge TPU: {count} of {total} operators, the others run on the CPU"
    else:
        text = f"does not fit Edge TPU: none of {total} operators; why: edgeai model check FILE --target edgetpu"
    return replace(report, operators=operators, verdict=text)


def grade(report: Report) -> str:
    """good, part or bad: how much of the model runs on the accelerator."""
    there = sum(o.device not in ("CPU", "") for o in report.operators)
    return "good" if there == len(report.operators) else "part" if there else "bad"
