"""The tables of figures in the pages are those that the benchmark makes."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.serving import pages

RUN: dict[str, Any] = {
    "machine": {"processor": "Cortex-A76", "cpus": 4, "python": "3.14.0"},
    "load_average": 0.04,
    "pictures": {"rows": [{"size": "640x480", "share 1": 0.906, "share 4": 1.25}]},
}


def test_the_benchmark_makes_every_block_that_stands_in_a_page_and_each_block_ends() -> None:
    here = [page for page in pages.PAGES if page.is_file()]  # an image has daemon/, not the README above it
    assert here
    for page in here:
        text = page.read_text()
        begun = re.findall(r"<!-- figures: (\w+) -->", text)
        assert begun
        assert set(begun) <= set(pages.BLOCKS)
        assert text.count("<!-- end of figures -->") == len(begun)


def test_a_run_replaces_the_blocks_of_its_parts_and_leaves_the_others() -> None:
    text = (
        "before\n<!-- figures: machine -->\nold\n<!-- end of figures -->\n"
        "<!-- figures: pictures -->\nold\n<!-- end of figures -->\n"
        "<!-- figures: load -->\nstays\n<!-- end of figures -->\nafter\n"
    )
    filled = pages.filled(text, RUN)
    assert "old" not in filled
    assert "Cortex-A76, 4 processors, Python 3.14.0" in filled
    assert "| 640x480 | 0.91 | 1.25 |" in filled
    assert "<!-- figures: load -->\nstays\n<!-- end of figures -->\nafter\n" in filled
    assert pages.filled(filled, RUN) == filled


def test_a_chart_shows_each_row_of_the_run() -> None:
    drawing = pages.charts(RUN)["pictures.svg"]
    assert drawing.count("<rect") == 1 + 2
    assert "640x480, 4 clients" in drawing
