"""How a picture becomes a model's input and how its output becomes an answer: the `[input]` and `[output]` tables of
a manifest, checked. Pure data, no numpy: the daemon reads manifests and never touches a pixel.

The arithmetic that these rules stand for is in `edgeaid.vision.preprocess` and `edgeaid.vision.postprocess`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from ..errors import InvalidModel

RESIZE: Final = ("stretch", "letterbox", "crop")
FILTER: Final = ("nearest", "bilinear", "bicubic")
COLOR: Final = ("RGB", "BGR", "GRAY")
#: Decoders of objects and people, in `edgeaid.vision.decoders`.
OBJECT_DECODERS: Final = (
    "yolov5", "yolov8", "yolov8-seg", "yolov8-pose", "yolov8-obb", "yolo-end2end", "yolo-nas", "yolox", "nanodet",
    "efficientdet", "blazeface", "faces", "movenet", "posenet",
)  # fmt: skip
DECODER: Final = ("classification", "ssd", "yolov2", "segmentation", *OBJECT_DECODERS, "none")
ACTIVATION: Final = ("none", "softmax", "sigmoid")
#: Order in which TFLite_Detection_PostProcess gives its four tensors.
SSD_ORDER: Final = ("boxes", "classes", "scores", "count")
#: More results than this in one answer is a mistake in the manifest.
MAX_RESULTS: Final = 1000
MAX_ANCHORS: Final = 64


@dataclass(frozen=True, slots=True)
class PictureRules:
    """From a decoded picture to the first input tensor."""

    #: stretch = whole picture, aspect ignored; letterbox = whole picture, borders of `fill`; crop = centre, no borders.
    resize: str = "stretch"
    #: nearest, bilinear or bicubic; the last two average over the source area when shrinking, as Pillow does.
    filter: str = "bilinear"
    #: Channel order of the tensor: RGB or BGR for 3 channels, GRAY (ITU-R 601 luma) for 1.
    color: str = "RGB"
    #: Use 255 - pixel: for models that want light on dark when pictures are dark on light.
    invert: bool = False
    #: real = (pixel - mean) / std, one value or one per channel in tensor order; None = raw pixels.
    mean: tuple[float, ...] | None = None
    #: Set exactly when `mean` is.
    std: tuple[float, ...] | None = None
    #: Pixel value of letterbox borders as the model sees them (after `invert`), 0 to 255.
    fill: int = 0

    @property
    def channels(self) -> int:
        """Channels that the tensor must have."""
        return 1 if self.color == "GRAY" else 3

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> Self:
        """Read an `[input]` table. Raises InvalidModel naming the key and what it may be."""
        where = "[input]"
        _known(table, where, ("resize", "filter", "color", "invert", "mean", "std", "fill"))
        color = _choice(table, where, "color", COLOR, "RGB")
        channels = 1 if color == "GRAY" else 3
        mean, std = _per_channel(table, where, "mean", channels), _per_channel(table, where, "std", channels)
        if (mean is None) != (std is None):
            raise InvalidModel(f"{where} has only one of mean and std; give both, or neither to feed raw pixels")
        if std is not None and any(value <= 0 for value in std):
            raise InvalidModel(f"{where} std must be above 0, not {list(std)}")
        return cls(
            resize=_choice(table, where, "resize", RESIZE, "stretch"),
            filter=_choice(table, where, "filter", FILTER, "bilinear"),
            color=color,
            invert=_boolean(table, where, "invert", default=False),
            mean=mean,
            std=std,
            fill=_integer(table, where, "fill", 0, low=0, high=255),
        )


@dataclass(frozen=True, slots=True)
class OutputRules:
    """From output tensors to labelled results."""

    #: One of DECODER; docs/models.md says which network needs which.
    decoder: str = "none"
    #: Applied to the dequantised scores (classification): none, softmax or sigmoid.
    activation: str = "none"
    #: Detection: results below this score are left out, 0 to 1. Classification keeps its best ones whatever they score.
    threshold: float = 0.3
    #: Two boxes of one class that overlap more than this are one object (yolov2; ssd graphs do this themselves).
    iou: float = 0.5
    #: At most this many results.
    max_results: int = 20
    #: yolov2: (width, height) of each anchor, in cells.
    anchors: tuple[tuple[float, float], ...] = ()
    #: yolov2: the graph itself applies the sigmoids to tx, ty, obj and the softmax to the classes (tw, th stay raw).
    cells_activated: bool = False
    #: ssd: what each output tensor is, in the model's order.
    order: tuple[str, ...] = SSD_ORDER
    #: Added to the model's class numbers before a label is looked up (ssd).
    class_offset: int = 0
    #: yolov8-pose, yolo-end2end: keypoints of each object; 0 = as many as the tensor has room for (end2end: none).
    keypoints: int = 0
    #: yolox, nanodet, blazeface: pixels of the input per cell of each level; empty = as the family usually has them.
    strides: tuple[int, ...] = ()
    #: nanodet: values of each distribution (reg_max + 1).
    bins: int = 8
    #: efficientdet: size of the anchors in cells; 4 for EfficientDet, 3 for EfficientDet-Lite.
    anchor_scale: float = 4.0

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> Self:
        """Read an `[output]` table. Raises InvalidModel naming the key and what it may be."""
        where = "[output]"
        _known(table, where, tuple(cls.__dataclass_fields__))
        decoder = _choice(table, where, "decoder", DECODER, None)
        anchors = _anchors(table, where)
        if decoder == "yolov2" and not anchors:
            raise InvalidModel(f"{where} decoder yolov2 needs anchors = [[width, height], ...] in cells")
        return cls(
            decoder=decoder,
            activation=_choice(table, where, "activation", ACTIVATION, "none"),
            threshold=_number(table, where, "threshold", 0.3, low=0.0, high=1.0),
            iou=_number(table, where, "iou", 0.5, low=0.0, high=1.0),
            max_results=_integer(table, where, "max_results", 20, low=1, high=MAX_RESULTS),
            anchors=anchors,
            cells_activated=_boolean(table, where, "cells_activated", default=False),
            order=_order(table, where),
            class_offset=_integer(table, where, "class_offset", 0, low=-(1 << 16), high=1 << 16),
            keypoints=_integer(table, where, "keypoints", 0, low=0, high=1000),
            strides=_strides(table, where),
            bins=_integer(table, where, "bins", 8, low=2, high=64),
            anchor_scale=_number(table, where, "anchor_scale", 4.0, low=0.1, high=64.0),
        )


def _known(table: Mapping[str, object], where: str, keys: tuple[str, ...]) -> None:
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise InvalidModel(f"{where} has unknown key {unknown[0]!r}; it may have {', '.join(keys)}")


def _choice(table: Mapping[str, object], where: str, key: str, choices: tuple[str, ...], default: str | None) -> str:
    value = table.get(key, default)
    if value is None:
        raise InvalidModel(f"{where} needs {key}: one of {', '.join(choices)}")
    if not isinstance(value, str) or value not in choices:
        raise InvalidModel(f"{where} {key} = {value!r} is not one of {', '.join(choices)}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(table: Mapping[str, object], where: str, key: str, default: float, *, low: float, high: float) -> float:
    value = table.get(key, default)
    if not isinstance(value, int | float) or not _is_number(value) or not low <= value <= high:
        raise InvalidModel(f"{where} {key} = {value!r} is not a number from {low:g} to {high:g}")
    return float(value)


def _integer(table: Mapping[str, object], where: str, key: str, default: int, *, low: int, high: int) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidModel(f"{where} {key} = {value!r} is not a whole number from {low} to {high}")
    return value


def _boolean(table: Mapping[str, object], where: str, key: str, *, default: bool) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise InvalidModel(f"{where} {key} = {value!r} is not true or false")
    return value


def _numbers(value: object, text: str) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(_is_number(item) for item in value):
        raise InvalidModel(f"{text} is not a list of numbers: {value!r}")
    return tuple(float(item) for item in value)


def _per_channel(table: Mapping[str, object], where: str, key: str, channels: int) -> tuple[float, ...] | None:
    value = table.get(key)
    if value is None:
        return None
    numbers = _numbers([value] if _is_number(value) else value, f"{where} {key}")
    if len(numbers) not in {1, channels}:
        raise InvalidModel(f"{where} {key} has {len(numbers)} values; give 1, or {channels} for the chosen color")
    return numbers


def _strides(table: Mapping[str, object], where: str) -> tuple[int, ...]:
    value = table.get("strides", ())
    if not isinstance(value, list | tuple) or len(value) > 8:
        raise InvalidModel(f"{where} strides is not a list of at most 8 integers")
    if not all(isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= 1024 for item in value):
        raise InvalidModel(f"{where} strides = {list(value)!r} are not integers from 1 to 1024")
    return tuple(value)


def _anchors(table: Mapping[str, object], where: str) -> tuple[tuple[float, float], ...]:
    value = table.get("anchors", ())
    if not isinstance(value, list | tuple) or len(value) > MAX_ANCHORS:
        raise InvalidModel(f"{where} anchors is not a list of at most {MAX_ANCHORS} [width, height] pairs")
    anchors = []
    for position, item in enumerate(value):
        pair = _numbers(item, f"{where} anchors[{position}]")
        if len(pair) != 2 or min(pair) <= 0:
            raise InvalidModel(f"{where} anchors[{position}] = {list(pair)} is not [width, height], both above 0")
        anchors.append((pair[0], pair[1]))
    return tuple(anchors)


def _order(table: Mapping[str, object], where: str) -> tuple[str, ...]:
    value = table.get("order", SSD_ORDER)
    if not isinstance(value, list | tuple) or sorted(map(str, value)) != sorted(SSD_ORDER):
        raise InvalidModel(f"{where} order = {value!r} does not name each of {', '.join(SSD_ORDER)} once")
    return tuple(str(item) for item in value)
