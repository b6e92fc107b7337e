"""What kind of model an archive holds, by the names in it; the readers, in `exchange`, are not on a device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"


def is_keras(names: set[str]) -> bool:
    """Whether an archive with these entries is a .keras file."""
    return "config.json" in names and bool({"metadata.json", "model.weights.h5"} & names)


def pytorch_kind(names: Iterable[str]) -> str:
    """Kind of an archive with these entries, "" when it is none of PyTorch's."""
    ends = {n.split("/", 1)[-1] for n in names} | set(names)
    if "models/model.json" in ends or "serialized_exported_program.json" in ends:
        return "torch-export"
    if "data.pkl" in ends:
        return "torchscript" if "constants.pkl" in ends or any(n.startswith("code/") for n in ends) else "torch-pickle"
    return ""
