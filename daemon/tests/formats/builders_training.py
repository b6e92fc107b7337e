"""Small files of training frameworks: Keras and PyTorch, written by hand."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

#: A functional model: input, convolution, sum of two branches.
KERAS = {
    "module": "keras.src.models.functional", "class_name": "Functional",
    "config": {"name": "net", "layers": [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"batch_shape": [None, 8, 8, 3], "dtype": "float32", "name": "x"}},
        {"class_name": "Conv2D", "name": "c", "build_config": {"input_shape": [None, 8, 8, 3]},
         "config": {"name": "c", "filters": 4, "kernel_size": [3, 3], "strides": [1, 1], "activation": "relu"},
         "inbound_nodes": [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}]}]},
        {"class_name": "Add", "name": "y", "build_config": {"input_shape": [[None, 8, 8, 4], [None, 8, 8, 4]]},
         "config": {"name": "y"},
         "inbound_nodes": [{"args": [[{"config": {"keras_history": ["c", 0, 0]}},
                                      {"config": {"keras_history": ["x", 0, 0]}}]]}]},
    ]},
}  # fmt: skip


def stored(files: Mapping[str, bytes], *, zip64: bool = False) -> bytes:
    """A zip without compression; with the end record of zip64 that PyTorch always writes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    data = made.getvalue()
    if not zip64:
        return data
    end = len(data) - 22
    count, size, offset = struct.unpack_from("<10xHII", data, end)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    return data[:end] + record + struct.pack("<4sIQI", b"PK\6\7", 0, end, 1) + data[end:]


def keras() -> bytes:
    """A .keras file."""
    parts = {"metadata.json": b'{"keras_version": "3.15.1"}', "config.json": json.dumps(KERAS).encode()}
    return stored({**parts, "model.weights.h5": bytes(64)})


def keras_h5() -> bytes:
    """An HDF5 file with the description in it, as far as it is read here."""
    other = b'{"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}\0'
    return b"\x89HDF\r\n\x1a\n" + bytes(40) + other + json.dumps(KERAS).encode() + bytes(20)


def torch_export() -> bytes:
    """A .pt2 of a convolution with an open batch."""

    def tensor(name: str) -> dict[str, object]:
        return {"as_tensor": {"name": name}}

    def meta(*sizes: int | None) -> dict[str, object]:
        return {"dtype": 7, "sizes": [{"as_int": s} if s else {"as_expr": {"expr_str": "s0"}} for s in sizes]}

    node = {
        "target": "torch.ops.aten.conv2d.default", "outputs": [tensor("conv2d")],
        "inputs": [{"name": "input", "arg": tensor("x")}, {"name": "weight", "arg": tensor("p_weight")},
                   {"name": "stride", "arg": {"as_ints": [2, 2]}}],
    }  # fmt: skip
    program = {
        "graph_module": {
            "graph": {
                "inputs": [tensor("p_weight"), tensor("x")], "outputs": [tensor("conv2d")], "nodes": [node],
                "tensor_values": {
                    "p_weight": meta(4, 3, 3, 3), "x": meta(None, 3, 8, 8), "conv2d": meta(None, 4, 3, 3),
                },
            },
            "signature": {
                "input_specs": [{"parameter": {"arg": {"name": "p_weight"}}}, {"user_input": {"arg": tensor("x")}}],
                "output_specs": [{"user_output": {"arg": tensor("conv2d")}}],
            },
        }
    }  # fmt: skip
    parts = {"net/data/weights/weight_0": bytes(432), "net/models/model.json": json.dumps(program).encode()}
    return stored({**parts, "net/archive_format": b"pt2"}, zip64=True)


def torchscript() -> bytes:
    """Two modules in a sequence."""
    code = """class Sequential(Module):
  __parameters__ = []
  __annotations__["0"] = __torch__.torch.nn.modules.conv.Conv2d
  relu : __torch__.torch.nn.modules.activation.ReLU
  def forward(self: __torch__.net.Sequential,
    input: Tensor) -> Tensor:
    return input
"""
    leaf = "class {}(Module):\n  __parameters__ = []\n  training : bool\n"
    parts = {
        "net/data.pkl": b"\x80\2c__torch__.net\nSequential\nq\0)\x81.",
        "net/code/__torch__/net.py": code.encode(),
        "net/code/__torch__/torch/nn/modules/conv.py": leaf.format("Conv2d").encode(),
        "net/code/__torch__/torch/nn/modules/activation.py": leaf.format("ReLU").encode(),
        "net/constants.pkl": b"\x80\2).", "net/data/0": bytes(432),
    }  # fmt: skip
    return stored(parts, zip64=True)


class _Storage:
    """What torch.save stores beside the pickle."""

    def __init__(self, key: str, kind: str, count: int) -> None:
        self.pid = ("storage", _Class("torch", kind), key, "cpu", count)


class _Class:
    """A class that is only named."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


#: The pickler in Python, which can be told what to write, unlike the one in C.
_PurePickler: Any = vars(pickle)["_Pickler"]


class _Pickler(_PurePickler):
    """Writes tensors as torch.save does, without torch."""

    def persistent_id(self, obj: object) -> object:
        return obj.pid if isinstance(obj, _Storage) else None

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Class):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, tuple) and len(obj) == 3 and obj[0] == "tensor":
            storage, shape = obj[1], obj[2]
            self.save(_Class("torch._utils", "_rebuild_tensor_v2"))
            super().save((storage, 0, shape, tuple(1 for _ in shape), False, {}))
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def torch_pickle() -> bytes:
    """Weights and bias of one layer."""
    made = io.BytesIO()
    tensors = {
        "fc.weight": ("tensor", _Storage("0", "FloatStorage", 8), (2, 4)),
        "fc.bias": ("tensor", _Storage("1", "HalfStorage", 2), (2,)),
    }
    _Pickler(made, 2).dump(tensors)
    parts = {"w/data.pkl": made.getvalue(), "w/data/0": bytes(32), "w/data/1": bytes(4), "w/version": b"3\n"}
    return stored(parts, zip64=True)
