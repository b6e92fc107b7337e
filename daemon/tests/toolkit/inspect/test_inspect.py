"""`edgeai model inspect` on real and on made files: text, JSON, page, exit codes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from edgeaid.cli.model_inspect import inspect as command
from edgeaid.errors import InvalidModel, NotFound
from edgeaid.formats.k210.kmodel import Kmodel
from edgeaid.formats.k210.kmodel import read as read_kmodel
from edgeaid.toolkit.inspect import layout as inspect_layout
from edgeaid.toolkit.inspect.files import inspect_bytes, inspect_path
from edgeaid.toolkit.inspect.report import OperatorRow, Report, TensorRow, compare, flatten
from edgeaid.toolkit.inspect.text import show

from ...formats import builders
from ..check_cases import quantised_relu_between
from ..tflite_builder import Graph, Op, T, build

M25, M50 = "mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.5_160_quant"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def as_json(*files: Path) -> dict[str, Any]:
    result = run("--json", *files)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.output)
    return report


def write(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def test_files_of_one_compilation_are_found_by_their_token(shared_data: Path) -> None:
    group = sorted((shared_data / "coral/cocompilation").glob("*3quant*"))
    alone = shared_data / "coral" / f"{M25}_edgetpu.tflite"
    grouped = as_json(*group, alone)["edgetpu"]
    assert [(g["token"], len(g["files"]), g["cached_bytes"], g["streamed_bytes"]) for g in grouped["groups"]] == [
        ("99b484be30458cde", 3, 3_960_256, 857_536),
        ("6d146c3f97d6648c", 1, 566_912, 0),
    ]
    assert all(g["fits"] for g in grouped["groups"])
    assert "edgetpu_compiler" in grouped["advice"]


def test_files_of_one_pair_stay_cached_side_by_side(shared_data: Path) -> None:
    pair = sorted((shared_data / "coral/cocompilation").glob(f"*with_{M25}*")) + sorted(
        (shared_data / "coral/cocompilation").glob(f"*with_{M50}*")
    )
    comparison = compare([inspect_path(p) for p in pair])
    assert comparison is not None
    assert [(g.token, g.cached_bytes, g.fits) for g in comparison.groups] == [("e2c366fd5d62fa6b", 2_040_192, True)]
    assert "side by side" in comparison.advice


def test_one_compiled_file_is_compared_with_nothing(shared_data: Path) -> None:
    assert as_json(shared_data / "coral" / f"{M25}_edgetpu.tflite")["edgetpu"] is None


def test_a_compiled_file_says_where_its_operators_run(shared_data: Path) -> None:
    (file,) = as_json(shared_data / "coral" / f"{M25}_edgetpu.tflite")["files"]
    assert [(o["type"], o["device"]) for o in file["operators"]] == [("edgetpu-custom-op", "Edge TPU")]
    assert file["edgetpu"] == {
        "token": "6d146c3f97d6648c", "cached_bytes": 566912, "streamed_bytes": 0, "scratch_bytes": 0,
        "bitstream_bytes": [170032, 12624], "min_runtime": 12, "compiler": "cl/", "chip": "beagle", "cpu_operators": 0,
    }  # fmt: skip
    assert (file["labels"][0], len(file["labels"])) == ("background", 1001)
    assert (file["inputs"][0]["mean"], file["inputs"][0]["std"]) == ([127.5], [127.5])


def test_a_plain_tflite_file_runs_on_the_cpu(shared_data: Path) -> None:
    report = inspect_path(shared_data / "coral" / f"{M25}.tflite")
    assert {o.device for o in report.operators} == {"CPU"}
    assert sum(o.constants for o in report.operators) == dict(report.memory[0].parts)["weights"]
    assert 13e6 < int(report.facts["multiply-accumulates"]) < 14.5e6  # its authors say 14 million


def test_a_transposed_convolution_and_a_batch_cost_what_they_compute() -> None:
    kernel, weights = np.zeros((3, 2, 2, 5), "<f4"), np.zeros((7, 192), "<f4")
    tensors = [
        T("size", (4,), "INT32", np.array([1, 8, 8, 3], "<i4")), T("kernel", kernel.shape, data=kernel),
        T("x", (1, 4, 4, 5)), T("up", (1, 8, 8, 3)),
        T("weights", weights.shape, data=weights), T("rows", (2, 192)), T("y", (2, 7)),
    ]  # fmt: skip
    strides = [(0, "b", 0), (1, "i", 2), (2, "i", 2)]
    operators = [
        Op("TRANSPOSE_CONV", ["size", "kernel", "x"], ["up"], strides),
        Op("FULLY_CONNECTED", ["rows", "weights"], ["y"]),
    ]
    data = build(Graph(tensors, operators, ["x", "rows"], ["up", "y"]))
    report = inspect_bytes(data, Path("made.tflite"))
    assert [o.macs for o in report.operators] == [4 * 4 * 5 * 3 * 2 * 2, 2 * 192 * 7]
    assert report.facts["multiply-accumulates"] == 960 + 2688


def test_the_page_shows_what_each_operator_costs(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "coral" / f"{M25}.tflite"
    report = inspect_path(path)
    costs = [o.macs for o in report.operators]
    assert sum(costs) == report.facts["multiply-accumulates"]
    assert run(path, "--html", tmp_path / "page.html").exit_code == 0
    text = (tmp_path / "page.html").read_text()
    widths = [int(w) for w in re.findall(r'class="cost"[^>]*width="(\d+)"', text)]
    assert len(widths) == sum(c > 0 for c in costs)
    most = max(costs)
    assert widths == [max(1, round(190 * c / most)) for c in costs if c]
    assert text.count(f"{most:,} ({most / sum(costs):.1%})") == costs.count(most)
    assert run(shared_data / "k210/slim-320_v4.kmodel", "--html", tmp_path / "k210.html").exit_code == 0
    assert "multiply-accumulates" not in (tmp_path / "k210.html").read_text(), "a file that does not say has no column"


def test_memory_of_a_kmodel_is_shown(shared_data: Path) -> None:
    path = shared_data / "k210/slim-320_v4.kmodel"
    report = inspect_path(path)
    assert [(b.title.split(" (")[0], b.used) for b in report.memory] == [
        ("KPU RAM peak", 1_704_960),
        ("general RAM", 544_404),
    ]
    assert sum(o.device == "KPU" for o in report.operators) == read_kmodel(path.read_bytes()).kpu_nodes


def test_edges_of_a_kmodel_follow_from_the_memory_it_writes_and_reads(shared_data: Path) -> None:
    report = inspect_path(shared_data / "k210/slim-320_v4.kmodel")
    made = {v for o in report.operators for v in o.outputs}
    assert all(v in made or v == "input" for o in report.operators for v in o.inputs)
    assert report.operators[0].inputs == ("input",)
    assert report.operators[1].inputs == ("n0",)


def test_every_real_file_gives_text_and_a_page(shared_data: Path, tmp_path: Path) -> None:
    files = [p for p in shared_data.rglob("*") if p.suffix in (".tflite", ".kmodel", ".graph", ".facedetect80")]
    assert len(files) > 20
    text = run(*files)
    assert text.exit_code == 0, text.output
    for path in files:
        assert path.name in text.output
    listed = run("--operators", shared_data / "ncs/p.graph")
    assert "pnet/conv1/BiasAdd" in listed.output
    page = tmp_path / "all.html"
    assert run("--html", page, *files).exit_code == 0
    content = page.read_text("utf-8")
    assert content.count("<section>") == len(files) + 1  # and the comparison
    assert not re.search(r"(?:src|href)=|https?://|@import|url\(", content)
    assert content.count("<script") == 1  # the page's own, inline
    assert content.count("<svg") >= 15


class _Balance(HTMLParser):
    """Counts open elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)


