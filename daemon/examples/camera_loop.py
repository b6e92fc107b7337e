"""A loop over a camera's frames on the fast socket: prepare a frame here, ask about it, print what changes.

python camera_loop.py [/dev/video0 | directory of pictures]     (cameras need OpenCV; directories need Pillow)
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeaid import errors
from edgeaid.client import Client

MODEL = "digits"


def frames(source: str) -> Iterator[Any]:
    """Grey frames, uint8 [height, width]."""
    if Path(source).is_dir():
        from PIL import Image

        for file in sorted(Path(source).glob("*.png")):
            yield np.asarray(Image.open(file).convert("L"))
        return
    import cv2

    camera = cv2.VideoCapture(source)
    while True:
        arrived, frame = camera.read()
        if not arrived:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)


def prepared(frame: Any, shape: list[int]) -> Any:
    """The frame at the model's size by its nearest pixels, as signed bytes."""
    rows = np.arange(shape[1]) * frame.shape[0] // shape[1]
    columns = np.arange(shape[2]) * frame.shape[1] // shape[2]
    small = frame[rows][:, columns]
    return (small.astype(np.int16) - 128).astype(np.int8).reshape(shape)


def main(source: str) -> None:
    last, count, started = None, 0, time.monotonic()
    with Client() as client:
        client.wait()
        shape = client.metadata(MODEL)["inputs"][0]["shape"]
        for frame in frames(source):
            try:
                answer = client.infer(MODEL, prepared(frame, shape), timeout=1.0)
            except (errors.Unavailable, errors.DeadlineExceeded) as error:
                print(error, file=sys.stderr)  # a stick is being brought back: skip this frame
                time.sleep(error.retry_after or 0.0)
                continue
            count += 1
            best = int(answer["scores"].argmax())
            if best != last:
                print(f"{best} ({answer.timing['compute_ms']:.2f} ms on {answer.device})")
                last = best
    print(f"{count} frames, {count / (time.monotonic() - started):.0f} per second", file=sys.stderr)


main(sys.argv[1] if len(sys.argv) > 1 else "/dev/video0")
