"""Writers of small, valid files of every format: seeds for damage, and stages for single faults."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from typing import Any

import flatbuffers
from flatbuffers import flexbuffers

from .builders_exchange import (
    IR,
    PROTOTXT,
    caffemodel,
    checkpoint_index,
    graphdef,
    metagraph,
    onnx,
    saved_model,
)
from .builders_training import keras, keras_h5, torch_export, torch_pickle, torchscript

__all__ = [
    "IR",
    "PROTOTXT",
    "SEEDS",
    "archive",
    "blob",
    "bundle",
    "caffemodel",
    "checkpoint_index",
    "edgetpu",
    "executable_tree",
    "flat",
    "graphdef",
    "keras",
    "keras_h5",
    "kfpkg",
    "kmodel_v3",
    "kmodel_v3_short",
    "kmodel_v4",
    "kmodel_v5",
    "metadata_bytes",
    "metagraph",
    "ncs_v1",
    "ncs_v2",
    "onnx",
    "package",
    "registers",
    "saved_model",
    "tar",
    "tensor",
    "tflite",
    "tflite_tree",
    "torch_export",
    "torch_pickle",
    "torchscript",
    "with_labels",
]

#: A flatbuffer table: slot -> value. Values: ("i", 5) a scalar of a struct letter, ("i", [1, 2]) a vector of them, str,
#: bytes, a table, a list of tables, a list of str or bytes.
Tree = dict[int, Any]

_PREPEND = {
    "b": "PrependInt8", "B": "PrependUint8", "h": "PrependInt16", "i": "PrependInt32", "I": "PrependUint32",
    "q": "PrependInt64", "Q": "PrependUint64", "f": "PrependFloat32", "?": "PrependBool",
}  # fmt: skip


def flat(tree: Tree, identifier: bytes = b"") -> bytes:
    """A finished flatbuffer."""
    builder = flatbuffers.Builder(256)
    root = _table(builder, tree)
    if identifier:
        builder.Finish(root, identifier)
    else:
        builder.Finish(root)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, tree: Tree) -> int:
    offsets: dict[int, int] = {}
    for slot, value in tree.items():
        if isinstance(value, dict):
            offsets[slot] = _table(builder, value)
        elif isinstance(value, str):
            offsets[slot] = builder.CreateString(value)
        elif isinstance(value, bytes):
            offsets[slot] = builder.CreateByteVector(value)
        elif isinstance(value, list):
            items = [
                _table(builder, v)
                if isinstance(v, dict)
                else builder.CreateString(v)
                if isinstance(v, str)
                else builder.CreateByteVector(v)
                for v in value
            ]
            builder.StartVector(4, len(items), 4)
            for item in reversed(items):
                builder.PrependUOffsetTRelative(item)
            offsets[slot] = builder.EndVector()
        elif isinstance(value[1], list):
            width = struct.calcsize(value[0])
            builder.StartVector(width, len(value[1]), width)
            for number in reversed(value[1]):
                getattr(builder, _PREPEND[value[0]])(number)
            offsets[slot] = builder.EndVector()
    builder.StartObject(max(tree, default=-1) + 1)
    for slot, value in tree.items():
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        else:
            # A default that no value equals: every scalar is written.
            getattr(builder, _PREPEND[value[0]] + "Slot")(slot, value[1], None)
    return int(builder.EndObject())


def tensor(name: str, shape: list[int], kind: int = 3, buffer: int = 0, **more: Any) -> Tree:
    """A Tensor table; `more` holds further slots as s5=..."""
    tree: Tree = {0: ("i", shape), 1: ("b", kind), 2: ("I", buffer), 3: name}
    return tree | {int(k[1:]): v for k, v in more.items()}


def tflite_tree() -> Tree:
    """A model with a convolution and a reshape: input u8 1x4x4x1, output u8 1x8, weights, signature, metadata."""
    quantization = {2: ("f", [0.5]), 3: ("q", [128])}
    channels = {2: ("f", [0.5, 0.25]), 3: ("q", [128, 128]), 6: ("i", 0)}
    return {
        0: ("I", 3),
        1: [{0: ("b", 3), 2: ("i", 1), 3: ("i", 3)}, {0: ("b", 22), 2: ("i", 1), 3: ("i", 22)}],
        2: [
            {
                0: [
                    tensor("image", [1, 4, 4, 1], s4=quantization, s7=("i", [-1, 4, 4, 1])),
                    tensor("weights", [2, 3, 3, 1], buffer=1, s4=channels),
                    tensor("bias", [2], kind=2, buffer=2),
                    tensor("map", [1, 2, 2, 2], s4=quantization),
                    tensor("scores", [1, 8], s4=quantization),
                ],
                1: ("i", [0]),
                2: ("i", [4]),
                3: [
                    {0: ("I", 0), 1: ("i", [0, 1, 2]), 2: ("i", [3]), 3: ("B", 1),
                     4: {0: ("b", 1), 1: ("i", 1), 2: ("i", 1), 3: ("b", 1)}},
                    {0: ("I", 1), 1: ("i", [3]), 2: ("i", [4]), 3: ("B", 17), 4: {0: ("i", [1, 8])}},
                ],
                4: "main",
            }
        ],
        3: "made by a test",
        4: [{}, {0: bytes(range(18))}, {0: bytes(8)}, {0: b"1.5.0" + bytes(11)}, {0: metadata_bytes()}],
        6: [{0: "min_runtime_version", 1: ("I", 3)}, {0: "TFLITE_METADATA", 1: ("I", 4)}],
        7: [{0: [{0: "image", 1: ("I", 0)}], 1: [{0: "scores", 1: ("I", 4)}], 2: "serving_default", 4: ("I", 0)}],
    }  # fmt: skip


def metadata_bytes() -> bytes:
    """A TFLITE_METADATA buffer: normalisation of the input, a label file of the output."""
    image = {0: "image", 4: [{0: ("B", 1), 1: {0: ("f", [127.5]), 1: ("f", [127.5])}}],
             5: {0: ("f", [255.0]), 1: ("f", [0.0])}, 3: {0: ("B", 2), 1: {0: ("b", 1)}}}  # fmt: skip
    scores = {0: "scores", 6: [{0: "labels.txt", 2: ("b", 2)}]}
    return flat({0: "Test", 3: [{2: [image], 3: [scores]}], 4: "nobody"}, b"M001")


def with_labels(model: bytes, content: str = "none\ncat\ndog\n\nremark\n") -> bytes:
    """The model with a zip of labels behind it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("labels.txt", content)
    return model + archive.getvalue()


