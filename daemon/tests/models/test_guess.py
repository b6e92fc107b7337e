"""What a pushed model's outputs are is told from shapes and from what the exporter wrote; else it is left open."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest

from edgeaid.formats.tflite import metadata
from edgeaid.models.guess import guess

SQUARE = [(1, 640, 640, 3)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "task", "decoder"),
    [
        (SQUARE, [(1, 84, 8400)], "detect", "yolov8"),
        ([(1, 256, 320, 3)], [(1, 6, 1680)], "detect", "yolov8"),
        (SQUARE, [(1, 56, 8400)], "pose", "yolov8-pose"),
        (SQUARE, [(1, 116, 8400), (1, 160, 160, 32)], "detect", "yolov8-seg"),
        (SQUARE, [(1, 25200, 85)], "detect", "yolov5"),
        (SQUARE, [(1, 300, 6)], "detect", "yolo-end2end"),
        (SQUARE, [(1, 8400, 85)], "detect", "yolox"),
        (SQUARE, [(1, 8400, 4), (1, 8400, 80)], "detect", "yolo-nas"),
        ([(1, 416, 416, 3)], [(1, 3598, 112)], "detect", "nanodet"),
        ([(1, 320, 320, 3)], [(1, 19206, 4), (1, 19206, 90)], "detect", "efficientdet"),
        ([(1, 128, 128, 3)], [(1, 896, 16), (1, 896, 1)], "detect", "blazeface"),
        ([(1, 192, 192, 3)], [(1, 2016, 18), (1, 2016, 1)], "detect", "blazeface"),
        ([(1, 192, 192, 3)], [(1, 1, 17, 3)], "pose", "movenet"),
        ([(1, 256, 256, 3)], [(1, 6, 56)], "pose", "movenet"),
        ([(1, 353, 481, 3)], [(1, 10, 17, 2), (1, 10, 17), (1, 10), (1,)], "pose", "posenet"),
    ],
)
def test_shapes_tell_the_family(inputs: Any, outputs: Any, task: str, decoder: str) -> None:
    guessed = guess(inputs, outputs)
    assert guessed is not None
    assert (guessed.task, guessed.decoder) == (task, decoder)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (SQUARE, [(1, 1000)]),
        (SQUARE, [(1, 84, 8401)]),
        ([(1, 10)], [(1, 84, 8400)]),
        (SQUARE, [(1, 513, 513)]),
        (SQUARE, [(1, 4, 8400)]),
        ([(1, 300, 300, 3)], [(1, 10, 4), (1, 10), (1, 10), (1,)]),
        (SQUARE, []),
    ],
)
def test_what_fits_no_family_exactly_is_left_open(inputs: Any, outputs: Any) -> None:
    assert guess(inputs, outputs) is None


def test_the_exporters_own_word_comes_first() -> None:
    pose = guess(SQUARE, [(1, 11, 8400)], {"task": "pose", "kpt_shape": [2, 3]})
    assert pose is not None
    assert (pose.decoder, pose.keypoints) == ("yolov8-pose", 2)
    rotated = guess(SQUARE, [(1, 20, 8400)], {"task": "obb"})
    assert rotated is not None
    assert rotated.decoder == "yolov8-obb"
    assert guess(SQUARE, [(1, 11, 8400)], {"task": "sing"}) == guess(SQUARE, [(1, 11, 8400)])


@pytest.mark.parametrize(("name", "write"), [("metadata.json", json.dumps), ("temp_meta.txt", repr)])
def test_the_exporters_facts_are_read_from_the_end_of_the_file(name: str, write: Any) -> None:
    facts = {"task": "detect", "names": {0: "person", 1: "dog"}, "imgsz": [640, 640]}
    buffer = io.BytesIO(b"TFL3 stands here")
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, write(facts))
    read = metadata.exporter_facts(buffer.getvalue())
    assert read["task"] == "detect"
    assert metadata.exporter_labels(read) == ("person", "dog")
    assert metadata.exporter_facts(b"nothing here") == {}
    assert metadata.exporter_labels({"names": {0: "a", 2: "b"}}) == ()
