"""`scripts/demo`: a real daemon in a process of its own, real pictures over its socket, the answers printed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .cli import private
from .client import Answer, Classification, Client, Detection, Segmentation
from .client.streams import Streams
from .errors import EdgeaiError, InvalidRequest
from .models.repository import EMBEDDED

START_SECONDS = 120.0
STREAM_FRAMES = 150
SCENE = EMBEDDED / "digit-scenes" / "1" / "samples" / "scene-1.png"
DIGIT = EMBEDDED / "digits" / "1" / "samples" / "digit-5.png"
#: Where the drawn picture goes.
DRAWN = Path("edgeai-demo.png")


def _wait(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"edgeaid ended with status {process.returncode}:\n{log.read_text(errors='replace')}")
        if client.is_ready():
            return
        time.sleep(0.02)
    sys.exit(f"edgeaid was not ready after {START_SECONDS:g} s")


def _line(answer: Answer) -> str:
    if isinstance(answer, Detection):
        corners = ((o, (o.pixels.xmin, o.pixels.ymin, o.pixels.xmax, o.pixels.ymax)) for o in answer)
        return ", ".join(f"{o.label} ({o.score:.2f}) at {place}" for o, place in corners) or "nothing"
    if isinstance(answer, Segmentation):
        return ", ".join(f"{c.label} {c.fraction:.0%}" for c in answer.classes)
    return f"{answer.label} ({answer.score:.3f})" if isinstance(answer, Classification) else ""


def _ask(client: Client, model: str, task: str, picture: Path) -> None:
    started = time.perf_counter()
    try:
        answer: Answer = getattr(client, task)(model, picture)
    except InvalidRequest as error:
        raise InvalidRequest(f"{picture}: {error}") from error
    total = (time.perf_counter() - started) * 1e3
    times = "  ".join(f"{k.removesuffix('_ms')} {v:.2f}" for k, v in answer.timing.items())
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
    if not argv:
        DRAWN.write_bytes(client.draw("detect", "digit-scenes", SCENE))
        print(f"\nthe first picture with what was seen on it: {DRAWN}")


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
    for name in argv if argv != ["--stream"] else ():
        if not Path(name).is_file():
            say(f"demo: {name}: there is no such file", file=sys.stderr)
            return 66
    with tempfile.TemporaryDirectory(prefix="edgeai-demo-") as directory:
        socket, log = Path(directory) / "edgeaid.sock", Path(directory) / "log"
        started = time.perf_counter()
        with log.open("wb") as written:  # what runtimes print at their start is not the demonstration's
            process = subprocess.Popen(
                [sys.executable, "-m", "edgeaid", "--socket", socket,
                 "--model-repository", Path(directory) / "models", "--log-level", "warning"],
                stderr=written,
            )  # fmt: skip
        try:
            with Client(socket) as client:
                _wait(client, process, log)
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
    say(f"\nedgeaid stopped with status {status}; the same by hand, the first line starts a daemon of your own:")
    say(f"  {Path(sys.prefix) / 'bin' / 'edgeai'} run digits {DIGIT}")
    say(
        f"  curl --unix-socket {private.place() / 'edgeaid.sock'} --data-binary @{DIGIT} "
        f"http://localhost/edgeai/v1/models/digits/classify"
    )
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
