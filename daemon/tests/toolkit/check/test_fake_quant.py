"""Frozen graphs trained with rounding: an array without a range is named before a converter stops at it."""

from __future__ import annotations

from pathlib import Path

from edgeaid.toolkit.check.check import check

from .test_check_ncs import IN, graph, node

FAKE = "FakeQuantWithMinMaxVars"


def missing(directory: Path, *nodes: bytes) -> set[tuple[str, str]]:
    (directory / "net.pb").write_bytes(graph(IN, *nodes))
    report = check(directory / "net.pb", "edgetpu")
    return {(v.layer, v.value) for v in report.violations if v.rule.id == "TFL010"}


def weights(name: str, *, ranged: bool = True) -> list[bytes]:
    """A stored value, read as TensorFlow 1 freezes it; with a range or without."""
    stored = [node(f"{name}/w", "Const"), node(f"{name}/read", "Identity", [f"{name}/w"])]
    return [*stored, node(f"{name}/q", FAKE, [f"{name}/read"])] if ranged else stored


def convolution(name: str, source: str, *, ranged: bool = True, ends: bool = True) -> list[bytes]:
    """Convolution, bias and activation, and the range of what they make."""
    made = weights(name, ranged=ranged)
    made += [
        node(name, "Conv2D", [source, f"{name}/q" if ranged else f"{name}/read"]),
        node(f"{name}/b", "Const"),
        node(f"{name}/bias", "BiasAdd", [name, f"{name}/b"]),
        node(f"{name}/relu", "Relu6", [f"{name}/bias"]),
    ]
    return [*made, node(f"{name}/act", FAKE, [f"{name}/relu"])] if ends else made


def test_a_graph_with_a_range_for_every_array_has_nothing_missing(tmp_path: Path) -> None:
    nodes = [*convolution("a", "input"), *convolution("b", "a/act")]
    total = [node("sum", "AddV2", ["a/act", "b/act"]), node("sum/q", FAKE, ["sum"])]
    assert missing(tmp_path, *nodes, *total) == set()


def test_weights_and_results_without_a_range_are_named(tmp_path: Path) -> None:
    nodes = [*convolution("a", "input", ranged=False), *convolution("b", "a/act", ends=False)]
    assert missing(tmp_path, *nodes, node("out", "Softmax", ["b/relu"])) == {
        ("a", "its weights 'a/read'"), ("b", "what it makes"),
    }  # fmt: skip


def test_a_sum_of_two_maps_needs_a_range_and_a_bias_does_not(tmp_path: Path) -> None:
    nodes = [*convolution("a", "input"), *convolution("b", "a/act"), node("sum", "AddV2", ["a/act", "b/act"])]
    assert missing(tmp_path, *nodes) == {("sum", "what it makes")}
    biased = [
        *weights("a"), node("a", "Conv2D", ["input", "a/q"]), node("b", "Const"), node("c", "Add", ["a", "b"]),
        node("d", FAKE, ["c"]),
    ]  # fmt: skip
    assert missing(tmp_path, *biased) == set()


def test_a_graph_without_ranges_is_not_one_that_was_trained_with_rounding(tmp_path: Path) -> None:
    assert missing(tmp_path, *convolution("a", "input", ranged=False, ends=False)) == set()
