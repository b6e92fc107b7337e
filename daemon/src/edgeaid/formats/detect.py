"""Which kind of model file is this? A few bytes decide; nothing is parsed in depth here.

Rules: section 1 of the accelerator reference (see docs/formats.md for the table).
"""

from __future__ import annotations

import re
import struct
from typing import Final

from ..errors import InvalidModel
from .archives import HDF5_MAGIC, is_keras, pytorch_kind
from .ncs.reader import BLOB_MAGIC, V2_MAGIC
from .wire.binary import Data, as_view
from .wire.flatbuffer import Flatbuffer
from .wire.protobuf import guess
from .wire.zipdir import entries, find_end

#: Every answer of `detect`, with the words people use.
KINDS: Final[dict[str, str]] = {
    "tflite": "TensorFlow Lite",
    "edgetpu": "TensorFlow Lite compiled for the Edge TPU",
    "ncs-v1": "Movidius graph of NCSDK 1",
    "ncs-v2": "Movidius graph of NCSDK 2",
    "myriad-blob": "Myriad blob of OpenVINO or DepthAI",
    "openvino-ir": "OpenVINO IR",
    "kmodel-v3": "K210 model version 3 (nncase 0.1)",
    "kmodel-v4": "K210 model version 4 (nncase 0.2)",
    "kmodel-v5": "K210 model version 5 (nncase 1.x)",
    "kfpkg": "K210 flash package",
    "onnx": "ONNX",
    "tf-savedmodel": "TensorFlow SavedModel",
    "tf-graphdef": "TensorFlow GraphDef (frozen .pb)",
    "tf-metagraph": "TensorFlow MetaGraph (.meta)",
    "tf-checkpoint-index": "TensorFlow checkpoint index",
    "keras": "Keras model (.keras)",
    "keras-h5": "Keras model or weights (HDF5)",
    "torch-export": "PyTorch exported program (.pt2)",
    "torchscript": "TorchScript",
    "torch-pickle": "PyTorch weights or module (pickle)",
    "caffe-prototxt": "Caffe network text",
    "caffemodel": "Caffe weights",
    "zip": "zip archive",
    "tar": "tar archive",
    "unknown": "unknown file",
}

_IR: Final = re.compile(rb"<net\b[^>]*>")
#: What only networks of Caffe have on a line: a layer, or an input by name or size.
_PROTOTXT: Final = re.compile(
    rb"""^\s*(?:layers?\s*\{|input\s*:\s*["']|input_dim\s*:\s*[0-9]|input_shape\s*\{)""", re.MULTILINE
)
#: Last 8 bytes of a LevelDB table, which a checkpoint index is.
_LEVELDB_MAGIC: Final = bytes.fromhex("57fb808b247547db")


def detect(data: Data) -> str:
    """The kind of file, a key of KINDS; "unknown" where nothing fits. Never raises."""
    view = as_view(data)
    head = bytes(view[:4096])
    return _by_header(view, head) or _by_text(head) or _by_archive(view, head) or _by_protobuf(view) or "unknown"


def _by_header(view: memoryview, head: bytes) -> str:
    size = len(view)
    if head[4:8] == b"TFL3":
        return "edgetpu" if _has_edgetpu_operator(view) else "tflite"
    if head[:8] == HDF5_MAGIC:
        return "keras-h5"
    if head[:4] == b"LDMK" and size >= 8:
        version = int.from_bytes(head[4:8], "little")
        return f"kmodel-v{version}" if version in (4, 5) else ""
    if size >= 46 and struct.unpack_from("<I", head, 34)[0] == V2_MAGIC:
        return "ncs-v2"
    if size >= 60 and struct.unpack_from("<I", head, 52)[0] == BLOB_MAGIC:
        return "myriad-blob"
    if size >= 264 and struct.unpack_from("<II", head, 32) == (size, 2) and not any(head[:32]):
        return "ncs-v1"
    if size >= 28:
        version, flags, arch, layers, _, _, outputs = struct.unpack_from("<7I", head)
        if version == 3 and arch == 0 and flags < 256 and 0 < layers <= size // 8 and 0 < outputs <= size // 8:
            return "kmodel-v3"
    if size > 48 and bytes(view[-8:]) == _LEVELDB_MAGIC:
        return "tf-checkpoint-index"
    return ""


def _has_edgetpu_operator(view: memoryview) -> bool:
    try:
        codes = Flatbuffer(view, "TFLite model").root().tables(1, "operator_codes")
        return any(code.string(1) == "edgetpu-custom-op" for code in codes)
    except InvalidModel:
        return False  # the reader says what is wrong


def _by_text(head: bytes) -> str:
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if stripped.startswith(b"<") and _IR.search(head):
        return "openvino-ir"
    if b"\0" not in head and _PROTOTXT.search(head):
        return "caffe-prototxt"
    return ""


def _by_archive(view: memoryview, head: bytes) -> str:
    if head[257:262] == b"ustar":
        return "tar"
    if head[:4] not in (b"PK\x03\x04", b"PK\x05\x06") or find_end(view) < 0:
        return ""
    try:
        names = {entry.name for entry in entries(view)}
    except InvalidModel:  # damaged archive: the reader of archives has the better message
        return "zip"
    if is_keras(names):
        return "keras"
    return pytorch_kind(names) or ("kfpkg" if "flash-list.json" in names else "zip")


def _by_protobuf(view: memoryview) -> str:
    return guess(view)