def tflite() -> bytes:
    """`tflite_tree` with labels."""
    return with_labels(flat(tflite_tree(), b"TFL3"))


def executable_tree(kind: int, parameters: int, token: int = 0x1234, **more: Any) -> Tree:
    """An Executable table: `kind` 0 stand-alone, 1 caching, 2 execution only."""
    layer = {0: "in", 1: ("i", 16), 2: ("i", 4), 3: ("i", 4), 4: ("i", 1), 5: {0: ("i", 128), 1: ("f", 0.5)},
             6: ("h", 0), 9: ("i", 1)}  # fmt: skip
    result = layer | {0: "out", 2: ("i", 1), 3: ("i", 1), 4: ("i", 5), 1: ("i", 8), 11: {0: ("i", [0, 0, 0, 4])}}
    # The dimensions are structs of two i32; the count of a vector counts structs, so it is patched in `package`.
    result.pop(11)
    tree: Tree = {
        1: "model", 3: ("i", 1), 4: ("i", 0), 5: [{0: bytes(24)}], 6: bytes(parameters), 7: {1: ("?", True)},
        10: "beagle", 12: ("i", 64), 13: ("h", kind), 14: ("Q", token),
    }  # fmt: skip
    if kind != 1:
        tree |= {8: [layer], 9: [result]}
    return tree | {int(k[1:]): v for k, v in more.items()}


