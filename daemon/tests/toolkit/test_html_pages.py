"""The toolkit's pages in a real browser: nothing sticks out, graphs fill their box and zoom, commands are copied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeaid.models.repository import EMBEDDED

from ..support.browser import WINDOWS
from .check_cases import quantised_relu_between

MODEL = EMBEDDED / "digits" / "1" / "model.tflite"


def edgeai(*words: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgeaid.cli", "model", *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_inspect_says_and_colours_what_an_edge_tpu_takes(shared_data: Path, tmp_path: Path) -> None:
    model = shared_data / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    assert "fits Edge TPU: all 31 operators" in edgeai("inspect", model, "--target", "edgetpu")
    edgeai("inspect", model, "--target", "edgetpu", "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.index('class="verdict good"') < text.index("Inputs")
    assert text.count('class="tpu"') == 31
    part = edgeai("inspect", shared_data / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite", "--target", "edgetpu")
    assert "operators, the others run on the CPU" in part
    assert "does not fit" not in part


def test_check_writes_a_page_with_its_verdict(tmp_path: Path) -> None:
    edgeai("check", MODEL, "--target", "edgetpu", "--no-run", "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "fits edgetpu" in text
    assert "<script" not in text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of the embedded models, and of real ones where they are."""
    directory = tmp_path_factory.mktemp("pages")
    sources = {"inspect": ("inspect", MODEL, "--target", "edgetpu"), "check": ("check", MODEL, "--target", "edgetpu")}
    pages = {}
    for name, words in sources.items():
        pages[name] = directory / f"{name}.html"
        edgeai(*words, "--html", pages[name])
    data = Path(os.environ.get("EDGEAI_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
    if (data / "SHA256SUMS").is_file():
        coral = data / "coral"
        pages["large"] = directory / "large.html"
        edgeai(
            "inspect",
            coral / "deeplabv3_mnv2_dm05_pascal_quant.tflite",
            "--target",
            "edgetpu",
            "--html",
            pages["large"],
        )
        pages["plan"] = directory / "plan.html"
        models = [coral / "mobilenet_v1_0.25_128_quant.tflite", coral / "mobilenet_v1_0.5_160_quant.tflite"]
        edgeai("plan", *models, "--html", pages["plan"])
        for kmodel in sorted((data / "k210").rglob("*.kmodel"))[:2]:
            pages[kmodel.stem] = directory / f"{kmodel.stem}.html"
            edgeai("inspect", kmodel, "--html", pages[kmodel.stem])
    return pages


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_pages_fit_the_window_and_their_graphs_fill_their_box(
    browser: Any, made: dict[str, Path], width: int, scheme: str
) -> None:
    for name, path in made.items():
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        complaints: list[str] = []
        page.on("pageerror", lambda e, c=complaints: c.append(str(e)))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} sticks out"
        if page.query_selector(".graphbox svg"):
            box = page.evaluate(
                "(() => { const s = document.querySelector('.graphbox .scroll'), g = s.querySelector('svg');"
                " return [s.clientWidth, g.getBoundingClientRect().width, s.scrollTop]; })()"
            )
            assert box[1] >= min(box[0] * 0.8, 200), f"{name}: the graph is {box[1]} of {box[0]} pixels wide"
            assert box[2] == 0
            page.click(".zoom button[title=larger]")
            grown = page.evaluate("document.querySelector('.graphbox svg').getBoundingClientRect().width")
            assert grown > box[1] * 1.2
        if shots := os.environ.get("EDGEAI_TEST_SCREENSHOTS"):
            page.screenshot(path=f"{shots}/{name}-{width}-{scheme}.png", full_page=False)
        assert not complaints, f"{name}: {complaints}"
        page.close()


def test_an_operator_is_found_and_shows_its_tensors_and_weights_when_clicked(
    browser: Any, made: dict[str, Path]
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.goto(made["inspect"].as_uri())
    page.fill("input[type=search]", "conv_2d")
    total, dimmed = (page.locator(f"svg.graph g[data-panel]{c}").count() for c in ("", ".dim"))
    assert page.inner_text(".zoom output") == f"{total - dimmed} of {total}"
    assert 0 < dimmed < total
    page.locator("svg.graph g[data-panel]:not(.dim)").first.click()
    text = page.inner_text(".panel")
    assert "CONV_2D" in text
    assert "channels, scales" in text
    assert page.locator(".panel svg rect").count() == 32
    assert page.locator("svg.graph g.chosen").count() == 1
    # The keyboard does the same.
    page.locator("svg.graph g[data-panel]").last.press("Enter")
    assert "FULLY_CONNECTED" in page.inner_text(".panel")
    page.fill("input[type=search]", "")
    assert page.locator("svg.graph g.dim").count() == 0
    assert not complaints
    page.close()


def test_two_files_are_compared_side_by_side(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(quantised_relu_between("LOGISTIC", "TANH"))
    (tmp_path / "b.tflite").write_bytes(quantised_relu_between("LOGISTIC"))
    text = edgeai("compare", tmp_path / "a.tflite", tmp_path / "b.tflite", "--html", tmp_path / "page.html")
    assert "operators that both have: 3" in text
    assert "only in a.tflite: 1\n  #2 TANH" in text
    assert "only in b.tflite: 0" in text
    for width in (390, 1440):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("svg.graph").count() == 2
        assert page.locator("svg.graph g.marked").count() == 1
        page.locator("svg.graph g.marked").click()
        assert "TANH" in page.inner_text(".panel >> nth=0")
        page.close()


def test_a_file_compared_with_itself_differs_in_nothing() -> None:
    result = json.loads(edgeai("compare", MODEL, MODEL, "--json"))
    assert (result["only_first"], result["only_second"], result["facts"]) == ([], [], [])
    assert result["same"]


def test_a_command_is_copied_by_its_button(browser: Any, made: dict[str, Path]) -> None:
    if "plan" not in made:
        pytest.skip("real models are not here")
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(made["plan"].as_uri())
    page.click(".command button >> nth=0")
    page.wait_for_selector("text=copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("edgetpu_compiler")
    context.close()
