"""Files that are pushed as models and are none that can be served: what each is, and what to do with it."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import Final

from ..formats import detect
from ..formats.wire.binary import Data, as_view

_CONVERT: Final = "convert it first: edgeai model convert FILE --to tflite"
_QUANTISE: Final = "make a .tflite of it first: edgeai model quantize FILE --representative PICTURES"
_NODES: Final = "--input-node NAME --output-node NAME"
_DIRECTORY: Final = "edgeai model init FILE makes a model directory of it, to be pushed"
#: Kinds of `formats.detect` -> the next step.
_NEXT: Final = {
    "ncs-v1": f"it runs on a Neural Compute Stick as [artifacts.ncs]; {_DIRECTORY}",
    "ncs-v2": f"it runs on a Neural Compute Stick as [artifacts.ncs]; {_DIRECTORY}",
    "myriad-blob": "push the OpenVINO IR (.xml and .bin) that it was made from, in a directory with [artifacts.ncs2]",
    "openvino-ir": f"with its .bin it runs on a Neural Compute Stick 2 as [artifacts.ncs2]; {_DIRECTORY}",
    "kmodel-v3": f"it runs on a K210 as [artifacts.k210]; {_DIRECTORY}",
    "kmodel-v4": f"it runs on a K210 as [artifacts.k210]; {_DIRECTORY}",
    "kmodel-v5": f"it runs on a K210 as [artifacts.k210]; {_DIRECTORY}",
    "kfpkg": "it holds a .kmodel among firmware; push that in a model directory as [artifacts.k210]",
    "onnx": _CONVERT,
    "keras": _QUANTISE,
    "keras-h5": _QUANTISE,
    "torch-export": _CONVERT,
    "torchscript": f"{_CONVERT} --via-onnx --shape 1,3,224,224",
    "torch-pickle": "with its class: edgeai model convert FILE --to tflite --via-onnx --module net.py --class Net "
    "--shape 1,3,224,224",
    "tar": "unpack it and push the model in it",
    "tf-savedmodel": "it is part of a SavedModel; make a .tflite of the directory that it lies in: "
    "edgeai model quantize DIRECTORY --representative PICTURES",
    "tf-graphdef": f"{_QUANTISE} {_NODES}",
    "tf-metagraph": f"it is part of a checkpoint; make a graph of it first: edgeai model freeze FILE {_NODES}",
    "tf-checkpoint-index": "it is part of a checkpoint; make a graph of its .meta first: "
    f"edgeai model freeze MODEL.meta {_NODES}",
    "caffe-prototxt": "with its .caffemodel it is compiled by: edgeai model compile FILE --target ncs",
    "caffemodel": "with its .prototxt it is compiled by: edgeai model compile FILE --target ncs",
}
_ASK: Final = "to ask a model about it: edgeai classify NAME FILE"
_CONVERT_PICTURE: Final = "models answer JPEG, PNG and BMP pictures: convert it, then: edgeai classify NAME PICTURE"
_EXPORT: Final = "export the model to ONNX, then: edgeai model convert MODEL.onnx --to tflite"
_PUSH: Final = "push a .tflite file or a bundle"
_AS_IT_IS: Final = "send the file as it is: curl --data-binary @FILE, or curl -T FILE"
_STRIPPED: Final = "whose zeros and line ends were taken out on its way, as `curl -d` does"
_MAGIC: Final = (
    (b"\xff\xd8\xff", "a JPEG picture", _ASK),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", _ASK),
    (b"\x89PNG\x1a", f"a PNG picture {_STRIPPED}", _AS_IT_IS),
    (b"\x89PNG\n\x1a", "a PNG picture whose line ends were changed on its way", _AS_IT_IS),
    (b"GIF8", "a GIF picture", _CONVERT_PICTURE),
    (b"II*\0", "a TIFF picture", _CONVERT_PICTURE),
    (b"MM\0*", "a TIFF picture", _CONVERT_PICTURE),
    (b"BM", "a BMP picture", _ASK),
    (b"%PDF", "a PDF document", _PUSH),
    (b"\x7fELF", "a program or library", _PUSH),
    (b"MZ", "a program for Windows", _PUSH),
    (b"\x93NUMPY", "a NumPy array", _PUSH),
    (b"GGUF", "a language model (GGUF), which nothing here runs", _PUSH),
    (b"\x1aE\xdf\xa3", "a video", "edgeai stream add asks a detector about it"),
    *((b"\x80" + bytes([n]), "a Python pickle, such as PyTorch and scikit-learn write", _EXPORT) for n in (2, 3, 4, 5)),
    (b"ID3", "a sound", _PUSH),
    (b"OggS", "a sound", _PUSH),
    (b"fLaC", "a sound", _PUSH),
    (b"LITERTLM", "a language model (LiteRT-LM), which nothing here runs", _PUSH),
    (b"RKNN", "a model for Rockchip's accelerators, which nothing here runs", _PUSH),
    (b"\x01HEF", "a model for Hailo's accelerators, which nothing here runs", _PUSH),
    (b"7767517\n", "a network of ncnn", _EXPORT),
    (b"SQLite format 3\0", "a database", _PUSH),
    (b"ftrt", "an engine of TensorRT, which only NVIDIA's processors run", _EXPORT),
    (b"\0asm", "a WebAssembly program", _PUSH),
    (b"UF2\n", "firmware for a microcontroller", _PUSH),
    (b"!<arch>\n", "a library or a Debian package", _PUSH),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it and push the model in it"),
    (b"\x04\x22\x4d\x18", "an LZ4 archive", "unpack it and push the model in it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and push the model in it"),
    (b"BZh", "a bzip2 archive", "unpack it and push the model in it"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it and push the model in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it and push the model in it"),
    (b"Rar!", "a RAR archive", "unpack it and push the model in it"),
)
#: (where the mark is, mark, what, next step) of files that begin with a length.
_INNER_MAGIC: Final = (
    (8, b"WEBP", "a WebP picture", _CONVERT_PICTURE),
    (8, b"AVI ", "a video", "edgeai stream add asks a detector about it"),
    (8, b"WAVE", "a sound", _PUSH),
    (
        4,
        b"ORTM",
        "a model of ONNX Runtime (.ort)",
        "take the .onnx that it was made from: edgeai model convert MODEL.onnx --to tflite",
    ),
    (4, b"ET12", "a program of ExecuTorch (.pte)", _EXPORT),
    (4, b"ftyphei", "a HEIC picture", _CONVERT_PICTURE),
    (4, b"ftypmif", "a HEIC picture", _CONVERT_PICTURE),
    (4, b"ftypavif", "an AVIF picture", _CONVERT_PICTURE),
    (4, b"ftypM4A", "a sound", _PUSH),
    (4, b"ftyp", "a video", "edgeai stream add asks a detector about it"),
    (
        6,
        b'\0\0{"',
        "a file of safetensors (PyTorch weights)",
        _EXPORT,
    ),
)


_HTML: Final = re.compile(rb"(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_FORM: Final = re.compile(rb"--[^\r\n]{1,100}\r?\ncontent-disposition:[ \t]*form-data", re.IGNORECASE)
_C_ARRAY: Final = re.compile(rb"\[[A-Za-z0-9_ ]{0,40}\]\s{0,8}[A-Za-z0-9_()]{0,40}\s{0,8}=\s{0,8}\{\s{0,8}0x")
#: "....TFL3" with the usual place of the root table.
_BASE64: Final = (b"HAAAAFRGTDM", b"GAAAAFRGTDM", b"IAAAAFRGTDM", b"FAAAAFRGTDM", b"JAAAAFRGTDM")

#: Kinds of `formats.detect` that a model directory is made of without reading them -> the target they are for.
_TARGETS: Final = {
    "ncs-v1": "ncs", "ncs-v2": "ncs", "openvino-ir": "ncs2", "kmodel-v3": "k210", "kmodel-v4": "k210",
    "kmodel-v5": "k210",
}  # fmt: skip


def target_of(data: Data) -> str:
    """The accelerator that a file is made for and nothing else reads; "" for others, .tflite among them."""
    return _TARGETS.get(detect.detect(data), "")


def name_of(data: Data) -> str:
    """What a file is that has a mark at its beginning: "a JPEG picture"; "" for others."""
    known = _known(bytes(as_view(data)[:4096]))
    return known[1] if known is not None else ""


def _known(head: bytes) -> tuple[bytes, str, str] | None:
    """Mark, what it is, next step."""
    for magic, what, hint in _MAGIC:
        if head.startswith(magic) and not (magic == b"BM" and head[6:10] != bytes(4)):
            return magic, what, hint
    for start, magic, what, hint in _INNER_MAGIC:
        if head[start : start + len(magic)] == magic:
            return magic, what, hint
    if _FORM.match(head):
        return b"--", "a form with a file in it, as `curl -F` sends", _AS_IT_IS
    if 0 < head[:8].find(b"TFL3") < 4:
        return b"", f"a .tflite {_STRIPPED}", _AS_IT_IS
    return None


def refusal(data: Data) -> str:
    """Why these bytes are not a model to push, and what to do; "" for what may be one (a .tflite, a bundle)."""
    view = as_view(data)
    head = bytes(view[:4096])
    if not head:
        return "the file is empty; download or export it again"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return (
            "this is a Git LFS pointer: a note of where the model is, not the model; fetch it with `git lfs pull`, or "
            "download it from the page of the file"
        )
    if head[4:8] == b"TFL3":
        return ""
    known = _known(head)
    if known is not None:
        magic, what, hint = known
        return f"this is {what}, not a model that can be served; {hint}" + _inside(view, magic)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    reference = _reference(text)
    if reference:
        return reference
    if _HTML.match(text):
        return "this is an HTML page, not a model; download the file itself (on GitHub: the link 'raw')"
    if text.startswith(b"<?xml") and b"<Error>" in head:
        return "this is a storage server's error message, not a model; check the address that it was downloaded from"
    kind = detect.detect(view)
    if kind == "zip":
        return _archive(view)
    if kind in _NEXT:
        return f"this is a file of the kind: {detect.KINDS[kind]}; {_NEXT[kind]}"
    if kind == "unknown":
        return _unknown(head, len(view))
    return ""


def _reference(text: bytes) -> str:
    """What only says where a model is, or holds one in another writing."""
    if b"/annex/objects/" in text[:400]:
        return "this is a git-annex pointer: a note of where the model is, not the model; fetch it with `git annex get`"
    if text.startswith(b"outs:") and b"md5:" in text[:400]:
        return "this is a DVC pointer: a note of where the model is, not the model; fetch it with `dvc pull`"
    if text.startswith(b"{") and (b'"graph-model"' in text or b'"layers-model"' in text):
        return f"this is the description of a TensorFlow.js model; take the model that it was made from; {_PUSH}"
    if _C_ARRAY.search(text):
        return "this is a C source with a model in it, as microcontrollers take it; push the .tflite it was made from"
    if text.startswith(_BASE64):
        return "this is a .tflite in base64; decode it first: base64 -d FILE > model.tflite"
    return ""


def _inside(view: memoryview, magic: bytes) -> str:
    if magic != b"\x1f\x8b":
        return ""
    try:
        start = zlib.decompressobj(wbits=31).decompress(bytes(view[:4096]), 64)
    except (zlib.error, gzip.BadGzipFile):
        return ""
    return " (a .tflite)" if start[4:8] == b"TFL3" else ""


def _archive(view: memoryview) -> str:
    """What a zip holds that is not a bundle."""
    from ..errors import InvalidModel
    from ..formats.wire import zipdir

    try:
        names = [entry.name for entry in zipdir.entries(view)]
    except InvalidModel:
        return ""  # the reader of bundles says what is damaged
    if "model.toml" in names:
        return ""
    models = [n for n in names if n.lower().endswith((".tflite", ".edgeai", ".onnx", ".pb", ".kmodel"))]
    if models:
        return f"this is a zip archive without model.toml; unpack it and push {', '.join(models[:5])}"
    return "this is a zip archive without model.toml; make a bundle with: edgeai model bundle DIRECTORY"


def _unknown(head: bytes, size: int) -> str:
    if size < 8:
        return f"the file has only {size} bytes; download or export it again"
    printable = sum(b in b"\t\r\n" or 32 <= b < 127 or b >= 128 for b in head)
    try:
        head[:4000].decode()
        decodes = True
    except UnicodeDecodeError as error:
        decodes = error.start > len(head[:4000]) - 4
    if decodes and printable == len(head):
        first = head.splitlines()[0][:60].decode(errors="replace").strip()
        return f"this is a text ({first!r}), not a model; push a .tflite file, a bundle or a model directory"
    if head.startswith(b"PK\x03\x04"):
        return "this is the beginning of a zip archive: cut off, or not a bundle; download or copy it again"
    return "this is not a model of any kind known here; push a .tflite file, a bundle or a model directory"
