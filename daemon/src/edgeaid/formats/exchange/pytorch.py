"""PyTorch files: exported programs (.pt2), TorchScript, pickled weights and modules; nothing of them is executed.

All are zips. A .pt2 has the graph as JSON. TorchScript has its modules as Python text. Pickles are read by an unpickler
that knows tensors, dictionaries and nothing else: every other class becomes a mark.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidModel
from ...tensors import TensorSpec
from ..archives import pytorch_kind
from ..wire import zipdir
from ..wire.binary import Data, as_view

_MAX_TEXT: Final = 64 * 1024 * 1024
_MAX_PICKLE: Final = 16 * 1024 * 1024
_MAX_MODULES: Final = 20_000
#: torch.ScalarType as exported programs number it.
_TYPES: Final[dict[int, str]] = {
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64", 12: "BOOL", 13: "BF16",
}  # fmt: skip
_STORAGES: Final[dict[str, str]] = {
    "FloatStorage": "FP32", "DoubleStorage": "FP64", "HalfStorage": "FP16", "BFloat16Storage": "BF16",
    "LongStorage": "INT64", "IntStorage": "INT32", "ShortStorage": "INT16", "CharStorage": "INT8",
    "ByteStorage": "UINT8", "BoolStorage": "BOOL",
}  # fmt: skip
_MODULE: Final = re.compile(r"^  (?:__annotations__\[\"(\w+)\"\]|(\w+)) [:=] (__torch__\.[\w.]+)\s*$", re.MULTILINE)
_CLASS: Final = re.compile(r"^class (\w+)\(Module\):", re.MULTILINE)
_ROOT: Final = re.compile(rb"c(__torch__[\w.]*)\n(\w+)\n")


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of an exported program, a module of TorchScript, or a stored tensor."""

    name: str
    #: "aten.conv2d.default", "Conv2d" or "parameter".
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: -1 = free, () = not said.
    shape: tuple[int, ...]
    details: str


@dataclass(frozen=True, slots=True)
class TorchModel:
    """What a PyTorch file holds."""

    #: torch-export, torchscript or torch-pickle.
    kind: str
    #: Name of the archive's directory, or the class of a pickled or scripted module.
    name: str
    #: Empty where the file does not say: TorchScript and pickles.
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[Operator, ...]
    #: Bytes of tensors.
    weights_bytes: int


def read(data: Data) -> TorchModel:
    """Read any of the three. Raises InvalidModel for damage and for files of another kind."""
    view = as_view(data)
    entries = {e.name: e for e in zipdir.entries(view)}
    kind = pytorch_kind(entries)
    readers = {"torch-export": _exported, "torchscript": _script, "torch-pickle": _pickled}
    if kind not in readers:
        raise InvalidModel(
            "PyTorch: neither an exported program, TorchScript nor a pickle; the file is of another kind"
        )
    return readers[kind](view, entries)


def _find(entries: dict[str, zipdir.Entry], *ends: str) -> zipdir.Entry:
    """The entry of one of these names, in the archive's directory or without one."""
    for name, entry in entries.items():
        if name in ends or name.split("/", 1)[-1] in ends:
            return entry
    raise InvalidModel(f"PyTorch: no {' or '.join(ends)} in the archive; the file is damaged")


def _exported(view: memoryview, entries: dict[str, zipdir.Entry]) -> TorchModel:
    entry = _find(entries, "models/model.json", "serialized_exported_program.json")
    try:
        program = json.loads(zipdir.read(view, entry, _MAX_TEXT))
        module = program["graph_module"]
        graph, signature = module["graph"], module["signature"]
        values = {name: _tensor(meta) for name, meta in graph["tensor_values"].items()}
        operators = tuple(_node(node, values) for node in graph["nodes"])
        given = _user(signature["input_specs"], "user_input")
        made = _user(signature["output_specs"], "user_output")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidModel(
            f"PyTorch exported program: {entry.name} is not as written by torch.export ({error})"
        ) from None
    unknown = ("", ())
    ends = [tuple(TensorSpec(n, *values.get(n, unknown)) for n in names) for names in (given, made)]
    weights = sum(e.size for n, e in entries.items() if "/weights/" in n or "/constants/" in n or n.endswith(".pt"))
    name = entry.name.split("/")[0] if "/" in entry.name else ""
    return TorchModel("torch-export", name, ends[0], ends[1], operators, weights)


