"""A loop as one writes it by hand: OpenCV, LiteRT, one file. `hand.py MODEL.tflite VIDEO...`, by a Python with both.

It does what a stream does with the same files and model: read, resize, run, and make objects (the embedded detector:
cells and anchors to boxes, suppression) or the three best classes of the answer; of several videos a frame each in
turn. Prints frames, seconds, seconds of processor and objects, all after what starting takes.

Not equal: OpenCV resizes without averaging, and decodes with as many threads as it likes; the stream's process can be
killed, waits for no camera that hangs, counts its frames and shares its model with others.
"""

import sys
import time

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

ANCHORS = np.array([[1.8, 2.4], [3.3, 4.4]])
THRESHOLD, OVERLAP = 0.4, 0.45


def real(details, values):
    """Real numbers of a quantised tensor."""
    scale, zero = details["quantization"]
    return (values.astype(np.float64) - zero) * scale if scale else values.astype(np.float64)


def objects(cells):
    """Boxes, scores and classes of [1,rows,columns,anchors*(5+classes)], as YOLO v2 has them."""
    _, rows, columns, depth = cells.shape
    part = cells.reshape(rows, columns, len(ANCHORS), depth // len(ANCHORS))
    middle = 1 / (1 + np.exp(-part[..., :2]))
    x = (middle[..., 0] + np.arange(columns)[None, :, None]) / columns
    y = (middle[..., 1] + np.arange(rows)[:, None, None]) / rows
    width, height = (np.exp(part[..., 2 + k]) * ANCHORS[:, k] / (columns, rows)[k] for k in (0, 1))
    classes = np.exp(part[..., 5:] - part[..., 5:].max(-1, keepdims=True))
    classes /= classes.sum(-1, keepdims=True)
    scores = (1 / (1 + np.exp(-part[..., 4])))[..., None] * classes
    best, score = scores.argmax(-1), scores.max(-1)
    keep = score >= THRESHOLD
    boxes = np.stack([x - width / 2, y - height / 2, width, height], -1)[keep]
    chosen = cv2.dnn.NMSBoxesBatched(boxes.tolist(), score[keep].tolist(), best[keep].tolist(), THRESHOLD, OVERLAP)
    return [(boxes[i], score[keep][i], best[keep][i]) for i in np.asarray(chosen).reshape(-1).astype(int)]


def main(model_file, *video_files):
    """Work through the files."""
    interpreter = Interpreter(model_file, num_threads=1)
    interpreter.allocate_tensors()
    entry, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    _, height, width, channels = map(int, entry["shape"])
    scale, zero = entry["quantization"]
    videos = [cv2.VideoCapture(file) for file in video_files]
    count, seen, started, used = 0, 0, time.perf_counter(), time.process_time()
    while True:
        ok, frame = videos[count % len(videos)].read()
        if not ok:
            break
        small = cv2.resize(frame, (width, height))
        pixels = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY if channels == 1 else cv2.COLOR_BGR2RGB)
        if entry["dtype"] != np.uint8:
            limits = np.iinfo(entry["dtype"])
            pixels = np.clip(np.rint(pixels / 255 / scale) + zero, limits.min, limits.max).astype(entry["dtype"])
        interpreter.set_tensor(entry["index"], pixels.reshape(entry["shape"]))
        interpreter.invoke()
        answer = real(out, interpreter.get_tensor(out["index"]))
        seen += len(objects(answer)) if answer.ndim == 4 else len(np.argsort(-answer.reshape(-1))[:3])
        count += 1
    print(count, time.perf_counter() - started, time.process_time() - used, seen)


if __name__ == "__main__":
    main(*sys.argv[1:])
