"""The figures of a run of everything.py as they stand in the pages: tables between marks, charts beside them.

usage: python daemon/benchmarks/serving/pages.py FIGURES

FIGURES is a directory that everything.py has written. In the README and in docs/performance.md each table stands
between `<!-- figures: NAME -->` and `<!-- end of figures -->` and is replaced; the charts go to docs/pictures. A part
that the run has not is left as it stands. Ratios and counts; the machine is named beside them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final

DAEMON: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (DAEMON.parent / "README.md", DAEMON / "docs" / "performance.md")
CHARTS: Final = DAEMON / "docs" / "pictures"
#: Rows that are not edgeaid's.
OTHERS: Final = (
    "raw", "two bare", "shared", "gRPC, bare", "MLServer", "LitServe", "Flask", "FastAPI", "PyTriton", "script",
)  # fmt: skip
#: The row of counts.py that has several requests.
UNDER_WAY: Final = "fast socket, 8 under way"
#: Where a block of a page begins and ends.
_BLOCK: Final = re.compile(r"(<!-- figures: ([a-z]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

Results = dict[str, Any]


def bars(title: str, rows: list[tuple[str, float]]) -> str:
    """A bar chart as SVG, on a ground of its own, so that it can be read on dark pages too."""
    most = max((value for _, value in rows), default=1) or 1
    height = 40 + 24 * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" font-family="sans-serif" font-size="13">'
        f'<title>{escape(title)}</title><rect width="640" height="{height}" fill="#ffffff"/>'
        f'<text x="4" y="20" font-weight="bold">{escape(title)}</text>'
    ]
    for number, (name, value) in enumerate(rows):
        y = 40 + 24 * number
        width = 340 * value / most
        fill = "#999999" if name.startswith(OTHERS) else "#2266aa"
        lines.append(
            f'<text x="4" y="{y + 13}">{escape(name)}</text>'
            f'<rect x="190" y="{y}" width="{width:.1f}" height="18" fill="{fill}"/>'
            f'<text x="{196 + width:.1f}" y="{y + 13}">{value:,.2f}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def machine(results: Results) -> str:
    """Where the figures come from."""
    facts = results["machine"]
    return (
        f"{facts['processor']}, {facts['cpus']} processors, Python {facts['python']}; load average at the beginning "
        f"{results['load_average']:.1f}.\n"
    )


def latency(results: Results) -> str:
    """One client, and four."""
    four = results["run"]["throughput"]
    rows = [
        [row["way"], f"{row['times_raw']:.2f}", f"{four[row['way']]['of_raw']:.2f}" if row["way"] in four else ""]
        for row in results["run"]["latency"]
    ]
    return table(["way", "one client: times the interpreter alone", "four clients: share of its throughput"], rows)


def short(results: Results) -> str:
    """What the README shows of it."""
    left_out = ("two bare hops", "gRPC, bare server", "gRPC, bare sync server")
    rows = [[row["way"], f"{row['times_raw']:.2f}"] for row in results["run"]["latency"] if row["way"] not in left_out]
    return table(["one small model, one client", "times the interpreter alone"], rows)


def pictures(results: Results) -> str:
    """Pictures against the script."""
    rows = [[row["size"], f"{row['share 1']:.2f}", f"{row['share 4']:.2f}"] for row in results["pictures"]["rows"]]
    return table(["JPEG", "one client, share of one script", "four clients, share of two scripts"], rows)


def counts(results: Results) -> str:
    """Processor time and system calls of a request."""
    named = ("client", "daemon", "worker", "decoder")
    rows = []
    for way, row in results["counts"]["rows"].items():
        each = 8 if way == UNDER_WAY else 1
        spent = {part: us / each for part, us in row["us"].items()}
        calls = sum(row.get("calls", {}).get("daemon", {}).values()) / each
        parts = [f"{spent[part]:.0f}" if part in spent else "" for part in named]
        rows.append(
            [way + ", each" * (each > 1), *parts, f"{sum(spent.values()):.0f}", f"{calls:.0f}" if calls else ""]
        )
    return table(["request", *named, "all", "system calls of the daemon"], rows)


def load(results: Results) -> str:
    """The limit curve, and the small model beside a slow one."""
    curve = results["load"]["curve"]
    rate, one = curve[0]["per_second"], curve[0]["p50_ms"]
    rows = [
        [str(row["models"]), str(row["clients"]), _share(row.get("first_per_second"), rate),
         f"{row['per_second'] / rate:.2f}", f"{row['p50_ms'] / one:.1f}",
         f"{row['p99_ms'] / one:.1f}", f"{row['jain']:.3f}", str(row["refused"])]
        for row in curve
    ]  # fmt: skip
    heads = ["models", "clients", "first answers", "answers, 1 = one model and client", "p50", "p99", "Jain's index",
             "refused"]  # fmt: skip
    text = table(heads, rows)
    for row in results["load"]["beside"]:
        slow, more = row["slow_ms"] / one, row["beside"]["p99_ms"] / row["alone"]["p99_ms"]
        text += (
            f"\nA small model, four clients, {row['workers']}: beside a model that takes {slow:.0f} times as long, its "
            f"p99 is {more:.1f} times what it is alone.\n"
        )
    return text


def _share(rate: float | None, of: float) -> str:
    """ "" where it was not measured."""
    return "" if rate is None else f"{rate / of:.2f}"


def life(results: Results) -> str:
    """Start, memory, recovery, loading."""
    facts = results["life"]
    start = facts["start"]
    swap = facts["swap"]
    ready = start["ready_s"] / start["imports_s"]
    latest = [f"{swap[kind]['latest'] * 1e3:.1f}" for kind in ("while swapped", "without")]
    rows = [
        ["READY with ten models, times `python -c 'import numpy, aiohttp'`", f"{ready:.1f}"],
        ["daemon before models, resident MiB", f"{facts['rss_before_models_mib']:.1f}"],
        *(
            [f"{name}, with a model: resident, its own MiB", f"{held['resident']:.1f}, {held['own']:.1f}"]
            for name, held in facts["memory_mib"].items()
        ),
        ["killed worker to the next answer, median and latest ms", _both(facts["recovery_s"])],
        [f"push of {facts['push_mb']:.1f} MB to its first answer, the same", _both(facts["push_to_answer_s"])],
        ["latest answer while versions are swapped, and without, ms", f"{', '.join(latest)}; {swap['failed']} failed"],
    ]
    return table(["what", "figure"], rows)


def _both(seconds: list[float]) -> str:
    return f"{sorted(seconds)[len(seconds) // 2] * 1e3:.0f}, {max(seconds) * 1e3:.0f}"


#: Name of a block, the part of the run that it needs ("" = none), and what makes it.
BLOCKS: Final[dict[str, tuple[str, Callable[[Results], str]]]] = {
    "machine": ("", machine),
    "latency": ("run", latency),
    "short": ("run", short),
    "pictures": ("pictures", pictures),
    "counts": ("counts", counts),
    "load": ("load", load),
    "life": ("life", life),
}

#: Blocks that another program fills: the start is measured in a machine that boots (boot.py).
ELSEWHERE: Final = ("boot",)


def charts(results: Results) -> dict[str, str]:
    """SVG files by name."""
    drawn = {}
    if "run" in results:
        rows = [(row["way"], row["times_raw"]) for row in results["run"]["latency"]]
        drawn["latency.svg"] = bars("Latency of one client, interpreter alone = 1", rows)
    if "pictures" in results:
        pairs = [
            (f"{row['size']}, {clients} client{'s' if clients > 1 else ''}", row[f"share {clients}"])
            for row in results["pictures"]["rows"]
            for clients in (1, 4)
        ]
        drawn["pictures.svg"] = bars("Pictures per second, the script = 1", pairs)
    return drawn


def tables(results: Results) -> str:
    """All tables that the run has, for a terminal."""
    return "\n".join(make(results) for part, make in BLOCKS.values() if not part or part in results)


def filled(text: str, results: Results) -> str:
    """A page with its blocks replaced. KeyError for a block that nobody makes."""

    def block(match: re.Match[str]) -> str:
        if match[2] in ELSEWHERE:
            return match[0]
        part, make = BLOCKS[match[2]]
        return match[0] if part and part not in results else f"{match[1]}{make(results)}{match[3]}"

    return _BLOCK.sub(block, text)


def replaced(text: str, name: str, content: str) -> str:
    """A page with one block replaced."""
    return _BLOCK.sub(lambda match: f"{match[1]}{content}{match[3]}" if match[2] == name else match[0], text)


def write(results: Results) -> None:
    """Fill the pages, and put the charts beside them."""
    for page in PAGES:
        page.write_text(filled(page.read_text(), results))
    for name, drawing in charts(results).items():
        (CHARTS / name).write_text(drawing)


def main() -> None:
    """Fill the pages from a run that is stored."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("figures", type=Path, help="directory that everything.py has written")
    options = parser.parse_args()
    write(json.loads((options.figures / "all.json").read_text()))


if __name__ == "__main__":
    main()
