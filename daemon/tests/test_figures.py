"""The tables of figures in the pages are those that the benchmark makes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
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
        assert set(begun) <= {*pages.BLOCKS, *pages.ELSEWHERE}
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


BOOT = """\
Startup finished in 2.500s (kernel) + 1min 7.500s (userspace) = 1min 10s
multi-user.target reached after 1min 7.400s in userspace.
The time when unit became active or started is printed after the "@" character.
The time the unit took to start is printed after the "+" character.

edgeaid.service +10.000s
└─basic.target @7.500s
  └─sockets.target @7.450s
    └─edgeaid-late.socket @7.400s +50ms
      └─-.mount
18.750s systemd-networkd-wait-online.service
10.000s edgeaid.service
  340ms dev-disk-by\\x2dpartuuid-1.device
"""


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(pages.__file__).parent))  # the benchmarks are programs beside each other
    return import_module("power_on")


def test_the_time_from_power_on_to_ready_is_told_in_shares_of_it(boot: ModuleType) -> None:
    parsed = boot.parsed(BOOT)
    assert parsed["phases"] == {"kernel": 2.5, "userspace": 67.5}
    assert [step["unit"] for step in parsed["chain"]] == [
        "edgeaid-late.socket", "sockets.target", "basic.target", "edgeaid.service",
    ]  # fmt: skip
    # The daemon's own start begins where what it waited for ended.
    assert parsed["chain"][-1] == {"unit": "edgeaid.service", "at": 7.5, "takes": 10.0}
    assert parsed["ready"] == 20.0
    table = boot.table({"boot": parsed})
    assert "| kernel and what comes before it | 0 % | 12 % |" in table
    assert "| edgeaid.service | 50 % | 50 % |" in table
    assert "systemd-networkd-wait-online.service 94 %, edgeaid.service 50 %" in table
    assert boot.chart({"boot": parsed}).count("<rect") == 6


@pytest.mark.parametrize(
    "text", ["", "Bootup is not yet finished. Please try again later.", BOOT[: BOOT.index("18.750s")]]
)
def test_a_start_that_is_not_over_is_not_told(boot: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="systemd-analyze"):
        boot.parsed(text)
