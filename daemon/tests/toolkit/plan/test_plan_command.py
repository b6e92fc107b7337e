"""`edgeai model plan` on real files, on logs, and on a device's statistics."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.formats.detect import KINDS
from edgeaid.formats.edgetpu import reader as edgetpu
from edgeaid.formats.tflite import reader as tflite
from edgeaid.toolkit.files import edgetpu_parameters, macs

from ...formats.builders import SEEDS
from ..check_cases import FP, conv, relu

LOG = """Edge TPU Compiler version 1.0.249710469
INFO: Initialized TensorFlow Lite runtime.

Models compiled successfully in 1093 ms.

Input model: bird.tflite
Input size: 3.41MiB
Output model: bird_edgetpu.tflite
Output size: 4.12MiB
On-chip memory available for caching model parameters: 6.91MiB
On-chip memory used for caching model parameters: 3.75MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 65
Operation log: bird_edgetpu.log

Input model: plant.tflite
Input size: 4.96MiB
Output model: plant_edgetpu.tflite
Output size: 5.49MiB
On-chip memory available for caching model parameters: 3.16MiB
On-chip memory used for caching model parameters: 2.49MiB
Off-chip memory used for streaming uncached model parameters: 2.59MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 65
Operation log: plant_edgetpu.log
"""


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(model, ["plan", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_sizes_by_hand_print_a_recommendation_and_the_command() -> None:
    text = run("bird=3.75MiB", "plant=5.08MiB", "--rates", "bird=10,plant=2")
    assert "edgetpu_compiler -s bird.tflite plant.tflite" in text
    assert "Recommended: [bird + plant]" in text


def test_a_compiler_log_gives_the_streamed_bytes_of_the_published_run(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(LOG)
    ranked = json.loads(run(str(tmp_path / "run.log"), "--compute", "bird=10.33,plant=10.33", "--json"))
    built = next(p for p in ranked if p["as_built"])
    bird, plant = built["sticks"][0]["groups"][0]
    assert bird["warm_ms"] == pytest.approx(10.61, rel=0.08)
    assert plant["warm_ms"] == pytest.approx(86.31, rel=0.08)


def test_a_page_is_written_that_loads_nothing(tmp_path: Path) -> None:
    run("bird=3.75MiB", "<b>=5.08MiB", "--html", str(tmp_path / "x.html"), code=64)
    run("bird=3.75MiB", "plant=5.08MiB", "--html", str(tmp_path / "x.html"))
    page = (tmp_path / "x.html").read_text()
    assert "[bird + plant]" in page
    assert page.count("<script") == 1  # the page's own, inline
    assert not re.search(r"(?:src|href)=|@import|url\(", page)
    assert "http" not in page.replace("http-equiv", "")


def test_a_model_that_caches_nothing_shows_its_compute_time_too(tmp_path: Path) -> None:
    run("big=9MiB", "--budget", "0", "--compute", "big=100", "--html", str(tmp_path / "x.html"))
    green = re.search(r'width="([0-9.]+)%" height="100%" fill="#2a7"', (tmp_path / "x.html").read_text())
    assert green is not None
    assert 20 < float(green[1]) < 30  # 100 ms of 100 + 9 * 1.06 / 33.5 s


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["a=1MiB", "--rates", "b=1"], 64, "rate for b"),
        (["a=1MiB", "--rates", "a"], 64, "name=number"),
        (["a=1MiB", "--rates", "a=-1"], 64, "name=number"),
        (["a=1MiB", "--rates", "a=1", "--from-device", "/x"], 64, "either"),
        (["a=1MiB", "--from-device", "/nonexistent/socket"], 75, "is it running"),
        (["/nonexistent.tflite"], 66, "cannot be read"),
    ],
)
def test_mistakes_are_explained_and_set_the_exit_status(arguments: list[str], code: int, text: str) -> None:
    assert text in run(*arguments, code=code)


def test_a_float_model_is_not_planned_for_but_sent_to_quantisation(tmp_path: Path) -> None:
    (tmp_path / "float.tflite").write_bytes(conv(type=FP))
    text = run(str(tmp_path / "float.tflite"), code=65)
    assert "maps none" in text
    assert "edgeai model quantize" in text


@pytest.mark.parametrize("kind", ["onnx", "kmodel-v4", "openvino-ir", "tf-graphdef"])
def test_a_file_of_another_kind_is_called_by_its_name_and_not_damaged(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(SEEDS[kind]())
    text = run(str(tmp_path / "model"), code=65)
    assert KINDS[kind] in text
    assert "damaged" not in text


COCOMPILED = "cocompilation/mobilenet_v1_0.25_128_quant_cocompiled_with_mobilenet_v1_0.5_160_quant_edgetpu.tflite"
PARTNER = "cocompilation/mobilenet_v1_0.5_160_quant_cocompiled_with_mobilenet_v1_0.25_128_quant_edgetpu.tflite"


def test_real_co_compiled_files_are_recognised_as_one_group(shared_data: Path) -> None:
    ranked = json.loads(run(str(shared_data / "coral" / COCOMPILED), str(shared_data / "coral" / PARTNER), "--json"))
    built = next(p for p in ranked if p["as_built"])
    (group,) = built["sticks"][0]["groups"]
    assert [m["cached"] for m in group] == [566912, 1473280]


def test_real_files_compiled_apart_are_two_groups(shared_data: Path) -> None:
    names = ("mobilenet_v1_0.25_128_quant_edgetpu.tflite", "mobilenet_v1_0.5_160_quant_edgetpu.tflite")
    ranked = json.loads(run(*(str(shared_data / "coral" / n) for n in names), "--json"))
    built = next(p for p in ranked if p["as_built"])
    assert len(built["sticks"][0]["groups"]) == 2
    assert ranked[0]["title"] == "[mobilenet_v1_0.25_128_quant + mobilenet_v1_0.5_160_quant]"


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        # The newest compiler adds these bytes for 1001 classes and their softmax; older ones do not.
        ("mobilenet_v1_0.25_128_quant", 47_968),
        ("mobilenet_v1_0.5_160_quant", 48_256),
        ("mobilenet_v1_1.0_224_quant_embedding_extractor", 0),
    ],
)
def test_compiled_parameters_are_predicted_from_the_plain_file(shared_data: Path, name: str, missing: int) -> None:
    plain = tflite.read((shared_data / "coral" / f"{name}.tflite").read_bytes())
    compiled = edgetpu.read((shared_data / "coral" / f"{name}_edgetpu.tflite").read_bytes())
    assert edgetpu_parameters(plain) == compiled.cached_bytes + compiled.streamed_bytes - missing


def test_the_multiply_accumulates_of_mobilenet_v2_are_the_published_300_million(shared_data: Path) -> None:
    plain = tflite.read((shared_data / "coral/mobilenet_v2_1.0_224_quant.tflite").read_bytes())
    assert macs(plain) == pytest.approx(300e6, rel=0.01)


class _Device(BaseHTTPRequestHandler):
    """Statistics of a device on which bird runs ten times as often as plant."""

    asked = 0

    def do_GET(self) -> None:
        if self.path == "/v2/health/live":  # what a client asks before anything else
            self.answer(b'{"live": true}')
            return
        assert self.path == "/v2/models/stats"
        type(self).asked += 1
        n = type(self).asked
        rows: list[dict[str, Any]] = [
            {"name": name, "version": "1", "inference_count": 100 * n * times,
             "inference_stats": {"compute_infer": {"count": n, "ns": n * 10**7}}}
            for name, times in (("bird", 10), ("plant", 1), ("idle", 0))
        ]  # fmt: skip
        self.answer(json.dumps({"model_stats": rows}).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "edgeaid.sock")
    with socketserver.ThreadingUnixStreamServer(path, _Device) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_rates_come_from_a_running_device(device: str) -> None:
    ranked = json.loads(run("plant=5.08MiB", "bird=3.75MiB", "--from-device", device, "--interval", "0.05", "--json"))
    assert ranked[0]["title"] == "[bird + plant]"
    bird, plant = ranked[0]["sticks"][0]["groups"][0]
    assert bird["rate"] == pytest.approx(10 * plant["rate"])


def test_a_file_is_given_the_name_that_the_device_knows_it_by(device: str, tmp_path: Path) -> None:
    (tmp_path / "other name.tflite").write_bytes(relu())
    text = run(f"bird={tmp_path}/other name.tflite", "--from-device", device, "--interval", "0.05", "--json")
    (only,) = json.loads(text)[0]["sticks"][0]["groups"][0]
    assert only["name"] == "bird"
    assert only["rate"] > 100
    assert f"'{tmp_path}/other name.tflite'" in json.loads(text)[0]["commands"][0]


def test_a_device_that_runs_none_of_the_models_is_named(device: str) -> None:
    text = run("other=1MiB", "--from-device", device, "--interval", "0.05", code=64)
    assert "bird, plant" in text


def test_rates_come_from_a_host_through_ssh(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        f'#!/bin/sh\nwhile [ "$1" != -L ]; do shift; done\nln -s {device} "${{2%%:*}}"\necho "$@" > {tmp_path}/ssh\n'
        "exec sleep 60\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:/usr/bin:/bin")
    text = run("plant=5.08MiB", "bird=3.75MiB", "--from-device", "pi", "--interval", "0.05")
    assert "Recommended: [bird + plant]" in text
    assert (tmp_path / "ssh").read_text().split()[-1] == "pi"