def package(*executables: Tree, **more: Any) -> bytes:
    """A Package with the given executables."""
    multi = flat({0: [flat(e) for e in executables]})
    tree: Tree = {0: ("i", 12), 1: multi, 4: "cl/", 5: ("i", 0)}
    return flat(tree | {int(k[1:]): v for k, v in more.items()}, b"DWN1")


def edgetpu(inner: bytes | None = None, chips: list[int] | None = None, *, before: int = -1, **options: Any) -> bytes:
    """A compiled model around a package (default: 160 bytes cached, 32 streamed).

    `before` is the code of an operator that stayed on the CPU in front of it.
    """
    inner = package(executable_tree(2, 32), executable_tree(1, 160)) if inner is None else inner
    fbb = flexbuffers.Builder()
    with fbb.Map():
        fbb.Key("1")
        fbb.Int(0)
        fbb.Key("4")
        fbb.Blob(inner)
        fbb.Key("5")
        fbb.Int(-1)
        fbb.Key("6")
        fbb.TypedVectorFromElements(chips or [18])
        fbb.Key("7")
        fbb.VectorFromElements([])
    custom = bytes(fbb.Finish()) if "raw" not in options else options["raw"]
    codes: list[Any] = [{0: ("b", 32), 1: "edgetpu-custom-op", 2: ("i", 1), 3: ("i", 32)}]
    tensors = [tensor("in", [1, 4, 4, 1]), tensor("out", [1, 5])]
    operators: list[Any] = [{0: ("I", 0), 1: ("i", [0]), 2: ("i", [1]), 5: custom}]
    source = 0
    if before >= 0:
        codes.append({0: ("b", before), 2: ("i", 1), 3: ("i", before)})
        tensors.append(tensor("picture", [1, 4, 4, 1]))
        operators.insert(0, {0: ("I", 1), 1: ("i", [2]), 2: ("i", [0])})
        source = 2
    graph = {0: tensors, 1: ("i", [source]), 2: ("i", [1]), 3: operators}
    return flat({0: ("I", 3), 1: codes, 2: [graph], 4: [{}]}, b"TFL3")


def registers(channels_in: int = 2, channels_out: int = 3, side: int = 4) -> bytes:
    """The twelve registers of a 3x3 convolution that keeps the side; source at 0, destination at 256 bytes."""
    r = [0] * 12
    r[1] = 0 | 4 << 32
    r[2] = (channels_in - 1) | (channels_out - 1) << 32
    r[3] = (side - 1) | (side - 1) << 10 | (side - 1) << 32 | (side - 1) << 42
    r[4] = 1
    r[5] = 54 << 15
    return struct.pack("<12Q", *r)


def kmodel_v3() -> bytes:
    """A KPU convolution, then a fully connected layer with 2 inputs and 3 outputs; last body 4 bytes short."""
    layers = [(10240, 24), (18, 64)]
    head = struct.pack("<7I", 3, 1, 0, 2, 4096, 64, 1) + struct.pack("<2I", 8, 12)
    head += b"".join(struct.pack("<2I", *x) for x in layers)
    body_at = len(head)
    tables_at = body_at + 24 + 60
    conv = struct.pack("<6I", 0, 0, tables_at, tables_at + 96, tables_at + 152, tables_at + 176)
    connected = struct.pack("<6I", 0, 0, 8, 2, 3, 0) + struct.pack("<9f", *range(9))
    return head + conv + connected + registers() + bytes(56 + 24 + 144)


def kmodel_v3_short() -> bytes:
    """Only a fully connected layer; its body is stated 4 bytes longer than the file."""
    head = struct.pack("<7I", 3, 1, 0, 1, 4096, 64, 1) + struct.pack("<2I", 8, 12) + struct.pack("<2I", 18, 64)
    return head + struct.pack("<6I", 0, 0, 8, 2, 3, 0) + struct.pack("<9f", *range(9))


def _range(memory: int, kind: int, start: int, size: int) -> bytes:
    return struct.pack("<4I", memory, kind, start, size)


