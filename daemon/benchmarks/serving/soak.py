"""Does the daemon's memory grow? 100,000 requests over every transport, with failures and hang-ups among them.

usage: python daemon/benchmarks/serving/soak.py [--requests 100000] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeaid import errors
from edgeaid.client import Client
from edgeaid.models.repository import EMBEDDED
from edgeaid.serving.metrics import rss_bytes


def main() -> None:
    """Run and print resident memory after every tenth of the requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    image = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")
    with tempfile.TemporaryDirectory(prefix="edgeai-soak-") as name:
        path = Path(name) / "edgeaid.sock"
        command = [
            sys.executable,
            "-m",
            "edgeaid",
            "--socket",
            path,
            "--model-repository",
            Path(name) / "m",
            "--log-level",
            "error",
        ]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        fast, plain = Client(path), Client(path, fast=False)
        while not plain.is_ready():
            time.sleep(0.05)
        samples = []
        started = time.perf_counter()
        for number in range(args.requests):
            client = fast if number % 2 else plain
            client.infer("digits", image)
            if number % 50 == 0:
                with contextlib.suppress(errors.InvalidRequest):
                    plain.request("POST", "/v2/models/digits/infer", b'{"inputs":[{"name":"x"}]}')
                with socket.socket(socket.AF_UNIX) as sock:  # hangs up in the middle
                    sock.connect(str(path))
                    sock.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nabc")
            if (number + 1) % (args.requests // 10) == 0:
                samples.append(rss_bytes(process.pid) / 2**20)
                rate = (number + 1) / (time.perf_counter() - started)
                print(f"{number + 1:8} requests  {samples[-1]:.1f} MiB  {rate:.0f}/s", flush=True)
        fast.close()
        plain.close()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    growth = samples[-1] - samples[1]
    print(f"growth from the second tenth to the last: {growth:+.2f} MiB")
    if args.json:
        args.json.write_text(json.dumps({"requests": args.requests, "rss_mib": samples, "growth_mib": growth}))


if __name__ == "__main__":
    main()