@pytest.mark.parametrize("kind", builders.SEEDS)
def test_a_page_about_any_kind_of_file_is_well_formed(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, "file.bin", builders.SEEDS[kind]())
    page = tmp_path / "page.html"
    result = run("--html", page, path)
    assert result.exit_code == 0, result.output
    parser = _Balance()
    parser.feed(page.read_text("utf-8"))
    assert (parser.open, parser.problems) == ([], [])


def test_names_from_a_file_cannot_become_markup(tmp_path: Path) -> None:
    tree = builders.tflite_tree()
    tree[2][0][0][0][3] = "<script>alert(1)</script>[red]"
    path = write(tmp_path, "x.tflite", builders.flat(tree, b"TFL3"))
    page = tmp_path / "page.html"
    assert run("--html", page, path).exit_code == 0
    content = page.read_text("utf-8")
    assert content.count("<script") == 1  # the page's own
    assert "<script>alert" not in content
    assert "<script>alert(1)</script>[red]" in run(path).output.replace("\n", "")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("a.tflite", builders.tflite()[:300], 65), ("a.txt", b"hello", 65), ("k.kmodel", b"LDMK\6" + bytes(60), 65)],
)
def test_a_file_that_cannot_be_read_gives_its_exit_code(tmp_path: Path, name: str, content: bytes, code: int) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InvalidModel, match=name) as raised:
        inspect_path(path)
    assert raised.value.exit_code == code


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inspect_path(tmp_path / "nothing.tflite")