def kmodel_v4() -> bytes:
    """Upload, KPU convolution, dequantise, concat, CPU convolution, matmul, binary, unary."""

    def main(start: int, size: int) -> bytes:
        return _range(1, 0, start, size)

    conv_tables = bytes(3 * 8 + 144 + 2 * 3 * 9)
    nodes = [
        (0x2001, main(0, 32) + _range(2, 1, 0, 32) + struct.pack("<4i", 1, 2, 4, 4)),
        (0x2002, _range(1, 1, 64, 48) + struct.pack("<2i", 1, 0) + registers() + conv_tables),
        (0x03, _range(1, 1, 64, 48) + main(128, 192) + struct.pack("<if", 0, 0.5)),
        (0x01, main(0, 96) + struct.pack("<3I", 4, 1, 2) + main(0, 32) + main(32, 32) + struct.pack("<2i", 1, 1)),
        (0x02, main(0, 32) + main(32, 32) + struct.pack("<4i", 1, 2, 2, 2) + struct.pack("<2i", 1, 2) + bytes(16)
            + struct.pack("<6i", 1, 1, 1, 1, 1, 1) + struct.pack("<2f", 0, 6) + bytes(16 + 8)),
        (0x04, main(0, 16) + main(16, 16) + main(32, 16) + struct.pack("<3i", 1, 4, 4) + struct.pack("<2f", 0, 6)
            + bytes(16)),
        (0x00, main(0, 16) + main(16, 16) + main(32, 16) + struct.pack("<I", 2) + struct.pack("<12i", *[1, 1, 2, 2] * 3)
            + struct.pack("<2f", 0, 6)),
        (0x0E, main(0, 16) + main(16, 16) + struct.pack("<I", 3)),
    ]  # fmt: skip
    bodies = [(op, body + bytes(-len(body) % 8)) for op, body in nodes]
    head = b"LDMK" + struct.pack("<9I", 4, 0, 1, 16, 512, len(nodes), 1, 1, 0)
    head += main(0, 32) + struct.pack("<4i", 1, 2, 4, 4) + main(128, 192) + bytes(16)
    head += b"".join(struct.pack("<2I", op, len(body)) for op, body in bodies)
    return head + b"".join(body for _, body in bodies)


def kmodel_v5() -> bytes:
    """A k210 module with one function: upload, convolution, download."""

    def place(memory: int, kind: int, start: int, size: int) -> bytes:
        return struct.pack("<BBHII", memory, kind, 0, start, size)

    shape = struct.pack("<4I", 1, 2, 4, 4)
    text = (
        struct.pack("<I", 0) + place(0, 4, 0, 32) + place(64, 4, 0, 256) + shape
        + struct.pack("<I", 2) + place(2, 4, 0, 54) + place(2, 7, 56, 24) + place(2, 4, 80, 144) + place(1, 4, 0, 0)
        + struct.pack("<I", 1) + registers()
        + struct.pack("<I", 1) + place(64, 4, 256, 256) + place(1, 4, 0, 48) + shape
    )  # fmt: skip
    function = (
        place(0, 4, 0, 32) + struct.pack("<5I", 4, 1, 2, 4, 4) + place(1, 4, 0, 48) + struct.pack("<5I", 4, 1, 3, 4, 4)
    )
    size = 32 + len(function) + (-len(function) % 8)
    function = struct.pack("<8I", 32, size, 32, 48, 1, 1, 0, len(text)) + function + bytes(size - 32 - len(function))
    pools = struct.pack("<B3xI", 2, 224) + struct.pack("<B3xI", 3, 64)
    sections = b".rdata".ljust(16, b"\0") + struct.pack("<4I", 0, 0, 224, 0) + bytes(224)
    sections += b".text".ljust(16, b"\0") + struct.pack("<4I", 0, 0, len(text), 0) + text
    module_size = 48 + len(pools) + len(function) + len(sections)
    padding = -module_size % 8
    module = b"k210".ljust(16, b"\0") + struct.pack("<8I", 1, 48, module_size + padding, 2, 0, 2, 1, 0)
    module += pools + function + sections + bytes(padding)
    return b"LDMK" + struct.pack("<7I", 5, 32, 0, 8, 1, 0, 0) + module


