"""The post-processing of exporters, run unmodified: `exporters.py NAME CHECKOUT TENSORS.npz...`.

Run by an interpreter that has what the exporter's decoding needs (torch, torchvision and OpenCV, or TensorFlow). Of the
checkout only the files that decode are loaded; what else they import (training, logging, drawing) and is not needed for
that is replaced by names that do nothing. TENSORS.npz.answer.npz gets boxes in pixels (xmin, ymin, xmax, ymax), scores
and classes.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np


class Nothing:
    """Stands for whatever decoding does not use: a base class, a function, a decorator with or without arguments."""

    def __new__(cls, *args: Any, **_kwargs: Any) -> Any:
        if not cls.__dict__.get("nothing"):
            return super().__new__(cls)  # a class of the exporter that is derived from it
        return args[0] if len(args) == 1 and callable(args[0]) else lambda function, *_: function


class Partly(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads some modules of a checkout; all others below the same packages, and missing packages, do nothing."""

    def __init__(self, root: Path, packages: set[str], real: list[str]) -> None:
        self.root, self.packages, self.real = root, packages, real

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name in self.real:
            return importlib.util.spec_from_file_location(name, self.root / (name.replace(".", "/") + ".py"))
        if name.partition(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)

        def missing(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            for known in self.real:  # what a package passes on from its modules
                if known.startswith(spec.name + ".") and known in sys.modules and name in vars(sys.modules[known]):
                    return vars(sys.modules[known])[name]
            return type(name, (Nothing,), {"nothing": True})

        vars(module)["__getattr__"] = missing
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing in it."""


def load(root: Path, real: list[str], *missing: str) -> Any:
    """The modules of a checkout, the last one is returned."""
    sys.meta_path.insert(0, Partly(root, {real[0].partition(".")[0], *missing}, real))
    return [importlib.import_module(name) for name in real][-1]


def yolox(root: Path, tensors: list[Any], rules: Any) -> tuple[Any, Any, Any]:
    utils = load(root, ["yolox.utils.demo_utils"])
    size = tuple(int(v) for v in rules["size"])
    table = utils.demo_postprocess(tensors[0].copy(), size[::-1])[0]
    centre, extent = table[:, :2], table[:, 2:4]
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    rows = utils.multiclass_nms(boxes, table[:, 4:5] * table[:, 5:], rules["iou"], rules["threshold"], False)
    return rows[:, :4], rows[:, 4], rows[:, 5]


def nanodet(root: Path, tensors: list[Any], rules: Any) -> tuple[Any, Any, Any]:
    import torch

    real = ["nanodet.util.box_transform", "nanodet.model.module.nms", "nanodet.model.head.gfl_head"]
    heads = load(root, [*real, "nanodet.model.head.nanodet_plus_head"])
    head = heads.NanoDetPlusHead.__new__(heads.NanoDetPlusHead)
    torch.nn.Module.__init__(head)
    bins = int(rules["bins"])
    head.strides, head.reg_max, head.distribution_project = [8, 16, 32, 64], bins - 1, heads.Integral(bins - 1)
    table = torch.from_numpy(tensors[0])
    # The exported tensor has the sigmoid; the head's own decoding applies it.
    classes, sides = table[..., : -4 * bins].logit(), table[..., -4 * bins :]
    size = [int(v) for v in rules["size"]]
    rows, labels = head.get_bboxes(classes, sides, {"img": torch.zeros(1, 3, size[1], size[0])})[0]
    return rows[:, :4].numpy(), rows[:, 4].numpy(), labels.numpy()


def yolo_nas(root: Path, tensors: list[Any], rules: Any) -> tuple[Any, Any, Any]:
    import torch

    package = "super_gradients.training"
    real = [f"{package}.utils.detection_utils", f"{package}.models.detection_models.pp_yolo_e.post_prediction_callback"]
    callback = load(root / "src", real, "omegaconf").PPYoloEPostPredictionCallback(
        score_threshold=float(rules["threshold"]), nms_threshold=float(rules["iou"]), nms_top_k=1000,
        max_predictions=300, multi_label_per_box=False,
    )  # fmt: skip
    rows = callback(tuple(torch.from_numpy(t) for t in tensors))[0].numpy()
    return rows[:, :4], rows[:, 4], rows[:, 5]


def efficientdet(root: Path, tensors: list[Any], rules: Any) -> tuple[Any, Any, Any]:
    sys.path.insert(0, str(root / "efficientdet"))
    utils, postprocess = importlib.import_module("utils"), importlib.import_module("tf2.postprocess")
    boxes, scores = tensors
    width, height = (int(v) for v in rules["size"])
    count, classes = 9, scores.shape[2]
    params = {
        "min_level": 3, "max_level": 7, "num_scales": 3, "aspect_ratios": [1.0, 2.0, 0.5],
        "anchor_scale": float(rules["anchor_scale"]), "image_size": (height, width), "data_format": "channels_last",
        "num_classes": classes, "nms_configs": {
            "method": "hard", "iou_thresh": float(rules["iou"]), "score_thresh": float(rules["threshold"]),
            "sigma": None, "max_nms_inputs": 0, "max_output_size": 100,
        },
    }  # fmt: skip
    levels: tuple[list[Any], list[Any]] = ([], [])
    start = 0
    for size in utils.get_feat_sizes((height, width), 7)[3:]:
        end = start + size["height"] * size["width"] * count
        for level, table in zip(levels, (scores, boxes), strict=True):
            level.append(table[:, start:end].reshape(1, size["height"], size["width"], -1))
        start = end
    rows, sure, labels, kept = postprocess.postprocess_per_class(params, *levels)
    kept = int(kept[0])
    return rows[0, :kept].numpy()[:, [1, 0, 3, 2]], sure[0, :kept].numpy(), labels[0, :kept].numpy() - 1


EXPORTERS = {"yolox": yolox, "nanodet": nanodet, "yolo-nas": yolo_nas, "efficientdet": efficientdet}


def main(name: str, checkout: str, *files: str) -> None:
    for file in files:
        saved = np.load(file)
        outputs = [saved[f"output{i}"] for i in range(2) if f"output{i}" in saved]
        boxes, scores, classes = EXPORTERS[name](Path(checkout), outputs, saved)
        np.savez(f"{file}.answer.npz", boxes=boxes, scores=scores, classes=classes)


if __name__ == "__main__":
    main(*sys.argv[1:])