def test_one_bad_file_does_not_hide_the_good_ones(tmp_path: Path) -> None:
    good = write(tmp_path, "good.kmodel", builders.kmodel_v4())
    bad = write(tmp_path, "bad.kmodel", builders.kmodel_v4()[:-40])
    result = run(bad, good)
    assert result.exit_code == 65
    assert "good.kmodel" in result.output
    assert "bad.kmodel" in result.output


def test_the_verb_is_attached_and_its_errors_become_exit_codes(tmp_path: Path) -> None:
    bad = write(tmp_path, "bad.tflite", builders.tflite()[:300])
    code = "import sys; from edgeaid.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "model", "inspect", str(bad)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 65
    assert "bad.tflite" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspecting_loads_no_runtime_and_no_numpy(tmp_path: Path) -> None:
    path = write(tmp_path, "good.tflite", builders.tflite())
    code = (
        "import sys; from pathlib import Path; from edgeaid.toolkit.inspect.files import inspect_path;"
        f"inspect_path(Path({str(path)!r}));"
        "print([m for m in sys.modules if m.split('.')[0] in ('numpy','PIL','ai_edge_litert','tflite_runtime',"
        "'tensorflow','onnx','openvino')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_companions_beside_a_file_are_read(tmp_path: Path) -> None:
    xml = write(tmp_path, "m.xml", builders.IR.encode())
    assert [f.rule for f in inspect_path(xml).findings] == ["no-bin", "version"]
    write(tmp_path, "m.bin", bytes(32))
    assert dict(inspect_path(xml).memory[0].parts)["weights"] == 32
    write(tmp_path, "m.bin", bytes(31))
    with pytest.raises(InvalidModel, match="end at byte 32"):
        inspect_path(xml)
    text = write(tmp_path, "net.prototxt", builders.PROTOTXT.encode())
    assert inspect_path(text).facts["weights"] == "no .caffemodel beside it"
    write(tmp_path, "net.caffemodel", builders.caffemodel())
    assert inspect_path(text).operators[0].constants == 448


def test_a_checkpoint_is_read_from_its_three_files(tmp_path: Path) -> None:
    meta = write(tmp_path, "model.meta", builders.metagraph())
    write(tmp_path, "model.index", builders.checkpoint_index())
    (index,) = inspect_path(meta).parts
    assert [f.rule for f in index.findings] == ["no-data"]
    write(tmp_path, "model.data-00000-of-00001", bytes(40))
    (index,) = inspect_path(meta).parts
    assert (index.findings, index.facts["variables"]) == ((), 2)


def test_a_saved_model_is_read_from_its_directory(tmp_path: Path) -> None:
    write(tmp_path, "saved_model.pb", builders.saved_model())
    (tmp_path / "variables").mkdir()
    write(tmp_path / "variables", "variables.index", builders.checkpoint_index())
    write(tmp_path / "variables", "variables.data-00000-of-00001", bytes(40))
    report = inspect_path(tmp_path)
    assert (report.kind, report.inputs[0].shape, report.parts[0].kind) == (
        "tf-savedmodel", (-1, 4), "tf-checkpoint-index",
    )  # fmt: skip


def test_a_directory_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"saved_model\.pb nor model\.toml"):
        inspect_path(tmp_path)