def archive(files: dict[str, bytes]) -> bytes:
    """A zip."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in files.items():
            z.writestr(name, content)
    return made.getvalue()


def kfpkg() -> bytes:
    """A flash package with a firmware and a model."""
    listing = {
        "version": "0.1.0",
        "files": [
            {"address": 0, "bin": "fw.bin", "sha256Prefix": True},
            {"address": 0x300000, "bin": "m.kmodel", "sha256Prefix": False},
        ],
    }
    text = json.dumps(listing).replace("3145728", "0x00300000")
    return archive({"flash-list.json": text.encode(), "fw.bin": bytes(64), "m.kmodel": kmodel_v3_short()})


def tar() -> bytes:
    """A tar with a model."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as t:
        info = tarfile.TarInfo("m/model.kmodel")
        info.size = len(kmodel_v3_short())
        t.addfile(info, io.BytesIO(kmodel_v3_short()))
    return made.getvalue()


def ncs_v1(stages: int = 2) -> bytes:
    """A graph of NCSDK 1: stages of 4x4x8 in and out."""
    end = 264 + 227 * stages
    data_at = end + (-end % 8)
    made = bytearray(data_at + 64)
    struct.pack_into("<II", made, 32, len(made), 2)
    made[40:44] = b"test"
    struct.pack_into("<H2xIII", made, 240, stages, data_at, 0, 0)
    for i in range(stages):
        at = 264 + 227 * i
        made[at : at + 5] = b"conv%d" % i
        struct.pack_into("<B4x4B", made, at + 100, 0, 3, 3, 1, 1)
        struct.pack_into("<3I12x3I12x12x3I", made, at + 112, 4, 4, 8, 4, 4, 8, 16, 64, 2)
    return bytes(made)


def ncs_v2() -> bytes:
    """A graph of NCSDK 2 with 3 stages."""
    made = bytearray(0x50 + 96 + 64 + 32)
    struct.pack_into("<10I", made, 34, 8708, len(made), 2, 3, 12, 0x50, 0x50 + 96, 0x50 + 160, 432, 0)
    struct.pack_into("<3I", made, 0x50, 3, 96, 4)
    return bytes(made)


def blob() -> bytes:
    """Header of a Myriad blob."""
    made = bytearray(52 + 80 + 64)
    struct.pack_into("<20I", made, 52, 9709, len(made), 6, 0, 1, 1, 12, 150528, 4004, 1, 65536, 4, 4, 1, 1, 0, 132, 140,
                     148, 160)  # fmt: skip
    return bytes(made)


def bundle() -> bytes:
    """A zip with a manifest and a model."""
    return archive(
        {"model.toml": b'schema = 1\nname = "m"\n[artifacts.cpu]\nfile = "m.tflite"\n', "m.tflite": tflite()}
    )


#: Kind (formats.detect) -> seed.
SEEDS = {
    "tflite": tflite, "edgetpu": edgetpu, "kmodel-v3": kmodel_v3, "kmodel-v4": kmodel_v4, "kmodel-v5": kmodel_v5,
    "kfpkg": kfpkg, "ncs-v1": ncs_v1, "ncs-v2": ncs_v2, "myriad-blob": blob, "openvino-ir": IR.encode,
    "onnx": onnx, "tf-graphdef": graphdef, "tf-savedmodel": saved_model, "tf-metagraph": metagraph,
    "tf-checkpoint-index": checkpoint_index, "caffe-prototxt": PROTOTXT.encode, "caffemodel": caffemodel,
    "zip": bundle, "tar": tar, "keras": keras, "keras-h5": keras_h5, "torch-export": torch_export,
    "torchscript": torchscript, "torch-pickle": torch_pickle,
}  # fmt: skip