def _tensor(meta: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    sizes = tuple(s.get("as_int", -1) for s in meta["sizes"])
    return _TYPES.get(meta["dtype"], f"TYPE_{meta['dtype']}"), sizes


def _names(argument: Any) -> list[str]:
    """Names of the tensors in an argument."""
    if not isinstance(argument, dict):
        return []
    if isinstance(single := argument.get("as_tensor"), dict):
        return [str(single["name"])]
    many = argument.get("as_tensors")
    return [str(t["name"]) for t in many if isinstance(t, dict)] if isinstance(many, list) else []


def _node(node: dict[str, Any], values: dict[str, tuple[str, tuple[int, ...]]]) -> Operator:
    inputs: list[str] = []
    details = []
    for given in node["inputs"]:
        names = _names(given["arg"])
        inputs += names
        if not names:
            value = next(iter(given["arg"].values()), None)
            if value not in (None, True, [], {}):
                details.append(f"{given['name']} {value}")
    outputs = [n for o in node["outputs"] for n in _names(o)]
    kind = str(node["target"]).removeprefix("torch.ops.")
    shape = values.get(outputs[0], ("", ()))[1] if outputs else ()
    return Operator(
        outputs[0] if outputs else kind, kind, tuple(inputs), tuple(outputs), shape, ", ".join(details)[:200]
    )


def _user(specs: list[dict[str, Any]], key: str) -> list[str]:
    return [n for s in specs if isinstance(s.get(key), dict) for n in _names(s[key].get("arg"))]


def _script(view: memoryview, entries: dict[str, zipdir.Entry]) -> TorchModel:
    code: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for name, entry in entries.items():
        part = name.split("/", 1)[-1]
        if part.startswith("code/") and part.endswith(".py"):
            text = zipdir.read(view, entry, _MAX_TEXT).decode("utf-8", "replace")
            code[part.removeprefix("code/").removesuffix(".py").replace("/", ".")] = _classes(text)
    match = _ROOT.search(zipdir.read(view, _find(entries, "data.pkl"), _MAX_TEXT))
    if match is None:
        raise InvalidModel("TorchScript: data.pkl names no module; the file is damaged")
    root = f"{match[1].decode()}.{match[2].decode()}"
    operators = tuple(_modules(code, root))
    weights = sum(e.size for n, e in entries.items() if re.search(r"(?:^|/)(?:data|constants)/\d+$", n))
    return TorchModel("torchscript", root.rsplit(".", 1)[-1], (), (), operators, weights)


def _classes(text: str) -> dict[str, list[tuple[str, str]]]:
    """Module classes of a source file: name -> (attribute, type) of their submodules."""
    starts = list(_CLASS.finditer(text))
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return {
        m[1]: [(a or b, kind) for a, b, kind in _MODULE.findall(text[m.end() : end])]
        for m, end in zip(starts, ends, strict=True)
    }


def _modules(code: dict[str, dict[str, list[tuple[str, str]]]], root: str) -> list[Operator]:
    """Modules without submodules, in the order of their definition."""
    leaves: list[Operator] = []
    stack = [("", root, 0)]
    visited = 0
    while stack:
        path, kind, depth = stack.pop()
        visited += 1
        if visited > _MAX_MODULES or depth > 64:
            raise InvalidModel("TorchScript: its modules are nested without end; the file is damaged")
        module, _, name = kind.rpartition(".")
        inner = code.get(module, {}).get(name, [])
        if not inner and path:
            leaves.append(Operator(path, name, (), (), (), module.removeprefix("__torch__.")))
        stack += [(f"{path}.{attribute}".lstrip("."), child, depth + 1) for attribute, child in reversed(inner)]
    return leaves


class _Mark:
    """Stands for an object of a class that is not looked into."""

    def __init__(self, *_: object, **__: object) -> None:
        self.state: object = None

    def __call__(self, *_: object, **__: object) -> _Mark:
        return self

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Dictionaries of other classes keep nothing."""

    def append(self, value: object) -> None:
        """Lists of other classes keep nothing."""


@dataclass(frozen=True, slots=True)
class _Stored:
    datatype: str
    shape: tuple[int, ...]


def _rebuild(storage: object, _offset: object = 0, size: object = (), *_: object) -> object:
    shape = tuple(d for d in size if isinstance(d, int)) if isinstance(size, tuple) else ()
    return _Stored(str(storage) if isinstance(storage, str) else "", shape)


class _Unpickler(pickle._Unpickler):
    """Builds dictionaries, lists, numbers and marks: no class of the file is imported.

    The one in Python: that in C allocates its memo by an index of the file.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _rebuild
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda value, *_: value
        if name in _STORAGES:
            return _STORAGES[name]
        return type(name[:64], (_Mark,), {})

    def persistent_load(self, pid: Any) -> Any:
        return pid[1] if isinstance(pid, tuple) and len(pid) > 1 and isinstance(pid[1], str) else ""


def _pickled(view: memoryview, entries: dict[str, zipdir.Entry]) -> TorchModel:
    entry = _find(entries, "data.pkl")
    content = zipdir.read(view, entry, _MAX_PICKLE)
    try:
        for _ in pickletools.genops(content):
            pass  # compares every length with what is left, before anything is made of it
        value = _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # a pickle can fail in any way
        raise InvalidModel(f"PyTorch pickle: {entry.name} cannot be read ({str(error)[:100]}); it is damaged") from None
    tensors: list[Operator] = []
    _collect(value, "", tensors, set(), 0)
    weights = sum(e.size for n, e in entries.items() if re.search(r"(?:^|/)data/\d+$", n))
    name = type(value).__name__ if isinstance(value, _Mark) else ""
    return TorchModel("torch-pickle", name, (), (), tuple(tensors), weights)


def _collect(value: object, path: str, tensors: list[Operator], seen: set[int], depth: int) -> None:
    """Tensors by their path in dictionaries, lists and objects."""
    if isinstance(value, _Stored):
        tensors.append(Operator(path, "parameter", (), (), value.shape, value.datatype))
        return
    if depth > 64 or id(value) in seen or len(tensors) > _MAX_MODULES:
        return
    seen.add(id(value))
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, (list, tuple)):
        inner = enumerate(value)
    elif isinstance(value, _Mark):
        inner = [("", value.state)]
    for key, item in inner:
        word = "" if key in ("_parameters", "_modules", "_buffers") else str(key)
        _collect(item, f"{path}.{word}".strip(".") if word else path, tensors, seen, depth + 1)
