"""Pictures per second from JPEG to label: edgeaid against the script that people write.

usage: python daemon/benchmarks/serving/pictures.py MODEL.tflite PICTURE.jpg [--seconds S] [--json FILE]

MODEL is a quantised classifier that takes raw RGB. The script is Pillow and LiteRT in one process (against one client)
and in two (against four clients); ways take turns so that a machine whose speed drifts hits all alike. Sizes: 640x480,
1920x1080 and 4056x3040, made from PICTURE. `first` is the first picture after READY, in ms.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.daemon import Running

from edgeaid.client import Client

SIZES = ((640, 480), (1920, 1080), (4056, 3040))
ROUNDS = 5


def script(model: str, data: bytes, until: float) -> int:
    """What people write: decode, resize, infer, top one. Returns how many."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    height, width = source["shape"][1:3]
    count = 0
    while time.monotonic() < until:
        image = Image.open(io.BytesIO(data)).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        interpreter.set_tensor(source["index"], np.asarray(image)[None])
        interpreter.invoke()
        int(interpreter.get_tensor(target["index"])[0].argmax())
        count += 1
    return count


def client(socket: str, data: bytes, until: float) -> int:
    """The same asked of the daemon."""
    count = 0
    with Client(socket) as daemon:
        while time.monotonic() < until:
            daemon.classify("bench", data, max_results=1)
            count += 1
    return count


def rate(pool: Any, work: Callable[..., int], count: int, first: str, data: bytes, seconds: float) -> float:
    """Pictures per second of `count` processes."""
    until = time.monotonic() + seconds
    return float(sum(pool.starmap(work, [(first, data, until)] * count, chunksize=1))) / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement; there are five of each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    source = Image.open(options.picture).convert("RGB")
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgeai-bench-") as directory, multiprocessing.Pool(4) as pool:
        running = Running(Path(directory))
        try:
            with running.client() as daemon:
                daemon.push("bench", options.model)
                for width, height in SIZES:
                    encoded = io.BytesIO()
                    source.resize((width, height)).save(encoded, "JPEG", quality=90)
                    data = encoded.getvalue()
                    begin = time.perf_counter()
                    daemon.classify("bench", data, max_results=1)
                    first = (time.perf_counter() - begin) * 1e3
                    figures: dict[str, list[float]] = {"script 1": [], "edgeaid 1": [], "script 2": [], "edgeaid 4": []}
                    for _ in range(ROUNDS):
                        path, socket = str(options.model), str(running.socket)
                        figures["script 1"].append(rate(pool, script, 1, path, data, options.seconds))
                        figures["edgeaid 1"].append(rate(pool, client, 1, socket, data, options.seconds))
                        figures["script 2"].append(rate(pool, script, 2, path, data, options.seconds))
                        figures["edgeaid 4"].append(rate(pool, client, 4, socket, data, options.seconds))
                    median = {name: statistics.median(values) for name, values in figures.items()}
                    shares = [statistics.median(a / b for a, b in zip(figures[x], figures[y], strict=True))
                              for x, y in (("edgeaid 1", "script 1"), ("edgeaid 4", "script 2"))]  # fmt: skip
                    rows.append({"size": f"{width}x{height}", **median, "share 1": shares[0], "share 4": shares[1],
                                 "first": first})  # fmt: skip
                    print(
                        "  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{v:>10}" for k, v in rows[-1].items())
                    )
        finally:
            running.stop()
    if options.json:
        options.json.write_text(json.dumps({"load": os.getloadavg(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