def test_files_inside_archives_are_inspected_too() -> None:
    for kind in ("zip", "tar", "kfpkg"):
        reports = flatten([inspect_bytes(builders.SEEDS[kind](), Path("a"))])
        assert len(reports) == 2
        assert reports[1].operators


def test_a_damaged_model_inside_an_archive_is_a_finding() -> None:
    data = builders.archive({"m.tflite": builders.tflite()[:200]})
    report = inspect_bytes(data, Path("a.zip"))
    assert [f.rule for f in report.parts[0].findings] == ["damaged"]


def test_archives_inside_archives_are_followed_only_so_far() -> None:
    data = builders.kmodel_v4()
    for _ in range(10):
        data = builders.archive({"m.onnx": data})
    assert len(flatten([inspect_bytes(data, Path("deep.zip"))])) == 3


def test_a_bundle_whose_file_was_changed_is_refused() -> None:
    import hashlib

    manifest = b'schema = 1\nname = "m"\n'
    listed = "".join(
        f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in (("m.bin", b"other"), ("model.toml", manifest))
    )
    files = {"bundle.sha256": listed.encode(), "m.bin": b"true", "model.toml": manifest}
    report = inspect_bytes(builders.archive(files), Path("m-1.edgeai"))
    assert [(f.severity, f.rule) for f in report.findings] == [("refused", "digest")]


def test_every_operator_is_placed_below_what_it_reads(shared_data: Path) -> None:
    report = inspect_path(shared_data / "coral/mobilenet_v2_1.0_224_quant.tflite")
    boxes, edges, width, height = inspect_layout.place(report.operators, ["input"])
    assert len(boxes) == len(report.operators) + 1
    assert all(boxes[a].y < boxes[b].y for a, b in edges)
    assert len({(b.x, b.y) for b in boxes}) == len(boxes)
    assert all(0 <= b.x < width and 0 <= b.y < height for b in boxes)


def test_a_huge_graph_is_drawn_in_part() -> None:
    from edgeaid.toolkit.inspect.report import OperatorRow

    rows = tuple(OperatorRow(i, "", "X", "CPU", (f"{i}",), (f"{i + 1}",)) for i in range(5000))
    drawn = inspect_layout.svg(Report(path="x", kind="onnx", size=1, operators=rows))
    assert "The first 600 of 5000 operators are drawn." in drawn


def test_kmodel_reader_is_reachable_by_its_types() -> None:
    assert isinstance(read_kmodel(builders.kmodel_v5()), Kmodel)


def test_memory_of_values_is_what_lives_at_once_and_not_their_sum() -> None:
    report = inspect_bytes(quantised_relu_between("TANH", "TANH", "TANH"), Path("chain.tflite"))
    bar = next(b for b in report.memory if b.title == "RAM of tensors")
    # Six values of 8 bytes: input and output always, and never more than two of those between.
    assert [size for _, size in bar.parts] == [32, 16]


@pytest.mark.parametrize("width", [30, 80])
def test_a_name_stays_whole_in_a_narrow_terminal(width: int) -> None:
    name = "StatefulPartitionedCall/serving_default/" + "feature_extractor/" * 5 + "Conv2D"
    tensor = TensorRow(name, "INT8", (1, 224, 224, 3), (0.5,), (3,))
    operator = OperatorRow(0, name, "CONV_2D", "CPU", (), (), details="a remark of several words " * 4)
    out = io.StringIO()
    report = Report("m.tflite", "tflite", 10, inputs=(tensor,), operators=(operator,))
    show([report], Console(file=out, width=width), every_operator=True)
    assert out.getvalue().count(name) == 2
