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
import math
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from .. import errors
from ..client import Client
from ..client.arguments import DEFAULT_SOCKET
from ..tensors import NUMPY

log = logging.getLogger("edgeai-frigate")

ROWS: Final = 20
COLUMNS: Final = 6
#: One tensor of a camera picture, with room to spare; larger messages are not read.
MAX_BYTES: Final = 16 << 20
#: A tensor that Frigate sends has four.
MAX_DIMENSIONS: Final = 8
EMPTY: Final = bytes(ROWS * COLUMNS * 4)


def rows(objects: Sequence[dict[str, Any]]) -> bytes:
    """Detections of the daemon as Frigate reads them."""
    values = array.array("f", EMPTY)
    best = sorted(objects, key=lambda o: -o["score"])[:ROWS]
    for number, detected in enumerate(best):
        box = detected["box"]
        row = (detected["index"], detected["score"], box["ymin"], box["xmin"], box["ymax"], box["xmax"])
        values[number * COLUMNS : (number + 1) * COLUMNS] = array.array("f", row)
    return values.tobytes()


def _is_dimension(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 16


class Detector:
    """Answers requests with one model of the daemon."""

    def __init__(self, client: Client, model: str) -> None:
        self.client = client
        self.model = model
        self._wanted: tuple[tuple[int, ...], str] | None = None
        self._said = ""

    def ready(self) -> bool:
        """True while the daemon serves the model."""
        try:
            return bool(self.client.get(f"/v2/models/{self.model}/ready")["ready"])
        except errors.EdgeaiError as error:
            self._say(str(error))
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
            self._say(f"Frigate offers a model file; it is not taken: push it with `edgeai push {self.model} FILE`")
            return [json.dumps({"model_saved": False, "model_loaded": self.ready()}).encode()]
        if len(frames) != 2:
            return [EMPTY]
        try:
            tensor = self._fitted(header, frames[1])
            return [rows(self.client.detect_tensor(self.model, tensor)["objects"])]
        except (errors.EdgeaiError, KeyError, ValueError) as error:
            self._say(f"no detection: {error}")
            return [EMPTY]

    def _fitted(self, header: dict[str, Any], data: bytes) -> bytes:
        """The tensor as the model takes it; InvalidRequest says what Frigate sent and what the model takes."""
        wanted_shape, datatype = self._input()
        dtype = NUMPY.get(datatype, "")
        sent, sent_dtype = header.get("shape"), header.get("dtype")
        if not isinstance(sent, list) or len(sent) > MAX_DIMENSIONS or not all(_is_dimension(d) for d in sent):
            raise errors.InvalidRequest(f"Frigate's header has no usable shape: {sent!r:.80}")
        refusal = errors.InvalidRequest(
            f"Frigate sent {sent} {sent_dtype!s:.40}, model {self.model!r} wants {list(wanted_shape)} {dtype}; set "
            "width, height, input_tensor, input_pixel_format and input_dtype of Frigate's `model:` accordingly"
        )
        if sent_dtype not in ("uint8", "int8", "float32") or math.prod(sent) * np.dtype(sent_dtype).itemsize != len(
            data
        ):
            raise refusal
        tensor = np.frombuffer(data, sent_dtype).reshape(sent)
        if tuple(sent) != wanted_shape and len(sent) == len(wanted_shape) == 4:
            # Frigate's input_tensor: nchw, or nhwc for a model whose channels come first.
            axes = (0, 2, 3, 1) if sent[1] in (1, 3) else (0, 3, 1, 2)
            tensor = tensor.transpose(axes)
        if tensor.shape != wanted_shape:
            raise refusal
        if (sent_dtype, dtype) == ("uint8", "int8"):
            tensor = (tensor ^ 0x80).view(np.int8)  # the same pixels, minus 128
        elif sent_dtype != dtype:
            raise refusal
        return tensor.tobytes()

    def _input(self) -> tuple[tuple[int, ...], str]:
        """Shape and datatype of the model's input, asked once and after each trouble."""
        if self._wanted is None:
            inputs = self.client.get(f"/v2/models/{self.model}")["inputs"]
            if len(inputs) != 1:
                raise errors.InvalidRequest(f"model {self.model!r} has {len(inputs)} inputs; a detector has one")
            self._wanted = tuple(1 if d == -1 else d for d in inputs[0]["shape"]), inputs[0]["datatype"]
        return self._wanted

    def _say(self, text: str) -> None:
        """Log a trouble once, not with every frame; the model may be another one after it."""
        self._wanted = None
        if text != self._said:
            self._said = text
            log.warning("%s", text)


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
        sys.exit("edgeai-frigate needs pyzmq: pip install './daemon[frigate]', or the image feature 'frigate'")
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
