"""How a picture becomes a model's input and how its output becomes an answer: the `[input]` and `[output]` tables of
a manifest, checked. Pure data, no numpy: the daemon reads manifests and never touches a pixel.

The arithmetic that these rules stand for is in `edgeaid.vision.preprocess` and `edgeaid.vision.postprocess`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from ..errors import InvalidModel
from ..tables import Table, WrongValue, is_integer, is_number, raising

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
        with raising(InvalidModel):
            return cls._read(Table(table, ("input",)))

    @classmethod
    def _read(cls, table: Table) -> Self:
        color = table.choice("color", COLOR, "RGB")
        channels = 1 if color == "GRAY" else 3
        mean, std = _per_channel(table, "mean", channels), _per_channel(table, "std", channels)
        if (mean is None) != (std is None):
            raise WrongValue(table.path, "has only one of mean and std; give both, or neither to feed raw pixels")
        if std is not None and any(value <= 0 for value in std):
            table.wrong("std", "must be above 0")
        rules = cls(
            resize=table.choice("resize", RESIZE, "stretch"),
            filter=table.choice("filter", FILTER, "bilinear"),
            color=color,
            invert=table.boolean("invert", default=False),
            mean=mean,
            std=std,
            fill=table.integer("fill", 0, 0, 255),
        )
        table.done()
        return rules


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
        with raising(InvalidModel):
            return cls._read(Table(table, ("output",)))

    @classmethod
    def _read(cls, table: Table) -> Self:
        decoder = table.choice("decoder", DECODER)
        anchors = _anchors(table)
        if decoder == "yolov2" and not anchors:
            table.wrong("decoder", "yolov2 needs anchors = [[width, height], ...] in cells")
        rules = cls(
            decoder=decoder,
            activation=table.choice("activation", ACTIVATION, "none"),
            threshold=table.number("threshold", 0.3, 0.0, 1.0),
            iou=table.number("iou", 0.5, 0.0, 1.0),
            max_results=table.integer("max_results", 20, 1, MAX_RESULTS),
            anchors=anchors,
            cells_activated=table.boolean("cells_activated", default=False),
            order=_order(table),
            class_offset=table.integer("class_offset", 0, -(1 << 16), 1 << 16),
            keypoints=table.integer("keypoints", 0, 0, 1000),
            strides=_strides(table),
            bins=table.integer("bins", 8, 2, 64),
            anchor_scale=table.number("anchor_scale", 4.0, 0.1, 64.0),
        )
        table.done()
        return rules


def _numbers(table: Table, key: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(is_number(item) for item in value):
        table.wrong(key, "is not a list of numbers")
    return tuple(float(item) for item in value)


def _per_channel(table: Table, key: str, channels: int) -> tuple[float, ...] | None:
    value = table.take(key)
    if value is None:
        return None
    numbers = _numbers(table, key, [value] if is_number(value) else value)
    if len(numbers) not in {1, channels}:
        table.wrong(key, f"has {len(numbers)} values; give 1, or {channels} for the chosen color")
    return numbers


def _strides(table: Table) -> tuple[int, ...]:
    value = table.take("strides", ())
    if not isinstance(value, list | tuple) or len(value) > 8:
        table.wrong("strides", "is not a list of at most 8 integers")
    if not all(is_integer(item) and 1 <= item <= 1024 for item in value):
        table.wrong("strides", f"{list(value)!r:.80} are not integers from 1 to 1024")
    return tuple(value)


def _anchors(table: Table) -> tuple[tuple[float, float], ...]:
    value = table.take("anchors", ())
    if not isinstance(value, list | tuple) or len(value) > MAX_ANCHORS:
        table.wrong("anchors", f"is not a list of at most {MAX_ANCHORS} [width, height] pairs")
    anchors = []
    for position, item in enumerate(value):
        pair = _numbers(table, f"anchors[{position}]", item)
        if len(pair) != 2 or min(pair) <= 0:
            table.wrong("anchors", f"number {position}, {list(pair)!r:.80}, is not [width, height], both above 0")
        anchors.append((pair[0], pair[1]))
    return tuple(anchors)


def _order(table: Table) -> tuple[str, ...]:
    value = table.take("order", SSD_ORDER)
    if not isinstance(value, list | tuple) or sorted(map(str, value)) != sorted(SSD_ORDER):
        table.wrong("order", f"does not name each of {', '.join(SSD_ORDER)} once")
    return tuple(str(item) for item in value)
