"""Which calibration loses least? usage: python benchmarks/calibration [NETWORK...] [--keep DIRECTORY] [--json]

Trains eleven networks, or those that are named (environment tensorflow), quantises each by seven calibrations
(environment quantizer) and by TensorFlow's converter, and measures all on the same 1000 samples.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeaid.toolkit.convert import compare, environments
from edgeaid.toolkit.run import child

HERE = Path(__file__).parent
COLUMNS = (
    "float", "tensorflow", "min-max", "moving average", "mean of 1", "mean of 10", "99.9 %", "99.99 %", "99.999 %",
)  # fmt: skip


def score(metric: str, made: Any, right: Any) -> float:
    """Percent: right answers, intersection over union, or explained variance."""
    if metric != "accuracy":  # each sample has a batch of its own
        made = made.reshape(right.shape)
    match metric:
        case "accuracy":
            value = (made.reshape(len(made), -1).argmax(1) == right).mean()
        case "iou":
            a, b = made > 0.5, right > 0.5
            value = (a & b).sum() / (a | b).sum()
        case "r2":
            value = 1 - ((made - right) ** 2).sum() / ((right - right.mean()) ** 2).sum()
        case _:
            value = overlap(made, right).mean()
    return round(100 * float(value), 2)


def overlap(a: Any, b: Any) -> Any:
    """Intersection over union of boxes [n, 4] (top, left, bottom, right)."""

    def area(box: Any) -> Any:
        return np.clip(box[:, 2] - box[:, 0], 0, None) * np.clip(box[:, 3] - box[:, 1], 0, None)

    common = area(np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], 1))
    return common / (area(a) + area(b) - common)


def run(environment: str, *arguments: str | Path) -> None:
    """A script in a converter's environment."""
    python = environments.python(environment, lambda text: print(text, file=sys.stderr))
    done = child([python, *arguments], timeout=7200, env={"PYTHONPATH": ""})
    if done.status != 0:
        raise SystemExit(done.error[-2000:])


def measure(directory: Path) -> dict[str, float]:
    """Score of every method."""
    with np.load(directory / "data.npz", allow_pickle=False) as data:
        x, y, metric = data["x"], data["y"], str(data["metric"])
    return {c: score(metric, compare.run(directory / f"{c}.tflite", x, timeout=1800)[0], y) for c in COLUMNS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="default: all")
    parser.add_argument("--keep", type=Path, help="directory of trained networks: used if there, written if not")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeai-") as temporary:
        directory = (options.keep or Path(temporary)).resolve()
        run("tensorflow", HERE / "networks.py", directory, *options.names)
        made = sorted(p for p in directory.iterdir() if (p / "data.npz").is_file())
        networks = [p for p in made if not options.names or p.name in options.names]
        script = Path(environments.__file__).parent / "children" / "quantize_tflite.py"
        run("quantizer", HERE / "methods.py", script, *networks)
        table = {p.name: measure(p) for p in networks}
    losses = {c: [row["tensorflow"] - row[c] for row in table.values()] for c in COLUMNS}
    if options.json:
        print(json.dumps({"table": table, "below_tensorflow": losses}, indent=2))
        return
    print(f"{'%':14}" + "".join(f"{c:>16}" for c in COLUMNS))
    for name, row in table.items():
        print(f"{name:14}" + "".join(f"{row[c]:16.2f}" for c in COLUMNS))
    print("points below TensorFlow's converter")
    for label, reduce in (("median", np.median), ("worst", np.max)):
        print(f"{label:14}" + "".join(f"{reduce(losses[c]):16.2f}" for c in COLUMNS))


if __name__ == "__main__":
    main()
