"""Which operators the Edge TPU compiler takes: the cut of a graph, and public plain and compiled models."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from edgeaid.formats.tflite import reader as tflite
from edgeaid.formats.tflite.model import EDGETPU_OP, Buffer, Operator, Subgraph, Tensor
from edgeaid.toolkit.check.check import Options, check
from edgeaid.toolkit.check.edgetpu_partition import first_part

from ..check_cases import quantised_relu_between


def graph(*operators: tuple[str, tuple[int, ...], tuple[int, ...]], tensors: int = 12) -> Subgraph:
    """A graph of (name, inputs, outputs)."""
    made = [operator(i, *o) for i, o in enumerate(operators)]
    return Subgraph("", tuple(tensor(i) for i in range(tensors)), (0,), (tensors - 1,), tuple(made))


def operator(index: int, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Operator:
    return Operator(index, name, "", 1, inputs, outputs, {}, Buffer(0, 0))


def tensor(index: int) -> Tensor:
    return Tensor(index, f"t{index}", "INT8", (1, 4), (), None, 0, 0, False, False)


def mapped(*operators: tuple[str, tuple[int, ...], tuple[int, ...]]) -> list[int]:
    return sorted(first_part(graph(*operators), [name != "CPU" for name, _, _ in operators]))


def test_what_reads_from_an_operator_on_the_cpu_is_lost_and_what_does_not_is_kept() -> None:
    # 0 -> 1 -> CPU -> 3, and a branch 1 -> 4 that comes later.
    chain = [("A", (0,), (1,)), ("CPU", (1,), (2,)), ("B", (2,), (3,)), ("C", (1,), (4,)), ("D", (3, 4), (5,))]
    assert mapped(*chain) == [0, 3]


def test_operators_on_the_cpu_in_front_do_no_harm() -> None:
    assert mapped(("CPU", (0,), (1,)), ("CPU", (1,), (2,)), ("A", (2,), (3,)), ("B", (3,), (4,))) == [2, 3]


def test_nothing_is_mapped_where_nothing_can_be() -> None:
    assert mapped(("CPU", (0,), (1,)), ("CPU", (1,), (2,))) == []


def test_a_graph_that_reads_what_nobody_makes_ends() -> None:
    assert mapped(("A", (0, 2), (1,)), ("B", (1,), (2,))) == []


def pairs(directories: list[Path]) -> list[tuple[Path, Path]]:
    """(plain, compiled) models in these directories."""
    files = {p.name: p for directory in directories if directory.is_dir() for p in directory.rglob("*.tflite")}
    compiled = [p for name, p in files.items() if name.endswith("_edgetpu.tflite")]
    plain = [(files.get(p.name.replace("_edgetpu.tflite", ".tflite")), p) for p in compiled]
    return [(a, b) for a, b in plain if a is not None]


def test_compiled_in_several_parts_what_is_behind_an_operator_on_the_cpu_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(quantised_relu_between("LEAKY_RELU", "TANH"))
    facts = check(tmp_path / "m.tflite", "edgetpu", Options(run=False)).facts
    assert (facts["cpu_operators"], facts["cpu_operators_with_a"]) == (3, 1)


def test_as_many_operators_stay_on_the_cpu_as_in_the_public_compiled_file(shared_data: Path) -> None:
    more = os.environ.get("EDGEAI_EDGETPU_PAIRS")
    chosen = pairs([shared_data, shared_data.parent / "findings", *([Path(more)] if more else [])])
    assert len(chosen) >= 5
    wrong = {}
    for plain, compiled in chosen:
        made = tflite.read(compiled.read_bytes()).subgraphs[0].operators
        left = Counter(o.label for o in made if o.custom_code != EDGETPU_OP)
        facts = check(plain, "edgetpu", Options(run=False)).facts
        several = len(made) - sum(left.values()) > 1
        foreseen = facts["cpu_operators_with_a" if several else "cpu_operators"]
        if foreseen != sum(left.values()):
            wrong[plain.name] = (foreseen, left)
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} counts right")
    assert not wrong
