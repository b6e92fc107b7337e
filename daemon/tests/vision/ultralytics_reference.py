"""Run by an interpreter that has ultralytics: `ultralytics_reference.py DIRECTORY [NETWORK...]`.

Writes an .npz for each of them: tiny networks with random weights, what they put out and what ultralytics' own decoding
makes of it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.utils import nms, ops

NETWORKS = {
    "yolov8n": "yolov8",
    "yolo11n-pose": "yolov8-pose",
    "yolov8n-seg": "yolov8-seg",
    "yolov8n-obb": "yolov8-obb",
    "yolo26n": "yolo-end2end",
    "yolo26n-pose": "yolo-end2end",
    "yolo11n": "yolov8",
    "yolo12n": "yolov8",
    "yolov9t": "yolov8",
    "yolov5n": "yolov8",
    "yolov10n": "yolo-end2end",
}
WIDTH, HEIGHT = 160, 128
IOU = 0.5
BEST = 200
KEPT = 50


def main(directory: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    for name, decoder in NETWORKS.items():
        if names and name not in names:
            continue
        torch.manual_seed(7)
        try:
            network = YOLO(f"{name}.yaml", verbose=False).model.eval()
        except FileNotFoundError:
            continue  # an older release does not know it
        for module in network.modules():  # as exporters do: the layout of the exported file
            if hasattr(module, "export"):
                module.export, module.format = True, "tflite"
            if decoder == "yolo-end2end" and getattr(module, "one2one_cv2", None) is not None:
                module.end2end = True
        with torch.no_grad():
            out = network(torch.rand(1, 3, HEIGHT, WIDTH))
        outputs = [t for t in (out if isinstance(out, list | tuple) else [out]) if isinstance(t, torch.Tensor)]
        if decoder == "yolo-end2end" and outputs[0].shape[2] not in (6, 6 + 51):
            continue  # this release has no end-to-end head for it
        save(directory / f"{name}.npz", decoder, len(network.names), outputs)


def save(file: Path, decoder: str, classes: int, outputs: list[torch.Tensor]) -> None:
    table = outputs[0].float()
    # Random weights give many equal scores; which of two equals stays is nobody's promise.
    if decoder == "yolo-end2end":
        table[..., 4] += torch.rand(table[..., 4].shape) * 1e-2
    else:
        table[:, 4 : 4 + classes] += torch.rand(table[:, 4 : 4 + classes].shape) * 1e-2
    outputs[0] = table
    if decoder == "yolo-end2end":
        conf = float(table[0, :, 4].sort(descending=True).values[KEPT])
        kept = nms.non_max_suppression(table.clone(), conf, IOU, nc=classes, max_det=KEPT, end2end=True)[0]
    else:
        best = table[0, 4 : 4 + classes].amax(0).sort(descending=True).values
        conf = float(best[min(BEST, len(best) - 1)])
        rotated = decoder == "yolov8-obb"
        kept = nms.non_max_suppression(table.clone(), conf, IOU, nc=classes, max_det=KEPT, rotated=rotated)[0]
    values = {"found": kept.numpy(), "conf": np.float32(conf), "classes": np.int64(classes)}
    if decoder == "yolov8-seg":
        prototypes = outputs[1].float()
        # Every prototype's own resolution: what is compared is the mask, not its resizing.
        masks = ops.process_mask(
            prototypes[0], kept[:, 6:], kept[:, :4].clone() / 4, prototypes.shape[2:], upsample=False
        )
        values["masks"] = masks.numpy()
    if decoder == "yolov8-obb":
        values["corners"] = ops.xywhr2xyxyxyxy(kept[:, [0, 1, 2, 3, 6]]).numpy()
    for number, tensor in enumerate(outputs):
        values[f"output{number}"] = tensor.numpy()
    np.savez(file, decoder=decoder, size=np.array([WIDTH, HEIGHT]), **values)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
