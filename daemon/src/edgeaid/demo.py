"""`scripts/demo`: a real daemon in a process of its own, real pictures over its socket, the answers printed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .client import Client
from .client.streams import Streams
from .errors import EdgeaiError
from .models.repository import EMBEDDED

START_SECONDS = 60.0
STREAM_FRAMES = 150


def _wait(client: Client, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"edgeaid ended with status {process.returncode}")
        if client.is_ready():
            return
        time.sleep(0.02)
    sys.exit(f"edgeaid was not ready after {START_SECONDS:g} s")


def _line(answer: dict[str, Any]) -> str:
    if "objects" in answer:
        found = (f"{o['label']} ({o['score']:.2f}) at {tuple(o['pixels'].values())}" for o in answer["objects"])
        return ", ".join(found) or "nothing"
    if "mask" in answer:
        return ", ".join(f"{c['label']} {c['fraction']:.0%}" for c in answer["classes"])
    best = answer["classes"][0]
    return f"{best['label']} ({best['score']:.3f})"


def _ask(client: Client, model: str, task: str, picture: Path) -> None:
    started = time.perf_counter()
    answer = getattr(client, task)(model, picture.read_bytes())
    total = (time.perf_counter() - started) * 1e3
    times = "  ".join(f"{k.removesuffix('_ms')} {v:.2f}" for k, v in answer["timing"].items())
    print(f"  {picture.name:22} -> {_line(answer)}")
    print(f"  {'':22}    {total:.2f} ms: {times}")


def _pictures(client: Client, argv: list[str]) -> None:
    """Ask each embedded model about its samples, or about the pictures of the command line."""
    for model in client.models():
        task = model.get("task", "")
        if task not in ("classify", "detect", "segment"):
            continue
        print(f"\n{model['name']}: {model['description']}")
        samples = sorted((EMBEDDED / model["name"] / model["version"] / "samples").glob("*.png"))
        for picture in [Path(a) for a in argv] or samples:
            _ask(client, model["name"], task, picture)
    print("\nthe same by hand, while a daemon runs:")
    print(
        "  curl --unix-socket /run/edgeai/edgeaid.sock --data-binary @three.png "
        "http://localhost/edgeai/v1/models/digits/classify"
    )


def _stream(client: Client) -> None:
    """A made-up video of digits that move: what is seen in some of its frames, and the events."""
    table = {
        "source": f"test:digits?width=384&height=384&frames={STREAM_FRAMES}",
        "fps": 10,
        "stage": [{"detect": "digit-scenes"}, {"track": {}}],
        "zones": {"right": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]},
        "events": {"enter": "right", "leave": "right"},
    }
    streams = Streams(client)
    streams.put("demo", table)
    print(f"\nstream demo: {table['source']}, 10 frames per second, digits that enter the right half are told")
    for event in streams.events("demo"):
        if event["type"] == "state":
            print(f"  {event['state']} {event['reason']}".rstrip())
            if event["state"] in ("ended", "failed"):
                break
        elif "id" in event:
            number, where = event["id"].rpartition("-")[2], tuple(event["pixels"].values())
            zone = f" {event['zone']}" if "zone" in event else ""
            print(f"  frame {event['frame']:3}: {event['type']}{zone}: #{number} is a {event['label']} at {where}")
    shown = streams.show("demo")
    dropped = {k: v for k, v in shown["frames"]["dropped"].items() if v} or "none"
    print(
        f"  {shown['frames']['captured']} frames captured, {shown['frames']['inferred']} inferred, dropped: {dropped}"
    )
    print(f"  from frame to result: {shown.get('latency', {})}")
    print("\nthe same by hand, while a daemon runs:")
    print("  edgeai stream add demo 'test:digits?width=384&height=384' --detect digit-scenes --fps 10")
    print("  edgeai stream watch demo")


def main(argv: list[str]) -> int:
    """Run the demonstration; `argv` are pictures of digits, [] = the samples of the models, ["--stream"] = a stream."""
    say = print
    with tempfile.TemporaryDirectory(prefix="edgeai-demo-") as folder:
        socket = Path(folder) / "edgeaid.sock"
        started = time.perf_counter()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "edgeaid",
                "--socket",
                socket,
                "--model-repository",
                Path(folder) / "models",
                "--log-level",
                "warning",
            ]
        )
        try:
            with Client(socket) as client:
                _wait(client, process)
                device = client.devices()[0]
                say(
                    f"edgeaid is ready after {(time.perf_counter() - started) * 1e3:.0f} ms: "
                    f"{device['runtime']} on {device['description']}"
                )
                if argv == ["--stream"]:
                    _stream(client)
                else:
                    _pictures(client, argv)
        except EdgeaiError as error:
            say(f"demo failed: {error}", file=sys.stderr)
            return error.exit_code
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=30)
    say(f"\nedgeaid stopped with status {status}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
