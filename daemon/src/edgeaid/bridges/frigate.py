"""`edgeai-frigate`: a detector for Frigate's ZeroMQ plug-in, served by a model of the daemon.

Frigate connects as REQ; this binds REP. Three kinds of request, each answered at once, because Frigate waits 200 ms and
then starts over: is the model there, here is a model file (not taken: models are pushed to the daemon), and a tensor.
A result is 20 rows of `class, score, y1, x1, y2, x2` (float32, 0 to 1), best first, unused rows zero.
"""

from __future__ import annotations

import argparse
import array
import json
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from .. import errors
from ..client import Client
from ..client.sync import DEFAULT_SOCKET

log = logging.getLogger("edgeai-frigate")

ROWS: Final = 20
COLUMNS: Final = 6
#: One tensor of a camera picture, with room to spare; larger messages are not read.
MAX_BYTES: Final = 16 << 20
EMPTY: Final = bytes(ROWS * COLUMNS * 4)


def rows(objects: Sequence[dict[str, Any]]) -> bytes:
    """Detections of the daemon as Frigate reads them."""
    values = array.array("f", EMPTY)
    best = sorted(objects, key=lambda o: -o["score"])[:ROWS]
    for number, found in enumerate(best):
        box = found["box"]
        row = (found["index"], found["score"], box["ymin"], box["xmin"], box["ymax"], box["xmax"])
        values[number * COLUMNS : (number + 1) * COLUMNS] = array.array("f", row)
    return values.tobytes()


class Detector:
    """Answers requests with one model of the daemon."""

    def __init__(self, client: Client, model: str) -> None:
        self.client = client
        self.model = model

    def ready(self) -> bool:
        """True while the daemon serves the model."""
        try:
            return bool(self.client.get(f"/v2/models/{self.model}/ready")["ready"])
        except errors.EdgeaiError as error:
            log.warning("%s", error)
            return False

    def answer(self, frames: Sequence[bytes]) -> list[bytes]:
        """The reply to one request; never raises."""
        try:
            header = json.loads(frames[0]) if frames and len(frames[0]) < 65536 else None
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            return [EMPTY]
        if header.get("model_request"):
            there = self.ready()
            return [json.dumps({"model_available": there, "model_loaded": there}).encode()]
        if header.get("model_data"):
            return [json.dumps({"model_saved": False, "model_loaded": self.ready()}).encode()]
        if len(frames) != 2:
            return [EMPTY]
        try:
            return [rows(self.client.detect_tensor(self.model, frames[1])["objects"])]
        except (errors.EdgeaiError, KeyError, ValueError) as error:
            log.warning("no detection: %s", error)
            return [EMPTY]


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    parser = argparse.ArgumentParser(
        prog="edgeai-frigate",
        description="Serve a detection model of edgeaid to Frigate's ZeroMQ detector plug-in.",
        epilog="In Frigate: detectors: {edgeai: {type: zmq, endpoint: 'ipc:///tmp/cache/zmq_detector'}}, "
        "with the model's width, height and label map.",
    )
    parser.add_argument("model", help="name of a model with the task 'detect'")
    parser.add_argument(
        "--endpoint", default="ipc:///tmp/cache/zmq_detector", help="where Frigate connects (default: %(default)s)"
    )
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="the daemon's HTTP socket (default: %(default)s)")
    args = parser.parse_args(argv)
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
    try:
        import zmq
    except ImportError:
        sys.exit("edgeai-frigate needs pyzmq: pip install edgeaid[frigate], or the image feature 'frigate'")
    if not args.endpoint.startswith("ipc://"):
        sys.exit("edgeai-frigate listens on ipc:// endpoints only: Frigate's protocol has no authentication")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with zmq.Context() as context, context.socket(zmq.REP) as socket, Client(args.socket, timeout=5.0) as client:
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        socket.bind(args.endpoint)
        log.info("serving model %s at %s", args.model, args.endpoint)
        detector = Detector(client, args.model)
        while True:
            socket.send_multipart(detector.answer(socket.recv_multipart()))


if __name__ == "__main__":
    main()
